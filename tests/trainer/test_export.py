import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from common import storage
from contract.layout import DatasetLayout
from contract.schema import DEFAULT_KINDS, Split
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.optimized_graphs import large_sums
from tests.trainer.ranking.fakes import DotModel, queries_of
from tests.trainer.tiny_runs import checkerboard_dataset, make_config
from tests.trainer.tiny_runs import run as run_training
from trainer.config.models import MatrixFactorizationConfig, NeuralConfig, SessionKnnConfig, TowersConfig, WalkConfig
from trainer.config.presets import PRESETS
from trainer.data.trend import Trends
from trainer.evaluation.cases import build_cases, next_items
from trainer.evaluation.evaluator import evaluate_scorers
from trainer.export import describe_run, export, export_model
from trainer.models.blend import BlendInference, Part
from trainer.models.interface import Queries
from trainer.models.item_neighbours import NeighbourInference
from trainer.models.matrix_factorization import MatrixFactorizationInference, item_width
from trainer.models.neural import NeuralInference
from trainer.models.session_knn import SessionKnnInference
from trainer.models.towers import TowersInference, make_dense_variables
from trainer.models.trained_run import TrainedRun, open_trained_run
from trainer.ranking.topk import query_chunks, query_signature
from trainer.runs.blend_record import RANKINGS, BlendWeights
from trainer.runs.checkpoint import Weights
from trainer.runs.layout import RunLayout
from trainer.runs.record import RunRecord
from trainer.serving.layout import read_info

ITEMS = [*(f"item-{index}" for index in range(7)), "item\0-7"]

# imports of this project's packages and of Keras fail: the SavedModel must need only TensorFlow
CLIENT = """
import json, sys
for name in ("contract", "preprocessing", "trainer", "keras", "tf_keras"):
    sys.modules[name] = None
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
recommend = signatures["serving_default"](
    visitor_id=tf.constant(["anna", "bob", "zoe"]), history=tf.constant([["item-1"], [""], [""]]),
    k=tf.constant([8] * 3), exclude_seen=tf.constant([True] * 3))
score = signatures["score"](visitor_id=tf.constant(["anna", "bob"]), item_id=tf.constant(["item-1", "item-2"]))
similar = signatures["similar_items"](item_id=tf.constant(["item-3"]), k=tf.constant([1]))
print(json.dumps({
    "signatures": sorted(signatures),
    "item_id": [[name.decode() for name in row] for row in recommend["item_id"].numpy()],
    "score": recommend["score"].numpy().view("int32").tolist(),
    "pairs": score["score"].numpy().view("int32").tolist(),
    "similar": similar["item_id"].numpy()[0, 0].decode(),
}))
"""


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "item-0"), ("bob", "item-1")],
        visitors=["anna", "bob"],
        items=ITEMS,
    )


@pytest.fixture
def model():
    generator = np.random.default_rng(0)
    return DotModel(generator.normal(size=(2, 16)), generator.normal(size=(8, 16)), np.arange(8, 0, -1) / 7)


def bits(tensor):
    """Returns the bits of float32 numbers as integers, for exact comparisons."""
    return tf.bitcast(tensor, tf.int32).numpy()


@pytest.mark.integration
def test_a_moved_export_needs_only_tensorflow_and_equals_the_model_bit_for_bit(dataset, model, tmp_path):
    export_model(model, dataset, str(tmp_path / "export"), name="dot")
    moved = tmp_path / "elsewhere" / "renamed"
    moved.parent.mkdir()
    os.rename(tmp_path / "export", moved)
    os.rename(dataset.root, tmp_path / "gone")
    client = [sys.executable, "-I", "-c", CLIENT, str(moved)]
    answer = json.loads(
        subprocess.run(client, stdout=subprocess.PIPE, text=True, check=True, cwd="/", timeout=600).stdout
    )

    assert answer["signatures"] == ["recommend", "recommend_events", "score", "serving_default", "similar_items"]
    expected = bits(tf.function(model.catalogue_scores)(queries_of([0, 1, 2])))
    for row, names in enumerate(answer["item_id"]):
        shown = [name for name in names if name]
        served = answer["score"][row][: len(shown)]
        assert served == [expected[row, ITEMS.index(name)] for name in shown]
    assert answer["item_id"][0][-1] == ""  # anna has seen item-1, so seven are left
    assert answer["item_id"][2] == ITEMS  # an unknown visitor gets popular items
    pairs = tf.function(model.pair_scores)(tf.constant([0, 1], tf.int64), tf.constant([1, 2], tf.int64))
    assert answer["pairs"] == bits(pairs).tolist()
    assert answer["similar"] in ITEMS
    assert answer["similar"] != "item-3"


