"""The model card: model, training, data, evaluation, intended use, limitations and usage, as Markdown.

Every number comes from `run.json`, the dataset's manifest and statistics, and `evaluation-SPLIT.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from common.settings import differences
from contract.manifest import Manifest
from contract.schema import Split, SplitMethod, Vocabulary
from trainer.config.losses import SquaredErrorConfig
from trainer.config.models import CountedConfig
from trainer.config.presets import AUTO, PRESETS
from trainer.config.run import RunConfig
from trainer.evaluation.tables import (
    FOOTNOTE,
    MAIN_METRIC,
    SIGNIFICANT_P,
    describe_available,
    describe_refit,
    markdown_table,
    metric_title,
    primary_ranking,
    ranking_table,
    rating_table,
)
from trainer.models.build import describe_model
from trainer.models.description import ModelDescription
from trainer.runs.blend_record import BlendRecord
from trainer.runs.record import RunRecord

Figures = Mapping[str, Any]
"""`evaluation-SPLIT.json`, or a part of it."""

_USE = """\
The model recommends items of this shop: those that a visitor may want next, and those similar to a given item. Its
inputs are the items of the visitor's history, oldest first.

Do not use it for another shop or catalogue, nor for prices, credit or other decisions about people. Scores only order
the items of one list; they do not measure how much a visitor wants an item."""

_LISTS = {
    "new_items": "without seen items",
    "returning": "with seen items, after a break of at least half an hour",
    "in_session": "with seen items, within a session",
}
"""Descriptions of the rankings of a blend."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a model card describes: the run, its dataset and its evaluations."""

    record: RunRecord
    """Record of the training run."""
    step: int
    """Step of the checkpoint that is exported."""
    manifest: Manifest
    """Manifest of the training dataset."""
    period: tuple[str, str] | None
    """First and last day with an event, as ISO dates; None if the dataset has no statistics."""
    evaluations: Mapping[Split, Figures]
    """Evaluations of this checkpoint by split; empty if there are none. For a refit, those of the refitted run."""
    items: Sequence[str]
    """Item ids of the catalogue for the usage example, at least one."""
    blend: BlendRecord | None = None
    """The blend that computes the scores; None: the model alone computes them."""
    trials: Mapping[str, RunRecord] = field(default_factory=dict)
    """Records of the blended runs of `auto`, by title; empty for other presets, whose own run is in the blend."""


def model_card(subject: Subject) -> str:
    """Returns the model card as Markdown."""
    sections = {
        "Training": _training(subject),
        **({"Blend": _blend(subject.blend, subject.record.config.name)} if subject.blend else {}),
        "Data": _data(subject),
        "Evaluation": _results(subject),
        "Intended use": _USE,
        "Limitations": "\n".join(f"- {limit}" for limit in _limits(subject)),
        "Usage": _usage(subject),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_head(subject)}\n\n{body}\n"


def _head(subject: Subject) -> str:
    config, versions = subject.record.config, subject.record.versions
    catalogue = subject.manifest.vocabularies[Vocabulary.ITEMS].size
    name, changes = nearest_preset(config)
    is_changed = bool(changes) and not subject.trials
    principle = f"a blend of {', '.join(subject.trials)}" if subject.trials else _describe(subject).principle
    return (
        f"# Model card: {config.name}{f' (preset {name} with changes)' if is_changed else ''}\n\n"
        f"Ranks the {catalogue:,} items of one shop for a visitor: {principle}. "
        "Inputs and outputs are the shop's own ids.\n\n"
        f"Trained with Cartwheel {versions.get('cartwheel', '(unknown version)')}, "
        f"commit {subject.record.commit or 'unknown (not run from a checkout)'}."
    )


def _describe(subject: Subject, config: RunConfig | None = None) -> ModelDescription:
    """Describes the model of a run; `config` are its settings, None: those of the subject's own run."""
    sizes = (subject.manifest.vocabularies[name].size for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES))
    return describe_model(config or subject.record.config, has_content=any(sizes))


def nearest_preset(config: RunConfig) -> tuple[str, list[str]]:
    """Returns the preset with the fewest differences from `config`, and these differences.

    A difference is `KEY: OLD, now NEW`: the value in the preset, then the value in `config`. The name does not count,
    because the models of `auto` have names of their own.
    """
    changes = {name: differences(preset, replace(config, name=name)) for name, preset in PRESETS.items()}
    name = min(changes, key=lambda preset: len(changes[preset]))
    return name, changes[name]


