import json
import time
from pathlib import Path

import pytest
import tensorflow as tf

from trainer.distributed.preemption import Preempted
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import open_log


def lines(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(RunLayout(str(workdir)).metrics).read_text().splitlines()]


def write(workdir: Path, steps: list[int], first_step: int = 0) -> None:
    with open_log(str(workdir), is_chief=True, total_rows=100, first_row=0, first_step=first_step) as run_log:
        for step in steps:
            run_log.log_steps(step=step, epoch=0, rows=10, loss=1 / step)
        run_log.log_validation(step=steps[-1], epoch=1, metric="mse", value=0.25, rate=40.0)


def test_metrics_are_lines_of_json(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [1, 2, 2]
    assert found[1]["loss"] == 0.5
    assert found[1]["examples_per_second"] > 0
    assert found[2] == {
        "step": 2,
        "epoch": 1,
        "validation_mse": 0.25,
        "validation_cases_per_second": 40.0,
        "time": found[2]["time"],
    }
    assert found[1]["time"] <= found[2]["time"] <= time.time()


def test_metrics_of_a_killed_run_after_its_checkpoint_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, [1, 2, 3])
    write(tmp_path, [3, 4], first_step=2)
    # steps 1 and 2 of the first run; 3, 4 and the validation of the second
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 4]


def test_metrics_are_written_even_if_the_run_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="out of luck"),
        open_log(str(tmp_path), is_chief=True, total_rows=1, first_row=0, first_step=0) as run_log,
    ):
        run_log.log_steps(step=1, epoch=0, rows=1, loss=1.0)
        raise RuntimeError("out of luck")
    assert len(lines(tmp_path)) == 1


def test_tensorboard_gets_every_figure(tmp_path: Path) -> None:
    write(tmp_path, [1, 2])
    (path,) = Path(RunLayout(str(tmp_path)).tensorboard).iterdir()
    tags = {
        (value.tag, event.step)
        for record in tf.data.TFRecordDataset(str(path))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        for value in event.summary.value
    }
    assert {("loss", 1), ("loss", 2), ("examples_per_second", 2), ("validation_mse", 2)} <= tags


def test_workers_that_are_not_the_chief_write_nothing(tmp_path: Path) -> None:
    with open_log(str(tmp_path), is_chief=False, total_rows=1, first_row=0, first_step=0) as run_log:
        run_log.log_steps(step=1, epoch=0, rows=1, loss=1.0)
        run_log.log_epoch(1, "done")
    assert not list(tmp_path.iterdir())


def read_history(workdir: Path) -> list[tuple[str, int]]:
    lines = Path(RunLayout(str(workdir)).history).read_text().splitlines()
    return [(line["event"], line["step"]) for line in map(json.loads, lines)]


def test_the_history_records_how_each_process_ended(tmp_path: Path) -> None:
    for error in (Preempted("stopped"), RuntimeError("out of luck")):
        with (
            pytest.raises(type(error)),
            open_log(str(tmp_path), is_chief=True, total_rows=9, first_row=0, first_step=0) as run_log,
        ):
            run_log.log_steps(step=1, epoch=0, rows=1, loss=1.0)
            run_log.log_event("checkpoint")
            raise error
    write(tmp_path, [2, 3], first_step=1)
    saved = [("started", 0), ("checkpoint", 1)]
    ended = [("resumed", 1), ("finished", 3)]
    assert read_history(tmp_path) == [*saved, ("preempted", 1), *saved, ("failed", 1), *ended]
    assert "out of luck" in Path(RunLayout(str(tmp_path)).history).read_text()


def test_metrics_up_to_a_checkpoint_are_written_with_it(tmp_path: Path) -> None:
    """A run that is killed within an epoch has then logged all steps that its checkpoint contains."""
    with open_log(str(tmp_path), is_chief=True, total_rows=100, first_row=0, first_step=0) as run_log:
        run_log.log_steps(step=1, epoch=0, rows=10, loss=1.0)
        run_log.log_event("checkpoint")
        run_log.log_steps(step=2, epoch=0, rows=10, loss=0.5)
        assert [line["step"] for line in lines(tmp_path)] == [1]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


NOT_FINITE = (b'{"step": 1, "loss": NaN}', b'{"step": 1, "loss": 1e999}')


@pytest.mark.parametrize(
    "damage", [b"", b'{"step": 2, "loss', b"[2]", b"\xff\x00", b'{"loss": 1}', b"[" * 100_000, *NOT_FINITE]
)
def test_damaged_lines_do_not_stop_a_run(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [1, 2])
    for path in (RunLayout(str(tmp_path)).metrics, RunLayout(str(tmp_path)).history):
        Path(path).write_bytes(damage + b"\n" + Path(path).read_bytes())
    write(tmp_path, [3], first_step=2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 2, 3, 3]
    assert read_history(tmp_path) == [("started", 0), ("finished", 2), ("resumed", 2), ("finished", 3)]
    for name in ("metrics.jsonl: 1 of 4 lines are damaged and skipped", "history.jsonl: 1 of 3 lines are damaged"):
        assert name in caplog.text
