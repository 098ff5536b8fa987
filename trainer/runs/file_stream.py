"""Passes the contents of files from one thread to another, in chunks, with a limit on the bytes in memory."""

import threading
import time
from collections import deque
from collections.abc import Iterator

Chunk = tuple[str, memoryview]
"""The name of a file, and its next bytes."""


class FileStream:
    """Chunks of files that one thread reads and another thread writes.

    The reader calls `advance` until it returns True; the writer iterates over the chunks.
    """

    def __init__(self, chunks: Iterator[Chunk], limit_bytes: int) -> None:
        """Creates a stream.

        Args:
          chunks: the chunks to pass; `advance` takes them from the iterator.
          limit_bytes: number of bytes that are read, but not yet written, at which the reader waits for the writer.
        """
        self._chunks = chunks
        self._limit_bytes = limit_bytes
        self._waiting: deque[Chunk] = deque()
        self._waiting_bytes = 0
        self._is_read = False
        self._is_cancelled = False
        self._changed = threading.Condition()

    def advance(self, seconds: float) -> bool:
        """Reads chunks for at most `seconds`; returns True if all chunks are read or the stream is cancelled."""
        end = time.monotonic() + seconds
        while self._wait_for_room(end):
            self._put(next(self._chunks, None))
        return self._is_over

    def cancel(self) -> None:
        """Discards all chunks, including those not read yet; the writer gets an OSError instead of the next chunk."""
        with self._changed:
            self._is_cancelled = True
            self._waiting.clear()
            self._changed.notify_all()

    def raise_if_cancelled(self) -> None:
        """Raises OSError if the stream is cancelled."""
        if self._is_cancelled:
            raise OSError("cancelled, because training failed while its rows were read")

    def __iter__(self) -> Iterator[Chunk]:
        """Waits for chunks and yields them; raises OSError if the stream is cancelled."""
        while (chunk := self._take()) is not None:
            yield chunk

    @property
    def _is_over(self) -> bool:
        return self._is_read or self._is_cancelled

    def _wait_for_room(self, end: float) -> bool:
        """Waits until `end` at most; returns whether another chunk can be read before `end`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or self._waiting_bytes < self._limit_bytes, end - time.monotonic()
            )
            return not self._is_over and self._waiting_bytes < self._limit_bytes and time.monotonic() < end

    def _put(self, chunk: Chunk | None) -> None:
        with self._changed:
            if chunk is None:
                self._is_read = True
            elif not self._is_cancelled:
                self._waiting.append(chunk)
                self._waiting_bytes += chunk[1].nbytes
            self._changed.notify_all()

    def _take(self) -> Chunk | None:
        """Waits for the next chunk; returns None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_over)
            self.raise_if_cancelled()
            if not self._waiting:
                return None
            chunk = self._waiting.popleft()
            self._waiting_bytes -= chunk[1].nbytes
            self._changed.notify_all()
            return chunk
