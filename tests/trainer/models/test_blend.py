"""The scores of a blend equal plain sums, with one set of weights for each kind of ranking."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import DotModel
from trainer.data.trend import Trends
from trainer.models.blend import (
    SESSION_GAP_MS,
    BlendInference,
    Part,
    comparable_scores,
    is_in_session,
    return_features,
)
from trainer.models.interface import UNKNOWN_EVENT, PolicyScorer, Queries
from trainer.ranking.topk import visible_scores
from trainer.runs.blend_record import BlendWeights

COUNTS = np.array([6, 3, 1, 0])
TRENDS = Trends(
    7.0,
    np.array([100, 200]),
    np.array([[1, 1, 1, 0], [0, 2, 1, 0]], np.float32),
    np.array([[5, 2, 1, 0], [6, 3, 1, 0]], np.float32),
)
SHORT_TRENDS = replace(TRENDS, half_life_days=1.0, recent=TRENDS.recent / 4)
NEW = BlendWeights(parts=(0.5, 2.0), popularity=0.25, trend=1.5, half_life_days=7.0)
IN_SESSION = BlendWeights(
    parts=(1.0, 0.0), popularity=0.0, trend=0.5, half_life_days=1.0, returns=(3.0, 0.5, -1.0, 0.25)
)
RETURNING = BlendWeights(parts=(0.0, 1.0), trend=2.0, half_life_days=7.0, returns=(0.0, 1.0, 0.0, 0.0))


@pytest.fixture
def parts() -> list[Part]:
    first = DotModel(
        np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0], [2.0, 5.0]]), np.zeros(4)
    )
    sums = DotModel(np.array([[1.0], [0.0]]), np.array([[4.0], [2.0], [0.0], [1.0]]), np.zeros(4))
    return [Part(first, has_sums=False), Part(sums, has_sums=True)]


@pytest.fixture
def blend(parts: list[Part]) -> BlendInference:
    weights = {"new_items": NEW, "returning": RETURNING, "in_session": IN_SESSION}
    return BlendInference(parts, weights=weights, item_counts=COUNTS, trends=[SHORT_TRENDS, TRENDS])


@pytest.fixture
def queries() -> Queries:
    """Visitor 0 has the history 1, 3, 1 in this session. Visitor 1 has no history and a request before all trends."""
    zeros = tf.zeros([2, 4], tf.int64)
    return Queries(
        visitor=tf.constant([0, 1], tf.int64),
        history=tf.constant([[1, 3, 1, 9], [0, 0, 0, 0]], tf.int64),
        history_length=tf.constant([3, 0], tf.int64),
        history_event=zeros,
        history_timestamp_ms=zeros,
        timestamp_ms=tf.constant([250, 50], tf.int64),
    )


def features(parts: list[Part], queries: Queries) -> list[np.ndarray]:
    """Returns the scores of the parts, the popularity and the trend, each [2, 4]."""
    logits = parts[0].model.catalogue_scores(queries).numpy()
    sums = parts[1].model.catalogue_scores(queries).numpy()
    # the 10th largest of four items is the last one, which is not positive, so the largest counts
    ratios = np.log(0.02 + sums / np.maximum(sums.max(axis=1, keepdims=True), 1e-9))
    ratios[1] = np.log(0.02)
    return [logits, ratios, np.tile(np.log(COUNTS + 0.25), (2, 1)), TRENDS.values[[1, 0]]]


def test_scores_that_hide_seen_items_are_the_weighted_sum(
    blend: BlendInference, parts: list[Part], queries: Queries
) -> None:
    expected = sum(weight * part for weight, part in zip((0.5, 2.0, 0.25, 1.5), features(parts, queries), strict=True))
    np.testing.assert_allclose(blend.policy_scores(queries)(True), expected, rtol=1e-5)
    np.testing.assert_allclose(blend.catalogue_scores(queries), expected, rtol=1e-5)


# of items 1 and 3 of visitor 0: item 1 has ages 2 and 0, item 3 has age 1
FREQUENCY = np.log1p(10 * np.array([3**-0.25 + 1, 2**-0.25]))
RECENCY = np.log1p(10 * np.array([1 / 3 + 1, 1 / 2]))
RECENCY_IN_DAYS = np.log1p(10 * np.array([2, 1]))  # all entries are from this second


def test_scores_that_show_seen_items_add_what_is_known_of_returns(
    blend: BlendInference, parts: list[Part], queries: Queries
) -> None:
    logits, ratios, _, trend = features(parts, queries)
    expected = logits + 0.5 * SHORT_TRENDS.values[[1, 0]]  # a session has a trend with a half-life of its own
    expected[0, [1, 3]] += 3 + 0.5 * FREQUENCY - RECENCY + 0.25 * RECENCY_IN_DAYS
    # without a history there is no session
    expected[1] = (ratios + 2 * trend)[1]
    np.testing.assert_allclose(blend.policy_scores(queries)(False), expected, rtol=1e-5)
    flag = tf.constant(False)
    np.testing.assert_allclose(visible_scores(blend, queries, flag), expected, rtol=1e-5)


def test_the_ranking_functions_recognise_a_blend(blend: BlendInference, parts: list[Part]) -> None:
    assert isinstance(blend, PolicyScorer)
    assert not isinstance(parts[0].model, PolicyScorer)


def test_pairs_score_as_a_visitor_without_a_history(blend: BlendInference, parts: list[Part], queries: Queries) -> None:
    late = queries._replace(timestamp_ms=tf.constant([250, 250], tf.int64))
    expected = blend.catalogue_scores(late).numpy()[1]
    visitor, item = tf.ones([4], tf.int64), tf.range(4, dtype=tf.int64)
    np.testing.assert_allclose(blend.pair_scores(visitor, item), expected, rtol=1e-5)


def test_a_visitor_who_has_been_away_gets_the_weights_of_returning_visitors(
    blend: BlendInference, parts: list[Part], queries: Queries
) -> None:
    away = queries._replace(history_timestamp_ms=queries.history_timestamp_ms + 250 - SESSION_GAP_MS)
    _, ratios, _, trend = features(parts, queries)
    expected = ratios + 2 * trend
    expected[0, [1, 3]] += FREQUENCY
    np.testing.assert_allclose(blend.policy_scores(away)(False), expected, rtol=1e-5)
    # new items have one set of weights
    np.testing.assert_array_equal(blend.policy_scores(away)(True), blend.policy_scores(queries)(True))


def test_the_age_of_the_last_event_decides_whether_a_visitor_is_in_a_session() -> None:
    now, gap = 10 * SESSION_GAP_MS, SESSION_GAP_MS
    zero = tf.zeros([5], tf.int64)
    queries = Queries(
        visitor=zero,
        history=tf.zeros([5, 2], tf.int64),
        history_length=tf.constant([2, 2, 1, 0, 2], tf.int64),
        history_event=tf.constant([[0, 0]] * 4 + [[UNKNOWN_EVENT] * 2], tf.int64),
        history_timestamp_ms=tf.constant(
            [[0, now - gap + 1], [0, now - gap], [now - gap, now], [now, now], [0, 0]], tf.int64
        ),
        timestamp_ms=zero + now,
    )
    # just within the gap; just outside; padding is no event; no history; an unknown time
    assert is_in_session(queries).numpy().tolist() == [True, False, False, False, True]


def test_each_half_life_in_use_needs_its_trends(parts: list[Part]) -> None:
    weights = {"new_items": NEW, "returning": RETURNING, "in_session": IN_SESSION}
    with pytest.raises(ValueError, match=r"trends with half-lives of \(1.0, 7.0\) days, got \(7.0,\)"):
        BlendInference(parts, weights=weights, item_counts=COUNTS, trends=[TRENDS])


def test_trends_are_replaced_by_more_moments(blend: BlendInference, queries: Queries) -> None:
    before = blend.catalogue_scores(queries).numpy()
    blend.set_trends(np.array([0, 60, 240]), np.zeros((2, 3, 4), np.float32))
    np.testing.assert_allclose(
        blend.catalogue_scores(queries), before - 1.5 * TRENDS.values[[1, 0]], rtol=1e-5, atol=1e-5
    )


def test_a_row_without_positive_sums_has_equal_scores() -> None:
    scores = comparable_scores(tf.constant([[-0.5, 0.0, -1.0]]), has_sums=True)
    np.testing.assert_allclose(scores, np.full((1, 3), np.log(0.02)), rtol=1e-6)


def test_sums_are_relative_to_the_tenth_best() -> None:
    scores = comparable_scores(tf.constant([np.arange(12, 0, -1).astype(np.float32)]), has_sums=True)
    np.testing.assert_allclose(scores[0], np.log(0.02 + np.arange(12, 0, -1) / 3), rtol=1e-6)


def test_unknown_items_of_a_history_have_no_features(queries: Queries) -> None:
    found = return_features(queries._replace(history_length=tf.constant([4, 0], tf.int64)), 4)
    assert found.index.numpy().tolist() == [[0, 1], [0, 3]]
    # the unknown item is an entry, so the others are older by one
    np.testing.assert_allclose(found.value[:, 2], np.log1p(10 * np.array([1 / 4 + 1 / 2, 1 / 3])), rtol=1e-5)


def test_an_entry_of_a_history_loses_half_of_its_weight_in_thirty_days(queries: Queries) -> None:
    day = 24 * 60 * 60 * 1000
    months = queries._replace(
        history_timestamp_ms=tf.constant([[0, 30 * day, 60 * day, 0], [0] * 4], tf.int64),
        timestamp_ms=tf.constant([60 * day, 0], tf.int64),
    )
    found = return_features(months, 4).value[:, 3]  # items 1 and 3
    np.testing.assert_allclose(found, np.log1p(10 * np.array([1 / 4 + 1, 1 / 2])), rtol=1e-5)
    unknown = tf.constant([[UNKNOWN_EVENT] * 4, [0] * 4], tf.int64)
    found = return_features(months._replace(history_event=unknown), 4).value[:, 3]
    np.testing.assert_allclose(found, np.log1p(10 * np.array([2, 1])), rtol=1e-5)
