"""Merges a Beam collection into one value, which the program that started the pipeline can read.

A value is passed through a file, because a Beam pipeline returns no values and its workers may run on other machines.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_type_hints

import apache_beam as beam

from preprocessing.workspace import Workspace, read_result, write_result

Value = TypeVar("Value")

_MERGED_AT_ONCE = 8


@dataclass(frozen=True)
class Result(Generic[Value]):
    """A value that a pipeline computes; readable once the pipeline has finished."""

    path: str
    """File of the value."""
    kind: Any
    """Type of the value; see `workspace.write_result`."""

    def read(self) -> Value:
        return cast(Value, read_result(self.path, self.kind))


def merge_result(
    work: Workspace, name: str, parts: beam.PCollection, merge: Callable[[Iterable[Value]], Value]
) -> Result[Value]:
    """Adds to a pipeline the steps that merge a collection into one value.

    Args:
      work: the workspace that stores the value.
      name: name of the value, unique in the job.
      parts: the collection to merge.
      merge: an associative and commutative function that accepts an empty iterable. Its return annotation gives the
        type of the value.
    """
    result = Result[Value](work.result(name), get_type_hints(merge)["return"])
    # the value of an empty collection; Beam's own default would add five stages
    write_result(result.path, merge(()), result.kind)
    merged = parts | f"Merge {name}" >> beam.CombineGlobally(Merge(merge)).without_defaults()
    _ = merged | f"Write {name}" >> beam.Map(WriteResult(result.path, result.kind))
    return result


@dataclass(frozen=True)
class WriteResult:
    """Writes the only element of a collection to a file."""

    path: str
    kind: Any

    def __call__(self, value: Any) -> None:
        write_result(self.path, value, self.kind)


class Merge(beam.CombineFn):
    """A Beam combiner that merges eight partial results at a time. Beam's default, a hundred, needs too much memory."""

    def __init__(self, merge: Callable[[Iterable[Any]], Any]) -> None:
        self._merge = merge

    def create_accumulator(self) -> list[Any]:
        return []

    def add_input(self, accumulator: list[Any], part: Any) -> list[Any]:
        accumulator.append(part)
        return accumulator if len(accumulator) < _MERGED_AT_ONCE else self.compact(accumulator)

    def merge_accumulators(self, accumulators: Iterable[list[Any]]) -> list[Any]:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            for part in accumulator:
                merged = self.add_input(merged, part)
        return merged

    def compact(self, accumulator: list[Any]) -> list[Any]:
        return [self._merge(accumulator)]

    def extract_output(self, accumulator: list[Any]) -> Any:
        return self._merge(accumulator)
