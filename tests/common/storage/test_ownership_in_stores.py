"""Tests that a directory in a store has one owner, also if the store does not answer or has no conditional writes."""

import errno
import json
import time
from contextlib import ExitStack

import fsspec
import pytest

from common import storage
from common.storage import owner_record, store_protocol, takeover
from common.storage.fsspec_store import FsspecStore
from tests.common.storage.owners import (
    BEAT,
    Clock,
    names_in,
    other_owner,
    wait_until,
)


@pytest.mark.usefixtures("fast")
def test_an_owner_in_a_store_loses_it_to_a_successor_and_leaves_the_record_of_the_successor() -> None:
    record = f"memory://lost/{storage.OWNER}"
    with (
        pytest.raises(storage.OwnershipLostError, match="taken over by process 7 on host elsewhere"),
        storage.own_directory("memory://lost"),
    ):
        storage.check_ownership("memory://lost/parts/walk")
        storage.write_bytes(record, other_owner())
        storage.check_ownership("memory://lost-and-found")  # another directory
        storage.try_to_check_ownership("memory://lost/parts/walk")
    assert json.loads(storage.read_bytes(record))["token"] == "other"


@pytest.mark.usefixtures("fast")
def test_a_store_that_does_not_answer_costs_heartbeats_but_not_the_directory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owner_record, "_SHORT_PATIENCE_SECONDS", 0.0)
    store = type(fsspec.filesystem("memory"))
    with ExitStack() as at_end:
        at_end.enter_context(storage.own_directory("memory://outage"))
        with monkeypatch.context() as outage:
            outage.setattr(store, "cat_file", _raise_connection_error)
            storage.try_to_check_ownership("memory://outage")
            storage.stop_if_lost("memory://outage")
            with pytest.raises(OSError, match="reset"):
                storage.check_ownership("memory://outage", patience=0.0)
            wait_until(lambda: any("the heartbeat in memory" in line for line in caplog.messages))
            time.sleep(3 * BEAT)
        assert sum("the heartbeat in memory" in line for line in caplog.messages) == 1
        storage.check_ownership("memory://outage")
        beat = storage.read_bytes(f"memory://outage/{storage.OWNER}.beat")
        wait_until(lambda: storage.read_bytes(f"memory://outage/{storage.OWNER}.beat") != beat)
        with monkeypatch.context() as outage:
            outage.setattr(store, "cat_file", _raise_connection_error)
            at_end.close()
    assert any("could not remove" in line for line in caplog.messages), "releasing does not wait for the store"
    with storage.own_directory("memory://outage"):  # at once: this process knows that it needs its record no more
        pass
    assert names_in("memory://outage") == []


def _raise_connection_error(*_: object, **__: object) -> bytes:
    raise ConnectionResetError("reset")


def test_a_former_owner_that_fails_keeps_the_upload_of_its_successor() -> None:
    output = "memory://successor/out"
    with pytest.raises(storage.OwnershipLostError), storage.publish_directory(output, marker="done"):
        storage.write_bytes(f"{output}/{storage.OWNER}", other_owner())
        storage.write_bytes(f"{output}/theirs", b"1")
        raise ValueError("of the former owner")
    assert storage.list_files(output) == [storage.CLAIM, "theirs"]


@pytest.mark.usefixtures("fast")
def test_a_storage_that_keeps_no_record_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "_MOST_CREATIONS", 3)
    monkeypatch.setattr(FsspecStore, "create", lambda *_: None)
    with (
        pytest.raises(OSError, match=r"memory://none/_owner\.json, .* could not be read after it was written"),
        storage.own_directory("memory://none"),
    ):
        pass


def test_of_two_that_create_a_record_without_conditional_writes_one_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    record = f"memory://race/{storage.OWNER}"

    def write_with_another(self: FsspecStore, uri: str, content: bytes) -> None:
        self.write(uri, content)
        self.write(uri, other_owner())

    monkeypatch.setattr(FsspecStore, "create", write_with_another)
    monkeypatch.setattr(takeover, "_has_ended", lambda found, *_: pytest.fail(f"refused by {found.process}"))
    with pytest.raises(pytest.fail.Exception, match="refused by process 7 on host elsewhere"):
        storage.own_directory("memory://race").__enter__()
    assert json.loads(storage.read_bytes(record))["token"] == "other"


class Files:
    """A file system whose conditional writes fail."""

    def __init__(self, error: Exception, *, is_there: bool = False) -> None:
        self.error, self.is_there, self.written = error, is_there, []

    def exists(self, _: str) -> bool:
        return self.is_there

    def pipe_file(self, uri: str, content: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise self.error
        self.written.append((uri, content))


def http_error(status: int) -> OSError:
    error = OSError(errno.EIO, "the store's words")
    error.__cause__ = Exception()
    error.__cause__.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "X"}}  # type: ignore[attr-defined]
    return error


class ParamValidationError(Exception):
    """Named like the error that an old botocore raises."""


REFUSED_CONDITIONS = {
    "501": http_error(501),
    "400": http_error(400),
    "argument": TypeError("pipe_file() got an unexpected keyword argument 'mode'"),
    "botocore": ParamValidationError("Unknown parameter in input: IfNoneMatch"),
}


@pytest.mark.parametrize("reason", REFUSED_CONDITIONS)
def test_a_store_that_refuses_conditions_gets_a_plain_write(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_protocol, "time", Clock())
    files = Files(REFUSED_CONDITIONS[reason])
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == [("s3://b/x", b"1")]
    files = Files(REFUSED_CONDITIONS[reason], is_there=True)
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == []


@pytest.mark.parametrize("status", [409, 412])
def test_a_file_that_exists_or_is_being_created_is_left_alone(status: int) -> None:
    files = Files(http_error(status))
    FsspecStore(files, has_directories=False).create("s3://b/x", b"1")
    assert files.written == []


@pytest.mark.parametrize("status", [403, 500, 503])
def test_other_errors_of_a_conditional_write_are_raised(status: int) -> None:
    with pytest.raises(OSError, match="the store's words"):
        FsspecStore(Files(http_error(status)), has_directories=False).create("s3://b/x", b"1")
