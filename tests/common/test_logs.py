"""Imports hide TensorFlow's notices, and no other line."""

import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from common.logs import _captured_stderr
with _captured_stderr(lambda line: line.startswith("notice")):
    os.write(2, b"notice of the library\\nreal trouble\\n")
    print("a warning of Python", file=sys.stderr)
    {then}
"""


def run(then: str) -> subprocess.CompletedProcess:
    script = SCRIPT.format(then=then)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)


def test_only_notices_are_held_back():
    assert run("pass").stderr == "real trouble\na warning of Python\n"


def test_a_failed_import_shows_every_line():
    done = run("raise ImportError('no such library')")
    assert done.returncode == 1
    assert done.stderr.startswith("notice of the library\nreal trouble\na warning of Python\n")
    assert "no such library" in done.stderr


@pytest.mark.parametrize(("verbose", "expected"), [("False", ""), ("True", "absl::InitializeLog")])
def test_tensorflow_is_quiet_unless_verbose(verbose, expected):
    script = f"from common.logs import import_tensorflow\nimport_tensorflow(verbose={verbose})\nimport tensorflow"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    if expected:
        assert expected in done.stderr
    else:
        assert done.stderr == ""
