"""The Model page: which models were tried, and how validation weighs those that the run uses."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.report.page import Block, Cell, Note, Page, Section, Table
from trainer.runs.blend_record import RETURN_FEATURES, BlendRecord, BlendWeights
from trainer.trained_run import OWN_RUN

RANKINGS = {"seen_hidden": "New items", "seen_shown": "Next item, new or seen"}
"""Titles of the two ways to rank, by their names in `blend.json`."""


def blend_page(name: str, blend: BlendRecord, trials: Sequence[Mapping[str, Any]]) -> Page:
    """Returns the page of a blend.

    Args:
      name: name of the run.
      blend: the blend.
      trials: entries of `auto.json`; empty for other presets.
    """
    sections = [Section(title, _ranking(blend, ranking, name)) for ranking, title in RANKINGS.items()]
    if trials:
        sections.insert(0, Section("Models that were tried", [_trials(trials)]))
    return Page(
        key="model",
        title="Model",
        subtitle=f"Run {name}: the weighted sum of models, popularity, trend and returns",
        sections=sections,
    )


def part_title(part: str, name: str) -> str:
    """The name of a part for people: `parts/walk` is walk, and the run itself has its own name."""
    return name if part == OWN_RUN else part.rpartition("/")[2]


def describe_weights(blend: BlendRecord, ranking: str, name: str) -> list[tuple[str, float]]:
    """Returns the features that a ranking uses and their weights, other than 0."""
    weights: BlendWeights = getattr(blend, ranking)
    names = [
        *(part_title(part, name) for part in blend.parts),
        "popularity",
        f"trend, half-life {blend.half_life_days:g} days",
        *(f"returns: {feature.replace('_', ' ')}" for feature in RETURN_FEATURES),
    ]
    return [(title, weight) for title, weight in zip(names, weights.to_array().tolist(), strict=True) if weight]


def _ranking(blend: BlendRecord, ranking: str, name: str) -> list[Block | Note]:
    table = Table(
        ["feature", "weight"], [[title, round(weight, 3)] for title, weight in describe_weights(blend, ranking, name)]
    )
    figures = blend.validation[ranking]
    if figures is None:
        return [
            Note("No case of the validation split, so the weights are those of the other list."),
            Block("Weights", table),
        ]
    rows: list[Sequence[Cell]] = [
        [part_title(part, name), round(value, 4)]
        for part, value in sorted(figures["parts"].items(), key=lambda pair: -pair[1])
    ]
    values = Table(["system", "NDCG@20"], [["the blend", round(figures["blend"], 4)], *rows])
    return [
        Block(f"Validation: {figures['cases']:,} cases, among the best candidates of each model", values),
        Block("Weights", table),
    ]


def _trials(trials: Sequence[Mapping[str, Any]]) -> Block:
    rows = [[trial["name"], trial["state"], round(trial["seconds"], 1), trial["reason"]] for trial in trials]
    return Block("Trials", Table(["model", "state", "seconds", "reason"], rows))