def _training(subject: Subject) -> str:
    record = subject.record
    name, changes = nearest_preset(record.config)
    rows = [
        ("seed", str(record.config.seed)),
        ("refit of", _refit(record)),
        ("warm start", f"from {record.warm_start['run']}" if record.warm_start else "no"),
        ("software", ", ".join(f"{package} {version}" for package, version in record.versions.items())),
    ]
    if subject.blend is None or not subject.trials:
        preset = f"{name}, unchanged" if not changes else f"{name}, changed: {'; '.join(changes)}"
        return _table(["setting", "value"], [("preset", preset), *_model_rows(record, subject.step), *rows])
    parts = [_table(["setting", "value"], [("preset", AUTO), *rows])]
    for (title, trial), step in zip(subject.trials.items(), subject.blend.steps, strict=True):
        principle = _describe(subject, trial.config).principle
        table = _table(["setting", "value"], _model_rows(trial, step))
        parts.append(f"### {title}\n\n{principle[0].upper()}{principle[1:]}.\n\n{table}")
    return "\n\n".join(parts)


def _model_rows(record: RunRecord, step: int) -> list[tuple[str, str]]:
    """Returns the settings of a run's model and of its training, and the checkpoint."""
    config = record.config
    parts: dict[str, Any] = {"model": config.scored_model}
    if config.solver == "als":
        parts["als"] = config.als
    elif config.solver == "sgd":
        parts |= {"loss": config.loss, "optimizer": config.optimizer}
    return [
        *((key, _format_settings(part)) for key, part in parts.items()),
        *_chosen_powers(config, step),
        ("input", _format_settings(config.input)),
        ("epochs", f"at most {config.num_epochs}"),
        ("solver", config.solver),
        ("checkpoint", f"step {step:,}: {_describe_choice(record)}"),
    ]


def _blend(blend: BlendRecord, name: str) -> str:
    rows = [
        (title, ", ".join(f"{weight:.3g} × {feature}" for feature, weight in blend.describe_weights(ranking, name)))
        for ranking, title in _LISTS.items()
    ]
    intro = (
        "A score is a weighted sum: the scores of models, the popularity and trend of the item, and how often and how "
        "recently the item is in the history. Validation chose the weights. The trend is computed at the end of the "
        "data; `cartwheel refresh` updates it."
    )
    return f"{intro}\n\n{_table(['list', 'weights'], rows)}"


def _refit(record: RunRecord) -> str:
    if record.refit_of is None:
        return "no"
    return "{run}: the same settings, trained on all events, to the best epoch of {run} ({epochs})".format_map(
        record.refit_of
    )


def _describe_choice(record: RunRecord) -> str:
    if record.refit_of is not None:
        return "the last, because a refit has no validation"
    return "best on the validation split, or last if there is none"


def _chosen_powers(config: RunConfig, step: int) -> Iterable[tuple[str, str]]:
    """Yields a row for the model card: the exponents of checkpoint `step`, if the model has exponents."""
    if isinstance(config.model, CountedConfig):
        yield "powers", str(config.model.combinations[step - 1])


def _format_settings(config: Any) -> str:
    return ", ".join(f"{field.name} {getattr(config, field.name)}" for field in fields(config))


def _data(subject: Subject) -> str:
    record, manifest = subject.record, subject.manifest
    sizes = [f"{info.size:,} {name.replace('_', ' ')}" for name, info in manifest.vocabularies.items()]
    splits = {split: manifest.splits[split] for split in Split if split in manifest.splits}
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in record.events.items())
    rows = [
        ("dataset", f"{record.data}, checksum {record.dataset_checksum[:12]}"),
        ("event log", str(manifest.config["events"]) if "events" in manifest.config else "unknown"),
        ("period", " to ".join(subject.period) if subject.period else "unknown"),
        ("split", f"{_split(manifest)}{'; the model was trained on all splits' if record.refit_of else ''}"),
        *(
            (f"{name} split", f"{info.target_rows:,} rows of {info.visitors:,} visitors")
            for name, info in splits.items()
        ),
        ("training events", kinds),
        ("vocabularies", ", ".join(sizes)),
    ]
    return _table(["property", "value"], rows)