def test_weights_are_variables_and_not_constants_of_the_graph(dataset, tmp_path):
    """Graphs above 2 GB cannot be saved."""
    large = DotModel(np.zeros((2, 50_000)), np.zeros((8, 50_000)), np.zeros(8))  # 2 MB
    summary = export_model(large, dataset, str(tmp_path / "export"), name="dot")
    assert os.path.getsize(tmp_path / "export" / "saved_model.pb") < 500_000
    assert summary["bytes"] > 2_000_000


def test_the_summary_describes_the_export(dataset, model, tmp_path):
    output = str(tmp_path / "export")
    summary = export_model(model, dataset, output, name="dot")
    assert (summary["output"], summary["model"], summary["items"], summary["visitors"]) == (output, "dot", 8, 2)
    assert read_info(output)["name"] == "dot"
    assert summary["bytes"] == sum(file.stat().st_size for file in (tmp_path / "export").rglob("*") if file.is_file())


def test_an_export_never_replaces_another(dataset, model, tmp_path):
    export_model(model, dataset, str(tmp_path / "export"), name="dot")
    before = (tmp_path / "export" / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="already exists"):
        export_model(model, dataset, str(tmp_path / "export"), name="dot")
    assert (tmp_path / "export" / "saved_model.pb").read_bytes() == before


