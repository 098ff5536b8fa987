"""Files of all formats have the same rows, and files that cannot be read get a clear error."""

import bz2
import gzip
import json
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.schema import DEFAULT_KINDS
from preprocessing.config import EventColumns, FormatConfig, PrepareConfig
from preprocessing.inspection.inspect import inspect
from preprocessing.kinds import KindConfig
from preprocessing.sources.formats import (
    FIXED_ADVICE,
    ITEM_FACTS_ADVICE,
    ITEM_TABLE_ADVICE,
    find_input_files,
    open_files,
)
from tests.preprocessing.sources.readers import read_events

ROWS = [(1_709_262_000_000 + n, f"v{n % 3}", "view", f"i{n}") for n in range(20)]
HEADER = "timestamp,visitorid,event,itemid"
CSV = "".join(f"{line}\n" for line in (HEADER, *(",".join(map(str, row)) for row in ROWS))).encode()
COLUMNS = HEADER.split(",")


def rows_of(config: PrepareConfig) -> list[tuple[int, str, str, str]]:
    table, _ = read_events(config)
    kinds = [DEFAULT_KINDS[code] for code in table["event"].to_pylist()]
    columns = [table[name].to_pylist() for name in ("timestamp_ms", "visitor", "item")]
    return [(time, visitor, kind, item) for time, visitor, item, kind in zip(*columns, kinds, strict=True)]


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("events.csv", CSV)


