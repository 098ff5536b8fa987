import pytest

from common.report.treemap import Box, squarify


def test_areas_are_proportional_and_fill_the_box():
    boxes = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    # 24 units of area for values that sum to 24
    assert [round(box.width * box.height, 9) for box in boxes] == [6, 6, 4, 3, 2, 2, 1]
    assert all(box.x >= 0 and box.x + box.width <= 6 + 1e-9 for box in boxes)
    assert all(box.y >= 0 and box.y + box.height <= 4 + 1e-9 for box in boxes)


def test_the_example_of_the_paper():
    # Bruls et al., figure 5: the two sixes are stacked at the left, 3 wide and 2 high
    first, second, third, *_ = squarify([6, 6, 4, 3, 2, 2, 1], Box(0, 0, 6, 4))
    assert first == Box(0, 0, 3, 2)
    assert second == Box(0, 2, 3, 2)
    # then 4 and 3 side by side: 7 units of area over a width of 3 are 7/3 high, and 4 is 12/7 wide
    assert third == pytest.approx((3, 0, 12 / 7, 7 / 3))


def test_no_values_give_no_boxes():
    assert squarify([], Box(0, 0, 6, 4)) == []
