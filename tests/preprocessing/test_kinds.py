"""Tests the settings of event kinds, logs with one kind, and a dataset with the shop's own kinds."""

import json
from pathlib import Path

import pytest
import tensorflow as tf

from contract.catalogue import read_catalogue
from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from preprocessing.config import EventColumns, PrepareConfig
from preprocessing.events import resolve_kinds
from preprocessing.kinds import KindConfig
from preprocessing.pages.report import write_report
from preprocessing.pipeline import prepare
from preprocessing.transform import load_transform
from tests.preprocessing.shop import event, write_events


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ()}, "must have 1 to 32 names, got 0"),
        ({"names": tuple(f"k{n}" for n in range(33))}, "must have 1 to 32 names, got 33"),
        (
            {"names": ("view", "")},
            "must not be blank .*, got ''; choose another name, and map the log's word to it in kinds.words",
        ),
        ({"names": (" ",)}, "must not be blank .*, got ' '"),
        ({"names": ("a=b",)}, "contain `=` or control characters, got 'a=b'"),
        ({"names": ("a\nb",)}, r"got 'a\\nb'"),
        ({"names": ("a", "b", "a")}, "must be distinct, got 'a' twice"),
        ({"names": ("a", "b"), "weights": (1.0,)}, "one weight for each of a, b, got 1"),
        ({"names": ("a", "b"), "weights": (1.0, -1.0)}, "at least 0, and not all 0, got 1, -1"),
        ({"names": ("a", "b"), "weights": (0.0, 0.0)}, "not all 0, got 0, 0"),
        ({"names": ("a", "b"), "weights": (1.0, float("nan"))}, "must be finite"),
        ({"names": ("a", "b"), "weights": (1.0, float("inf"))}, "must be finite"),
        ({"names": ("a", "b"), "words": ("x=view",)}, "with one of the kinds a, b, got 'x=view'"),
    ],
)
def test_invalid_kinds_are_an_error_that_says_what_was_found(settings, message):
    with pytest.raises(ValueError, match=message):
        KindConfig(**settings)


def test_kinds_may_have_any_other_text_and_a_weight_of_zero():
    kinds = KindConfig(names=("Zum Warenkorb, bitte", "❤"), weights=(0.0, 2.0), words=("a=b=❤",))
    assert resolve_kinds(kinds, "event") is kinds


def test_a_log_with_a_constant_kind_has_that_kind_alone():
    assert resolve_kinds(KindConfig(), "'transaction'").names == ("transaction",)
    assert resolve_kinds(KindConfig(), "'Kauf'").names == ("Kauf",)
    mapped = resolve_kinds(KindConfig(words=("Kauf=transaction", "Blick=view"), weights=(1.0, 2.0, 3.0)), "'Kauf'")
    assert mapped == KindConfig(names=("transaction",), words=("Kauf=transaction",), weights=(3.0,))


def test_a_constant_kind_may_be_one_of_several_that_the_settings_name():
    kinds = KindConfig(names=("look", "buy"), words=("Kauf=buy",))
    assert resolve_kinds(kinds, "'Kauf'") == resolve_kinds(kinds, "'buy'") == kinds
    with pytest.raises(ValueError, match=r"columns.kind is 'sale', which is not among the kinds look, buy; add it to"):
        resolve_kinds(kinds, "'sale'")


OWN = ("look", "like", "cart", "<b>buy</b>")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    """A dataset of ten days, with one event per day of each of two visitors.

    The kinds (look, like, cart, Kauf) and the items (i0, i1, i2) rotate from event to event.
    """
    folder = tmp_path_factory.mktemp("own")
    words = ("look", "like", "cart", "Kauf")
    lines = [event(n / 2, f"v{n % 2}", f"i{n % 3}", words[n % 4]).removesuffix(",") for n in range(20)]
    kinds = KindConfig(names=OWN, weights=(0.5, 1.0, 2.0, 4.0), words=("Kauf=<b>buy</b>",))
    prepare(PrepareConfig(events=write_events(folder / "events.csv", *lines), kinds=kinds), str(folder / "dataset"))
    return str(folder / "dataset")


@pytest.mark.integration
def test_a_dataset_has_the_shops_own_kinds(dataset):
    manifest, statistics = read_manifest(dataset), json.loads(Path(DatasetLayout(dataset).statistics).read_text())
    assert (manifest.event_kinds, manifest.event_weights) == (OWN, (0.5, 1.0, 2.0, 4.0))
    assert statistics["events"]["by_kind"] == {"look": 5, "like": 5, "cart": 5, "<b>buy</b>": 5}
    # events 0 to 15 train; item i0 has the events 0, 3, 6, 9, 12, 15: look, buy, cart, like, look, buy
    rows = read_catalogue([f"{dataset}/{name}" for name in manifest.catalogue_files]).to_pylist()
    assert {row["item_id"]: row["event_counts"] for row in rows}["i0"] == [2, 1, 1, 2]


@pytest.mark.integration
def test_the_transform_graph_maps_the_shops_own_kinds(dataset):
    graph = load_transform(DatasetLayout(dataset).transform)
    events = [*OWN, "view"]
    none = tf.sparse.from_dense(tf.zeros([len(events), 0], tf.string))
    numbers = tf.sparse.from_dense(tf.zeros([len(events), 0], tf.float32))
    inputs = dict.fromkeys(("visitor_id", "item_id", "category_path", "property_values"), none)
    inputs |= dict.fromkeys(("price", "gap_seconds"), numbers)
    found = graph.transform_fn({**inputs, "event": tf.sparse.from_dense(tf.constant(events)[:, None])})["event"]
    assert found.values.numpy().tolist() == [0, 1, 2, 3, -1]


@pytest.mark.integration
def test_the_report_shows_the_shops_own_kinds_as_text(dataset):
    html = Path(write_report(dataset)).read_text()
    for title in (
        "Events by kind, without look",
        "Top items by like",
        "From look to &lt;b&gt;buy&lt;/b&gt;, visitor-item",
    ):
        assert title in html
    assert "<b>buy" not in html
    assert "addtocart" not in html


@pytest.mark.integration
def test_the_report_of_one_kind_has_no_funnel_and_shows_its_items_once(tmp_path):
    lines = [event(n / 2, f"v{n % 2}", f"i{n % 3}", "").removesuffix(",") for n in range(20)]
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *lines), columns=EventColumns(kind="'purchase'")
    )
    root = str(tmp_path / "dataset")
    prepare(config, root)
    assert read_manifest(root).event_kinds == ("purchase",)
    html = Path(write_report(root)).read_text()
    assert "Top visitors by purchase" in html
    assert "Top 5 items, all events" in html
    assert "Top items by purchase" not in html
    for title in ("Visitors by event kind", "From purchase", "Shares of event kinds", "without purchase"):
        assert title not in html