def write_zstd(path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(CSV)


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n\n" for row in ROWS))


def write_parquet(path: Path) -> None:
    columns = dict(zip(COLUMNS, map(list, zip(*ROWS, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path, row_group_size=7)


WRITERS = {
    "plain.csv": lambda path: path.write_bytes(CSV),
    "semicolons.csv": lambda path: path.write_bytes(CSV.replace(b",", b";")),
    "tabs.tsv": lambda path: path.write_bytes(CSV.replace(b",", b"\t")),
    "bars.txt": lambda path: path.write_bytes(CSV.replace(b",", b"|")),
    "windows.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")),
    "quoted.csv": lambda path: path.write_bytes(
        b'"' + CSV.strip().replace(b",", b'","').replace(b"\n", b'"\n"') + b'"'
    ),
    "utf16.csv": lambda path: path.write_bytes(CSV.decode().encode("utf-16")),
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV)),
    "PACKED.CSV.GZ": lambda path: path.write_bytes(gzip.compress(CSV)),
    "two_members.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV[:99]) + gzip.compress(CSV[99:])),
    "zero_padded.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV) + bytes(512)),
    "utf16.csv.gz": lambda path: path.write_bytes(gzip.compress(CSV.decode().encode("utf-16"))),
    "packed_with_another_name.csv": lambda path: path.write_bytes(gzip.compress(CSV)),
    "packed_without_a_suffix": lambda path: path.write_bytes(gzip.compress(CSV)),
    "packed.csv.bz2": lambda path: path.write_bytes(bz2.compress(CSV)),
    "packed.csv.zst": write_zstd,
    "packed.zip": write_zip,
    "lines.jsonl": write_jsonl,
    "columns.parquet": write_parquet,
    "parquet_with_another_name.csv": write_parquet,
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_file_has_the_same_rows_in_every_format(name, tmp_path):
    WRITERS[name](tmp_path / name)
    assert rows_of(PrepareConfig(events=str(tmp_path / name))) == ROWS


def test_a_file_in_another_encoding_without_a_header_is_read_as_given(tmp_path):
    path = tmp_path / "events.dat"
    path.write_bytes("1709262000000;Jürgen;Übersicht\n".encode("cp1252"))
    config = PrepareConfig(
        events=str(path),
        events_format=FormatConfig(encoding="cp1252", columns=("when", "who", "what")),
        columns=EventColumns(visitor="who", item="what", time="when", kind="'view'"),
    )
    assert rows_of(config) == [(1_709_262_000_000, "Jürgen", "view", "Übersicht")]


def test_the_first_row_after_a_byte_order_mark_is_read_without_a_header(tmp_path):
    (tmp_path / "events.csv").write_bytes(b"\xef\xbb\xbf" + CSV.partition(b"\n")[2])
    config = PrepareConfig(events=str(tmp_path / "events.csv"), events_format=FormatConfig(columns=tuple(COLUMNS)))
    assert rows_of(config) == ROWS


def test_a_directory_partitioned_by_date_has_the_columns_of_its_folders(tmp_path):
    for day, item in (("2024-03-01", "a"), ("2024-03-02", "b")):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(pa.table({"visitorid": ["v"], "itemid": [item]}), tmp_path / f"day={day}" / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    config = PrepareConfig(events=str(tmp_path), columns=EventColumns(time="day", kind="'view'"))
    assert [(time, item) for time, _, _, item in rows_of(config)] == [
        (1_709_251_200_000, "a"),
        (1_709_337_600_000, "b"),
    ]


def test_the_unit_of_times_is_found_from_the_first_times_that_are_not_missing(tmp_path):
    schema = pa.schema([("timestamp", pa.int64()), ("visitorid", pa.string()), ("itemid", pa.string())])
    with pq.ParquetWriter(tmp_path / "0.parquet", schema) as empty:
        empty.write_table(schema.empty_table())
    rows = {"timestamp": [None] * 3 + [1_709_262_000] * 3, "visitorid": ["v"] * 6, "itemid": ["i"] * 6}
    pq.write_table(pa.table(rows, schema), tmp_path / "1.parquet", row_group_size=3)
    config = PrepareConfig(events=str(tmp_path / "*.parquet"), columns=EventColumns(kind="'view'"))
    assert [time for time, *_ in rows_of(config)] == [1_709_262_000_000] * 3


def test_columns_with_dots_are_read_from_every_format(tmp_path):
    columns = EventColumns(visitor="Customer.ID", item="i", time="t", kind="'view'")
    (tmp_path / "a.csv").write_text(f"t,Customer.ID,i\n{ROWS[0][0]},a,x\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"t": ROWS[0][0], "Customer.ID": "b", "i": "x"}) + "\n")
    pq.write_table(pa.table({"t": [ROWS[0][0]], "Customer.ID": ["c"], "i": ["x"]}), tmp_path / "c.parquet")
    assert [visitor for _, visitor, *_ in rows_of(PrepareConfig(events=str(tmp_path / "*"), columns=columns))] == [
        *"abc"
    ]


def test_empty_files_among_others_are_skipped_with_a_warning(tmp_path, caplog):
    for name, content in {"a.csv": b"", "b.csv": CSV, "c.csv": b""}.items():
        (tmp_path / name).write_bytes(content)
    assert rows_of(PrepareConfig(events=str(tmp_path / "*.csv"))) == ROWS
    assert f"skipped empty files of {tmp_path}/*.csv: 2, such as {tmp_path}/a.csv" in caplog.text
    assert inspect(str(tmp_path / "*.csv")).layout.columns == tuple(COLUMNS)


def test_a_wildcard_does_not_match_hidden_files(tmp_path):
    (tmp_path / "events.csv").write_bytes(CSV)
    (tmp_path / "_SUCCESS").touch()
    assert rows_of(PrepareConfig(events=str(tmp_path / "*"))) == ROWS
    (tmp_path / "events.csv").rename(tmp_path / "_events.csv")
    assert rows_of(PrepareConfig(events=str(tmp_path / "_*.csv"))) == ROWS


def test_a_partition_without_a_value_is_null_and_a_stored_column_wins(tmp_path):
    for folder, stored in (("user=__HIVE_DEFAULT_PARTITION__", {}), ("user=a", {"user": ["A"]}), ("user=b%20c", {})):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"t": [ROWS[0][0]], "i": ["x"], **stored}), tmp_path / folder / "0.parquet")
    columns = EventColumns(visitor="user", item="i", time="t", kind="'view'")
    table, parsed = read_events(PrepareConfig(events=str(tmp_path), columns=columns))
    assert table["visitor"].to_pylist() == ["A", "b c"]
    assert [reason for events in parsed for reason in events.rejects.reasons] == ["empty id"]


