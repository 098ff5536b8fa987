"""Runs all of `prepare` on a shop of ten days (see shop.py), for a few seconds each."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from common import storage
from common.errors import ContractError
from common.storage.paths import join
from contract.catalogue import read_catalogue
from contract.layout import DatasetLayout
from contract.manifest import Manifest, dataset_checksum, read_manifest, verify_files
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_identified_timelines, read_timelines
from preprocessing.beam.job import parse_beam_options
from preprocessing.config import PrepareConfig, SplitConfig, VocabularyConfig
from preprocessing.pipeline import prepare
from preprocessing.transform import load_transform
from preprocessing.vocabularies import assign_indices
from tests.planted import VARIABLES, files_with_the_secret
from tests.preprocessing.shop import DAY_MS, START_MS, event, plain_events, small_shop, write_events
from tests.warm_python import start_python

pytestmark = pytest.mark.integration


def config_of(shop: dict[str, str], **settings) -> PrepareConfig:
    """Returns a config with many partitions, some of them empty, and three out-of-vocabulary buckets for items."""
    items = VocabularyConfig(min_count=0, oov_buckets=3)
    return PrepareConfig(**shop, **{"partition_bytes": 100, "block_rows": 4, "items": items, **settings})


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> dict[str, str]:
    return small_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def dataset(shop, tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("prepared") / "dataset")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        # users name this runner; Beam's own would try to download another one
        prepare(config_of(shop), root, parse_beam_options(["--runner=DirectRunner"]))
    return root


@pytest.fixture(scope="module")
def manifest(dataset) -> Manifest:
    return read_manifest(dataset)


def vocabulary(dataset: str, name: Vocabulary) -> list[str]:
    return Path(DatasetLayout(dataset).vocabulary(name)).read_text().split("\n")[:-1]


def test_the_manifest_lists_every_file_with_its_checksum(dataset, manifest):
    verify_files(manifest, dataset)
    listed = {*manifest.files, "manifest.json"}
    assert listed == set(storage.list_files(dataset)), "no intermediate files are left, and none is missing"


def test_no_credential_of_the_environment_is_in_the_dataset(dataset):
    assert files_with_the_secret(dataset) == []


def test_the_cuts_divide_the_days_into_eight_one_and_one(manifest):
    # 3 visitors on days 0 … 7, 4 on days 8 and 9: 32 events; 0.8 of 32 = 25.6 and 0.9 of 32 = 28.8
    # 24 events are before day 8, 25 before its second event, 26 before its third (day 8.2); 29 before day 9.1
    assert manifest.validation_from_ms == START_MS + round(8.2 * DAY_MS)
    assert manifest.test_from_ms == START_MS + round(9.1 * DAY_MS)
    rows = {split: info.target_rows for split, info in manifest.splits.items()}
    assert rows == {Split.TRAIN: 26, Split.VALIDATION: 3, Split.TEST: 3}


def test_every_event_is_a_target_once_and_the_files_of_a_split_are_self_contained(dataset, manifest):
    visitors, items = (vocabulary(dataset, name) for name in (Vocabulary.VISITORS, Vocabulary.ITEMS))
    targets = []
    for split, info in manifest.splits.items():
        rows = read_timelines([Shard(join(dataset, name), manifest.files[name]) for name in info.files])
        assert len(info.files) == 10  # the events have 991 bytes
        assert (len(rows), rows.is_target.sum()) == (info.rows, info.target_rows)
        starts = np.flatnonzero(rows.position == 0)
        assert len(starts) == info.visitors
        if split == Split.TRAIN:
            assert rows.is_target.all()
        else:
            # each timeline has its earlier rows as context: eight or more days for a, b and c
            lengths = np.diff(np.append(starts, len(rows)))
            assert (lengths[rows.visitor[starts] < len(visitors)] >= 9).all()
        targets += rows.timestamp_ms[rows.is_target == 1].tolist()
    assert len(targets) == len(set(targets)) == 32
    assert set(visitors) == {"a", "b", "c"}, "d comes after the training cut"
    shards = [Shard(join(dataset, name), "") for info in manifest.splits.values() for name in info.files]
    assert {visitor for shard in shards for visitor in read_identified_timelines(shard)[1]} == {"d"}
    assert "late-1" not in items


def test_blocks_contain_whole_timelines(dataset, manifest):
    for name in manifest.splits[Split.TRAIN].files:
        for block in tf.data.TFRecordDataset(join(dataset, name)):
            example = tf.train.Example.FromString(block.numpy())
            positions = list(example.features.feature["position"].int64_list.value)
            assert positions[0] == 0


def test_items_after_the_cut_share_the_out_of_vocabulary_buckets(dataset, manifest):
    info = manifest.vocabularies[Vocabulary.ITEMS]
    rows = read_timelines(
        [Shard(join(dataset, name), manifest.files[name]) for name in manifest.splits[Split.VALIDATION].files]
    )
    unknown = rows.item[rows.item >= info.size]
    assert len(unknown) == 1, "d's view of late-1"
    assert unknown[0] < info.num_indices == info.size + 3


def test_the_catalogue_has_the_properties_known_before_the_cut(dataset, manifest):
    rows = read_catalogue([join(dataset, name) for name in manifest.catalogue_files]).to_pylist()
    by_id = {row["item_id"]: row for row in rows}
    items, categories = (vocabulary(dataset, name) for name in (Vocabulary.ITEMS, Vocabulary.CATEGORIES))
    assert [row["item_id"] for row in rows] == items
    assert [row["item_index"] for row in rows] == [*range(len(items))]
    first = by_id["item-0"]
    assert first["is_available"] is False, "0 on day 4; day 9 is after the cut"
    assert [categories[index] for index in first["category_path"]] == ["10", "20", "30"]
    assert by_id["item-2"]["category_path"] == []
    assert (first["title"], by_id["item-1"]["title"]) == ("Sneakers, blue canvas", None)
    # on day d visitor p views item (d + p) mod 5; in training (before day 8.2), item-0 is viewed by a on days 0 and 5,
    # by b on day 4 and by c on day 3; on day 8, a views item-3 and b item-4
    assert first["event_counts"] == [4, 0, 0]
    # two prices, separated by the quantile between them; log1p(1000) and log1p(3000), standardized, are -1 and 1
    assert (first["price_bucket"], by_id["item-1"]["price_bucket"], by_id["item-2"]["price_bucket"]) > (0, 0, -1)
    assert by_id["item-2"]["price_bucket"] == 0
    np.testing.assert_allclose([first["price_scaled"], by_id["item-1"]["price_scaled"]], [-1, 1], rtol=1e-3)


def test_the_indices_equal_those_of_the_transform_graph(dataset, manifest):
    graph = load_transform(DatasetLayout(dataset).transform)
    for name, raw, output in [
        (Vocabulary.ITEMS, "item_id", "item"),
        (Vocabulary.VISITORS, "visitor_id", "visitor"),
        (Vocabulary.CATEGORIES, "category_path", "category_path"),
    ]:
        known = vocabulary(dataset, name)
        ids = [*known, "late-1", "never-seen", "d", "Ж", *(f"new-{n}" for n in range(20))]
        ours = assign_indices(pa.array(ids), pa.array(known), manifest.vocabularies[name].oov_buckets)
        texts = {
            feature: tf.sparse.from_dense(tf.zeros([len(ids), 0], tf.string))
            for feature in ("visitor_id", "item_id", "event", "category_path", "property_values")
        }
        numbers = {
            feature: tf.sparse.from_dense(tf.zeros([len(ids), 0], tf.float32)) for feature in ("price", "gap_seconds")
        }
        inputs = {**texts, **numbers, raw: tf.sparse.from_dense(tf.constant(ids)[:, None])}
        theirs = graph.transform_fn(inputs)[output]
        assert ours.tolist() == theirs.values.numpy().tolist(), name


def test_the_statistics_count_the_input(dataset):
    statistics = json.loads(Path(DatasetLayout(dataset).statistics).read_text())
    events = statistics["events"]
    assert (events["rows"], events["events"], events["visitors"]) == (32, 32, 4)
    assert events["by_kind"] == {"view": 32, "addtocart": 0, "transaction": 0}
    assert events["by_split"]["validation"]["new_visitors"] == 1, "d"
    assert events["events_per_visitor"]["histogram"] == {"2": 1, "10": 3}
    assert statistics["items"]["items"] == 6
    assert statistics["item_properties"]["rows"] == 10
    assert statistics["catalogue"]["outside_vocabulary"] == 0
    assert statistics["catalogue"]["without_training_events"] == 1
    # item-0 has category 30 and four training views (see the catalogue); item-1 has category 20 and five: on days 1 and
    # 6 by a, 0 and 5 by b, 4 by c; the view of c on day 9 is after the cut
    categories = {entry["category_id"]: entry for entry in statistics["catalogue"]["events_by_category"]}
    assert categories["30"] == {"category_id": "30", "path": ["10", "20", "30"], "events": 4}
    assert categories["20"]["events"] == 5
    tree = statistics["category_tree"]
    assert (tree["rows"], tree["categories"], tree["roots"], tree["levels"]) == (3, 3, 1, 3)


@pytest.fixture
def far_away() -> Iterator[None]:
    """Sets the time zone of this process to one whose days and hours differ from those of UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Pacific/Chatham")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_the_same_input_gives_the_same_bytes_from_any_number_of_threads_in_any_time_zone(dataset, shop, tmp_path):
    again = str(tmp_path / "again")
    prepare(
        config_of(shop), again, parse_beam_options(["--direct_num_workers=2", "--direct_running_mode=multi_threading"])
    )
    names = [name for name in storage.list_files(dataset) if not name.startswith("transform/")]
    assert len(names) > 30
    assert dataset_checksum(dataset) == dataset_checksum(again)
    # the manifest has the checksums of transform/, which TensorFlow does not write deterministically
    for name in set(names) - {"manifest.json"}:
        assert storage.sha256(join(dataset, name)) == storage.sha256(join(again, name)), name


