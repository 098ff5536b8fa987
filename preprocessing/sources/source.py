"""The protocol of input formats: a file is divided into parts, which workers read in parallel as batches of rows.

A new format is one file with a class of this protocol, and an entry in `formats.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from preprocessing.sources.rejects import Rejects
from preprocessing.validation import Flaws


@dataclass(frozen=True)
class Part:
    """A part of an input file."""

    source: "Source"
    """Reads the part."""
    path: str
    """The file."""
    ordinal: int
    """Index of the file among the inputs; it orders rows that have the same time."""
    begin: int
    """First byte of a text file, first row group of a Parquet file."""
    end: int | None
    """One past the last byte or row group; None: the end of the file."""
    size: int
    """Size in bytes as stored, which may be compressed."""


class Batch(Protocol):
    """Rows of a part that were read together."""

    @property
    def part(self) -> Part:
        """The part."""

    @property
    def position(self) -> int:
        """Position at which the batch starts, a byte or a row; it orders the batches of a file."""

    @property
    def columns(self) -> pa.Table:
        """[N] well-formed rows, with the columns that the source reads."""

    @property
    def malformed(self) -> Rejects:
        """Rows that could not be read."""

    @property
    def num_blank(self) -> int:
        """Number of empty lines, which are skipped."""

    def locate(self, rows: np.ndarray) -> tuple[list[int], list[str]]:
        """Returns the positions in the file and the texts of rows, by their indices in `columns`."""


class Source(Protocol):
    """The files of one format and layout."""

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Divides a file into parts."""

    def read(self, part: Part) -> Iterator[Batch]:
        """Reads a part, a few MiB at a time.

        Raises:
          ValueError: the file is damaged.
        """


def read_batches(parts: Sequence[Part]) -> Iterator[Batch]:
    """Reads parts in sequence."""
    for part in parts:
        yield from part.source.read(part)


def reject_rows(batch: Batch, flaws: Flaws, owners: np.ndarray | None = None) -> Rejects:
    """Returns the malformed rows of a batch, then the rows that `flaws` marks.

    Args:
      batch: the batch.
      flaws: invalid rows of the batch, or invalid list elements in these rows.
      owners: [N] the row in `batch.columns` of each element; None: the elements are the rows.
    """
    invalid = flaws.invalid_rows
    positions, texts = batch.locate(invalid if owners is None else owners[invalid])
    return batch.malformed.extend(Rejects(batch.part.path, positions, flaws.reasons, texts))
