"""Reads text files: decompresses them, converts them to UTF-8, and divides them into byte ranges for parallel workers.

A line feed always ends a row, even within quotes. Otherwise, a worker could not start reading in the middle of a file.
"""

import bz2
import codecs
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa

from common import storage

READ_BYTES = 8 << 20
HEAD_BYTES = 64 << 10  # one request to a store: enough for a header, or for the rest of a range's last line
MAX_LINE_BYTES = 16 << 20
"""Maximum length of a line. Without a limit, a file that has no line feeds would fill the memory."""
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd", b"BZh": "bz2", b"PK\x03\x04": "zip"}
DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError, pa.ArrowException)

ENCODING_SETTINGS = "events_format.encoding, item_table.format.encoding, or --encoding of inspect"
"""Settings for the encoding of a file, for error messages. Item properties and the category tree are always UTF-8."""

COMPRESSION_RATIO = 3
"""Assumed ratio of uncompressed to compressed size, which is typical of event logs with gzip -6."""


@dataclass(frozen=True)
class TextFormat:
    """Compression and encoding of a text file."""

    compression: str | None = None
    """`gzip`, `zstd`, `bz2`, `zip`, or None."""
    encoding: str = "utf-8"
    """Name of a Python codec."""

    @property
    def is_seekable(self) -> bool:
        """Whether reading can start at any byte, which only uncompressed UTF-8 allows."""
        return self.compression is None and self.encoding == "utf-8"


@dataclass(frozen=True)
class Lines:
    """Consecutive whole lines of a file."""

    position: int
    """The byte at which the lines start, in the uncompressed UTF-8 text."""
    data: bytes
    """The lines, each with its line feed."""


def detect_format(head: bytes, encoding: str | None = None) -> TextFormat:
    """Detects the compression and the encoding of a file from its first bytes.

    `encoding` is the name of a Python codec; None: a byte order mark decides, and without a mark, the file is UTF-8.
    """
    compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), None)
    if encoding is not None:
        return TextFormat(compression, codecs.lookup(encoding).name)
    found = (name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark))
    return TextFormat(compression, next(found, "utf-8"))


def read_start(path: str, text_format: TextFormat, head: bytes) -> bytes:
    """Returns the start of a file's text, at least the first line, in UTF-8.

    `head` are the first bytes of the file as stored: still compressed and encoded.

    Raises:
      ValueError: the file is damaged, has another encoding, or has a first line of more than MAX_LINE_BYTES.
    """
    if text_format.is_seekable and (len(head) < HEAD_BYTES or b"\n" in head):
        return head
    with open_text(path, text_format, HEAD_BYTES) as file:
        try:
            start = file.read(HEAD_BYTES)
            return start if b"\n" in start else _finish_line(file, start, path, 0)
        except DAMAGE as error:
            raise ValueError(describe_damage(path, text_format, 0, error)) from error


def open_text(
    path: str, text_format: TextFormat, request_bytes: int = READ_BYTES, *, validate: bool = False
) -> BinaryIO:
    """Opens a file as a stream of UTF-8 text.

    Args:
      text_format: compression and encoding.
      request_bytes: number of bytes per request to a store.
      validate: whether invalid bytes of a UTF-8 file raise UnicodeDecodeError; other encodings are always validated.
    """
    file = _decompress(storage.open_binary(path, request_bytes), path, text_format.compression)
    if text_format.encoding == "utf-8" and not validate:
        return file
    return cast(BinaryIO, io.BufferedReader(_Recoded(file, text_format.encoding), request_bytes))


def divide(size: int, begin: int, text_format: TextFormat) -> list[tuple[int, int | None, int]]:
    """Divides the bytes of a file into ranges for parallel workers.

    A file that is not seekable has only one range.

    Args:
      size: size of the file in bytes, as stored.
      begin: the first byte of the first range.
      text_format: compression and encoding.

    Returns:
      Ranges (begin, end, size in bytes as stored). The end None means the end of the file.
    """
    if not text_format.is_seekable:  # such a stream can only be read from its start
        return [(begin, None, size)]
    starts = range(begin, max(size, begin + 1), READ_BYTES)
    return [(start, start + READ_BYTES, min(start + READ_BYTES, size) - start) for start in starts]


