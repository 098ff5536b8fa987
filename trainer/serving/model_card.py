"""The model card: what a model is, what it was trained on, how well it ranks, what it is for, what it cannot do.

Every number comes from `run.json`, the dataset's manifest and statistics, and `evaluation-SPLIT.json`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from common.settings import differences
from contract.manifest import Manifest
from contract.schema import EVENT_KINDS, Split, SplitMethod, Vocabulary
from trainer.config.losses import SquaredErrorConfig
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.evaluation.tables import (
    FOOTNOTE,
    MAIN_METRIC,
    SIGNIFICANT_P,
    markdown_table,
    primary_ranking,
    ranking_table,
    rating_table,
)
from trainer.models.build import describe_model
from trainer.models.description import ModelDescription
from trainer.runs.record import RunRecord

Figures = Mapping[str, Any]
"""`evaluation-SPLIT.json`, or a part of it."""

_USE = """\
For showing the items of this shop that a visitor may want next, and items like one at hand, to people who may well look
past them. Ask with the items that the visitor has touched, oldest first.

Not for another shop or catalogue, for prices, credit or anything else that is decided about a person, nor for telling
how much somebody wants an item: a score orders the items of one answer and means nothing by itself."""

_SIGNATURES = (
    (
        "`recommend`, `serving_default`",
        "`visitor_id` [B], `history` [B, H] oldest first, '' pads; `k`, `exclude_seen` without a dimension",
        "`item_id` and `score` [B, k], best first; '' where fewer than k items are left",
    ),
    (
        "`recommend_events`",
        f"the same, and of each entry `history_event` [B, H], {', '.join(EVENT_KINDS[:-1])} or {EVENT_KINDS[-1]}, and "
        "`history_age_ms` [B, H] int64, the time since",
        "the same",
    ),
    ("`score`", "`visitor_id` [B], `item_id` [B]", "`score` [B]"),
    ("`similar_items`", "`item_id` [B], `k` without a dimension", "`item_id` and `score` [B, k], the cosine"),
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a card tells of.

    record        of the run
    step          of the checkpoint that is the model
    manifest      of the dataset it was trained on
    period        first and last day with an event, as ISO dates; None where the dataset has no statistics
    evaluations   of this very checkpoint, by split; empty: it was not measured
    items         ids of items of the catalogue, at least one, for the example
    """

    record: RunRecord
    step: int
    manifest: Manifest
    period: tuple[str, str] | None
    evaluations: Mapping[Split, Figures]
    items: Sequence[str]


def model_card(subject: Subject) -> str:
    """The card as Markdown; the same subject gives the same text."""
    sections = {
        "How it was trained": _training(subject),
        "Data": _data(subject),
        "How well it ranks": _results(subject),
        "Intended use": _USE,
        "Limits": "\n".join(f"- {limit}" for limit in _limits(subject)),
        "How to ask it": _requests(subject),
    }
    told = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"{_head(subject)}\n\n{told}\n"


def _head(subject: Subject) -> str:
    config, versions = subject.record.config, subject.record.versions
    catalogue = subject.manifest.vocabularies[Vocabulary.ITEMS].size
    name, changes = nearest_preset(config)
    return (
        f"# Model card: {config.model.kind}, preset {name}{' with changes' if changes else ''}\n\n"
        f"Ranks the {catalogue:,} items of one shop for a visitor: {_describe(subject).principle}. "
        "It takes and gives the shop's own ids.\n\n"
        f"Cartwheel {versions.get('cartwheel', 'of an unknown version')}, "
        f"commit {subject.record.commit or 'unknown (not run from a checkout)'}."
    )


def _describe(subject: Subject) -> ModelDescription:
    sizes = (subject.manifest.vocabularies[name].size for name in (Vocabulary.CATEGORIES, Vocabulary.PROPERTY_VALUES))
    return describe_model(subject.record.config, has_content=any(sizes))


def nearest_preset(config: RunConfig) -> tuple[str, list[str]]:
    """The preset from which a config differs the least, and in what: `key: PRESET'S, now ITS OWN`."""
    found = {name: differences(preset, config) for name, preset in PRESETS.items()}
    name = min(found, key=lambda preset: len(found[preset]))
    return name, found[name]


