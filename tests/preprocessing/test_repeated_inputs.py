"""An input that would be ignored is refused, such as the first value of a repeated flag."""

import pytest

from preprocessing.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events", "a.csv", "--events", "b.csv"], "--events is given twice; to read several files, give one glob"),
        (["--events", "a.csv", "--category-tree", "b", "--category-tree", "c"], "--category-tree is given twice"),
        (
            ["--events", "a.csv", "--set", "events=b.csv"],
            "files are given by both --events and --set events=…; remove one",
        ),
        (
            ["--events", "a.csv", "--item-properties", "b", "--set", "item_properties=c"],
            "files are given by both --item-properties and --set item_properties=…; remove one",
        ),
        (["--events", "a.csv,b.csv"], "a list with commas is not supported; to read several files, give one glob"),
        (["--set", "events=a.csv,b.csv"], "a list with commas is not supported"),
    ],
)
def test_a_second_event_log_is_refused_with_the_way_to_give_both(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *arguments, "--output", "out"])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
