"""Tests the flags, exit statuses and error lines of `python -m preprocessing`."""

import json
import os
import signal

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from common.errors import InUseError, OwnershipLostError
from preprocessing import cli, pipeline
from preprocessing.config import PrepareConfig


@pytest.fixture
def prepared(monkeypatch):
    """Replaces `prepare` by a function that records its arguments."""
    calls = []

    def prepare(config: PrepareConfig, output: str, options: PipelineOptions, *, baseline: str | None) -> dict:
        calls.append((config, output, options))
        return {"dataset": output}

    monkeypatch.setattr(pipeline, "prepare", prepare)
    return calls


def test_flags_settings_and_beam_options_reach_the_job(prepared, capsys):
    arguments = ["prepare", "--events", "e*.csv", "--output", "d", "--max-reject-share", "0.5"]
    cuts = ["--validation-from", "2015-09-01", "--test-from", "1441152000000"]
    others = ["--set", "items.min_count=5", "compress=true", "--runner=DirectRunner", "--direct_num_workers", "2"]
    assert cli.main([*arguments, *cuts, *others, "--json"]) == 0
    ((config, output, options),) = prepared
    assert (config.events, output) == ("e*.csv", "d")
    assert options.get_all_options()["direct_num_workers"] == 2
    # 2015-09-01T00:00Z is 1,441,065,600 s after 1970
    assert (config.split.validation_from_ms, config.split.test_from_ms) == (1_441_065_600_000, 1_441_152_000_000)
    assert (config.items.min_count, config.compress, config.max_reject_share) == (5, True, 0.5)
    result = json.loads(capsys.readouterr().out)
    assert result == {"dataset": "d", "report": None}, "the result survives a report that cannot be drawn"


def test_arguments_are_read_from_a_file(prepared, tmp_path):
    (tmp_path / "arguments").write_text(
        "--events=e*.csv\n--output=d\n--set=items.min_count=5\n--direct_num_workers=2\n"
    )
    assert cli.main(["prepare", f"@{tmp_path / 'arguments'}", "--json"]) == 0
    ((config, output, options),) = prepared
    assert (config.events, config.items.min_count, output) == ("e*.csv", 5, "d")
    assert options.get_all_options()["direct_num_workers"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--events=caf\xe9.csv\n", "arguments is not text in UTF-8"),
        (b"@arguments\n", "arguments reads arguments from itself; remove @arguments from it"),
    ],
)
def test_a_file_of_arguments_that_cannot_be_read_exits_with_2(
    prepared, tmp_path, monkeypatch, capsys, content, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments").write_bytes(content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "@arguments"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "items.min_coun=3"], "did you mean `items.min_count`?"),
        (["--set", "items.min_count=-1"], "items.min_count must be at least 0, got -1"),
        (["--set", "item_table.format.separator=::"], "item_table.format.separator must be one ASCII character"),
        (["--validation-from", "tomorrow"], "'tomorrow' is not a time; write ISO 8601"),
        (["--validation-from", "2015-09-01"], "give both"),
        (["--split", "random", "--validation-from", "2015-09-01", "--test-from", "2015-09-02"], "need --split time"),
        (["--split", "sideways"], "invalid choice"),
        (["second.csv"], "unrecognized arguments: second.csv"),  # a glob that the shell expanded
        (["--max-event-per-day", "5"], "unrecognized arguments: --max-event-per-day"),
        (["--direct_num_workers", "many"], "Beam rejects"),
    ],
)
def test_a_wrong_flag_or_setting_exits_with_2(prepared, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "--events", "e", "--output", "d", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not prepared


def test_only_prepare_takes_unknown_flags():
    with pytest.raises(SystemExit) as stop:
        cli.main(["synthesize", "--visitors", "100", "--output", "d", "--runner=DirectRunner"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("no file matches e; check it [while running 'Read']"), "no file matches e; check it"),
        # as Beam changes the first argument of an error
        (
            UnicodeDecodeError("utf-8 [while running 'Read']", b"\xff", 0, 1, "invalid start byte"),
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        (
            RuntimeError("ArrowInvalid: straddling object [while running 'Read']"),
            "RuntimeError: ArrowInvalid: straddling object (--verbose shows the traceback)",
        ),
        (
            RuntimeError("pyarrow.lib.ArrowTypeError: no such type [while running 'Read']"),
            "pyarrow.lib.ArrowTypeError: no such type",
        ),
        (KeyError("id [while running 'Read']"), 'KeyError: "id" (--verbose shows the traceback)'),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_is_logged_in_one_line_and_exits_with_1(monkeypatch, caplog, error, message):
    def prepare(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "prepare", prepare)
    assert cli.main(["prepare", "--events", "nothing.csv", "--output", "d"]) == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.getMessage() == message
    assert not record.exc_info


def test_a_full_disk_of_a_worker_is_named(monkeypatch, caplog, tmp_path):
    def prepare(*_, **__):
        raise RuntimeError(f"OSError: [Errno 28] No space left on device: '{tmp_path}/part' [while running 'Read']")

    monkeypatch.setattr(pipeline, "prepare", prepare)
    assert cli.main(["prepare", "--events", "events.csv", "--output", str(tmp_path / "d")]) == 1
    assert f"No space left on device: '{tmp_path}/part'; the disk of {tmp_path}/part now has" in caplog.text


@pytest.mark.parametrize(("error", "status"), [(InUseError, 73), (OwnershipLostError, 75)])
def test_another_owner_of_the_output_has_its_own_status(monkeypatch, error, status):
    def prepare(*_, **__):
        raise error("d has another owner")

    monkeypatch.setattr(pipeline, "prepare", prepare)
    assert cli.main(["prepare", "--events", "nothing.csv", "--output", "d"]) == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["sigterm", "sighup"])
@pytest.mark.usefixtures("restored_signals")
def test_a_signal_exits_with_143_even_if_beam_replaces_the_exception(monkeypatch, caplog, number):
    def prepare(*_, **__):
        try:
            os.kill(os.getpid(), number)
        except SystemExit as stop:
            raise RuntimeError("SystemExit: 143") from stop

    monkeypatch.setattr(pipeline, "prepare", prepare)
    assert cli.main(["prepare", "--events", "events.csv", "--output", "d"]) == 143
    assert f"stopped by {number.name}; nothing was published" in caplog.text
