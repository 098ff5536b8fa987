import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trainer.distributed.preemption import StopRequest, stop_on_signals

BUSY = """
import hashlib, threading, time
from trainer.distributed.preemption import stop_on_signals

def report(request):
    while not request.is_requested:
        time.sleep(0.01)
    print("requested", flush=True)

with stop_on_signals(None) as request:
    threading.Thread(target=report, args=[request], daemon=True).start()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # minutes outside Python, as in a TensorFlow call
"""

HANG_SECONDS = 300
"""Time limit for waits that take milliseconds on an idle machine."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["sigterm", "sighup"])
def test_a_signal_requests_a_stop(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_on_signals(None) as request:
        assert not request.is_requested
        os.kill(os.getpid(), number)
        deadline = time.monotonic() + HANG_SECONDS
        while not request.is_requested and time.monotonic() < deadline:
            time.sleep(0.01)
        assert request.is_requested
    assert signal.getsignal(number) == before


def test_a_sighup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals(None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_sigterm_exits_even_outside_python() -> None:
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"requested\n"
        assert process.poll() is None  # the first one waits for the step to end
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 143
    finally:
        process.kill()


def test_with_a_request_of_the_caller_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    own_request = StopRequest()
    with stop_on_signals(own_request) as request:
        assert request is own_request
        assert signal.getsignal(signal.SIGTERM) == before
        own_request.request()
        assert request.is_requested


def test_a_thread_without_signals_gets_a_request_too() -> None:
    states: list[bool] = []

    def work() -> None:
        with stop_on_signals(None) as request:
            states.append(request.is_requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert states == [False]
