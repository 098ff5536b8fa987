"""Reads CSV files that may have line breaks in quoted fields. One worker reads a whole file from its start."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from preprocessing import validation
from preprocessing.sources.csv_rows import CsvFiles
from preprocessing.sources.parquet_rows import describe_rows
from preprocessing.sources.rejects import Rejects, shorten
from preprocessing.sources.source import Part
from preprocessing.sources.text_files import DAMAGE, open_text

_BLOCK_BYTES = 8 << 20


class CsvTableSource(CsvFiles):
    """Reads CSV files that may have line breaks in quoted fields, such as item tables.

    A file is read as one part, because a row may span several lines.
    """

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Returns the whole file as one part."""
        return [Part(self, path, ordinal, self.first_byte, None, size)]

    def read(self, part: Part) -> Iterator["CsvTableBatch"]:
        """Yields the rows of a file in batches of a few MiB.

        Raises:
          ValueError: the file is damaged or has another encoding.
        """
        invalid: list[str] = []

        def skip(row: pa_csv.InvalidRow) -> str:
            invalid.append(row.text)
            return "skip"

        first = 0
        try:
            for table in self._read_tables(part, skip):
                yield CsvTableBatch(part, first, table, tuple(invalid))
                first += len(table)
                invalid.clear()
        except UnicodeDecodeError as error:
            encoding = self.text_format.encoding
            other = "utf-8" if encoding == "cp1252" else "cp1252"
            raise ValueError(
                f"{part.path} is not valid {encoding} after row {first}; set its encoding, such as "
                f"item_table.format.encoding={other}"
            ) from error
        except DAMAGE as error:
            if "straddling object" in str(error):
                raise ValueError(
                    f"{part.path} has a row of more than {_BLOCK_BYTES >> 20} MiB after row {first}; add the "
                    "missing quote or line feed"
                ) from error
            if "Empty CSV file" not in str(error):
                raise ValueError(
                    f"{part.path} cannot be read after row {first}: {error}; correct the rows after row {first}, or "
                    "replace the file with an intact copy"
                ) from error
        if invalid:
            nothing = pa.table({name: pa.array([], pa.string()) for name in self.columns})
            yield CsvTableBatch(part, first, nothing, tuple(invalid))

    def _read_tables(self, part: Part, skip: Callable[[pa_csv.InvalidRow], str]) -> Iterator[pa.Table]:
        # Arrow cannot skip a row that is not UTF-8
        with open_text(part.path, self.text_format, validate=True) as file:
            file.read(part.begin)
            reader = pa_csv.open_csv(
                pa.PythonFile(file, mode="r"),
                pa_csv.ReadOptions(column_names=self.header, use_threads=False, block_size=_BLOCK_BYTES),
                pa_csv.ParseOptions(delimiter=self.separator, newlines_in_values=True, invalid_row_handler=skip),
                pa_csv.ConvertOptions(
                    column_types={name: pa.string() for name in self.columns},
                    include_columns=self.columns,
                    strings_can_be_null=False,
                ),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class CsvTableBatch:
    """Consecutive rows of a CSV file."""

    part: Part
    """The file."""
    position: int
    """Row number, in the file, of the batch's first row."""
    columns: pa.Table
    """The well-formed rows, [N], as string columns."""
    invalid: tuple[str, ...]
    """Texts of the rows with a wrong number of fields."""

    @property
    def malformed(self) -> Rejects:
        """The rows with a wrong number of fields. All of them get the position of the batch's first row."""
        texts = [shorten(text.encode()) for text in self.invalid]
        return Rejects(self.part.path, [self.position] * len(texts), [validation.FIELD_COUNT] * len(texts), texts)

    @property
    def num_blank(self) -> int:
        """Always 0, because blank lines are skipped without a count."""
        return 0

    def locate(self, rows: np.ndarray) -> tuple[list[int], list[str]]:
        """Returns, for each row, its number in the file and its text as JSON. `rows`: row indices in `self.columns`."""
        return (rows + self.position).tolist(), describe_rows(self.columns, rows)
