"""The report of `doctor --gpu`: its checks are small programs without TensorFlow."""

import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from common import cli as common_cli
from trainer import cli
from trainer.doctor import gpu
from trainer.doctor.__main__ import CHECKS
from trainer.doctor.findings import State
from trainer.doctor.plan import PLAN, TOTAL_SECONDS, Check, Kind

CHECK = Check("step", "step of {}", ("mf", "nn"), 10)
REPORT = """
import json, os, signal, sys
def report(check, state="ok"):
    print(json.dumps({"check": check, "found": "found it", "state": state, "advice": ""}), flush=True)
"""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    """Replaces the program of each check by a text of Python, which a function returns for the name of the check."""
    start = gpu._start

    def replace(program_of: Callable[[str], str]) -> None:
        def start_fake(command: Sequence[str], kind: Kind, path: str) -> subprocess.Popen[bytes]:
            program = REPORT + program_of(command[3])
            return start([sys.executable, "-S", "-c", program], kind, path)

        monkeypatch.setattr(gpu, "_start", start_fake)

    monkeypatch.delattr(os, "waitid", raising=False)  # macOS has none before Python 3.13
    return replace


def reports_of(name: str, state: str = "ok") -> str:
    """Returns a program that reports all lines of a check."""
    (check,) = [check for check in PLAN if check.name == name]
    return "".join(f"report({check.line(preset)!r}, {state!r})\n" for preset in check.presets)


def run(folder: Path, seconds: float = 600.0) -> list[tuple[str, str, str]]:
    found = gpu._run(CHECK, Kind.CPU, str(folder), seconds)
    return [(finding.check, finding.state, finding.found) for finding in found]


def test_the_plan_names_the_functions_that_exist_and_ends_in_ten_minutes() -> None:
    assert [check.name for check in PLAN] == list(CHECKS)
    assert TOTAL_SECONDS == 600
    assert all(check.seconds < TOTAL_SECONDS for check in PLAN)


