import numpy as np
import pytest
import tensorflow as tf

from contract.timelines import TimelineRows
from tests.trainer.ranking.fakes import cases_of
from trainer.models.interface import UNKNOWN_EVENT, Queries
from trainer.models.second_stage import FEATURES, Candidates, ItemFacts, Layers, score_candidates
from trainer.training.second_stage import Examples, collect_examples, count_facts, fit_layers


def make_rows(timelines: list[list[int]]) -> TimelineRows:
    """Builds timelines of views of these items; the n-th view of each timeline is at n ms."""
    lengths = [len(items) for items in timelines]
    position = np.concatenate([np.arange(length) for length in lengths])
    item = np.concatenate([np.array(items) for items in timelines])
    return TimelineRows(
        visitor=np.repeat(np.arange(len(timelines)), lengths),
        item=item,
        event=np.zeros(len(item), np.int64),
        timestamp_ms=position,
        is_target=np.ones(len(item), np.int64),
        position=position,
        weight=np.ones(len(item), np.float32),
    )


def test_item_facts_are_counts_of_events_of_recent_events_and_of_repeats() -> None:
    # times 0 … 4 and 0 … 4: the latest tenth starts at the 0.9 quantile, 4; item 3 is not in the vocabulary
    facts = count_facts(make_rows([[0, 1, 0, 0, 2], [1, 1, 3, 2, 1]]), num_items=3)
    assert isinstance(facts, ItemFacts)
    np.testing.assert_allclose(facts.popularity, np.log1p([3, 4, 2]), rtol=1e-6)
    np.testing.assert_allclose(facts.recent_popularity, np.log1p([0, 1, 1]), rtol=1e-6)
    # repeats of events with a history: 2 of 2 for item 0; 2 of 3 for item 1; 0 of 2 for item 2; 4 of 7 in all
    expected = (np.array([2, 2, 0]) + 10 * 4 / 7) / (np.array([2, 3, 2]) + 10)
    np.testing.assert_allclose(facts.repeat_rate, expected, rtol=1e-6)


def test_the_second_stage_is_measured_on_other_visitors_than_those_it_is_trained_on() -> None:
    cases = cases_of([[1]] * 200, [[2]] * 200, num_items=3)
    training, held_out = cases.split_visitors(0.2, seed=0)
    assert len(training) + len(held_out) == 200
    assert not set(training.timeline) & set(held_out.timeline)
    assert 20 <= len(held_out) <= 60  # 40 expected; three standard deviations are 17
    # cases of another protocol, which has no cases of most visitors, have the same held-out visitors
    few = cases.take(np.arange(0, 200, 3))
    expected = set(held_out.timeline) & set(few.timeline)
    assert set(few.split_visitors(0.2, seed=0)[1].timeline) == expected


class FakeModel:
    """A model with candidates 1 and 2 and padding; item 0 is not a candidate. All scores of an item are its number."""

    def candidates(self, queries: Queries) -> Candidates:
        item = tf.tile(tf.constant([[0, 1, 2, 0]], tf.int64), [tf.shape(queries.visitor)[0], 1])
        value = tf.cast(item, tf.float32)
        value += tf.where(queries.history_event[:, :1] == UNKNOWN_EVENT, 10.0, 0.0)
        return Candidates(item, tf.equal(item, 1) | tf.equal(item, 2), value, value[:, :, None])


def test_an_example_is_a_case_whose_relevant_item_is_a_candidate() -> None:
    cases = cases_of([[5], [5], [5]], [[2], [0], [1]], num_items=6)
    examples = collect_examples(FakeModel(), cases, 0.0, seed=0)  # type: ignore[arg-type]
    # the case with item 0 has no candidate; the relevant item is first
    assert examples.score[:, :2].tolist() == [[2, 1], [1, 2]]
    assert examples.feature[:, :2, 0].tolist() == [[2, 1], [1, 2]]
    assert examples.is_candidate.tolist() == [[True, True, False, False]] * 2


def test_a_share_of_the_examples_has_unknown_kinds_and_times() -> None:
    cases = cases_of([[5]] * 400, [[2]] * 400, num_items=6)
    examples = collect_examples(FakeModel(), cases, 0.25, seed=0)  # type: ignore[arg-type]
    assert 70 <= (examples.score[:, 0] == 12).sum() <= 130  # 100 expected; three standard deviations are 26


def make_examples(count: int = 600) -> Examples:
    """The positive is first; it has the highest value of the last feature, but the lowest score of the towers."""
    generator = np.random.default_rng(0)
    feature = generator.normal(size=(count, 4, len(FEATURES))).astype(np.float32)
    feature[:, 0, -1] = feature[..., -1].max(axis=1) + 0.5
    score = np.tile(np.array([0, 0.1, 0.1, 9], np.float32), (count, 1))
    is_candidate = np.tile([True, True, True, False], (count, 1))  # the last is padding
    return Examples(feature, score, is_candidate)


def test_the_network_learns_which_candidates_are_relevant() -> None:
    examples = make_examples()
    layers = fit_layers(examples, seed=0)
    scores = score_candidates(layers, examples.feature, examples.score).numpy()[:, :3]
    assert (scores.argmax(axis=1) == 0).mean() > 0.8  # a third at random; by the towers' scores, none


def test_the_network_depends_on_the_seed_alone() -> None:
    examples = make_examples(300)
    first, second, other = (fit_layers(examples, seed) for seed in (0, 0, 1))
    for name in Layers._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.first, other.first)


@pytest.mark.parametrize("count", [0, 1])
def test_few_examples_give_a_finite_network(count: int) -> None:
    layers = fit_layers(Examples(*(column[:count] for column in make_examples(1))), seed=0)
    assert all(np.isfinite(layer).all() for layer in layers)
