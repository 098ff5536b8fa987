"""The protocol of input formats. A file is divided into parts, and workers read the parts in parallel as batches.

To add a format, write a module with a class that implements `Source`, and add the class to `formats.py`.
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
    """A part of an input file, which one worker reads."""

    source: "Source"
    """The source that reads the part."""
    path: str
    """The file."""
    ordinal: int
    """Index of the file in the input. Rows with the same time are sorted by this index."""
    begin: int
    """First byte of the part in a text file, or first row group in a Parquet file."""
    end: int | None
    """The first byte or row group after the part. None: the part reaches to the end of the file."""
    size: int
    """Size of the part in bytes, as stored: the compressed size if the file is compressed."""


class Batch(Protocol):
    """Consecutive rows of a part of an input file."""

    @property
    def part(self) -> Part:
        """The part of the input from which the rows of this batch were read."""

    @property
    def position(self) -> int:
        """Byte offset or row number of the batch's first row in the file. Batches are sorted by this position."""

    @property
    def columns(self) -> pa.Table:
        """The N well-formed rows, with the columns that the source reads."""

    @property
    def malformed(self) -> Rejects:
        """Rows that could not be read."""

    @property
    def num_blank(self) -> int:
        """Number of skipped blank lines."""

    def locate(self, rows: np.ndarray) -> tuple[list[int], list[str]]:
        """Returns, for each row, its position in the file and its text. `rows`: row indices in `self.columns`."""


class Source(Protocol):
    """Reads a fixed set of columns from files of one format."""

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Divides a file into parts for parallel workers.

        Args:
          ordinal: index of the file in the input.
          size: size of the file in bytes, as stored.
        """

    def read(self, part: Part) -> Iterator[Batch]:
        """Yields the rows of a part in batches.

        Raises:
          ValueError: the file is damaged.
        """


def read_batches(parts: Sequence[Part]) -> Iterator[Batch]:
    """Yields the batches of all parts in sequence."""
    for part in parts:
        yield from part.source.read(part)


def reject_rows(batch: Batch, flaws: Flaws, owners: np.ndarray | None = None) -> Rejects:
    """Returns the malformed rows of a batch, followed by the rows with invalid events.

    `flaws` marks the invalid events. `owners` [N] is the index, in `batch.columns`, of each event's row; None: each row
    is an event.
    """
    invalid = flaws.invalid_rows
    positions, texts = batch.locate(invalid if owners is None else owners[invalid])
    return batch.malformed.extend(Rejects(batch.part.path, positions, flaws.reasons, texts))
