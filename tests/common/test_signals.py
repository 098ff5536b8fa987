"""A command that gets a signal ends with the signal's status, whatever becomes of the exception."""

import os
import signal
import subprocess
import sys

import pytest

from common import storage
from common.signals import INTERRUPTED, StopSignals, describe_stop

COMMAND = """
import os, signal, sys, time, weakref
from common.signals import StopSignals, describe_stop, exit_process

def send(*_):
    os.kill(os.getpid(), signal.Signals[sys.argv[1]])

class Plain:
    pass

class Sender:
    __del__ = send

def send_in_a_destructor():
    Sender()

def send_in_a_callback():
    node = Plain()
    reference = weakref.ref(node, send)
    del node

def send_in_a_library():
    try:
        send()
    except BaseException as error:
        raise RuntimeError("replaced") from error

signal.signal(signal.SIGINT, signal.default_int_handler)  # `&` ignores SIGINT
stop = StopSignals()
try:
    globals()[sys.argv[2]]()
    time.sleep(20)
except BaseException as error:
    assert stop.received, error
    print(describe_stop(stop, None, resumes=False))
    exit_process(stop.status)
"""


@pytest.mark.parametrize("where", ["send", "send_in_a_destructor", "send_in_a_callback", "send_in_a_library"])
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "stopped by SIGTERM")],
    ids=["sigint", "sigterm"],
)
def test_a_command_ends_at_a_signal(where, name, status, words):
    command = [sys.executable, "-c", COMMAND, name, where]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (status, "")
    assert ended.stdout == f"{words}; nothing was published\n"


@pytest.mark.usefixtures("restored_signals")
def test_the_description_tells_what_became_of_the_output(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `&` ignores SIGINT
    stop = StopSignals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.status == INTERRUPTED
    output = str(tmp_path / "new")
    assert describe_stop(stop, output, resumes=False) == "interrupted; nothing was published"
    assert describe_stop(stop, output, resumes=True) == "interrupted; run the same command again to resume"
    with storage.publish_directory(output):
        pass
    assert describe_stop(stop, output, resumes=False) == f"interrupted; {output} is complete"
    os.mkdir(tmp_path / "old")
    (tmp_path / "old" / "file").touch()  # of another process
    assert describe_stop(stop, str(tmp_path / "old"), resumes=False) == "interrupted; nothing was published"


def test_a_signal_outside_the_work_of_a_command_has_its_status_too():
    program = (
        COMMAND.partition("stop = StopSignals()")[0]
        + """
from common.signals import run_command

def main():
    stop = StopSignals(75)
    send()
    time.sleep(20)

run_command(main)
"""
    )
    ended = subprocess.run([sys.executable, "-c", program, "SIGTERM"], check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (75, b"", b"")