def test_a_reject_of_parquet_has_its_row_and_values(tmp_path):
    table = pa.table({"timestamp": [1_709_262_000_000] * 3, "visitorid": ["v", "v", None], "itemid": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "events.parquet", row_group_size=2)
    _, parsed = read_events(PrepareConfig(events=str(tmp_path / "events.parquet"), columns=EventColumns(kind="'view'")))
    assert [events.rejects.positions for events in parsed] == [[], [2]]
    assert json.loads(parsed[1].rejects.texts[0])["itemid"] == "c"


def test_dropped_rows_are_counted_by_condition(tmp_path):
    path = tmp_path / "events.csv"
    lines = ["u,i,what,q", "a,1,View,2", "a,2,search,1", ",3,View,1", "b,4,Buy,-1", "b,5,Buy,1"]
    path.write_text("t," + "\n1709262000000,".join(lines) + "\n")
    config = PrepareConfig(
        events=str(path),
        columns=EventColumns(visitor="u", item="i", time="t", kind="what"),
        where=("u is not null", "q > 0"),
        kinds=KindConfig(words=("View=view", "Buy=transaction"), dropped=("search",)),
    )
    table, (events,) = read_events(config)
    assert table["item"].to_pylist() == ["1", "5"]
    assert events.filtered == Counter({"not met: u is not null": 1, "not met: q > 0": 1, "kind search": 1})


WRONG = [
    (b"", "is empty"),
    (b"\n\n", "is empty"),
    (b"[{}]", "is a JSON array; convert it to JSON Lines"),
    (b'{"a": 1', "is not valid JSON Lines"),
    (b"1709262000000,v,view,i\n", r"first line looks like data, not like a header.*events_format.columns"),
    (b"time,visitorid,event,itemid\n", r"has no column timestamp: it has time, .*--map, such as time=time, .*inspect"),
    (b"a;b\n1;2\n", r"\(CSV separated by semicolons\) has no columns visitorid, itemid, timestamp, event: it has a, b"),
    (b"rank,user_id,when\n", r"has no columns visitorid, .* such as visitor=user_id, .*No column is named like a time"),
    (b"rank,sku\n", r"has no columns visitorid, .*--map, such as item=sku, or"),
    (b"a,b\n", r"has no columns visitorid, .*--map, such as visitor=COLUMN, or"),
    (
        b"timestamp,visitorid,event,itemid,itemid\n",
        "repeats the column name itemid; rename or remove the repeated columns",
    ),
    (b"a,b\rc,d\r", "carriage returns alone"),
    (
        CSV.decode().encode("utf-16-le"),
        "is not text: it contains NUL bytes.*set its encoding to utf-16-le",
    ),
    (
        CSV.decode().encode("utf-16-be"),
        "is not text: it contains NUL bytes.*set its encoding to utf-16-be",
    ),
    (
        gzip.compress(CSV.decode().encode("utf-16-be"), mtime=0),
        "is not text: .*set its encoding to utf-16-be .events_format.encoding, ",
    ),
    (b"PAR1 and nothing else", "is not a valid Parquet file"),
    (b"PK\x03\x04broken", "is not a valid ZIP archive"),
    (gzip.compress(CSV, mtime=0)[:40], "is damaged after byte 0"),  # the same bytes, and so test id, in every worker
    (b"\xff\xfet\xd8", "is not valid utf-16"),
    (b"timestamp,visitorid,event,itemid\nsoon,v,view,i\n", "`timestamp` has values such as 'soon'.*set time.format"),
]


@pytest.mark.parametrize(("content", "message"), WRONG)
def test_a_file_that_cannot_be_read_is_an_error_that_says_what_to_do(content, message, tmp_path):
    path = tmp_path / "events.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        read_events(PrepareConfig(events=str(path)))
    assert str(path) in str(error.value) or "`timestamp`" in str(error.value)


@pytest.mark.parametrize(("separator", "sign"), [(";", '";"'), ("\t", r'"\\t"'), ("|", r'"\|"'), (",", '","')])
def test_a_wrong_separator_is_an_error_that_names_the_right_one(separator, sign, tmp_path):
    (tmp_path / "events.csv").write_text(HEADER.replace(",", separator) + "\n")
    files = FormatConfig(separator=";" if separator == "," else ",")
    with pytest.raises(ValueError, match=rf"which contains \w+; set events_format\.separator to {sign}, or remove"):
        read_events(PrepareConfig(events=str(tmp_path / "events.csv"), events_format=files))


def test_unknown_kinds_are_an_error_with_their_counts_before_all_rows_are_read(tmp_path):
    rows = ["Ansicht"] * 3 + ["Kauf"] * 2 + ["view"] + ["Suche"]
    lines = [f"1709262000000,v,{kind},i\n" for kind in rows]
    (tmp_path / "events.csv").write_text(f"{HEADER}\n{''.join(lines)}")
    config = PrepareConfig(events=str(tmp_path / "events.csv"), kinds=KindConfig(dropped=("Suche",)))
    with pytest.raises(
        ValueError,
        match=r"`event` has event kinds .*: Ansicht \(3\), Kauf \(2\); add them to kinds.names, map",
    ):
        read_events(config)
    mapped = KindConfig(words=("Ansicht=view", "Kauf=transaction"), dropped=("Suche",))
    table, _ = read_events(replace(config, kinds=mapped))
    assert table["event"].to_pylist() == [0, 0, 0, 2, 2, 0]


def test_an_archive_of_several_files_is_refused_with_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
        archive.writestr("b.csv", CSV)
    with pytest.raises(ValueError, match=r"must contain one file, got 2 \(a.csv, b.csv\); extract them"):
        read_events(PrepareConfig(events=str(tmp_path / "all.zip")))


def test_names_for_another_number_of_columns_are_refused(tmp_path):
    (tmp_path / "events.csv").write_bytes(CSV)
    config = PrepareConfig(events=str(tmp_path / "events.csv"), events_format=FormatConfig(columns=("a", "b")))
    with pytest.raises(ValueError, match=r"has 4 columns, but events_format.columns names 2: a, b"):
        read_events(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FormatConfig(separator="::"), "separator must be one ASCII character, got '::'"),
        (
            lambda: FormatConfig(encoding="klingon"),
            "encoding must be the name of an encoding, .* got 'klingon'",
        ),
        (lambda: FormatConfig(encoding="utf\0"), "encoding must be the name of an encoding"),
        (lambda: KindConfig(words=("Kauf",)), "must be WORD=KIND"),
        (
            lambda: KindConfig(words=("Kauf=sale",)),
            "with one of the kinds view, addtocart, transaction, got 'Kauf=sale'",
        ),
    ],
)
def test_an_invalid_setting_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_file_with_brackets_or_a_tilde_in_its_path_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("x [1].csv", "x 1.csv"):
        (tmp_path / name).write_bytes(CSV)
    assert find_input_files(f"{tmp_path}/x [1].csv") == [f"{tmp_path}/x [1].csv"]
    (tmp_path / "x [1].csv").unlink()
    assert find_input_files(f"{tmp_path}/x [1].csv") == [f"{tmp_path}/x 1.csv"], "a pattern, without such a file"
    assert find_input_files("~/x*.csv") == [f"{tmp_path}/x 1.csv"]


