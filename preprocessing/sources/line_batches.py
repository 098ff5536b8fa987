"""Batches of rows from text files in which each row is a line (CSV and JSON Lines).

Shapes: L non-blank lines of a chunk, N well-formed lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from preprocessing.sources.rejects import Rejects, shorten
from preprocessing.sources.source import Part
from preprocessing.sources.text_files import Lines

_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"


@dataclass(frozen=True)
class LineBatch:
    """Rows from consecutive lines of a file."""

    part: Part
    """The part of the file that contains the lines."""
    lines: Lines
    """The lines that were parsed."""
    columns: pa.Table
    """The well-formed rows, [N], with the columns to read."""
    begins: np.ndarray
    """[N] index in `lines.data` at which each row of `columns` starts."""
    ends: np.ndarray
    """[N] index in `lines.data` at which each row of `columns` ends, without the line end."""
    malformed: Rejects
    """Lines that could not be parsed."""
    num_blank: int
    """Number of empty lines, which are skipped."""

    @property
    def position(self) -> int:
        """Offset of the first line, in bytes of the uncompressed UTF-8 text."""
        return self.lines.position

    def locate(self, rows: np.ndarray) -> tuple[list[int], list[str]]:
        """Returns, for each row, its byte offset in the file and its text. `rows`: row indices in `self.columns`."""
        return locate_lines(self.lines, self.begins[rows], self.ends[rows])


def find_lines(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds the lines of a text, without blank lines.

    Returns:
      The index in `data` at which each line starts, [L]; the index at which it ends, without the line break, [L]; and
      the number of blank lines.
    """
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == _LINE_FEED)
    begins = np.r_[0, ends[:-1] + 1]
    ends = ends - ((ends > begins) & (buffer[ends - 1] == _CARRIAGE_RETURN))
    is_blank = ends == begins
    return begins[~is_blank], ends[~is_blank], int(is_blank.sum())


def locate_lines(lines: Lines, begins: np.ndarray, ends: np.ndarray) -> tuple[list[int], list[str]]:
    """Returns, for each line, its byte offset in the file and its text (up to 200 bytes).

    Line i is the range [begins[i], ends[i]) of `lines.data`.
    """
    texts = [shorten(lines.data[begin:end]) for begin, end in zip(begins, ends, strict=True)]
    return (begins + lines.position).tolist(), texts


def reject_lines(part: Part, lines: Lines, begins: np.ndarray, ends: np.ndarray, reasons: Sequence[str]) -> Rejects:
    """Returns lines as rejects. Line i is the range [begins[i], ends[i]) of `lines.data`."""
    positions, texts = locate_lines(lines, begins, ends)
    return Rejects(part.path, positions, reasons, texts)


def is_utf8(data: bytes) -> bool:
    """Returns True if bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