def _training(subject: Subject) -> str:
    record, config = subject.record, subject.record.config
    name, changes = nearest_preset(config)
    parts: dict[str, Any] = {"model": config.scored_model}
    parts |= {"als": config.als} if config.solver == "als" else {"loss": config.loss, "optimizer": config.optimizer}
    rows = [
        ("preset", f"{name}, unchanged" if not changes else f"{name}, changed in {'; '.join(changes)}"),
        *((key, _told(part)) for key, part in parts.items()),
        ("input", _told(config.input)),
        ("epochs, solver, seed", f"at most {config.epochs}, {config.solver}, {config.seed}"),
        ("checkpoint", f"after step {subject.step:,}: the best of the validation split, or the last without one"),
        ("began with", record.warm_start["run"] if record.warm_start else "nothing learnt before"),
        ("software", ", ".join(f"{package} {version}" for package, version in record.versions.items())),
    ]
    return _table(["setting", "value"], rows)


def _told(config: Any) -> str:
    return ", ".join(f"{field.name} {getattr(config, field.name)}" for field in fields(config))


def _data(subject: Subject) -> str:
    record, manifest = subject.record, subject.manifest
    sizes = [f"{info.size:,} {name.replace('_', ' ')}" for name, info in manifest.vocabularies.items()]
    splits = {split: manifest.splits[split] for split in Split if split in manifest.splits}
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in record.events.items())
    rows = [
        ("dataset", f"{record.data}, checksum {record.dataset_checksum[:12]}"),
        ("events from", str(manifest.config["events"]) if "events" in manifest.config else "unknown"),
        ("period", " to ".join(subject.period) if subject.period else "unknown"),
        ("cuts", _cuts(manifest)),
        *((f"{name} rows", f"{info.target_rows:,} of {info.visitors:,} visitors") for name, info in splits.items()),
        ("training rows by kind", kinds),
        ("vocabularies", ", ".join(sizes)),
    ]
    return _table(["what", "value"], rows)


def _cuts(manifest: Manifest) -> str:
    if manifest.split_method == SplitMethod.NONE:
        return "none: all events train"
    if manifest.validation_from_ms is None or manifest.test_from_ms is None:
        return f"{manifest.split_method}: no times"
    return f"validation from {_moment(manifest.validation_from_ms)}, test from {_moment(manifest.test_from_ms)}"


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _results(subject: Subject) -> str:
    if not subject.evaluations:
        return _not_measured(subject.manifest)
    return "\n\n".join(part for figures in subject.evaluations.values() for part in _measured(figures))


def _not_measured(manifest: Manifest) -> str:
    if Split.TEST not in manifest.splits:
        return (
            "**Not measured.** The dataset keeps no rows back to measure on. What its settings are worth is told by a "
            "run with the same ones on a dataset that was prepared with `--split time`."
        )
    return (
        "**Not measured** when it was exported: nothing is known yet of how well it ranks. "
        "`python -m trainer evaluate --workdir RUN` measures the run's model beside the baselines; exported again, its "
        "card has the figures."
    )


def _measured(figures: Figures) -> Iterable[str]:
    """The paragraphs of one split."""
    yield (
        f"On the {figures['split']} split, the whole catalogue ranked. {FOOTNOTE}. coverage: share of the catalogue in "
        "anybody's list; gini: 0 every item alike, 1 the same few to everybody; novelty: bits, more for rarer items."
    )
    yield from (f"**{note}**" for note in figures["notes"])
    for name, protocol in figures["protocols"].items():
        title = f"### {name.replace('_', ' ').capitalize()} ({figures['split']})"
        ranking = primary_ranking(protocol)
        if ranking is None:
            yield f"{title}\n\n{protocol['protocol']}: nobody to rank for."
            continue
        counts = "{cases:,} cases of {visitors:,} visitors".format_map(protocol["cases"])
        yield f"{title}\n\nRelevant: {protocol['protocol']}. {counts}."
        yield ranking_table(ranking)
        yield _beside_the_best(ranking)
    if figures["ratings"]:
        yield f"### Squared error on event weights ({figures['split']})\n\n{rating_table(figures['ratings'])}"


def _beside_the_best(ranking: Figures) -> str:
    """The model beside the best baseline, in words."""
    (model, own), *others = ranking.items()
    best, figures = max(others, key=lambda system: system[1][MAIN_METRIC]["value"])
    value, other = own[MAIN_METRIC]["value"], figures[MAIN_METRIC]["value"]
    verdict = "above" if value > other else "below" if value < other else "equal to"
    is_told_apart = figures[MAIN_METRIC]["p"] < SIGNIFICANT_P
    return (
        f"{MAIN_METRIC} of {model} is {value:.4f}, {verdict} the best baseline's ({best}: {other:.4f})"
        f"{'' if is_told_apart else '; the two cannot be told apart by these cases'}."
    )