def _split(manifest: Manifest) -> str:
    if manifest.split_method == SplitMethod.NONE:
        return "none: all rows are for training"
    if manifest.validation_from_ms is None or manifest.test_from_ms is None:
        return str(manifest.split_method)
    return (
        f"validation from {_format_time(manifest.validation_from_ms)}, test from {_format_time(manifest.test_from_ms)}"
    )


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _results(subject: Subject) -> str:
    refit_of = subject.record.refit_of
    if not subject.evaluations:
        return _explain_missing(subject.manifest) if refit_of is None else _explain_unevaluated(refit_of)
    parts = [part for figures in subject.evaluations.values() for part in _evaluation(figures)]
    return "\n\n".join(parts if refit_of is None else [f"**{describe_refit(refit_of)}**", *parts])


def _explain_unevaluated(refit_of: Figures) -> str:
    return f"**Not evaluated.** {describe_refit(refit_of)} To measure it, evaluate {refit_of['run']}, then refit again."


def _explain_missing(manifest: Manifest) -> str:
    if Split.TEST not in manifest.splits:
        return (
            "**Not evaluated.** The dataset has no validation or test split. To measure these settings, train with "
            "them on a dataset that was prepared with `--split time`."
        )
    return (
        "**Not evaluated** before the export. `cartwheel evaluate --workdir RUN` compares the model with the "
        "baselines; export the run again to add the results to its card."
    )


def _evaluation(figures: Figures) -> Iterable[str]:
    yield (
        f"Every system ranked the whole catalogue for the visitors of the {figures['split']} split. {FOOTNOTE}. "
        "Coverage is the share of the catalogue that any list contains; Gini is 0 if all items are recommended equally "
        "often and near 1 if only a few are; novelty is in bits and higher for rarer items."
    )
    yield from (f"**{note}**" for note in figures["notes"])
    for name, protocol in figures["protocols"].items():
        title = f"### {name.replace('_', ' ').capitalize()} ({figures['split']})"
        ranking = primary_ranking(protocol)
        if ranking is None:
            yield f"{title}\n\nNo cases. Relevant items would be {protocol['protocol']}."
            continue
        counts = "{cases:,} cases of {visitors:,} visitors".format_map(protocol["cases"])
        yield f"{title}\n\nRelevant items: {protocol['protocol']}. {counts}."
        yield ranking_table(ranking)
        yield _compare_with_best_baseline(ranking)
        if available := describe_available(protocol):
            yield f"{available}."
    if figures["ratings"]:
        yield f"### Squared error on event weights ({figures['split']})\n\n{rating_table(figures['ratings'])}"


def _compare_with_best_baseline(ranking: Figures) -> str:
    (model, own), *others = ranking.items()
    best, figures = max(others, key=lambda system: system[1][MAIN_METRIC]["value"])
    value, other = own[MAIN_METRIC]["value"], figures[MAIN_METRIC]["value"]
    verdict = "above" if value > other else "below" if value < other else "equal to"
    is_significant = figures[MAIN_METRIC]["p"] < SIGNIFICANT_P
    return (
        f"The {metric_title(MAIN_METRIC)} of {model} is {value:.4f}, {verdict} that of the best baseline "
        f"({best}: {other:.4f}){'' if is_significant else '; the difference is not significant'}."
    )


def _limits(subject: Subject) -> Iterable[str]:
    yield from _limits_of_models(subject)
    yield "Items that were not in the catalogue when the dataset was prepared are never recommended."
    if isinstance(subject.record.config.loss, SquaredErrorConfig):
        yield from _limits_of_squared_error(subject)
    yield from _limits_measured(subject)
    if subject.manifest.split_method == SplitMethod.RANDOM:
        yield (
            "The dataset was split at random, so later events leaked into training, and the results do not predict how "
            "the model will do on future events."
        )
    yield (
        "The model learned from the events of visitors in the shop at that time. Items that the shop did not show had "
        "no chance to be chosen, and later changes are unknown to the model. Train it again as the shop changes."
    )
    yield (
        "Lists contain only items on offer: by default, all items that the catalogue does not mark as unavailable. "
        "The offer dates from the export or from its last `cartwheel refresh`, which needs no training; "
        "`assets.extra/model.json` has the counts. The model ignores current prices and legal restrictions."
    )
    yield (
        "`recommend` has no inputs for the kinds and times of the events in a history, so they are unknown to models "
        "that use them. `recommend_events` has these inputs, as the evaluation does."
    )
    yield "`assets/` contains the ids of the training visitors: personal data if they can be traced to people."


