import json
import os
import signal
import subprocess
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from trainer import cli
from trainer.config import flags
from trainer.config.run import TargetConfig
from trainer.data.offer import OfferRules
from trainer.distributed.preemption import Preempted
from trainer.evaluation.config import EvaluationConfig


def job(name, function):
    module = ModuleType(f"trainer.{name}")
    setattr(module, name, function)
    return module


@pytest.fixture
def run_fake(monkeypatch, capsys):
    """Runs a command with a function as its job, and returns its status and standard output."""

    def run(name, function, *arguments):
        monkeypatch.setitem(sys.modules, f"trainer.{name}", job(name, function))
        status = cli.main([name, *arguments, "--json"])
        return status, capsys.readouterr().out

    return run


def answer(result):
    def function(*arguments, **options):
        return result

    return function


def refuse(error):
    def function(*arguments, **options):
        raise error

    return function


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["export"], ["recommend"], ["demo"], ["doctor"]])
def test_help_and_wrong_flags_answer_without_tensorflow(command):
    script = f"""
import sys
from trainer.cli import main
for last in ("--help", "--no-such-flag"):
    try:
        main({command!r} + [last])
    except SystemExit as stop:
        print(stop.code, file=sys.stderr)
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m trainer")
    codes = [line for line in done.stderr.splitlines() if line.isdigit()]
    assert codes == ["0", "2"]


def test_json_prints_the_whole_result(run_fake):
    status, out = run_fake("evaluate", answer({"größe": 1}), "--workdir", "RUN")
    assert status == 0
    assert json.loads(out) == {"größe": 1}


def test_flags_reach_the_jobs(run_fake, tmp_path):
    given = []

    def record(**options):
        given.append(options)
        return {}

    settings = ["--set", "max_cases=50", "evaluate.kinds=view"]
    run_fake("evaluate", record, "--workdir", "R", "--split", "validation", "--data", "D", *settings)
    run_fake("evaluate", record, "--workdir", "R")
    run_fake("export", record, "--workdir", "R", "--output", "O")
    (tmp_path / "deny").write_text("i\n")
    denied = ["--deny", str(tmp_path / "deny"), "--only-category", "A", "B", "--without-category", "C"]
    run_fake("export", record, "--workdir", "R", "--output", "O", *denied, "--include-unavailable")
    run_fake("recommend", record, "--workdir", "R", "--output", "O", "--k", "5", "--visitors", "F", "--format", "jsonl")
    run_fake("recommend", record, "--workdir", "R", "--output", "O")
    changed = EvaluationConfig(max_cases=50, evaluate=TargetConfig(kinds=("view",)))
    output = {"workdir": "R", "output": "O", "data": None}
    rules = OfferRules(include_unavailable=True, denied=("i",), only_categories=("A", "B"), without_categories=("C",))
    assert given == [
        {"workdir": "R", "data": "D", "split": "validation", "config": changed},
        {"workdir": "R", "data": None, "split": "test", "config": EvaluationConfig()},
        output | {"rules": OfferRules()},
        output | {"rules": rules},
        output | {"k": 5, "visitors": "F", "formats": ["jsonl"], "rules": OfferRules()},
        output | {"k": 20, "visitors": None, "formats": ("parquet", "jsonl"), "rules": OfferRules()},
    ]


def test_the_flag_offers_the_formats_of_the_job():
    from trainer.recommend import FORMATS

    assert flags._FORMATS == FORMATS


def fake_train(monkeypatch, function):
    module = job("train", function)
    monkeypatch.setitem(sys.modules, "trainer.train", module)
    return module


TRAIN = ["train", "--preset", "mf", "--data", "D", "--workdir", "R"]


def test_settings_change_the_preset(monkeypatch, capsys):
    given = {}

    def train(config, **options):
        given.update(options, config=config)
        return {}

    fake_train(monkeypatch, train)
    assert cli.main([*TRAIN, "--set", "epochs=3", "model.dim=8", "--set", "seed=5", "--json"]) == 0
    assert (given["data"], given["workdir"]) == ("D", "R")
    assert (given["config"].epochs, given["config"].model.dim, given["config"].seed) == (3, 8, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--set", "epoch=3"], "did you mean `epochs`"),
        ([*TRAIN, "--set", "epochs=0"], "epochs must be in [1, 1000000], got 0"),
        (["train", "--preset", "best", "--data", "D", "--workdir", "R"], "invalid choice: 'best'"),
        (["evaluate", "--workdir", "R", "--split", "train"], "invalid choice: 'train'"),
        (["evaluate", "--workdir", "R", "--set", "max_cases=0"], "must be at least 1, or none, got 0"),
        (["recommend", "--workdir", "R", "--output", "O", "--k", "many"], "invalid int value"),
        (["recommend", "--workdir", "R", "--output", "O", "--format", "csv"], "invalid choice: 'csv'"),
        (["export", "--workdir", "R"], "required: --output"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what_is_wrong(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_preempted_run_exits_with_75_and_prints_no_result(monkeypatch, capsys, caplog):
    module = fake_train(monkeypatch, None)
    module.train = refuse(Preempted("stopped after step 7; run the same command again to resume"))
    assert cli.main(TRAIN) == 75
    assert capsys.readouterr().out == ""
    assert "stopped after step 7" in caplog.text


RESULT = {"name": "mf", "epochs": 1, "steps": 2, "seconds": 3.0, "best_step": None}
RESULT |= {"examples_per_second": 4.0, "is_stopped_early": False, "refit_of": None}


@pytest.fixture
def drawn(monkeypatch):
    """The list of the runs whose reports were drawn."""
    runs = []
    report = SimpleNamespace(try_to_write_report=lambda workdir, **_: runs.append(workdir))
    monkeypatch.setitem(sys.modules, "trainer.pages.report", report)
    return runs


@pytest.mark.parametrize("error", [None, Preempted("stopped"), ValueError("the loss is not finite")])
def test_the_report_is_drawn_after_a_success_and_after_a_failure(monkeypatch, tmp_path, drawn, error):
    has_started = False

    def train(*_, **__):
        if has_started:
            (tmp_path / "run.json").touch()
            (tmp_path / "history.jsonl").write_text("started")
        if error:
            raise error
        return RESULT | {"workdir": str(tmp_path)}

    fake_train(monkeypatch, train)
    arguments = ["train", "--preset", "mf", "--data", "D", "--workdir", str(tmp_path)]
    cli.main(arguments)
    assert drawn == [], "no run was started"
    has_started = True
    cli.main(arguments)
    assert drawn == [str(tmp_path)]


def test_a_refused_call_leaves_the_report_of_the_run_unchanged(monkeypatch, tmp_path, drawn):
    (tmp_path / "run.json").touch()
    (tmp_path / "history.jsonl").write_text("started")
    fake_train(monkeypatch, refuse(ValueError("the run differs from the requested one")))
    assert cli.main(["train", "--preset", "mf", "--data", "OTHER", "--workdir", str(tmp_path)]) == 1
    assert drawn == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "run.json"]


@pytest.mark.parametrize(
    "error", [ValueError("no run"), FileNotFoundError(2, "No such file", "F"), FileExistsError("O already exists")]
)
def test_a_failure_that_users_can_fix_is_one_line_without_a_traceback(run_fake, caplog, error):
    status, out = run_fake("export", refuse(error), "--workdir", "R", "--output", "O")
    assert (status, out) == (1, "")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [str(error)]
    assert "Traceback" not in caplog.text


def test_verbose_shows_where_a_failure_came_from(run_fake, caplog):
    run_fake("export", refuse(ValueError("no run")), "--workdir", "R", "--output", "O", "--verbose")
    assert "Traceback" in caplog.text


class ResourceExhaustedError(Exception):
    """An error with the name of TensorFlow's error for exhausted memory."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            KeyError("x"),
            "KeyError: 'x'; run `cartwheel doctor`; if it finds no problem, report this bug of Cartwheel",
        ),
        (
            ResourceExhaustedError("OOM\nat node"),
            "ResourceExhaustedError: OOM at node; the device ran out of memory",
        ),
        (ResourceExhaustedError("/tmp/variables; No space left on device"), "; the disk of /tmp"),  # not of memory
        (ModuleNotFoundError("No module named 'tensorflow'"), "pip install '.[trainer]'"),
    ],
)
def test_an_unexpected_error_ends_in_one_line_that_says_what_to_do(run_fake, caplog, monkeypatch, error, message):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    status, out = run_fake("export", refuse(error), "--workdir", "R", "--output", "O")
    assert (status, out) == (1, "")
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert message in line
    assert "\n" not in line
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("is_terminal", "flags"), [(False, []), (True, ["--verbose"])])
def test_the_log_of_an_unexpected_error_has_its_traceback(run_fake, caplog, monkeypatch, is_terminal, flags):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    run_fake("export", refuse(KeyError("x")), "--workdir", "R", "--output", "O", *flags)
    assert "Traceback" in caplog.text
    assert caplog.records[-1].getMessage().startswith("KeyError: 'x'; "), "the last line says what is wrong"


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_arguments_are_read_from_a_file(run_fake, tmp_path):
    given = []

    def record(**options):
        given.append(options)
        return {}

    (tmp_path / "arguments").write_text("--workdir=R\n--split=validation\n")
    run_fake("evaluate", record, f"@{tmp_path / 'arguments'}", "--data", "D")
    assert given == [{"workdir": "R", "data": "D", "split": "validation", "config": EvaluationConfig()}]


def end_this_process(*arguments, **options):
    os.kill(os.getpid(), options.get("number", signal.SIGTERM))
    for _ in range(30_000):  # five minutes; the handler runs between two lines
        time.sleep(0.01)


@pytest.mark.usefixtures("restored_signals")
def test_sigterm_before_the_first_step_exits_with_75(monkeypatch):
    fake_train(monkeypatch, end_this_process)
    assert cli.main(TRAIN) == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["sigterm", "sighup"])
@pytest.mark.usefixtures("restored_signals")
def test_a_signal_ends_export_with_143(run_fake, number):
    status, out = run_fake("export", lambda **_: end_this_process(number=number), "--workdir", "R", "--output", "O")
    assert (status, out) == (128 + 15, "")


@pytest.mark.parametrize(
    ("command", "message"), [("recommend", "again to resume"), ("export", "nothing was published")]
)
def test_ctrl_c_ends_a_command_in_one_line(run_fake, caplog, command, message):
    status, out = run_fake(command, refuse(KeyboardInterrupt()), "--workdir", "R", "--output", "O")
    assert (status, out) == (130, "")
    assert [record.getMessage() for record in caplog.records if message in record.getMessage()]
    assert "Traceback" not in caplog.text
