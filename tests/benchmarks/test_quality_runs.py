"""Tests the training of presets, the targets, and the number of epochs until a run reaches a metric."""

import json

from benchmarks import quality_runs
from benchmarks.harness import Timing
from benchmarks.quality_runs import epochs_to_reach, target, time_evaluation, train


def write_metrics(workdir, values):
    lines = [{"step": 7, "loss": 1.0}]
    lines += [{"epoch": epoch, "validation_ndcg@20": value} for epoch, value in enumerate(values, start=1)]
    (workdir / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_first_epoch_that_reaches_the_value_is_found(tmp_path):
    write_metrics(tmp_path, [0.1, 0.18, 0.17, 0.19])
    assert epochs_to_reach(tmp_path, 0.18) == 2
    assert epochs_to_reach(tmp_path, 0.181) == 4


def test_a_run_that_never_reaches_the_value_has_no_such_epoch(tmp_path):
    write_metrics(tmp_path, [0.1, 0.18])
    assert epochs_to_reach(tmp_path, 0.19) is None


def test_a_target_is_met_at_its_bound_from_either_side():
    assert target("quality", 1.12, 1.12, "")["is_met"]
    assert not target("quality", 1.12, 1.119, "")["is_met"]
    assert target("seconds", 2, 2.0, "", is_least=False)["is_met"]
    assert not target("seconds", 2, 2.1, "", is_least=False)["is_met"]
    assert not target("seconds", 2, None, "", is_least=False)["is_met"]


def test_a_preset_is_trained_once_with_its_flags_and_settings(tmp_path, monkeypatch):
    commands = []

    def run_command(command):
        commands.append(command)
        workdir = tmp_path / "runs" / "quick"
        workdir.mkdir(parents=True)
        (workdir / "result.json").write_text('{"seconds": 2.5}')

    monkeypatch.setattr(quality_runs, "run_command", run_command)
    monkeypatch.setattr(quality_runs, "_load", lambda workdir, data, which: (workdir.name, data.name, which))
    for _ in range(2):
        run = train("mf", tmp_path / "dataset", tmp_path, "epochs=1", name="quick", flags=("--seed", "3"))
        assert run == {"scorer": ("quick", "dataset", "best"), "seconds": 2.5}
    (command,) = commands
    assert command[-4:] == ["--seed", "3", "--set", "epochs=1"]


def test_an_evaluation_is_timed_once(tmp_path, monkeypatch):
    commands = []

    def run_command(command):
        commands.append(command)
        return Timing(12.5, 20.0, 100.0, "")

    monkeypatch.setattr(quality_runs, "run_command", run_command)
    workdir = tmp_path / "runs" / "auto"
    workdir.mkdir(parents=True)
    assert [time_evaluation("auto", tmp_path / "dataset", tmp_path) for _ in range(2)] == [12.5, 12.5]
    (command,) = commands
    assert command[1:4] == ["-m", "trainer", "evaluate"]
    assert command[command.index("--workdir") + 1] == str(workdir)