def test_a_failure_while_saving_leaves_nothing(dataset, model, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_model(model, dataset, str(tmp_path / "out" / "export"), name="dot")
    assert list((tmp_path / "out").iterdir()) == []


def test_the_card_is_published_with_the_model_or_not_at_all(dataset, model, tmp_path, monkeypatch):
    output = tmp_path / "export"
    summary = export_model(model, dataset, str(output), name="dot", card="# Größe")
    assert (output / "assets.extra" / "model_card.md").read_text() == "# Größe"
    assert summary["card"] == f"{output}/assets.extra/model_card.md"
    assert summary["bytes"] == sum(file.stat().st_size for file in output.rglob("*") if file.is_file())

    write = storage.write_bytes

    def fail(path, content):
        if path.endswith(".md"):
            raise OSError("disk full")
        write(path, content)

    monkeypatch.setattr(storage, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        export_model(model, dataset, str(tmp_path / "out" / "export"), name="dot", card="# Größe")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def run(dataset, model):
    """A run with its model in the checkpoint of step 6."""
    record = RunRecord(
        config=PRESETS["mf"],
        data=dataset.root,
        dataset_checksum=dataset.checksum,
        training_rows=2,
        events={"view": 2},
        mean_event_weight=1.0,
        commit=None,
        versions={},
    )
    return TrainedRun(record, dataset, model, step=6)


def test_an_export_to_a_store_has_a_card_whose_example_runs(dataset, model, run, tmp_path):
    days = {"1970-01-02": {}, "1970-01-01": {}}
    storage.write_bytes(DatasetLayout(dataset.root).statistics, json.dumps({"events": {"by_day": days}}).encode())
    card = describe_run("memory://cards/run", run)
    assert "1970-01-01 to 1970-01-02" in card
    assert "**Not evaluated.** The dataset has no validation or test split." in card
    summary = export_model(model, dataset, "memory://cards/export/1", name="dot", card=card)
    assert storage.read_bytes(summary["card"]).decode() == card

    export = tmp_path / "fetched"
    for name in storage.list_files("memory://cards/export/1"):
        storage.write_bytes(f"{export}/{name}", storage.read_bytes(f"memory://cards/export/1/{name}"))
    storage.remove("memory://cards")
    names = {"EXPORT": str(export)}
    exec(card.split("```python\n")[1].split("```")[0], names)  # the example of the card
    answer = names["answer"]["item_id"].numpy()[0].tolist()
    assert len(answer) == 5
    assert not {b"item-0", b"item-1"} & set(answer), "items of the history are excluded"


def test_only_an_evaluation_of_the_exported_checkpoint_is_in_its_card(run, tmp_path, caplog):
    protocols = {"returning_visitors": {"protocol": "new items", "primary": "a", "rankings": {"a": None}}}
    figures = {"split": "test", "notes": [], "protocols": protocols, "ratings": None}
    path = RunLayout(str(tmp_path)).evaluation(Split.TEST)
    for step, is_included in ((6, True), (5, False), (None, False)):  # None: written by an earlier version
        storage.write_bytes(path, json.dumps({"step": step, **figures}).encode())
        card = describe_run(str(tmp_path), run)
        assert ("### Returning visitors (test)" in card, "**Not evaluated.**" in card) == (is_included, not is_included)
    assert "evaluation-test.json is excluded from the model card" in caplog.text

    storage.write_bytes(path, b"{")
    with pytest.raises(ValueError, match=r"evaluation-test.json is damaged .*; evaluate the run again"):
        describe_run(str(tmp_path), run)


def test_a_diverged_model_is_not_exported(dataset, model, tmp_path):
    model.vectors.assign(tf.fill([8, 16], np.nan))
    with pytest.raises(ValueError, match="item_vectors:0 contains NaN or infinite weights"):
        export_model(model, dataset, str(tmp_path / "export"), name="dot")
    assert not (tmp_path / "export").exists()


def test_ids_that_lookup_tables_would_change_are_refused(model, tmp_path):
    dataset = build_dataset(str(tmp_path / "dataset"), train=[("anna", "a\rb")], visitors=["anna"], items=["a\rb"])
    with pytest.raises(ValueError, match=r"id '.*\\r.*' of the items vocabulary contains a carriage return"):
        export_model(model, dataset, str(tmp_path / "export"), name="dot")


def trained_models(num_frequent=2):
    """Every kind of trained model, with random weights for 2 visitors, 8 items and an unknown bucket of each.

    In the towers, `num_frequent` visitors have their own vectors.
    """
    generator = np.random.default_rng(1)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    factorization = MatrixFactorizationConfig(dim=5)
    matrix_factorization = MatrixFactorizationInference(
        factorization, num_visitors=2, visitor_rows=3, num_items=8, item_rows=9, item_counts=np.arange(8, 0, -1)
    )
    matrix_factorization.fill(Weights({"visitor": normal(3, 5), "item": normal(9, item_width(factorization))}, []))
    sizes = [10, 7, 4, 1]
    dense = [part for a, b in itertools.pairwise(sizes) for part in (normal(a, b), normal(b))]
    neural = NeuralInference(NeuralConfig(hidden=(7, 4)), visitor_rows=3, item_rows=9, num_items=8)
    neural.fill(Weights({"visitor": normal(3, 5), "item": normal(9, 5)}, dense))
    config = TowersConfig(dim=5, history_length=3)
    items = normal(8, 6)
    towers = TowersInference(
        config,
        item_rows=lambda _: items.__getitem__,
        num_frequent=num_frequent,
        num_kinds=3,
        item_counts=np.arange(8, 0, -1),
    )
    dense = [np.asarray(normal(*variable.shape), np.float32) for variable in make_dense_variables(config, 3, seed=0)]
    towers.fill(Weights({"visitor": normal(num_frequent + 1, 5)}, dense))
    walk = NeighbourInference(WalkConfig(num_neighbours=3), np.arange(8, 0, -1))
    neighbours = generator.permuted(np.tile(np.arange(8, dtype=np.float32), (8, 1)), axis=1)[:, :3]
    walk.fill(Weights({"neighbour": neighbours, "weight": np.abs(normal(8, 3))}, [np.ones(4, np.float32)]))
    session_knn = SessionKnnInference(SessionKnnConfig(num_neighbours=2), np.arange(8, 0, -1), 3, 9)
    timelines = {"item": np.array([[1, 5, 2, 7, 1, 2, 0, 0, 0]], np.float32).T, "length": np.array([[2], [2], [2]])}
    session_knn.fill(Weights(timelines, [np.array([0.5, 0.5, 1], np.float32)]))
    return [matrix_factorization, neural, walk, session_knn, towers]


@pytest.mark.parametrize("model", trained_models(), ids=lambda model: model.name)
def test_every_kind_of_trained_model_is_served_bit_for_bit(dataset, model, tmp_path):
    export_model(model, dataset, str(tmp_path / "export"), name="dot")
    signatures = tf.saved_model.load(str(tmp_path / "export")).signatures
    answer = signatures["recommend"](
        visitor_id=tf.constant(["bob", "zoe"]),
        history=tf.constant([["item-1", "item-2"], ["", "item-5"]]),
        k=tf.constant([8, 8]),
        exclude_seen=tf.constant([False, False]),
    )
    indices = [[ITEMS.index(name.decode()) for name in row] for row in answer["item_id"].numpy()]
    # open shapes, as in serving: with fixed shapes TensorFlow sums in another order, which rounds differently
    own_scores = tf.function(model.catalogue_scores, input_signature=[query_signature(None)])
    expected = tf.gather(own_scores(queries_of([1, 2], [[1, 2], [5]])), indices, batch_dims=1)
    np.testing.assert_array_equal(bits(answer["score"]), bits(expected))
    pairs = signatures["score"](visitor_id=tf.constant(["bob", "bob"]), item_id=tf.constant(["item-4", "?"]))["score"]
    own = tf.function(model.pair_scores)(tf.constant([1, 1], tf.int64), tf.constant([4, 8], tf.int64))
    np.testing.assert_array_equal(bits(pairs), bits(own))


def blend_of(models):
    """Builds a blend in which all models and features have weights."""
    weights = BlendWeights(
        parts=(1.0,) * len(models), popularity=0.5, trend=0.5, half_life_days=1.0, returns=(0.1, 0.2, 0.3, 0.4)
    )
    trends = Trends(1.0, np.array([0]), np.ones((1, 8), np.float32), np.ones((1, 8), np.float32))
    parts = [Part(model, has_sums=False) for model in models]
    return BlendInference(
        parts, weights=dict.fromkeys(RANKINGS, weights), item_counts=np.arange(8, 0, -1), trends=[trends]
    )


def test_threads_may_evaluate_models_at_the_same_time(tmp_path):
    events = [(f"v{n % 3}", f"item-{n % 7}", "view", n * 60_000) for n in range(40)]
    dataset = build_dataset(str(tmp_path), train=events[:20], test=events[20:], visitors=["v0", "v1"], items=ITEMS)
    models = trained_models()
    cases = build_cases(dataset, Split.TEST, next_items)
    scorers = {"blend": blend_of(models), "towers": models[-1]}
    assert not large_sums(lambda: evaluate_scorers(scorers, cases, [3], with_secondary=True))


def test_threads_may_call_an_export_at_the_same_time(dataset, tmp_path):
    export_model(blend_of(trained_models()), dataset, str(tmp_path / "export"), name="blend")
    signatures = tf.saved_model.load(str(tmp_path / "export")).signatures
    visitor, history = tf.constant(["bob"]), tf.constant([["item-1", "item-2"]])
    inputs = {"visitor_id": visitor, "history": history, "k": tf.constant([8]), "exclude_seen": tf.constant([False])}
    kinds, ages = tf.constant([["view", "view"]]), tf.constant([[20, 10]], tf.int64)

    def call_signatures() -> None:
        signatures["recommend"](**inputs)
        signatures["recommend_events"](**inputs, history_event=kinds, history_age_ms=ages)
        signatures["score"](visitor_id=visitor, item_id=tf.constant(["item-4"]))
        signatures["similar_items"](item_id=tf.constant(["item-3"]), k=tf.constant([1]))

    assert not large_sums(call_signatures)


@pytest.mark.parametrize("preset", ["mf", pytest.param("nn", marks=pytest.mark.slow), "walk", "session_knn", "ease"])
def test_a_trained_preset_ranks_for_an_unknown_visitor_with_two_items_as_its_model_does(preset, tmp_path):
    board = checkerboard_dataset(str(tmp_path / "board"))
    run_training(make_config(preset, "epochs=15"), board, tmp_path / "run")
    export(workdir=str(tmp_path / "run"), output=str(tmp_path / "export"))
    recommend = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend"]
    answer = recommend(
        visitor_id=tf.constant(["zoe", "zoe"]),
        history=tf.constant([["i0", "i2"], ["i3", "i1"]]),
        k=tf.constant([18, 18]),
        exclude_seen=tf.constant([True, True]),
    )
    indices = np.array([[int(name.decode().removeprefix("i")) for name in row] for row in answer["item_id"].numpy()])
    # a visitor with two even items gets the eight other even ones before any odd one, and vice versa
    assert (indices[:, :8] % 2).tolist() == [[0] * 8, [1] * 8]
    assert [sorted(row) for row in indices.tolist()] == [sorted({*range(20)} - {0, 2}), sorted({*range(20)} - {3, 1})]

    model = open_trained_run(str(tmp_path / "run")).model
    own_scores = tf.function(model.catalogue_scores, input_signature=[query_signature(None)])
    expected = own_scores(queries_of([board.num_visitors] * 2, [[0, 2], [3, 1]]))
    np.testing.assert_array_equal(bits(answer["score"]), bits(tf.gather(expected, indices, batch_dims=1)))
    assert (np.diff(answer["score"].numpy(), axis=1) <= 0).all()


def test_histories_with_events_get_the_scores_of_the_evaluator(tmp_path):
    """Events of random kinds cover five weeks, and each event of the later half is a case."""
    generator = np.random.default_rng(3)
    moments = np.sort(generator.integers(0, 35 * 24 * 60 * 60 * 1000, 90)).tolist()
    events = [
        (f"v{generator.integers(6)}", f"item-{generator.integers(9)}", DEFAULT_KINDS[generator.integers(3)], moment)
        for moment in moments
    ]
    dataset = build_dataset(
        str(tmp_path / "dataset"), train=events[:45], test=events[45:], visitors=["v0", "v1"], items=ITEMS
    )
    towers = trained_models()[-1]
    export_model(towers, dataset, str(tmp_path / "export"), name="dot")
    served = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend_events"]

    cases = build_cases(dataset, Split.TEST, next_items)
    ((_, queries),) = query_chunks(cases.visitor, cases.history, cases.timestamp_ms, len(cases))
    expected = tf.function(towers.catalogue_scores, input_signature=[query_signature(None)])(queries)
    is_entry = np.arange(queries.history.shape[1]) < queries.history_length.numpy()[:, None]
    ids, kinds = np.array([*ITEMS, "never sold"]), np.array(DEFAULT_KINDS)
    answer = served(
        visitor_id=tf.constant([f"v{visitor}" for visitor in cases.visitor]),
        history=tf.constant(np.where(is_entry, ids[queries.history], "")),
        history_event=tf.constant(np.where(is_entry, kinds[queries.history_event], "")),
        history_age_ms=queries.timestamp_ms[:, None] - queries.history_timestamp_ms,
        k=tf.constant([8] * len(cases)),
        exclude_seen=tf.constant([False] * len(cases)),
    )
    indices = [[ITEMS.index(name.decode()) for name in row] for row in answer["item_id"].numpy()]
    np.testing.assert_array_equal(bits(answer["score"]), bits(tf.gather(expected, indices, batch_dims=1)))
    # kinds and ages matter: without them, the same histories have other scores
    plain = towers.catalogue_scores(Queries.of_items(queries.visitor, queries.history, queries.history_length))
    assert not np.allclose(plain, expected, atol=0.1)


def test_towers_rank_for_an_unknown_visitor_by_history_and_without_one_by_popularity(dataset, tmp_path):
    towers = trained_models(num_frequent=0)[-1]
    export_model(towers, dataset, str(tmp_path / "export"), name="dot")
    answer = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend"](
        visitor_id=tf.constant(["zoe", "anna", "zoe", "zoe"]),
        history=tf.constant([["item-1", "item-2"], ["item-1", "item-2"], ["item-5", ""], ["", "never sold"]]),
        k=tf.constant([8] * 4),
        exclude_seen=tf.constant([True] * 4),
    )
    by_first, by_known, by_other, by_none = [[name.decode() for name in row] for row in answer["item_id"].numpy()]
    assert by_first == by_known  # the history alone determines the list
    assert set(by_first) == set(ITEMS) - {"item-1", "item-2"} | {""}
    assert by_first[:3] != by_other[:3]
    assert by_none == ITEMS