def _limits_of_models(subject: Subject) -> Iterable[str]:
    if not subject.trials:
        yield from _describe(subject).limits
        return
    names: dict[str, list[str]] = {}
    for title, trial in subject.trials.items():
        for limit in _describe(subject, trial.config).limits:
            names.setdefault(limit, []).append(f"`{title}`")
    for limit, titles in names.items():
        yield f"{', '.join(titles)}: {limit}"


def _limits_of_squared_error(subject: Subject) -> Iterable[str]:
    yield (
        "The model was trained to predict the weights of observed events, not to rank: it never saw items that "
        "visitors did not choose. It reproduces the original notebook for comparison; for recommendations, train `mf` "
        "or `nn`."
    )
    for figures in subject.evaluations.values():
        ratings = figures["ratings"]
        verdict = (
            f"{ratings['skill']:.1%} less than"
            if ratings["skill"] is not None and ratings["skill"] > 0
            else "no less than"
        )
        yield (
            f"The squared error on the {figures['split']} split is {ratings['mse']:.4f}, {verdict} that of a constant, "
            f"the mean of the training rows ({ratings['mse_of_training_mean']:.4f})."
        )


def _limits_measured(subject: Subject) -> Iterable[str]:
    """Yields a text per evaluated split and protocol of the evaluation: popularity bias and share of unknown items."""
    for figures in subject.evaluations.values():
        for name, protocol in figures["protocols"].items():
            ranking = primary_ranking(protocol)
            if ranking is None:
                continue
            own = next(iter(ranking.values()))
            coverage, gini = own["coverage@20"]["value"], own["gini@20"]["value"]
            unknown = protocol["cases"]["unknown_item_share"]
            yield (
                f"Popularity bias ({name.replace('_', ' ')}, {figures['split']}): the lists of 20 contain "
                f"{coverage:.1%} of the catalogue, with a Gini coefficient of {gini:.3f} (0: all items "
                f"equally often, 1: a few items only). {unknown:.1%} of the rows have an item outside the "
                "catalogue; no metric includes these rows."
            )


def _signatures(kinds: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns the name, the inputs and the outputs of each signature of the exported model."""
    any_kind = f"{', '.join(kinds[:-1])} or {kinds[-1]}" if len(kinds) > 1 else kinds[0]
    return [
        (
            "`recommend`, `serving_default`",
            "`visitor_id` [B]; `history` [B, H], oldest first, padded with ''; `k`, `exclude_seen`: one value or [B]",
            "`item_id` and `score` [B, largest k] of items on offer, best first; '' after the last one",
        ),
        (
            "`recommend_events`",
            f"the same, with `history_event` [B, H] ({any_kind}) and `history_age_ms` [B, H] int64 (milliseconds since "
            "the event)",
            "the same",
        ),
        ("`score`", "`visitor_id` [B]; `item_id` [B]", "`score` [B]"),
        (
            "`similar_items`",
            "`item_id` [B]; `k` [B]",
            "`item_id` and `score` [B, largest k], the similarity, of items on offer",
        ),
    ]


def _usage(subject: Subject) -> str:
    items, count = list(subject.items), min(5, subject.manifest.vocabularies[Vocabulary.ITEMS].size)
    inputs = {"visitor_id": [""], "history": [items], "k": [count], "exclude_seen": [True]}
    body = json.dumps({"signature_name": "recommend", "inputs": inputs}, ensure_ascii=False, allow_nan=False)
    return f"""\
{markdown_table(["signature", "inputs", "outputs"], _signatures(subject.manifest.event_kinds))}

Ids are strings, and `k` is int32, from 1 to the size of the catalogue. Unknown ids are allowed; use '' for a visitor
with a history and no id. Python needs TensorFlow only; `EXPORT` is the directory that contains `assets.extra`:

```python
import tensorflow as tf

model = tf.saved_model.load(EXPORT)
answer = model.signatures["recommend"](
    visitor_id=tf.constant([""]),
    history=tf.constant([{json.dumps(items, ensure_ascii=False, allow_nan=False)}]),
    k=tf.constant([{count}]),
    exclude_seen=tf.constant([True]),
)  # item_id [1, {count}], score [1, {count}]
```

The same request to TensorFlow Serving is the body of a POST to `/v1/models/NAME:predict`:

```json
{body}
```"""


def _table(header: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    """Formats a Markdown table."""
    return markdown_table(header, [(name, " ".join(value.split()).replace("|", "\\|")) for name, value in rows])
