import io
import logging

import pytest

from common.progress import LogHandler, make_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_visible_on_a_terminal_until_it_is_closed(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with make_bar(20, "cases", title="ranking", initial=5) as bar:
        bar.update(15)
        bar.refresh()
    *drawn, end = terminal.getvalue().split("\r")[1:]
    # starts at 5 of 20 and ends at 20
    assert drawn[0].startswith("ranking:  25%|")
    assert any(line.startswith("ranking: 100%|") and "cases/s]" in line for line in drawn)
    assert not end.strip()


@pytest.mark.parametrize(("stream", "is_shown"), [(io.StringIO, True), (Terminal, False)])
def test_there_is_no_bar_without_a_terminal_or_in_a_quiet_process(monkeypatch, stream, is_shown):
    monkeypatch.setattr("sys.stderr", made := stream())
    with make_bar(20, "cases", is_shown=is_shown) as bar:
        bar.update(20)
    assert made.getvalue() == ""


def test_log_lines_are_written_above_the_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    handler = LogHandler()
    with make_bar(20, "cases", title="ranking"):
        handler.emit(logging.LogRecord("a", logging.INFO, "a.py", 1, "half of it", None, None))
        above, _, below = terminal.getvalue().partition("half of it\n")
    assert "0%|" in above
    assert "0%|" in below, "drawn again below the line"
