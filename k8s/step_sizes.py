"""Sets the memory and disk of steps by the number of visitors and items, for catalogues that exceed the defaults."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from common.settings import apply_settings
from k8s.rendering import Placement, Step
from k8s.sizing import (
    CACHE,
    GIB,
    ModelSize,
    evaluate_memory,
    evaluate_tmp,
    prepare_memory,
    train_memory,
    train_tmp,
    whole,
)
from trainer.config.models import CountedConfig, MatrixFactorizationConfig, TowersConfig
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.config.search import Choices, Dimension

_CACHE_VARIABLE = "CARTWHEEL_CACHE_BYTES"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}
_LARGEST = {"model.dim": max, "model.history_length": min}
"""Searched settings that change the size of a model, and how to choose the value of the largest; without histories,
visitors have a table."""


class VocabularySizes(NamedTuple):
    """Numbers of visitors and items of a dataset."""

    visitors: int
    items: int


def parse_vocabulary(text: str) -> VocabularySizes:
    """Parses `VISITORS,ITEMS`, such as `10M,1M`; raises ValueError if `text` is not two whole numbers above 0."""
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([KMB]?),([0-9]{1,12}(?:\.[0-9]{1,9})?)([KMB]?)", text.upper())
    if found:
        visitors, items = (Decimal(found[number]) * _UNITS[found[number + 1]] for number in (1, 3))
        if min(visitors, items) >= 1 and visitors % 1 == items % 1 == 0:
            return VocabularySizes(int(visitors), int(items))
    raise ValueError(
        f"{text!r} is not VISITORS,ITEMS; give two numbers of at least 1, such as 10M,1M or 10000000,1000000"
    )


def largest_config(config: RunConfig, searched: Sequence[Dimension]) -> RunConfig:
    """Returns `config` with the searched values that make the model largest."""
    for dimension in searched:
        if dimension.key in _LARGEST:
            values = dimension.values if isinstance(dimension, Choices) else (dimension.low, dimension.high)
            value = _LARGEST[dimension.key](int(value) for value in values)
            config = apply_settings(config, [f"{dimension.key}={value}"])
    return config


def set_sizes(
    steps: Sequence[Step],
    vocabulary: VocabularySizes,
    config: RunConfig | None,
    placement: Placement,
    *,
    has_bucket: bool,
) -> list[Step]:
    """Returns the steps with the memory and `/tmp` that they need.

    Args:
      steps: steps without sizes.
      vocabulary: numbers of visitors and items.
      config: config of the run; None: unknown, so that of the preset `mf` is assumed.
      placement: the number of GPUs and machines, and the variables of training.
      has_bucket: whether files of the run are in an object store, so that `/tmp` has copies.

    Raises:
      ValueError: the variable for the size of the cache is not a number of bytes.
    """
    size = model_size(PRESETS["mf"] if config is None else config, vocabulary)
    return [_set_size(step, vocabulary, size, placement, has_bucket=has_bucket) for step in steps]


def model_size(config: RunConfig, vocabulary: VocabularySizes) -> ModelSize | None:
    """Returns the size of a run's model; None: there is no formula for a model that is computed from counts."""
    model = config.scored_model
    if isinstance(model, CountedConfig):
        return None
    has_visitors = not model.history_length or (
        isinstance(model, TowersConfig) and model.visitor_min_events is not None
    )
    ranks_visitors = has_visitors or isinstance(model, MatrixFactorizationConfig)
    return ModelSize(
        table_rows=vocabulary.items + has_visitors * vocabulary.visitors,
        ranked_rows=vocabulary.items + ranks_visitors * vocabulary.visitors,
        dim=model.dim,
        arrays_per_table=3 if config.optimizer.kind == "adam" else 2,
    )


def _set_size(
    step: Step, vocabulary: VocabularySizes, size: ModelSize | None, placement: Placement, *, has_bucket: bool
) -> Step:
    if step.name == "prepare":
        return replace(step, memory_gib=whole(prepare_memory(*vocabulary)))
    if size is None:
        return step
    if step.name == "evaluate-export":
        memory, tmp = evaluate_memory(size), evaluate_tmp(size)
    else:
        memory = train_memory(size, gpus=placement.gpus, nodes=placement.nodes)
        tmp = train_tmp(size, cache=_cache(placement.environment))
    return replace(step, memory_gib=whole(memory), tmp_gib=whole(tmp) if has_bucket else 0)


def _cache(environment: Mapping[str, str]) -> float:
    """Returns the GiB of the cache of training."""
    given = environment.get(_CACHE_VARIABLE)
    if given is None:
        return CACHE
    if not re.fullmatch("[0-9]+", given):
        raise ValueError(f"--env {_CACHE_VARIABLE} must be a whole number of bytes, got {given!r}")
    return int(given) / GIB
