import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ContractError
from contract.schema import Split
from contract.timelines import TimelineRows
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import cases_of
from trainer.evaluation.cases import build_cases, most_common_cases, next_items, returning_visitors

NUM_ITEMS = 10
KINDS = {"view": 0, "addtocart": 1, "transaction": 2}
UNKNOWN = 10  # an item that is not in the vocabulary


def rows_of(*timelines):
    """Builds timeline rows from (visitor, items before the cut, items after it)."""
    columns = [
        (visitor, position, item, 0, position, is_target)
        for visitor, before, after in timelines
        for position, (item, is_target) in enumerate([(item, 0) for item in before] + [(item, 1) for item in after])
    ]
    return TimelineRows(*np.array(columns, np.int64).T)


def lists(values):
    return [values.values[begin:end].tolist() for begin, end in zip(values.starts, values.starts[1:], strict=False)]


def items_of(history):
    return [history.item[begin:end].tolist() for begin, end in zip(history.begins, history.ends, strict=True)]


def test_relevant_items_are_distinct_and_new_and_the_history_keeps_order_and_repetitions():
    cases = returning_visitors(rows_of((4, [3, 1, 3], [7, 1, 5, 7])), NUM_ITEMS, KINDS)
    np.testing.assert_array_equal(cases.visitor, [4])
    assert items_of(cases.history) == [[3, 1, 3]]
    assert lists(cases.relevant) == [[5, 7]]
    # where seen items are shown, item 1 is relevant again
    assert lists(cases.secondary_relevant) == [[1, 5, 7]]
    assert lists(cases.take(np.array([0])).secondary_relevant) == [[1, 5, 7]]


def test_visitors_without_history_or_new_items_are_skipped_and_counted():
    cases = returning_visitors(
        rows_of((0, [], [1]), (1, [2], [2]), (2, [3], [4]), (3, [3], [UNKNOWN]), (5, [6], [])), NUM_ITEMS, KINDS
    )
    np.testing.assert_array_equal(cases.visitor, [2])
    assert items_of(cases.history) == [[3]]
    assert cases.num_without_history == 1  # visitor 0
    assert cases.num_without_relevant == 2  # visitors 1 and 3; visitor 5 has no event after the cut


def test_the_unknown_item_share_is_over_the_rows_of_returning_visitors():
    cases = returning_visitors(rows_of((0, [1], [UNKNOWN, 2, 3, UNKNOWN]), (1, [], [UNKNOWN] * 5)), NUM_ITEMS, KINDS)
    assert cases.unknown_item_share == pytest.approx(2 / 4)
    assert lists(cases.relevant) == [[2, 3]]


def test_visitors_of_the_same_out_of_vocabulary_bucket_have_separate_cases():
    cases = returning_visitors(rows_of((99, [1], [2]), (99, [2], [3])), NUM_ITEMS, KINDS)
    np.testing.assert_array_equal(cases.visitor, [99, 99])
    assert items_of(cases.history) == [[1], [2]]
    assert lists(cases.relevant) == [[2], [3]]


def test_rows_without_a_returning_visitor_have_no_cases():
    assert len(returning_visitors(rows_of((0, [], [1])), NUM_ITEMS, KINDS)) == 0
    assert len(returning_visitors(TimelineRows.concatenate([]), NUM_ITEMS, KINDS)) == 0


def test_cases_are_those_of_the_requested_split(tmp_path):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "a"), ("bob", "b", "view", 1)],
        validation=[("anna", "b", "view", 10)],
        test=[("anna", "c", "view", 20), ("bob", "a", "view", 21)],
        visitors=["anna", "bob"],
        items=["a", "b", "c"],
    )
    validation, test = build_cases(dataset, Split.VALIDATION), build_cases(dataset, Split.TEST)
    assert (items_of(validation.history), lists(validation.relevant)) == ([[0]], [[1]])
    # the moment is the start of the window
    assert (validation.timestamp_ms.tolist(), test.timestamp_ms.tolist()) == ([10], [20, 20])
    assert test.history.timestamp_ms[test.history.begins[0] : test.history.ends[0]].tolist() == [0, 10]
    # the validation window is before the test cut, so it is part of the history: anna has touched a and b
    assert (items_of(test.history), lists(test.relevant)) == ([[0, 1], [1]], [[2], [0]])


@pytest.mark.parametrize(("num_newcomers", "is_returning"), [(9, True), (10, False)])
def test_next_items_are_the_cases_where_ten_times_as_many_visitors_have_them(tmp_path, num_newcomers, is_returning):
    # anna returns; the newcomers only have a next item. anna has one, too, so that of ten visitors one returns
    newcomers = [(f"v{v}", item, "view", 10) for v in range(num_newcomers) for item in ("a", "b")]
    dataset = build_dataset(
        str(tmp_path),
        train=[("anna", "a", "view", 1)],
        validation=[("anna", "b", "view", 10), *newcomers],
        visitors=["anna"],
        items=["a", "b"],
    )
    cases = most_common_cases(dataset, Split.VALIDATION)
    assert (len(cases), cases.hides_seen) == ((1, True) if is_returning else (11, False))


def test_a_missing_split_raises(tmp_path):
    dataset = build_dataset(str(tmp_path / "dataset"), train=[("anna", "a")], visitors=["anna"], items=["a"])
    with pytest.raises(ContractError, match="no test split"):
        build_cases(dataset, Split.TEST)