def _limits(subject: Subject) -> Iterable[str]:
    yield from _describe(subject).limits
    yield "Items that were not in the catalogue when the dataset was prepared are never recommended."
    if isinstance(subject.record.config.loss, SquaredErrorConfig):
        yield from _limits_of_squared_error(subject)
    yield from _limits_measured(subject)
    if subject.manifest.split_method == SplitMethod.RANDOM:
        yield "The dataset was split at random: later events leaked into training, and no figure tells of the future."
    yield (
        "It learnt from what people did in the shop as it was, with what they were shown: what was never shown had no "
        "chance to be liked, and what changed since it does not know. Train it again as the shop changes."
    )
    yield (
        "It knows nothing of stock, of today's prices, or of what may not be shown to whom: filter what it answers. "
        "`recommend` is not told what was done with the items of a history, nor when: a model that looks at that takes "
        "all for views of this moment. `recommend_events` is told, as the evaluation was."
    )
    yield "`assets/` holds the ids of the visitors it was trained on: personal data, wherever the ids lead to people."


def _limits_of_squared_error(subject: Subject) -> Iterable[str]:
    yield (
        "It was trained to predict the weight of an event that happened, not to rank: nothing taught it which items "
        "are not wanted. It is the original notebook's kind, kept for comparison; to recommend, train `mf` or `nn`."
    )
    for figures in subject.evaluations.values():
        ratings = figures["ratings"]
        verdict = (
            f"explains {ratings['skill']:.1%} of what that leaves"
            if ratings["skill"] is not None and ratings["skill"] > 0
            else "is no better than that constant"
        )
        yield (
            f"Its squared error on the {figures['split']} split is {ratings['mse']:.4f}; always predicting the mean of "
            f"the training rows gives {ratings['mse_of_training_mean']:.4f}: it {verdict}."
        )


def _limits_measured(subject: Subject) -> Iterable[str]:
    """What the evaluations tell of its bias to the popular, and of what they could not measure."""
    for figures in subject.evaluations.values():
        for name, protocol in figures["protocols"].items():
            ranking = primary_ranking(protocol)
            if ranking is None:
                continue
            own = next(iter(ranking.values()))
            shown = f"{own['coverage@20']['value']:.1%} of the catalogue, unevenly: Gini {own['gini@20']['value']:.3f}"
            unknown = protocol["cases"]["unknown_item_share"]
            yield (
                f"Popularity ({name.replace('_', ' ')}, {figures['split']}): all lists of 20 together show {shown} (0: "
                f"every item alike, 1: the same few to everybody). {unknown:.1%} of the rows were of items that could "
                "not be ranked, and count in no figure above."
            )


def _requests(subject: Subject) -> str:
    items, count = list(subject.items), min(5, subject.manifest.vocabularies[Vocabulary.ITEMS].size)
    inputs = {"visitor_id": [""], "history": [items], "k": count, "exclude_seen": True}
    body = json.dumps({"signature_name": "recommend", "inputs": inputs}, ensure_ascii=False)
    return f"""\
{markdown_table(["signature", "takes", "gives"], _SIGNATURES)}

Ids are strings, `k` is an int32 from 1 to the size of the catalogue. Unknown ids are answered, not refused; '' is a
visitor known by his history alone. In Python, TensorFlow is all it needs; `EXPORT` is the folder above `assets.extra`:

```python
import tensorflow as tf

model = tf.saved_model.load(EXPORT)
answer = model.signatures["recommend"](
    visitor_id=tf.constant([""]),
    history=tf.constant([{json.dumps(items, ensure_ascii=False)}]),
    k=tf.constant({count}),
    exclude_seen=tf.constant(True),
)  # item_id [1, {count}], score [1, {count}]
```

The same of TensorFlow Serving, as the body of a POST to `/v1/models/NAME:predict`:

```json
{body}
```"""


def _table(header: Sequence[str], rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of two columns, whatever the values hold."""
    return markdown_table(header, [(name, " ".join(value.split()).replace("|", "\\|")) for name, value in rows])
