"""The colours of the stylesheet have the contrast that WCAG 2 requires, in light and dark."""

import re
from importlib import resources

import pytest

SERIES = [f"series-{place}" for place in range(8)]
TREEMAP_STRENGTH = 0.4  # opacity of a cell over the card


def schemes() -> dict[str, dict[str, str]]:
    """Returns the CSS variables of each colour scheme."""
    style = resources.files("common.report").joinpath("report.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media screen", 1)
    )
    return {"light": light, "dark": light | dark}


def channels(colour: str) -> list[float]:
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def luminance(colour: list[float]) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[float], second: list[float]) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_has_the_contrast_of_the_standard():
    assert contrast(channels("#000000"), channels("#ffffff")) == pytest.approx(21)
    # known as the lightest grey with sufficient contrast on white: 4.54
    assert contrast(channels("#767676"), channels("#ffffff")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_pictures_have_enough_contrast(scheme):
    colours = {name: channels(value) for name, value in schemes()[scheme].items()}
    # text on the page and on a card; highlights; percentages and the tab of the open page, on a colour
    text = [(name, ground) for name in ("ink", "muted", "warning", "series-0") for ground in ("surface", "raised")]
    text += [("ink", "mark"), ("surface", "series-0"), ("surface", "series-1")]
    assert [pair for pair in text if contrast(colours[pair[0]], colours[pair[1]]) < 4.5] == []
    for name in SERIES:
        assert contrast(colours[name], colours["raised"]) >= 3, f"{name} as a mark on a card"
        cell = [
            TREEMAP_STRENGTH * over + (1 - TREEMAP_STRENGTH) * under
            for over, under in zip(colours[name], colours["raised"], strict=True)
        ]
        assert contrast(colours["ink"], cell) >= 4.5, f"text on a cell of {name}"
