"""What happens before the first step restarts the timer of the watchdog, so it may take any time."""

from pathlib import Path
from typing import Any, NoReturn

import pytest

import trainer.train
from tests.trainer.runs.test_checkpoint import contents, make_parts, save
from tests.trainer.tiny_runs import make_config
from trainer.distributed.replicas import start_replicas
from trainer.distributed.watchdog import Watchdog
from trainer.training.schedule import make_schedule
from trainer.training.start import resume_run


class Opened(Exception):  # noqa: N818
    """Ends a run when it opens its dataset; has the dataset's callback."""


def test_the_dataset_of_a_run_restarts_the_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_dataset(root: str, on_progress: Any) -> NoReturn:
        raise Opened(on_progress)

    monkeypatch.setattr(trainer.train, "open_dataset", open_dataset)
    with pytest.raises(Opened) as opened:
        trainer.train.train(make_config("mf"), data=str(tmp_path), workdir=str(tmp_path / "run"))
    assert opened.value.args[0].__func__ is Watchdog.ping


def test_each_restored_array_restarts_the_timer(tmp_path: Path) -> None:
    """Both tables have values and two slots of Adam; each of these arrays is smaller than a chunk of rows."""
    saved = save(str(tmp_path), 8)
    replicas, pings = start_replicas(1, None), [0]

    def ping() -> None:
        pings[0] += 1

    restored = make_parts(replicas)
    schedule = make_schedule(make_config("mf"), 16)
    resume_run(str(tmp_path), restored, 8, replicas, schedule, ping)
    assert pings == [2 * 3]
    expected = contents(saved)
    assert all((value == expected[name]).all() for name, value in contents(restored).items())