def test_a_sample_keeps_the_order_and_the_lists_of_its_cases():
    cases = cases_of([[v] for v in range(50)], [[v + 50] for v in range(50)], num_items=100)
    sample = cases.sample(20, seed=3)
    assert len(sample) == 20
    assert (np.diff(sample.visitor) > 0).all()
    assert items_of(sample.history) == [[visitor] for visitor in sample.visitor]
    np.testing.assert_array_equal(sample.relevant.values, sample.visitor + 50)
    assert cases.sample(50, seed=3) is cases


def test_a_sample_takes_all_cases_of_a_visitor_or_none():
    # 20 visitors with three cases each: ten visitors fit into 31 cases
    timelines = [(v, [0], [1, 2, 3]) for v in range(20)]
    sample = next_items(rows_of(*timelines), NUM_ITEMS, KINDS).sample(31, seed=0)
    assert len(sample) == 30
    assert sample.num_visitors == 10
    assert np.bincount(sample.timeline).max() == 3
    np.testing.assert_array_equal(sample.relevant.values, [1, 2, 3] * 10)
    assert sample.is_kind.shape == (30, 3)
    # a size below the cases of one visitor: the visitor is taken whole
    assert len(next_items(rows_of(*timelines), NUM_ITEMS, KINDS).sample(2, seed=0)) == 3


def test_a_sample_of_cases_is_of_as_many_visitors_as_possible():
    # 20 visitors with three cases each
    cases = next_items(rows_of(*[(v, [0], [1, 2, 3]) for v in range(20)]), NUM_ITEMS, KINDS)
    sample = cases.sample_cases(30, seed=0)
    assert len(sample) == 30
    # a visitor has no case in half of all cases with a probability of about 1/8, so 17.5 of 20 are expected; 10 whole
    # visitors would have as many cases
    assert sample.num_visitors > 14
    assert (np.diff(sample.timeline) >= 0).all()
    # the history and the relevant item still belong together: the items before 1, 2 and 3
    expected = [list(range(item)) for item in sample.relevant.values]
    assert items_of(sample.history) == expected
    assert sample.is_kind.shape == (30, 3)
    assert cases.sample_cases(60, seed=0) is cases


def test_a_relevant_item_has_the_kinds_of_its_events_in_the_window():
    rows = rows_of((0, [1], [2, 3, 2, 1]))
    rows.event[:] = [2, 0, 1, 2, 1]
    cases = returning_visitors(rows, NUM_ITEMS, KINDS)
    # item 2 is viewed and bought, item 3 put into the cart; item 1 is not new
    assert lists(cases.relevant) == [[2, 3]]
    np.testing.assert_array_equal(cases.is_kind, [[1, 0, 1], [0, 1, 0]])
    assert cases.hides_seen
    assert cases.is_new.all()


def test_each_target_row_with_earlier_rows_is_a_next_item_case():
    rows = rows_of((4, [3], [3, UNKNOWN, 5]), (6, [], [7, 8]), (8, [1, 2], []))
    rows.event[:] = [0, 1, 0, 2, 0, 0, 0, 0]
    cases = next_items(rows, NUM_ITEMS, KINDS)
    np.testing.assert_array_equal(cases.visitor, [4, 4, 6])
    np.testing.assert_array_equal(cases.timeline, [0, 0, 1])
    # the unknown item is not a case, but is in the history of item 5
    assert items_of(cases.history) == [[3], [3, 3, UNKNOWN], [7]]
    assert lists(cases.relevant) == lists(cases.secondary_relevant) == [[3], [5], [8]]
    np.testing.assert_array_equal(cases.timestamp_ms, [1, 3, 1])
    np.testing.assert_array_equal(cases.is_kind, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    # item 3 is a return
    np.testing.assert_array_equal(cases.is_new, [False, True, True])
    assert not cases.hides_seen
    assert (cases.num_without_history, cases.num_without_relevant) == (1, 1)  # item 7; the unknown item
    assert cases.unknown_item_share == pytest.approx(1 / 4)


def test_no_rows_have_no_next_item_cases():
    assert len(next_items(TimelineRows.concatenate([]), NUM_ITEMS, KINDS)) == 0
    assert len(next_items(rows_of((0, [1], [])), NUM_ITEMS, KINDS)) == 0


ITEMS_OF_A_TIMELINE = st.lists(st.integers(0, UNKNOWN), max_size=5)


@settings(deadline=None)
@given(st.lists(st.tuples(ITEMS_OF_A_TIMELINE, ITEMS_OF_A_TIMELINE).filter(any), min_size=1, max_size=6))
def test_histories_never_contain_the_target_or_a_later_row(timelines):
    rows = rows_of(*((visitor, before, after) for visitor, (before, after) in enumerate(timelines)))
    cases = next_items(rows, NUM_ITEMS, KINDS)
    expected = [
        ((before + after)[:position], (before + after)[position])
        for before, after in timelines
        for position in range(len(before), len(before + after))
        if position and (before + after)[position] != UNKNOWN
    ]
    assert list(zip(items_of(cases.history), cases.relevant.values.tolist(), strict=True)) == expected
    assert cases.is_new.tolist() == [target not in history for history, target in expected]
    again = returning_visitors(rows, NUM_ITEMS, KINDS)
    assert items_of(again.history) == [timelines[visitor][0] for visitor in again.visitor]