def test_items_beyond_the_vocabularys_limits_stay_in_the_catalogue(tmp_path):
    # four items, ten views each; a limit of two keeps the first two by id
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *plain_events(50)), items=VocabularyConfig(max_size=2)
    )
    root = str(tmp_path / "dataset")
    prepare(config, root)
    manifest = read_manifest(root)
    rows = read_catalogue([join(root, name) for name in manifest.catalogue_files]).to_pylist()
    assert [(row["item_id"], row["item_index"], sum(row["event_counts"])) for row in rows] == [
        ("i0", 0, 10),
        ("i1", 1, 10),
        ("i2", -1, 10),
        ("i3", -1, 10),
    ]
    # 40 of the 50 events are in training; those of i2 and i3 share the bucket after the vocabulary
    train = [Shard(join(root, name), manifest.files[name]) for name in manifest.splits[Split.TRAIN].files]
    assert np.bincount(read_timelines(train).item).tolist() == [10, 10, 20]


def test_an_item_known_from_properties_only_is_last_in_the_vocabulary(dataset, manifest):
    rows = read_catalogue([join(dataset, name) for name in manifest.catalogue_files]).to_pylist()
    items = vocabulary(dataset, Vocabulary.ITEMS)
    assert items[-1] == "never-seen"
    assert (rows[-1]["item_id"], rows[-1]["event_counts"], rows[-1]["first_seen_ms"]) == ("never-seen", [0, 0, 0], None)
    assert all(row["event_counts"][0] > 0 for row in rows[:-1])
    assert len(rows[-1]["category_path"]) == 2  # below 10, node 20


