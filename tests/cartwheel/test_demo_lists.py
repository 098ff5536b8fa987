"""Tests the lists that the demo prints."""

from cartwheel.demo.lists import _line, _name_without_title


def test_a_line_of_names_fits_100_columns_and_says_that_more_follow() -> None:
    short, long = _line("viewed", ["Blue mug", "Red pan"]), _line("recommended", ["Blue canvas sneakers"] * 9)
    assert short == "    viewed:       Blue mug, Red pan"
    assert len(long) <= 100
    assert long.startswith("    recommended:  Blue canvas sneakers, Blue")
    assert long.endswith(" …")


def test_an_item_without_a_title_is_named_by_its_id_and_categories() -> None:
    assert _name_without_title("51", ["Shoes", "Sneakers"]) == "51 (Shoes/Sneakers)"
    assert _name_without_title("51", []) == "item 51"
