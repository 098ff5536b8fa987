"""The shuffle of rows from chunks to partitions."""

import os

import pyarrow as pa

from preprocessing.beam.shuffle import receive_rows, send_rows


def test_every_row_reaches_the_partition_of_its_id_in_the_order_of_the_input(tmp_path):
    chunks = {  # by (file, byte), unordered
        (1, 0): [("a", 5), ("b", 6)],
        (0, 90): [("a", 3), ("c", 4), ("a", 5)],
        (0, 100): [("a", 9)],
        (0, 0): [("a", 1), ("b", 2)],
        (2, 0): [],
    }
    pieces: dict[int, list] = {}
    for position, rows in chunks.items():
        table = pa.table({"id": [name for name, _ in rows], "value": [value for _, value in rows]})
        for partition, piece in send_rows(table, "id", 3, position, f"{tmp_path}/sent/{position[0]}-{position[1]}"):
            pieces.setdefault(partition, []).append(piece)
    assert sorted(os.listdir(tmp_path / "sent")) == ["0-0", "0-100", "0-90", "1-0"], "a file per chunk that has rows"
    received = [receive_rows(parts).to_pylist() for parts in pieces.values()]
    values = [[row["value"] for row in rows if row["id"] == name] for name in "abc" for rows in received]
    assert [part for part in values if part] == [[1, 3, 5, 9, 5], [2, 6], [4]], "an id is in one partition only"