@pytest.mark.parametrize(
    ("advice", "content", "message"),
    [
        (FIXED_ADVICE, "a,b\n1,2\n", r"has no column itemid: it has a, b\. Rename the columns, or check the path$"),
        (FIXED_ADVICE, "1,2\n", r"looks like data, not like a header: 1, 2; add a header line$"),
        (
            ITEM_TABLE_ADVICE,
            "a,b\n1,2\n",
            r"it has a, b\. Name the right column in item_table\.id, item_table\.title, …$",
        ),
        (ITEM_TABLE_ADVICE, "1,2\n", r"; name the columns in item_table\.format\.columns$"),
        (ITEM_FACTS_ADVICE, "a,sku\n1,2\n", r"it has a, sku\. Name the right column, such as --map id=sku$"),
    ],
    ids=["fixed", "fixed-data", "table", "table-data", "facts"],
)
def test_the_advice_about_a_missing_column_fits_the_input(tmp_path, advice, content, message):
    (tmp_path / "file.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_files(str(tmp_path / "file.csv"), FormatConfig(), ["itemid"], advice=advice)


def test_the_setting_that_names_too_few_columns_is_that_of_the_input(tmp_path):
    (tmp_path / "file.csv").write_text("1,2\n")
    with pytest.raises(ValueError, match=r"has 2 columns, but item_table\.format\.columns names 1: itemid; list every"):
        open_files(str(tmp_path / "file.csv"), FormatConfig(columns=("itemid",)), ["itemid"], advice=ITEM_TABLE_ADVICE)
