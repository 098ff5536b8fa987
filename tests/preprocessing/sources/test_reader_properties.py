"""Every line of an input is counted once, and rows do not depend on how a file is split or compressed."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.config import PrepareConfig, TimeConfig
from preprocessing.events import parse_events
from preprocessing.inputs import list_inputs
from preprocessing.sources import text_files
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
ROW = {"timestamp": 1440000000000, "visitorid": "v", "event": "view", "itemid": "i"}
JSON_LINES = (
    *(json.dumps(ROW | change).encode() for change in ({}, {"visitorid": 7}, {"event": "looked"}, {"itemid": None})),
    b'{"itemid": "i", "event": "view", "visitorid": "v", "timestamp": 1440000000000}',  # equals the first
    b'{"timestamp": 1440000000000',
    b"[1]",
    b"7",
    b"\xff",
    b"",
    b" ",
)


def read(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]], int, pa.Table]:
    """Returns the rows, the rejects in order of the file, the number of blank lines, and the table of the rows."""
    inputs = list_inputs(PrepareConfig(events=str(path), time=TimeConfig(unit="ms"), max_reject_share=1))
    batches = list(read_batches(inputs.events.parts))
    parsed = [parse_events(batch, inputs.mapping) for batch in batches]
    table = pa.concat_tables(events.table for events in parsed)
    rejects = [
        reject
        for events in parsed
        for reject in zip(events.rejects.positions, events.rejects.reasons, events.rejects.texts, strict=True)
    ]
    return table.to_pylist(), sorted(rejects), sum(batch.num_blank for batch in batches), table


@pytest.mark.parametrize(("header", "known"), [(HEADER, CSV_LINES), (b"", JSON_LINES)], ids=["csv", "jsonl"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_line_is_kept_rejected_a_duplicate_or_blank_however_the_file_is_split(
    header, known, data, tmp_path_factory
):
    noise = st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"").replace(b"\0", b""))
    lines = data.draw(st.lists(st.sampled_from(known) | noise, max_size=25))
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    body = end.join([known[0], *lines]) + data.draw(st.sampled_from([b"", end]))
    path = tmp_path_factory.mktemp("split") / "events"
    path.write_bytes(header + body)

    rows, rejects, num_blank, table = read(path)
    timelines, cleaning = assemble_timelines(table, max_events_per_day=1000)
    assert len(timelines) == len({tuple(row.values()) for row in rows})
    num_lines = body.count(b"\n") + (not body.endswith(b"\n"))
    assert len(timelines) + cleaning.duplicates + len(rejects) + num_blank == num_lines

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "READ_BYTES", data.draw(st.integers(4, 200)))
        assert read(path)[:3] == (rows, rejects, num_blank)
        path.write_bytes(gzip.compress(header + body))
        assert read(path)[:3] == (rows, rejects, num_blank)