def read_lines(path: str, text_format: TextFormat, begin: int, end: int | None) -> Iterator[Lines]:
    """Yields the lines that start in [begin, end), in chunks of a few MiB.

    Chunks have whole lines. The last line of the file gets a line feed if it has none.

    Args:
      text_format: compression and encoding.
      begin: the first byte of the range.
      end: the byte after the range; None: the end of the file.

    Raises:
      ValueError: the file is damaged, has another encoding, or has a line of more than MAX_LINE_BYTES.
    """
    # one request has the byte before the range, the range, and the end of its last line; a second would be as large
    with open_text(path, text_format, READ_BYTES + HEAD_BYTES) as file:
        position = _seek_line(file, path, begin, is_seekable=text_format.is_seekable)
        pending = b""
        while end is None or position + len(pending) < end:
            wanted = READ_BYTES if end is None else end - position - len(pending)
            try:
                read = file.read(wanted)
            except DAMAGE as error:
                raise ValueError(describe_damage(path, text_format, position, error)) from error
            if len(pending) + (read.find(b"\n") if b"\n" in read else len(read)) > MAX_LINE_BYTES:
                raise ValueError(_describe_long_line(path, position))
            pending += read
            if len(read) < wanted:
                break
            if end is None and b"\n" in pending:
                lines, _, pending = pending.rpartition(b"\n")
                yield Lines(position, lines + b"\n")
                position += len(lines) + 1
        if pending and not pending.endswith(b"\n"):
            last = pending.rfind(b"\n") + 1
            pending = pending[:last] + _finish_line(file, pending[last:], path, position + last)
        if pending:
            yield Lines(position, pending if pending.endswith(b"\n") else pending + b"\n")


def describe_damage(path: str, text_format: TextFormat, position: int, error: Exception) -> str:
    """Returns an error message that says why a file cannot be read, and what to do.

    Args:
      text_format: compression and encoding.
      position: byte offset up to which the text was read without an error.
      error: an exception of a type in DAMAGE.
    """
    if isinstance(error, UnicodeDecodeError):
        other = "utf-8" if text_format.encoding == "cp1252" else "cp1252"
        return (
            f"{path} is not valid {text_format.encoding} after byte {position}; save it as UTF-8, or set its encoding, "
            f"such as {other} ({ENCODING_SETTINGS})"
        )
    return f"{path} is damaged after byte {position}: {error}; replace it with an intact copy"


def _finish_line(file: BinaryIO, line: bytes, path: str, position: int) -> bytes:
    """Reads the rest of a line that starts with `line` at `position`. Returns the whole line.

    Raises:
      ValueError: the line is longer than MAX_LINE_BYTES.
    """
    line += file.readline(MAX_LINE_BYTES + 2 - len(line))
    if len(line.removesuffix(b"\n")) > MAX_LINE_BYTES:
        raise ValueError(_describe_long_line(path, position))
    return line


def _describe_long_line(path: str, position: int) -> str:
    limit = f"{MAX_LINE_BYTES >> 20} MiB"
    return f"{path} has a line of more than {limit} after byte {position}; each row must end with a line feed"


def _seek_line(file: BinaryIO, path: str, begin: int, *, is_seekable: bool) -> int:
    """Moves to the first line that starts at or after `begin`, and returns its offset in bytes."""
    if begin == 0:
        return 0
    if not is_seekable:
        return len(file.read(begin))  # the header
    if begin == len(codecs.BOM_UTF8):
        file.seek(0)
        if file.read(begin) == codecs.BOM_UTF8:  # the first line, of a file without a header
            return begin
    # if the byte before the range is a line feed, a line starts exactly at `begin`
    file.seek(begin - 1)
    return begin - 1 + len(_finish_line(file, b"", path, begin))


def _decompress(file: BinaryIO, path: str, compression: str | None) -> BinaryIO:
    if compression == "gzip":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if compression == "bz2":
        return cast(BinaryIO, bz2.BZ2File(file))
    if compression == "zstd":
        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        return cast(BinaryIO, io.BufferedReader(_Raw(stream), READ_BYTES))
    if compression == "zip":
        return _open_member(file, path)
    return file


def _open_member(file: BinaryIO, path: str) -> BinaryIO:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a valid ZIP archive: {error}; replace it with an intact copy") from error
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        found = ", ".join(names[:5]) or "none"
        raise ValueError(f"{path} must contain one file, got {len(names)} ({found}); extract them and give a glob")
    return cast(BinaryIO, archive.open(names[0]))


class _Raw(io.RawIOBase):
    """Adds the method `readinto`, which Python streams need, to an Arrow stream."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read = self._stream.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


class _Recoded(io.RawIOBase):
    """Converts the text of a stream to UTF-8."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder(encoding)()
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._pending:
            read = self._file.read(READ_BYTES)
            self._pending = self._decoder.decode(read, final=not read).encode()
            if not read:
                break
        size = min(len(buffer), len(self._pending))
        buffer[:size], self._pending = self._pending[:size], self._pending[size:]
        return size
