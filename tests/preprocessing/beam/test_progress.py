import logging
import pickle

import pytest

from preprocessing.beam import progress
from preprocessing.beam.progress import Phase, Tell, watch


class Bar:
    """Stands for a bar: keeps what was done to it."""

    made: list["Bar"]

    def __init__(self, total: int, unit: str, *, title: str, is_shown: bool) -> None:
        self.title, self.total, self.n, self.is_closed = title, total, 0, False
        self.made.append(self)

    def update(self, amount: int) -> None:
        self.n += amount

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def bars(monkeypatch) -> list[Bar]:
    Bar.made = []
    monkeypatch.setattr(progress, "make_bar", Bar)
    return Bar.made


def test_a_phase_begins_when_the_one_before_it_is_done(bars):
    with watch(Phase("read", 100, "B"), Phase("made", 2), is_shown=True) as tell:
        tell.amount(60)
        assert [bar.title for bar in bars] == ["read"]
        tell.amount(40)
        assert [(bar.title, bar.is_closed) for bar in bars] == [("read", True), ("made", False)]
        tell.one("a partition")
    assert [(bar.n, bar.is_closed) for bar in bars] == [(100, True), (1, True)]


def test_what_is_pickled_within_the_process_moves_the_same_bar(bars):
    with watch(Phase("read", 100), is_shown=True) as tell:
        pickle.loads(pickle.dumps(tell.amount))(7)
    assert bars[0].n == 7


def test_where_no_bar_is_open_nothing_happens(bars):
    Tell("of another process").amount(7)
    assert bars == []


def test_what_was_done_stands_in_the_log(bars, caplog):
    caplog.set_level(logging.INFO)
    with watch(Phase("events", 2048, "B"), Phase("timelines", 3), is_shown=False):
        pass
    assert "events: 2,048 B, timelines: 3 partitions; " in caplog.text


def test_a_stopped_pipeline_fails_at_its_next_element(bars):
    with watch(Phase("made", 2), is_shown=True) as tell:
        tell.one("a partition")
        progress.stop_pipelines()
        with pytest.raises(InterruptedError):
            tell.one("another")
    assert bars[0].n == 1
