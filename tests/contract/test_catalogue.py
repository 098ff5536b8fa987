import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import ContractError
from contract.catalogue import CATALOGUE_SCHEMA, read_catalogue, total_events


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (CATALOGUE_SCHEMA.remove(0).remove(0), "lacks the catalogue columns item_id, item_index;"),
        (CATALOGUE_SCHEMA.set(6, pa.field("price", pa.float64())), "has wrong types in the catalogue columns price;"),
        (CATALOGUE_SCHEMA.append(pa.field("brand", pa.string())), "has the columns item_id, .*, brand, but a cat"),
    ],
)
def test_a_shard_with_other_columns_is_rejected_and_they_are_named(tmp_path, schema, message) -> None:
    pq.write_table(schema.empty_table(), tmp_path / "items.parquet")
    with pytest.raises(ContractError, match=message):
        read_catalogue([str(tmp_path / "items.parquet")])


def test_the_events_of_all_kinds_are_summed_by_item() -> None:
    rows = pa.table({"event_counts": pa.chunked_array([[[1, 2], [0, 0]], [[3, 4]]], pa.list_(pa.int64()))})
    assert total_events(rows).tolist() == [3, 0, 7]
    assert total_events(rows.slice(1)).tolist() == [0, 7]
    assert total_events(rows.slice(0, 0)).tolist() == []
