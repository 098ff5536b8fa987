import threading
from collections.abc import Iterator

import pytest

from trainer.runs.file_stream import Chunk, FileStream

SECONDS = 300
"""Time limit for waits that take milliseconds on an idle machine."""
SHORT = 0.01
"""Seconds of a call that has nothing to wait for."""


def make_stream(limit_bytes: int, read: list[int] | None = None) -> FileStream:
    """Returns a stream of five chunks of four bytes, whose numbers are appended to `read` when they are read."""
    read = [] if read is None else read

    def chunks() -> Iterator[Chunk]:
        for number in range(5):
            read.append(number)
            yield "file", memoryview(bytes([number] * 4))

    return FileStream(chunks(), limit_bytes)


def in_thread(action) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("limit_bytes", [1, 8, 100])
def test_chunks_arrive_in_order_whatever_the_limit(limit_bytes: int) -> None:
    stream, found = make_stream(limit_bytes), []
    thread = in_thread(lambda: found.extend((name, bytes(content)) for name, content in stream))
    while not stream.advance(SECONDS):
        pass
    thread.join(SECONDS)
    assert found == [("file", bytes([number] * 4)) for number in range(5)]


@pytest.mark.parametrize(("limit_bytes", "num_read"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (20, 5)])
def test_no_chunk_is_read_while_the_limit_is_reached(limit_bytes: int, num_read: int) -> None:
    read: list[int] = []
    stream = make_stream(limit_bytes, read)
    for expected in (num_read, min(num_read + 1, 5)):
        while len(read) < expected:  # a busy machine may not read all chunks in time
            stream.advance(SHORT)
        stream.advance(SHORT)
        assert len(read) == expected
        next(iter(stream))


def test_chunks_that_fit_are_read_without_a_writer() -> None:
    stream = make_stream(21)
    assert stream.advance(SECONDS)
    assert [bytes(content)[0] for _, content in stream] == [0, 1, 2, 3, 4]


def test_a_reader_without_time_reads_nothing() -> None:
    read: list[int] = []
    assert not make_stream(100, read).advance(0)
    assert not read


def test_cancelling_ends_a_reader_that_waits_for_room() -> None:
    stream, read = make_stream(4), threading.Event()
    thread = in_thread(lambda: (stream.advance(SECONDS), read.set()))
    next(iter(stream))
    stream.cancel()
    thread.join(SECONDS)
    assert read.is_set()
    assert stream.advance(0)  # nothing is left to read


def test_cancelling_ends_a_writer_that_waits_for_a_chunk() -> None:
    stream, errors = make_stream(100), []

    def write() -> None:
        try:
            list(stream)
        except OSError as error:
            errors.append(str(error))

    thread = in_thread(write)
    stream.cancel()
    thread.join(SECONDS)
    assert errors == ["cancelled, because training failed while its rows were read"]


def test_a_cancelled_stream_discards_its_chunks() -> None:
    stream = make_stream(100)
    assert stream.advance(SECONDS)
    stream.raise_if_cancelled()
    stream.cancel()
    with pytest.raises(OSError, match="cancelled"):
        next(iter(stream))
    with pytest.raises(OSError, match="cancelled"):
        stream.raise_if_cancelled()
