"""The Model page: the models that were tried, and the weights of the blended ones."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.report.page import Block, Cell, Note, Page, Section, Table
from trainer.runs.blend_record import BlendRecord, part_title

TITLES = {
    "new_items": "New items",
    "returning": "New or seen items, after a break of at least half an hour",
    "in_session": "New or seen items, within a session",
}
"""Titles of the kinds of ranking, by their names in `blend.json`."""


def blend_page(name: str, blend: BlendRecord, trials: Sequence[Mapping[str, Any]]) -> Page:
    """Returns the Model page of a run that is a blend.

    Args:
      name: name of the run.
      blend: parts, weights and validation of the blend.
      trials: the models in `auto.json`; empty without `--preset auto`.
    """
    sections = [Section(title, _ranking(blend, ranking, name)) for ranking, title in TITLES.items()]
    if trials:
        sections.insert(0, Section("Models that were tried", [_trials(trials)]))
    return Page(
        key="model",
        title="Model",
        subtitle=f"Run {name}: the weighted sum of models, popularity, trend and returns",
        sections=sections,
    )


def _ranking(blend: BlendRecord, ranking: str, name: str) -> list[Block | Note]:
    described = blend.describe_weights(ranking, name)
    weights = Block("Weights", Table(["feature", "weight"], [[title, round(weight, 3)] for title, weight in described]))
    figures = blend.validation[ranking]
    if figures is None:
        return [
            Note("The validation split has no cases of this kind; the weights are those of the most similar kind."),
            weights,
        ]
    rows: list[Sequence[Cell]] = [
        [part_title(part, name), round(value, 4)]
        for part, value in sorted(figures["parts"].items(), key=lambda pair: -pair[1])
    ]
    if figures["frequency"] is not None:
        rows.append(["the visitor's own most frequent items", round(figures["frequency"], 4)])
    values = Table(["system", "NDCG@20"], [["the blend", round(figures["blend"], 4)], *rows])
    title = f"Validation: {figures['cases']:,} cases, among the best candidates of each model"
    return [Block(title, values), weights]


def _trials(trials: Sequence[Mapping[str, Any]]) -> Block:
    rows = [[trial["name"], trial["state"], round(trial["seconds"], 1), trial["reason"]] for trial in trials]
    return Block("Trials", Table(["model", "state", "seconds", "reason"], rows))