def test_items_without_events_can_be_excluded_from_the_vocabulary(shop, tmp_path):
    root = str(tmp_path / "dataset")
    prepare(config_of(shop, items=VocabularyConfig(min_count=1)), root)
    rows = read_catalogue([join(root, name) for name in read_manifest(root).catalogue_files]).to_pylist()
    assert (rows[-1]["item_id"], rows[-1]["item_index"]) == ("never-seen", -1)
    assert "never-seen" not in vocabulary(root, Vocabulary.ITEMS)


def test_events_after_the_cut_change_nothing_before_it(tmp_path):
    cuts = SplitConfig(validation_from_ms=START_MS + 40 * DAY_MS, test_from_ms=START_MS + 45 * DAY_MS)
    later = [event(42 + n / 1000, "v1", "i9").removesuffix(",") for n in range(300)]  # v1 becomes a robot
    for name, lines in (("before", []), ("after", later)):
        events = write_events(tmp_path / f"{name}.csv", *plain_events(50), *lines)
        prepare(PrepareConfig(events=events, split=cuts), str(tmp_path / name))
    names = [name for name in storage.list_files(str(tmp_path / "before")) if "train" in name or "items" in name]
    names += ["vocabulary/visitors.txt"]
    assert len(names) > 4
    for name in names:
        if not name.startswith("transform/"):
            assert storage.sha256(str(tmp_path / "before" / name)) == storage.sha256(str(tmp_path / "after" / name)), (
                name
            )
    counts = json.loads((tmp_path / "after" / "statistics.json").read_text())["events"]
    # v1 has events on days 1, 4, 7 … 49; those from day 40 on are excluded: 40, 43, 46 and 49
    assert (counts["robot_visitors"], counts["robot_events"]) == (1, 304)


def test_an_existing_output_is_left_unchanged(tmp_path):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="already exists and is not empty"):
        prepare(PrepareConfig(events=write_events(tmp_path / "e.csv", *plain_events(9))), str(tmp_path / "dataset"))
    assert (tmp_path / "dataset" / "mine.txt").read_text() == "keep"


KILL_AT_PUBLICATION = """
import os, signal, sys
from common import storage
from preprocessing.config import PrepareConfig
from preprocessing.beam.job import parse_beam_options
from preprocessing.pipeline import prepare
rename = os.rename
def killed(source, destination):
    if destination.endswith("dataset"):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, destination)
os.rename = killed
prepare(PrepareConfig(events=sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_a_run_killed_while_publishing_leaves_no_dataset(tmp_path):
    path, output = write_events(tmp_path / "events.csv", *plain_events(30)), str(tmp_path / "dataset")
    run = start_python(["-c", KILL_AT_PUBLICATION, path, output], package="preprocessing")
    assert run.wait(timeout=600) == -signal.SIGKILL
    assert not os.path.exists(output)
    with pytest.raises(ContractError, match="not a prepared dataset"):
        read_manifest(output)
    # files of the killed run do not disturb the next one
    prepare(PrepareConfig(events=path), output)
    verify_files(read_manifest(output), output)
