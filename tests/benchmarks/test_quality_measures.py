"""Measures of the test window are stored once and compared by visitor, and the best peers are found."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.quality_measures import (
    ByIds,
    MeasureFiles,
    best_peers,
    compare,
    difference,
    measure_peers,
    measure_scorers,
)
from benchmarks.quality_ranking import METRICS
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import ItemEvents
from trainer.models.interface import Queries

CASES = cases_of([[0]] * 6, [[1]] * 6, 3)


def by_case(*values):
    return {metric: np.array(values, float) for metric in METRICS}


def test_the_best_peers_have_a_trend_or_not_and_are_neighbours_or_not():
    measures = {
        "mf": by_case(0.9),
        "baseline item_walk": by_case(0.8),
        "als": by_case(0.5),
        "als with trend": by_case(0.6),
        "item_walk": by_case(0.4),
        "item_walk with trend": by_case(0.45),
        "trending": by_case(0.7),
    }
    expected = {"without_trend": "als", "any": "trending", "neighbour": "item_walk"}
    assert best_peers(measures) == dict.fromkeys(METRICS, expected)


def test_systems_are_compared_with_the_reference_visitor_by_visitor():
    measures = {"low": by_case(*[0.1] * 6), "high": by_case(*[0.3] * 6), "same": by_case(0, 0.2, 0, 0.2, 0.1, 0.1)}
    found = compare(measures, CASES, reference="low")
    assert next(iter(found)) == "high"
    assert "p" not in found["low"]["ndcg@20"]
    assert found["high"]["ndcg@20"]["value"] == pytest.approx(0.3)
    assert found["high"]["ndcg@20"]["p"] < 0.01  # better for every visitor
    assert found["same"]["ndcg@20"]["p"] > 0.5
    apart = difference(measures["high"], measures["low"], CASES)
    assert apart == pytest.approx({"value": 0.2, "low": 0.2, "high": 0.2})


def test_a_measure_is_stored_once_and_belongs_to_its_dataset(tmp_path):
    files, built = MeasureFiles(tmp_path, "sum"), []

    def scorers():
        built.append(1)
        return {"table": TableScorer(np.eye(6, 3)[:, [0, 1, 2]])}

    for _ in range(2):
        measure_scorers(scorers, ["table"], {"new": CASES}, files, ItemEvents(np.array([0]), np.array([0]), 3))
    assert built == [1]
    assert files.find("new", "table")["ndcg@20"].shape == (6,)
    with pytest.raises(ValueError, match="was measured on another dataset; delete it to measure table again"):
        MeasureFiles(tmp_path, "other").find("new", "table")


def test_a_measure_with_other_settings_is_not_found(tmp_path):
    files = MeasureFiles(tmp_path, "sum")
    files.add("new", "als", by_case(0.1), "64")
    assert files.find("new", "als", "128") is None
    files.add("new", "als", by_case(0.2), "128")
    assert files.find("new", "als", "128")["ndcg@20"].tolist() == [0.2]


def test_measured_peers_need_no_cases(tmp_path):
    files = MeasureFiles(tmp_path, "sum")
    files.add("new", "popular", by_case(0.1), "{}")
    tuned = {"popular": {"new": {"grid": [{"settings": {}, "validation": 0.1, "seconds": 0}], "trend_grid": []}}}
    measure_peers(tuned, None, pytest.fail, files)


def test_by_ids_hides_kinds_and_times():
    class Sums:
        def catalogue_scores(self, queries):
            return tf.cast(
                tf.stack([sum(map(tf.reduce_sum, queries[3:])), tf.reduce_sum(queries.history)])[None], tf.float32
            )

    one = tf.constant([[2, 3]], tf.int64)
    queries = Queries(tf.constant([0], tf.int64), one, tf.constant([2], tf.int64), one, one, tf.constant([9], tf.int64))
    assert ByIds(Sums()).catalogue_scores(queries).numpy().tolist() == [
        [7, 5]
    ]  # -1 for each unknown event, and the time of the request
