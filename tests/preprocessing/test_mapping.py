"""Tests the paths, constants, lists and conditions of a mapping."""

import datetime
import decimal

import pyarrow as pa
import pytest

from preprocessing.mapping import constant_of, parse_condition, root_of, select_elements, to_ids, to_numbers

NESTED = pa.table(
    {
        "user": [{"id": "a", "age": 3}, {"id": "b", "age": None}, None],
        "items": [[{"sku": 7, "price": 1.5}, {"sku": 8, "price": None}], [], [{"sku": 9, "price": 2.0}]],
    }
)


def values_at(*paths):
    elements = select_elements(NESTED, paths)
    return {path: elements.columns[path].to_pylist() for path in paths}, elements


def test_a_path_leads_to_a_field_of_a_nested_column():
    found, elements = values_at("user.id", "user.age")
    assert found == {"user.id": ["a", "b", None], "user.age": [3, None, None]}
    assert elements.owners is None


def test_each_element_of_a_list_is_an_event_of_its_row():
    found, elements = values_at("user.id", "items[].sku", "items[].price")
    assert found == {"user.id": ["a", "a", None], "items[].sku": [7, 8, 9], "items[].price": [1.5, None, 2.0]}
    assert elements.owners.tolist() == [0, 0, 2]
    assert elements.num_empty == 1


def test_a_field_that_no_element_has_is_null():
    found, _ = values_at("items[].sku", "items[].colour")
    assert found["items[].colour"] == [None, None, None]


def test_lists_may_be_of_any_type():
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 2)):
        found = select_elements(pa.table({"items": pa.array([[1, None], None, [3, 4]], kind)}), ["items[]"])
        assert found.columns["items[]"].to_pylist() == [1, None, 3, 4], kind
        assert (found.owners.tolist(), found.num_empty) == ([0, 0, 2, 2], 1), kind


def test_a_wrong_path_is_an_error_with_the_columns_found():
    with pytest.raises(ValueError, match=r"there is no column `users`; use one of the columns user, items"):
        select_elements(NESTED, ["users.id"])
    with pytest.raises(ValueError, match=r"`user` has type struct.*, which is not a list"):
        select_elements(NESTED, ["user[].id"])
    with pytest.raises(
        ValueError,
        match=r"`items.sku` does not exist: the value before `.sku` has type list.*; write \[\] after the list",
    ):
        select_elements(NESTED, ["items.sku"])
    with pytest.raises(ValueError, match=r"found several lists in `items\[\].sku`, `user\[\].id`"):
        select_elements(NESTED, ["items[].sku", "user[].id"])


def test_quotes_make_a_constant():
    assert constant_of("'transaction'") == "transaction"
    assert constant_of('"view"') == "view"
    assert constant_of("view") is None
    assert [root_of(path) for path in ("a", "a.b", "items[].sku")] == ["a", "a", "items"]


def test_a_column_name_may_have_dots():
    columns = ["Customer.ID", "a", "a.b"]
    paths = ("Customer.ID", "Customer.ID.x", "a.b", "a.b[].c", "a.c", "none.x")
    assert [root_of(path, columns) for path in paths] == ["Customer.ID", "Customer.ID", "a.b", "a.b", "a", "none"]
    table = pa.table({"Customer.ID": ["v"], "a.b": [[{"c": 1}]]})
    found = select_elements(table, ["Customer.ID", "a.b[].c"]).columns
    assert {path: values.to_pylist() for path, values in found.items()} == {"Customer.ID": ["v"], "a.b[].c": [1]}


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        ("q > 0", [1, 0, -1, None], [True, False, False, False]),
        ("q >= 0", ["1", "0", "-1", "many"], [True, True, False, False]),
        ("q < 2,5", ["1", "2", "10", ""], [True, True, False, False]),
        ("q > +0.5", ["+5", "5.", ".7", "-1"], [True, True, True, False]),
        ("q in (1, 2)", [1.0, 2.0, None], [True, True, False]),
        ("name in ('a, b', c)", ["a, b", "b", "c"], [True, False, True]),
        ("name = 'this and that'", ["this and that", "this"], [True, False]),
        ("is_paid != False", [True, False, None], [True, False, False]),
        ("day >= 2024-01-01", [datetime.datetime(2024, 3, 1), datetime.datetime(2023, 3, 1)], [True, False]),
        ("items is not null", [[1], [], None], [True, True, False]),
        ("q != 3", [1, 3, None], [True, False, False]),
        ("kind = view", ["view", "cart", None], [True, False, False]),
        ("kind != 'view'", ["view", "cart", None], [False, True, False]),
        ("kind in (view, 'cart')", ["view", "cart", "buy"], [True, True, False]),
        ("kind not in view, cart", ["view", "cart", "buy"], [False, False, True]),
        ("user is not null", ["a", "", None], [True, False, False]),
        ("user is null", [1.0, float("nan"), None], [False, True, True]),
    ],
)
def test_a_condition_selects_rows(condition, values, expected):
    parsed = parse_condition(condition)
    assert parsed.is_met(pa.array(values)).tolist() == expected


@pytest.mark.parametrize("text", ["", "Quantity", "Quantity >", "> 3"])
def test_a_text_that_is_no_condition_is_an_error(text):
    with pytest.raises(ValueError, match="is not a condition; write one such as"):
        parse_condition(text)


@pytest.mark.parametrize("text", ["q > 0 and p > 0", "q > 0 OR q is null", "q = 1 = 2"])
def test_several_conditions_in_one_are_an_error(text):
    with pytest.raises(ValueError, match="has several conditions; give each separately"):
        parse_condition(text)


def test_values_that_a_condition_cannot_compare_are_an_error():
    with pytest.raises(ValueError, match=r"`items` has values of type list.*, not single values; .* map `items\[\]`"):
        parse_condition("items = 1").is_met(pa.array([[1]]))
    with pytest.raises(ValueError, match=r"`day > 2020` compares times with a number; write a date"):
        parse_condition("day > 2020").is_met(pa.array([datetime.date(2024, 3, 1)]))
    with pytest.raises(ValueError, match=r"`v` has bytes that are not text in UTF-8"):
        select_elements(pa.table({"v": [b"\xff"]}), ["v"])


def test_ids_are_text_whatever_their_type():
    assert to_ids(pa.array([12003.0, 12003.5, None, float("nan")])).to_pylist() == ["12003", "12003.5", "", ""]
    assert to_ids(pa.array([7, None])).to_pylist() == ["7", ""]
    assert to_ids(pa.array(["007", None])).to_pylist() == ["007", ""]
    assert to_ids(pa.array([decimal.Decimal("12003.00"), None])).to_pylist() == ["12003", ""]
    for kind in (
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ):
        assert to_ids(pa.array(["a", "b", "a"]).cast(kind)).to_pylist() == ["a", "b", "a"], kind


def test_numbers_may_have_a_decimal_comma():
    assert to_numbers(pa.array(["58,76", "1.5", " 2 ", "many", None])).to_pylist() == [58.76, 1.5, 2.0, None, None]


def test_separators_of_thousands_are_removed_if_they_are_unambiguous():
    texts = ["1,234.50", "1.234,50", "1,234,567", "1.234.567", "-12,345.", "1,234", "12,34.5", "1,2345,678"]
    # with a single separator, the number may have three decimals
    assert to_numbers(pa.array(texts)).to_pylist() == [1234.5, 1234.5, 1234567, 1234567, -12345, 1.234, None, None]
