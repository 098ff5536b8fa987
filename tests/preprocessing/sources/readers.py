"""Lines of an event log, valid and invalid, and a reader that accounts for each of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from preprocessing.config import PrepareConfig, TimeConfig
from preprocessing.events import ParsedEvents, parse_events
from preprocessing.inputs import list_inputs
from preprocessing.sources.source import read_batches
from preprocessing.timelines import assemble_timelines

HEADER = b"timestamp,visitorid,event,itemid\n"
CSV_LINES = (
    b"1440000000000,v,view,i",
    b"1440000000001,w,view,i",
    b'"1440000000000","v",view,"i"',  # equals the first
    b'1440000000000,"v,w",view,"a ""b"""',
    "1440000000000,é,view,東".encode(),
    b"\xef\xbb\xbf1440000000000,v,view,i",
    b"1440000000000,\xff,view,i",
    b'1440000000000,"v,view,i',
    b"1440000000000,v\rw,view,i",
    b"soon,v,view,i",
    b"1440000000000,,view,i",
    b"1440000000000,v,looked,i",
    b"",
    b"\r",
    b" ",
)
_ROW = {"timestamp": 1440000000000, "visitorid": "v", "event": "view", "itemid": "i"}
JSON_LINES = (
    *(json.dumps(_ROW | change).encode() for change in ({}, {"visitorid": 7}, {"event": "looked"}, {"itemid": None})),
    b'{"itemid": "i", "event": "view", "visitorid": "v", "timestamp": 1440000000000}',  # equals the first
    json.dumps(_ROW).encode() * 2,
    json.dumps(_ROW | {"visitorid": "LARGE"}).encode().replace(b'"LARGE"', b"1e400"),
    json.dumps(_ROW | {"visitorid": float("nan")}).encode(),
    json.dumps(_ROW | {"visitorid": 1e-7}).encode(),
    b'{"timestamp": 1440000000000',
    b"[1]",
    b"7",
    b"\xff",
    b"",
    b" ",
)


@dataclass(frozen=True)
class Reading:
    """The rows, rejects and counts that the reader found in a file. Two readings are equal if all of them are equal."""

    rows: list[dict[str, Any]]
    rejects: list[tuple[int, str, str]]
    """Position, reason and text of each invalid line, in order of the file."""
    num_blank: int
    num_kept: int
    num_duplicates: int

    @property
    def num_lines(self) -> int:
        """Number of lines that the reader accounts for."""
        return self.num_kept + self.num_duplicates + len(self.rejects) + self.num_blank


def read_events(config: PrepareConfig) -> tuple[pa.Table, list[ParsedEvents]]:
    """Reads the event log of a config; returns all rows, and the events of each batch."""
    inputs = list_inputs(config)
    parsed = [parse_events(batch, inputs.mapping) for batch in read_batches(inputs.events.parts)]
    return pa.concat_tables(events.table for events in parsed), parsed


def read(path: Path) -> Reading:
    """Reads an event log in CSV or JSON Lines; accepts any number of invalid lines."""
    inputs = list_inputs(PrepareConfig(events=str(path), time=TimeConfig(unit="ms"), max_reject_share=1))
    batches = list(read_batches(inputs.events.parts))
    parsed = [parse_events(batch, inputs.mapping) for batch in batches]
    rejects = [
        reject
        for events in parsed
        for reject in zip(events.rejects.positions, events.rejects.reasons, events.rejects.texts, strict=True)
    ]
    if not parsed:
        return Reading([], [], 0, 0, 0)
    table = pa.concat_tables(events.table for events in parsed)
    timelines, cleaning = assemble_timelines(table, max_events_per_day=1000)
    return Reading(
        rows=table.to_pylist(),
        rejects=sorted(rejects),
        num_blank=sum(batch.num_blank for batch in batches),
        num_kept=len(timelines),
        num_duplicates=cleaning.duplicates,
    )