@pytest.mark.parametrize("program", [reports_of("devices", "failed"), "sys.exit(3)"], ids=["none", "crash"])
def test_without_a_gpu_the_report_has_one_line_and_the_command_fails(
    program: str, start: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start(lambda _: program)
    # the driver may hang, so this process must not ask it
    monkeypatch.setattr(cli.logs, "import_tensorflow", lambda **_: pytest.fail("asked the driver"))
    with caplog.at_level(logging.INFO):
        assert cli.main(["doctor", "--gpu", "--json"]) == common_cli.FAILED
    (line,) = [message for message in caplog.messages if message[:4] in ("PASS", "FAIL", "SKIP")]
    assert line.startswith("FAIL  devices: ")


def test_gpus_that_this_process_has_reserved_are_reported_instead_of_failed_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "_start", lambda *_: pytest.fail("started"))
    tf.constant(0)  # starts TensorFlow
    monkeypatch.setattr(context.context(), "list_logical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    (finding,) = gpu.examine_gpus()["findings"]
    assert (finding["check"], finding["state"]) == ("devices", "failed")
    assert "TensorFlow already runs with 2 GPUs in this process" in finding["found"]
    assert "restart the notebook's kernel" in finding["advice"]


def test_a_process_without_gpus_can_check_them() -> None:
    tf.constant(0)
    assert gpu._count_started_gpus() == 0


def test_every_line_is_reported_as_pass_fail_or_skip(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    states = {"devices": "skipped", "replicas": "failed", "speed": "skipped"}
    start(lambda name: reports_of(name, states.get(name, "ok")))
    with caplog.at_level(logging.INFO):
        result = gpu.examine_gpus("cpu")
    lines = [check.line(preset) for check in PLAN for preset in check.presets]
    assert [finding["check"] for finding in result["findings"]] == lines
    assert not result["is_healthy"]
    assert "PASS  kernels of mf: found it" in caplog.messages
    assert "FAIL  all GPUs with nn: found it" in caplog.messages
    assert "SKIP  speed of mf: found it" in caplog.messages


def test_a_check_that_crashes_fails_and_the_others_still_run(start: Any) -> None:
    start(lambda name: "sys.exit(3)" if name == "kernels" else reports_of(name))
    result = gpu.examine_gpus("cpu")
    states = {finding["check"]: finding["state"] for finding in result["findings"]}
    assert (states.pop("kernels of mf"), states.pop("kernels of nn")) == ("failed", "skipped")
    assert set(states.values()) == {"ok"}


def test_a_crash_is_reported_with_its_signal_and_the_last_lines_of_the_log(start: Any, tmp_path: Path) -> None:
    start(
        lambda _: (
            """
report("step of mf")
print("first", "second", "", "CUDA_ERROR", "third", sep="\\n", file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        )
    )
    assert run(tmp_path) == [
        ("step of mf", "ok", "found it"),
        ("step of nn", "failed", "the process was killed by SIGKILL: second CUDA_ERROR third"),
    ]


class ManualTimer:
    """A timer that fires when the test says so."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        self.seconds, self.fire = seconds, function
        self.is_cancelled = False

    def start(self) -> None: ...

    def cancel(self) -> None:
        self.is_cancelled = True


def test_a_check_that_hangs_is_killed_with_the_runs_that_it_started(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[ManualTimer] = []

    def make_timer(seconds: float, function: Callable[[], None]) -> ManualTimer:
        timers.append(ManualTimer(seconds, function))
        return timers[-1]

    monkeypatch.setattr(gpu.threading, "Timer", make_timer)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    start(
        lambda _: (
            f"""
import subprocess
end = os.open({str(pipe)!r}, os.O_WRONLY)  # open as long as one of the two processes runs
subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"], pass_fds=[end])
report("step of mf")
signal.pause()
"""
        )
    )
    findings = gpu._run(CHECK, Kind.GPU, str(tmp_path), 7.0)
    assert next(findings).state == State.OK
    (timer,) = timers
    assert timer.seconds == 7
    timer.fire()
    (late,) = findings
    assert (late.check, late.state, late.found) == ("step of nn", State.FAILED, "did not end within 7 s")
    assert "the driver compiles kernels" in late.advice
    assert timer.is_cancelled
    assert select.select([reader], [], [], 60)[0], "the run of the check is still running"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_checks_after_the_ten_minutes_fail_without_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_start", lambda *_: pytest.fail("started"))
    assert run(tmp_path, seconds=0) == [
        ("step of mf", "failed", "not checked, because the time limit was reached"),
        ("step of nn", "failed", "not checked, because the time limit was reached"),
    ]


def test_an_interrupted_report_leaves_no_process(start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(lambda _: 'report("step of mf")\nsignal.pause()')
    started: list[subprocess.Popen[bytes]] = []
    start_fake = gpu._start

    def start_and_remember(*given: Any) -> subprocess.Popen[bytes]:
        started.append(start_fake(*given))
        return started[-1]

    monkeypatch.setattr(gpu, "_start", start_and_remember)
    findings = gpu._run(CHECK, Kind.CPU, str(tmp_path), 600.0)
    next(findings)
    findings.close()
    assert started[0].returncode == -signal.SIGKILL


def test_checks_join_no_cluster_and_see_gpus_only_if_they_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    monkeypatch.setenv("CARTWHEEL_WORKERS", "4")
    monkeypatch.setenv("NCCL_DEBUG_FILE", "/dev/stderr")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    on_gpus, on_cpus = gpu._environment(Kind.GPU), gpu._environment(Kind.CPU)
    assert not {"TF_CONFIG", "CARTWHEEL_WORKERS", "NCCL_DEBUG_FILE"} & (on_gpus.keys() | on_cpus.keys())
    assert (on_gpus["CUDA_VISIBLE_DEVICES"], on_cpus["CUDA_VISIBLE_DEVICES"]) == ("1,2", "-1")
    assert on_gpus["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "s3://shop"], "doctor --gpu checks GPUs alone"),
        (["--devices", "cpu"], "--devices applies to --gpu only"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", *arguments])
    assert stop.value.code == common_cli.MISUSED
    assert message in capsys.readouterr().err


def run_command(*arguments: str, hidden: str | None = None) -> tuple[int, dict[str, Any]]:
    """Runs `doctor --gpu` in its own process; returns its status and its result."""
    variables = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    variables |= {} if hidden is None else {"CUDA_VISIBLE_DEVICES": hidden}
    command = [sys.executable, "-m", "trainer", "doctor", "--gpu", "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=14_400, env=variables)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.integration
def test_a_rehearsal_on_logical_cpus_passes_all_that_cpus_can_show() -> None:
    status, result = run_command("--devices", "cpu", hidden="-1")
    states = {finding["check"]: finding["state"] for finding in result["findings"]}
    assert status == common_cli.DONE, result
    skipped = {"devices", "speed of mf", "speed of nn"}
    assert {name for name, state in states.items() if state == "skipped"} == skipped
    assert {state for name, state in states.items() if name not in skipped} == {"ok"}


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not list(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has no NVIDIA GPU")
def test_training_works_on_the_gpus_of_this_machine() -> None:
    status, result = run_command()
    failed = [finding for finding in result["findings"] if finding["state"] == "failed"]
    assert (status, failed) == (common_cli.DONE, [])
