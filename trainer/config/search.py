"""The search space of `tune`: the settings to search, and the possible values of each setting.

`KEY=a,b,c` lists choices, `KEY=low..high` is a range of numbers, and `KEY=low..high:log` a range on a logarithmic
scale. The range of an integer setting contains only whole numbers. If the values of a setting are lists, bars separate
the choices: `model.hidden=80,40|40,20`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.settings import apply_settings, type_of
from trainer.config.run import RunConfig


@dataclass(frozen=True)
class Choices:
    """A setting to search, and the list of its values to try."""

    key: str
    """Name of the setting, such as `model.dim`."""
    values: tuple[str, ...]
    """The values, as in `--set`."""


@dataclass(frozen=True)
class Range:
    """A setting to search, and the range of numbers to try."""

    key: str
    """Name of the setting."""
    low: float
    """Lowest value."""
    high: float
    """Highest value."""
    is_log: bool
    """Whether values are drawn on a logarithmic scale."""
    is_whole: bool
    """Whether values are whole numbers."""


Dimension = Choices | Range
"""A setting to search."""


def parse_search(texts: Sequence[str], config: RunConfig) -> list[Dimension]:
    """Parses settings to search; the docstring of this module has the forms of `texts`.

    Raises:
      ValueError: a text is malformed, repeats a setting, or has a value that `config` does not accept.
    """
    if not texts:
        raise ValueError("nothing to search; give settings with --search, such as model.dim=64,128")
    found = [_parse(text, config) for text in texts]
    keys = [dimension.key for dimension in found]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise ValueError(f"--search has {', '.join(sorted(repeated))} twice; give each setting once")
    for dimension in found:
        ends = dimension.values if isinstance(dimension, Choices) else (dimension.low, dimension.high)
        for value in ends:
            apply_settings(config, [f"{dimension.key}={value}"])
    return found


def _parse(text: str, config: RunConfig) -> Dimension:
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ValueError(f"--search must have the form KEY=a,b,c or KEY=low..high or KEY=low..high:log, got `{text}`")
    kind = type_of(config, key)
    low, dots, high = values.partition("..")
    if not dots:
        separator = "|" if kind is tuple else ","
        return Choices(key, tuple(values.split(separator)))
    if kind not in (int, float):
        raise ValueError(f"{key} is not a number, so it cannot have a range; list its values: --search {key}=a,b,c")
    is_log = high.endswith(":log")
    try:
        return _make_range(key, kind(low), kind(high.removesuffix(":log")), is_log=is_log)
    except ValueError as error:
        whole = "whole " if kind is int else ""
        rule = f"two {whole}numbers, the lower one first{', both above 0' if is_log else ''}"
        raise ValueError(f"the range of {key} must have {rule}, got {values}") from error


def _make_range(key: str, low: float, high: float, *, is_log: bool) -> Range:
    if not low < high or (is_log and low <= 0):
        raise ValueError
    return Range(key, low, high, is_log, isinstance(low, int))
