"""The candidates and features of the second stage equal a slow reference, and candidates rank first."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import queries_of
from trainer.config.models import TowersConfig
from trainer.models.interface import Queries
from trainer.models.item_neighbours import NeighbourInference
from trainer.models.second_stage import (
    FEATURES,
    NUM_BEST,
    NUM_LATEST,
    UNITS,
    WALK,
    ItemFacts,
    Layers,
    RerankedTowers,
    SecondStage,
)
from trainer.models.towers import DenseWeights, TowersInference, make_dense_variables
from trainer.runs.checkpoint import Weights

NUM_ITEMS = 160
CONFIG = TowersConfig(dim=4, history_length=3)
HISTORIES = [[7], [1, 2, 1, 1, 3], list(range(20, 90)), [5, NUM_ITEMS, 6], [NUM_ITEMS], [*[9] * 60, 8]]
"""In order: one entry, repeated items, more entries than are read, an unknown item, only unknown items, one item many
times."""


def make_layers(*, is_initial: bool = False) -> Layers:
    generator = np.random.default_rng(5)
    size, (first, second) = len(FEATURES), UNITS
    shapes = ((size,), (size,), (size, first), (first,), (first, second), (second,), (second, 1), ())
    layers = Layers(*(generator.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))
    layers = layers._replace(deviation=np.abs(layers.deviation) + 0.5)
    return layers._replace(last=0 * layers.last, scale=np.float32(1)) if is_initial else layers


@pytest.fixture(scope="module")
def towers() -> TowersInference:
    generator = np.random.default_rng(1)
    table = generator.normal(size=(NUM_ITEMS, CONFIG.dim + 1)).astype(np.float32)
    shapes = DenseWeights(*(variable.shape for variable in make_dense_variables(CONFIG, 3, seed=0)))
    dense = [generator.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]
    model = TowersInference(
        CONFIG, item_rows=lambda _: table.__getitem__, num_frequent=0, num_kinds=3, item_counts=np.arange(NUM_ITEMS)
    )
    model.fill(Weights({}, dense))
    return model


@pytest.fixture(scope="module")
def stage() -> SecondStage:
    generator = np.random.default_rng(2)
    neighbour = np.stack([generator.permutation(NUM_ITEMS)[:50] for _ in range(NUM_ITEMS)])
    weight = generator.random((NUM_ITEMS, 50)) * (generator.random((NUM_ITEMS, 50)) < 0.5)
    powers = np.array(WALK.combinations[0], np.float32)
    walk = Weights({"neighbour": neighbour.astype(np.float32), "weight": weight.astype(np.float32)}, [powers])
    facts = ItemFacts(*(generator.random(NUM_ITEMS).astype(np.float32) for _ in ItemFacts._fields))
    return SecondStage(walk, facts, make_layers())


def rerank(towers: TowersInference, stage: SecondStage) -> RerankedTowers:
    model = RerankedTowers(towers, NUM_ITEMS)
    model.fill_stage(stage)
    return model


def all_queries() -> Queries:
    """Returns queries for all histories; half of the queries have kinds and times."""
    queries = queries_of(range(len(HISTORIES)), HISTORIES)
    width = queries.history.shape[1]
    times = np.tile(np.arange(width) * 600_000, (len(HISTORIES), 1))
    return queries._replace(
        history_event=tf.constant(
            [[row % 2 - 1 + row % 2 * (column % 3) for column in range(width)] for row in range(6)]
        ),
        history_timestamp_ms=tf.constant(times),
        timestamp_ms=tf.constant([width * 600_000] * len(HISTORIES), tf.int64),
    )


def plain_ranks(scores: dict[int, float]) -> dict[int, int]:
    order = sorted(scores, key=lambda item: -scores[item])
    return {item: rank for rank, item in enumerate(order)}


def plain_features(
    history: list[int], tower: np.ndarray, bonus: np.ndarray, walk: np.ndarray, facts: ItemFacts
) -> dict[int, list[float]]:
    """Returns the features of each candidate. `bonus` [H] is the bonus of the newest entries, newest first."""
    newest_first = history[::-1][:NUM_LATEST]
    ages = {item: [age for age, other in enumerate(newest_first) if other == item] for item in newest_first}
    ages.pop(NUM_ITEMS, None)
    rest = [item for item in range(NUM_ITEMS) if item not in ages]
    best = sorted(rest, key=lambda item: -tower[item])[:NUM_BEST]
    others = [item for item in rest if item not in best and walk[item] > 0]
    items = [*ages, *best, *sorted(others, key=lambda item: -walk[item])[:NUM_BEST]]
    bonuses = {item: sum(bonus[age] for age in ages.get(item, []) if age < len(bonus)) for item in items}
    log_walk = {item: math.log(walk[item] + 1e-4) for item in items}
    scores = {item: tower[item] + bonuses[item] for item in items}
    of_tower, of_score, of_walk = (plain_ranks(by) for by in ({i: tower[i] for i in items}, scores, log_walk))
    known = [item for item in newest_first if item != NUM_ITEMS]
    repeats = sum(one == other != NUM_ITEMS for one, other in zip(newest_first[1:], newest_first, strict=False))
    shared = [
        facts.repeat_rate[newest_first[0] if newest_first[0] != NUM_ITEMS else 0],
        math.log1p(len(known)),
        len(ages) / len(known),
        repeats / len(known),
    ]
    found = {}
    for item in items:
        at = ages.get(item, [])
        found[item] = [
            *(tower[item], math.log1p(of_tower[item]), tower[item] - max(tower[other] for other in items)),
            bonuses[item],
            *(scores[item], math.log1p(of_score[item]), scores[item] - max(scores.values())),
            *(log_walk[item], math.log1p(of_walk[item]), log_walk[item] - max(log_walk.values())),
            *(float(bool(at)), float(bool(at) and at[0] == 0)),
            *((1 / (1 + at[0]), 1 / (1 + at[-1])) if at else (0.0, 0.0)),
            *(math.log1p(len(at)), sum(1 / (1 + age) for age in at)),
            *(facts.popularity[item], facts.recent_popularity[item]),
            *(facts.recent_popularity[item] - facts.popularity[item], facts.repeat_rate[item]),
            *shared,
        ]
    return found


def test_candidates_and_their_features_equal_a_slow_reference(towers: TowersInference, stage: SecondStage) -> None:
    queries, walk = all_queries(), NeighbourInference(WALK, np.zeros(NUM_ITEMS, np.int64))
    walk.fill(stage.walk)
    found = rerank(towers, stage).candidates(queries)
    parts, walk_scores = towers.score_in_parts(queries), walk.catalogue_scores(queries).numpy()
    for row, history in enumerate(HISTORIES):
        if history == [NUM_ITEMS]:
            continue
        expected = plain_features(
            history, parts.score[row].numpy(), parts.bonus[row].numpy(), np.maximum(walk_scores[row], 0), stage.facts
        )
        is_candidate = found.is_candidate[row].numpy()
        items = found.item[row].numpy()[is_candidate].tolist()
        assert len(items) == len(expected)
        assert set(items) == set(expected)
        features = found.feature[row].numpy()[is_candidate]
        for index, name in enumerate(FEATURES):
            column = [expected[item][index] for item in items]
            if name == "walk_rank":  # items that nothing leads to tie, in any order
                is_tie = np.isclose([expected[item][FEATURES.index("walk")] for item in items], math.log(1e-4))
                np.testing.assert_allclose(
                    features[~is_tie, index], np.array(column)[~is_tie], rtol=1e-4, err_msg=f"{name} of row {row}"
                )
            else:
                np.testing.assert_allclose(features[:, index], column, 1e-4, 1e-4, err_msg=f"{name} of row {row}")


def test_candidates_rank_first_by_the_network_and_all_others_by_the_towers(
    towers: TowersInference, stage: SecondStage
) -> None:
    model, queries = rerank(towers, stage), all_queries()
    found, scores, plain = (
        model.candidates(queries),
        model.catalogue_scores(queries).numpy(),
        towers.score_in_parts(queries),
    )
    layers = stage.layers
    for row in (0, 1, 2, 3, 5):
        is_candidate = found.is_candidate[row].numpy()
        items = found.item[row].numpy()[is_candidate]
        hidden = (found.feature[row].numpy()[is_candidate] - layers.mean) / layers.deviation
        hidden = tf.nn.gelu(hidden @ layers.first + layers.first_bias)
        hidden = tf.nn.gelu(hidden.numpy() @ layers.second + layers.second_bias).numpy()
        expected = (hidden @ layers.last)[:, 0] + layers.scale * found.score[row].numpy()[is_candidate]
        np.testing.assert_allclose(scores[row, items], expected, 1e-3, 1e-3)
        others = np.setdiff1d(np.arange(NUM_ITEMS), items)
        if len(others):
            assert scores[row, others].max() < scores[row, items].min()
            order = np.argsort(-plain.score[row].numpy()[others])
            assert (np.diff(scores[row, others][order]) <= 0).all()


def test_the_initial_network_ranks_candidates_as_the_towers_do(towers: TowersInference, stage: SecondStage) -> None:
    queries = all_queries()
    found = rerank(towers, stage._replace(layers=make_layers(is_initial=True)))
    scores, expected = found.catalogue_scores(queries).numpy(), towers.catalogue_scores(queries).numpy()
    best = np.argsort(-expected, axis=1)[:, :20]
    np.testing.assert_allclose(
        np.take_along_axis(scores, best, 1), np.take_along_axis(expected, best, 1), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_array_equal(scores[4], expected[4])  # no known item in the history: popular items


def test_all_other_answers_are_those_of_the_towers(towers: TowersInference, stage: SecondStage) -> None:
    model, items = rerank(towers, stage), tf.constant([3, 0], tf.int64)
    np.testing.assert_array_equal(model.pair_scores(items, items), towers.pair_scores(items, items))
    np.testing.assert_array_equal(model.item_similarities(items), towers.item_similarities(items))
