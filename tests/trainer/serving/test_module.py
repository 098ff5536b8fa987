import numpy as np
import pytest
import tensorflow as tf

from contract.layout import DatasetLayout
from contract.schema import Vocabulary
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel, queries_of
from trainer.serving.module import ServingModel

ITEMS = [f"item-{index}" for index in range(5)]
# anna's vector is the first axis, bob's the second; unknown visitors get only the biases: items 0, 1, 2, 3, 4
VISITOR_VECTORS = [[1, 0], [0, 1]]
ITEM_VECTORS = [[1, 0], [2, 0], [3, 1], [0, 5], [1, 4]]
BIAS = [0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.fixture(scope="module")
def model():
    return DotModel(np.array(VISITOR_VECTORS), np.array(ITEM_VECTORS), np.array(BIAS))


@pytest.fixture(scope="module")
def make_serving(model, tmp_path_factory):
    """Returns a function that builds a serving model with a given mask of the items on offer."""
    dataset = build_dataset(
        str(tmp_path_factory.mktemp("serving") / "dataset"),
        train=[("anna", "item-0"), ("bob", "item-1")],
        visitors=["anna", "bob"],
        items=ITEMS,
        oov_buckets=3,
    )
    layout = DatasetLayout(dataset.root)

    def make(is_offered):
        return ServingModel(
            model,
            visitors_file=layout.vocabulary(Vocabulary.VISITORS),
            visitors=dataset.manifest.vocabularies[Vocabulary.VISITORS],
            items_file=layout.vocabulary(Vocabulary.ITEMS),
            items=dataset.manifest.vocabularies[Vocabulary.ITEMS],
            event_kinds=dataset.manifest.event_kinds,
            is_offered=np.array(is_offered),
        )

    return make


@pytest.fixture(scope="module")
def serving(make_serving):
    return make_serving([True] * 5)


@pytest.fixture(scope="module")
def partial(make_serving):
    """A serving model in which items 1 and 2 are not on offer."""
    return make_serving([True, False, False, True, True])


def recommend(serving, visitor_ids, history, k, exclude_seen=True):
    """Returns item ids and scores. `k` and `exclude_seen` are one value for all visitors, or a list of values."""
    each_k = np.broadcast_to(np.int32(k), len(visitor_ids))
    each_exclude_seen = np.broadcast_to(exclude_seen, len(visitor_ids))
    answer = serving.recommend(
        tf.constant(visitor_ids), tf.constant(history, tf.string), tf.constant(each_k), tf.constant(each_exclude_seen)
    )
    ids = [[item_id.decode() for item_id in row] for row in answer["item_id"].numpy()]
    return ids, answer["score"].numpy()


def test_a_known_visitor_gets_the_order_and_scores_of_the_model(serving):
    ids, scores = recommend(serving, ["anna"], [[""]], 3)
    # 3 + 0.3, 2 + 0.4, 1 + 0.5
    assert ids == [["item-2", "item-1", "item-0"]]
    np.testing.assert_allclose(scores, [[3.3, 2.4, 1.5]])


def test_scores_equal_those_of_the_model_bit_for_bit(serving, model):
    catalogue = tf.function(model.catalogue_scores)(queries_of([0, 1, 7])).numpy()
    ids, scores = recommend(serving, ["anna", "bob", "zoe"], [[""]] * 3, len(ITEMS))
    for row, (names, served) in enumerate(zip(ids, scores, strict=True)):
        np.testing.assert_array_equal(served, [catalogue[row, ITEMS.index(name)] for name in names])


def test_an_unknown_visitor_gets_popular_items(serving):
    ids, _ = recommend(serving, ["zoe", ""], [["", ""], ["", ""]], 3)
    assert ids == [["item-0", "item-1", "item-2"]] * 2


def test_seen_items_are_excluded_only_on_request(serving):
    history = [["item-2", "no-such-item", "item-1"]]
    assert recommend(serving, ["anna"], history, 2)[0] == [["item-0", "item-4"]]
    assert recommend(serving, ["anna"], history, 2, exclude_seen=False)[0] == [["item-2", "item-1"]]


def test_padding_may_be_anywhere(serving):
    left = recommend(serving, ["anna"], [["", "item-2"]], 2)[0]
    assert left == recommend(serving, ["anna"], [["item-2", ""]], 2)[0] == [["item-1", "item-0"]]


def test_histories_reach_the_model_in_order_without_padding(serving):
    history, zeros = tf.constant([["", "item-3", "", "item-1", "?"]]), tf.zeros([1, 5], tf.int64)
    queries = serving._queries(tf.constant(["bob"]), history, zeros, zeros)
    assert queries.visitor.numpy().tolist() == [1]
    assert queries.history_length.numpy().tolist() == [3]
    assert queries.history.numpy()[0, :2].tolist() == [3, 1]
    assert 5 <= queries.history.numpy()[0, 2] < 8  # one of three out-of-vocabulary buckets


def test_kinds_and_ages_reach_the_model_with_their_items(serving):
    queries = serving._queries(
        tf.constant(["bob"]),
        tf.constant([["", "item-3", "", "item-1"]]),
        tf.constant([[1, 2, 1, 0]], tf.int64),
        tf.constant([[7, 5000, 8, 300]], tf.int64),
    )
    assert queries.history.numpy()[0, :2].tolist() == [3, 1]
    assert queries.history_event.numpy()[0, :2].tolist() == [2, 0]
    assert (queries.timestamp_ms[:, None] - queries.history_timestamp_ms).numpy()[0, :2].tolist() == [5000, 300]


def recommend_events(serving, history, events, ages):
    answer = serving.recommend_events(
        tf.constant(["anna"]),
        tf.constant(history),
        tf.constant(events, tf.string),
        tf.constant(ages, tf.int64),
        tf.constant([2]),
        tf.constant([True]),
    )
    return [name.decode() for name in answer["item_id"].numpy()[0]]


def test_histories_with_and_without_events_get_the_same_answers(serving):
    history, events = [["item-2", "", "item-1"]], [["transaction", "", "view"]]
    assert recommend_events(serving, history, events, [[60_000, 0, 0]]) == ["item-0", "item-4"]
    assert recommend_events(serving, [[""]], [[""]], [[-1]]) == ["item-2", "item-1"]


@pytest.mark.parametrize(
    ("events", "ages", "message"),
    [
        ([["view", "buy"]], [[1, 0]], "history_event must be one of view, addtocart, transaction"),
        ([["view", ""]], [[1, 0]], "history_event must be one of view, addtocart, transaction"),
        ([["view", "view"]], [[1, -1]], "history_age_ms must be at least 0"),
        ([["view"]], [[1, 0]], "history_event must have the same shape as history"),
        ([["view", "view"]], [[1], [2]], "history_age_ms must have the same shape as history"),
    ],
)
def test_events_that_do_not_match_the_history_are_refused(serving, events, ages, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        recommend_events(serving, [["item-2", "item-1"]], events, ages)


def test_a_history_may_have_no_columns(serving):
    assert recommend(serving, ["bob"], np.empty((1, 0), str), 1)[0] == [["item-3"]]


def test_no_visitors_get_no_answers(serving):
    assert recommend(serving, np.empty(0, str), np.empty((0, 3), str), 2)[0] == []


def test_a_list_ends_with_empty_ids_if_too_few_items_are_left(serving):
    ids, scores = recommend(serving, ["anna"], [ITEMS[:3]], len(ITEMS))
    assert ids == [["item-4", "item-3", "", "", ""]]
    assert np.isneginf(scores[0]).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("k", [0, -1, 6])
def test_a_k_above_the_catalogue_size_or_below_1_is_refused(serving, k):
    with pytest.raises(tf.errors.InvalidArgumentError, match="k must be from 1 to 5"):
        recommend(serving, ["anna"], [[""]], k)
    with pytest.raises(tf.errors.InvalidArgumentError, match="k must be from 1 to 5"):
        serving.similar_items(tf.constant(["item-0"]), tf.constant([k]))


def test_requests_in_one_batch_get_the_answers_they_get_alone(serving):
    """A server may merge requests: histories are padded to one length, and short lists end with ''."""
    visitors, histories = ["anna", "bob", "zoe"], [["item-2", "item-1"], ["item-3", ""], ["item-3", ""]]
    ids, scores = recommend(serving, visitors, histories, [2, 4, 1], [True, False, True])
    for row, k, exclude_seen in [(0, 2, True), (1, 4, False), (2, 1, True)]:
        alone = recommend(serving, visitors[row : row + 1], histories[row : row + 1], k, exclude_seen)
        assert ids[row] == alone[0][0] + [""] * (4 - k)
        np.testing.assert_array_equal(scores[row], np.pad(alone[1][0], (0, 4 - k), constant_values=-np.inf))
    # bob's list contains item-3, which they have seen
    assert ids == [["item-0", "item-4", "", ""], ["item-3", "item-4", "item-2", "item-0"], ["item-0", "", "", ""]]
    similar = serving.similar_items(tf.constant(["item-0", "item-0"]), tf.constant([1, 2]))
    assert similar["item_id"].numpy().tolist() == [[b"item-1", b""], [b"item-1", b"item-2"]]


@pytest.mark.parametrize(("k", "exclude_seen"), [([1, 1], [True, True, True]), ([1, 1, 1], True), ([], True)])
def test_k_and_exclude_seen_have_one_value_or_one_for_each_visitor(serving, k, exclude_seen):
    visitors, histories = tf.constant(["anna", "bob"]), tf.constant([["item-2"], ["item-3"]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have one value, or one for each query"):
        serving.recommend(visitors, histories, tf.constant(k, tf.int32), tf.constant(exclude_seen))
    answers = [
        serving.recommend(visitors, histories, tf.constant(k), tf.constant(exclude_seen))["item_id"].numpy().tolist()
        for k, exclude_seen in [(2, False), ([2, 2], [False, False]), ([2], [False])]
    ]
    assert answers[0] == answers[1] == answers[2]


def test_each_visitor_needs_a_history(serving):
    with pytest.raises(tf.errors.InvalidArgumentError, match="a row for each visitor_id"):
        recommend(serving, ["anna", "bob"], [["item-0"]], 1)


def test_pairs_are_scored_by_id(serving):
    answer = serving.score(tf.constant(["anna", "bob", "zoe"]), tf.constant(["item-2", "item-3", "item-0"]))
    # 3 + 0.3, 5 + 0.2, only the bias
    np.testing.assert_allclose(answer["score"], [3.3, 5.2, 0.5])


@pytest.mark.parametrize("visitors", [["anna"], ["anna", "bob"]])
def test_visitors_and_items_of_different_lengths_are_refused(serving, visitors):
    with pytest.raises(tf.errors.InvalidArgumentError, match="visitor_id and item_id must have the same length"):
        serving.score(tf.constant(visitors), tf.constant(["item-2", "item-3", "item-0"]))


def test_a_pair_of_an_unknown_item_has_a_score_too(serving):
    assert np.isfinite(serving.score(tf.constant(["anna"]), tf.constant(["no-such-item"]))["score"]).all()


def test_similar_items_are_ranked_by_cosine_without_the_item_itself(serving):
    answer = serving.similar_items(tf.constant(["item-0"]), tf.constant([5]))
    # cosine with (1, 0): (2, 0): 1; (3, 1): 3 / sqrt(10) = 0.9487; (1, 4): 1 / sqrt(17) = 0.2425; (0, 5): 0
    assert [name.decode() for name in answer["item_id"].numpy()[0]] == ["item-1", "item-2", "item-4", "item-3", ""]
    np.testing.assert_allclose(answer["score"].numpy()[0, :4], [1, 0.9487, 0.2425, 0], atol=1e-4)


def test_the_items_similar_to_an_unknown_item_are_the_popular_ones(serving):
    answer = serving.similar_items(tf.constant(["no-such-item"]), tf.constant([5]))
    assert [name.decode() for name in answer["item_id"].numpy()[0]] == ITEMS
    np.testing.assert_array_equal(answer["score"], np.zeros((1, 5)))


def test_lists_contain_only_items_on_offer(partial, serving):
    # anna's order is 2, 1, 0, 4, 3
    ids, scores = recommend(partial, ["anna"], [[""]], 3)
    assert ids == [["item-0", "item-4", "item-3"]]
    np.testing.assert_array_equal(scores, recommend(serving, ["anna"], [[""]], 5)[1][:, 2:])
    assert recommend(partial, ["anna"], [["item-0"]], 2)[0] == [["item-4", "item-3"]]
    assert recommend_events(partial, [["item-0"]], [["view"]], [[5]]) == ["item-4", "item-3"]


def test_a_list_ends_after_the_last_item_on_offer(partial):
    ids, scores = recommend(partial, ["anna"], [["item-4"]], 4)
    assert ids == [["item-0", "item-3", "", ""]]
    assert np.isneginf(scores[0]).tolist() == [False, False, True, True]


def test_similar_items_are_on_offer_but_their_query_need_not_be(partial):
    answer = partial.similar_items(tf.constant(["item-1", "no-such-item"]), tf.constant([5, 5]))
    ids = [[name.decode() for name in row] for row in answer["item_id"].numpy()]
    assert ids == [["item-0", "item-4", "item-3", "", ""], ["item-0", "item-3", "item-4", "", ""]]


def test_items_that_are_not_on_offer_are_scored_as_before(partial, serving):
    pair = tf.constant(["anna"]), tf.constant(["item-2"])
    np.testing.assert_array_equal(partial.score(*pair)["score"], serving.score(*pair)["score"])
