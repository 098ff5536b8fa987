"""Progress bars of pipelines."""

import logging
import pickle

import pytest

from preprocessing.beam import progress
from preprocessing.beam.progress import Phase, ProgressCounter, cancel_pipelines, track_progress


class FakeBar:
    """Records how a bar is used."""

    created: list["FakeBar"]

    def __init__(self, total: int, unit: str, *, title: str, is_shown: bool) -> None:
        self.title, self.total, self.n, self.is_closed = title, total, 0, False
        self.created.append(self)

    def update(self, amount: int) -> None:
        self.n += amount

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def bars(monkeypatch) -> list[FakeBar]:
    FakeBar.created = []
    monkeypatch.setattr(progress, "make_bar", FakeBar)
    return FakeBar.created


def test_a_phase_starts_when_the_previous_one_is_complete(bars):
    with track_progress(Phase("read", 100, "B"), Phase("made", 2), is_shown=True) as counter:
        counter.add(60)
        assert [bar.title for bar in bars] == ["read"]
        counter.add(40)
        assert [(bar.title, bar.is_closed) for bar in bars] == [("read", True), ("made", False)]
        counter.add_one("a partition")
    assert [(bar.n, bar.is_closed) for bar in bars] == [(100, True), (1, True)]


def test_a_pickled_counter_advances_the_bar_of_its_process(bars):
    with track_progress(Phase("read", 100), is_shown=True) as counter:
        pickle.loads(pickle.dumps(counter.add))(7)
    assert bars[0].n == 7


def test_a_counter_of_another_process_does_nothing(bars):
    ProgressCounter("of another process").add(7)
    assert bars == []


def test_the_phases_of_a_finished_pipeline_are_logged(bars, caplog):
    caplog.set_level(logging.INFO)
    with track_progress(Phase("events", 2048, "B"), Phase("timelines", 3), is_shown=False):
        pass
    assert "events: 2,048 B, timelines: 3 partitions; " in caplog.text


def test_a_cancelled_pipeline_fails_at_its_next_element(bars):
    with track_progress(Phase("made", 2), is_shown=True) as counter:
        counter.add_one("a partition")
        cancel_pipelines()
        with pytest.raises(InterruptedError, match="another part failed or was interrupted"):
            counter.add_one("another")
    assert bars[0].n == 1
