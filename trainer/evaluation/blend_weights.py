"""Chooses the weights of a blend on the validation split.

Each kind of ranking has separate cases, weights and half-lives. `blend_candidates` finds the candidates of a sample of
cases, and `blend_search` searches for the weights that rank these candidates best.

Shapes: V cases, P parts, I items.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from contract.schema import Split
from trainer.data.dataset import Dataset
from trainer.data.trend import ItemEvents, count_trends, latest_trends, moments_of
from trainer.distributed.replicas import Replicas
from trainer.evaluation.blend_candidates import MAX_CELLS, CandidateFinder, join_candidates
from trainer.evaluation.blend_search import choose_half_life, choose_weights
from trainer.evaluation.candidate_search import HALF_LIVES
from trainer.evaluation.cases import HELD_OUT_SHARE, Cases, build_cases, next_items, returning_visitors
from trainer.models.blend import SESSION_GAP_MS, BlendInference, Part
from trainer.models.interface import Scorer, ServedModel
from trainer.runs.blend_record import RANKINGS, RETURN_FEATURES, BlendWeights, half_lives_of

MAX_CASES = 2000
"""Maximum number of cases that choose the weights of a ranking."""
LEAST_CASES = 100
"""Number of cases that are enough if the time is short."""
_FEW_VISITORS = 30  # weights chosen on fewer visitors alone are mostly noise, see docs/experiments.md
_FINDING_SHARE = 0.75  # of a ranking's time, for its candidates; the rest is for its weights
_BASELINE_CASES, _BASELINE_SCORES = 1000, 50_000_000


class OutOfTimeError(Exception):
    """The deadline is too early to choose the weights of a blend."""


@dataclass(frozen=True)
class BlendFit:
    """The weights of a blend, and the NDCG@20 that they reach in validation."""

    weights: dict[str, BlendWeights]
    """The weights of each of the `RANKINGS`."""
    validation: dict[str, Any]
    """See `BlendRecord.validation`."""


def fit_blend(
    parts: Sequence[Part],
    cases: Mapping[str, Sequence[Cases]],
    events: ItemEvents,
    item_counts: np.ndarray,
    *,
    has_trend_only: bool = False,
    max_cases: int = MAX_CASES,
    replicas: Replicas | None = None,
    on_chunk: Callable[[], None] = lambda: None,
    deadline: float | None = None,
    is_forced: bool = False,
) -> BlendFit:
    """Chooses the weights of a blend on the validation split.

    Without validation cases, all parts have the weight 1; without parts, the popularity has it.

    Args:
      parts: the P models to blend.
      cases: the validation cases of each ranking, see `ranking_cases`.
      events: the events of all splits.
      item_counts: [I] training events of each item.
      has_trend_only: whether to use only parts, popularity and trend, without return features, in all rankings.
      max_cases: maximum number of sampled cases per ranking; if it has cases of two protocols, half from each.
      replicas: all replicas; each worker ranks a part of the cases. None: this process ranks all cases.
      on_chunk: called before each chunk of cases.
      deadline: time on the clock `time.monotonic`; if little time remains, fewer cases are used. None: no limit. Must
        be None if there are several workers.
      is_forced: whether to use at least `LEAST_CASES` of a ranking's cases even after the deadline, instead of raising
        OutOfTimeError.

    Raises:
      OutOfTimeError: fewer than `LEAST_CASES` of a ranking's cases could be used before the deadline.
    """
    samples_of = {
        ranking: [each.sample_cases(max_cases // len(of_protocols), seed=0) for each in of_protocols]
        for ranking, of_protocols in cases.items()
    }

    @cache  # compiled once for several rankings, which takes seconds
    def finder_for(hides_seen: bool) -> CandidateFinder:
        num_cases = max(sum(map(len, samples_of[of])) for of in samples_of if (of == "new_items") == hides_seen)
        return CandidateFinder(
            parts,
            events,
            item_counts,
            replicas,
            hides_seen=hides_seen,
            has_all_items=num_cases * events.num_items <= MAX_CELLS,
        )

    choices, counts = {}, {}
    for number, (ranking, samples) in enumerate(samples_of.items()):
        hides_seen = ranking == "new_items"
        end, limits = _limits(deadline, len(samples), len(cases) - number)
        least = -(-LEAST_CASES // len(samples)) if is_forced else 0
        found = join_candidates(
            finder_for(hides_seen).find(sample, on_chunk, deadline=limit, least_cases=least)
            for sample, limit in zip(samples, limits, strict=True)
        )
        counts[ranking] = len(found.num_relevant)
        if not is_forced and counts[ranking] < min(LEAST_CASES, sum(map(len, samples))):
            raise OutOfTimeError(
                f"only {counts[ranking]} cases of the ranking {ranking} could be used before the time limit"
            )
        has_returns = not hides_seen and not has_trend_only
        half_life = choose_half_life(found, len(parts), has_returns=has_returns)
        choices[ranking] = choose_weights(found, len(parts), half_life, has_returns=has_returns, deadline=end)
    validation = {
        ranking: {
            "cases": counts[ranking],
            "parts": list(choice.alone),
            "frequency": choice.frequency,
            "blend": choice.value,
        }
        for ranking, choice in choices.items()
    }
    weights = _fill_missing({ranking: choice.weights for ranking, choice in choices.items()}, len(parts))
    return BlendFit(weights, {ranking: validation.get(ranking) for ranking in RANKINGS})


def _limits(deadline: float | None, num_samples: int, num_rankings: int) -> tuple[float | None, list[float | None]]:
    """Returns a deadline for the next ranking, and one for each of its samples of cases.

    `num_rankings`: number of rankings that share the remaining time.
    """
    if deadline is None:
        return None, [None] * num_samples
    now = time.monotonic()
    seconds = (deadline - now) / num_rankings
    share = _FINDING_SHARE * seconds / num_samples
    return now + seconds, [now + share * (number + 1) for number in range(num_samples)]


def ranking_cases(
    dataset: Dataset, kinds: Sequence[str] = (), *, held_out_seed: int | None = None
) -> dict[str, list[Cases]]:
    """Returns the validation cases for each of the `RANKINGS`; skips rankings without cases.

    - `new_items`: the cases of the protocol `returning_visitors`. With fewer than `_FEW_VISITORS`, also those of
      `in_session` whose item is new to the visitor.
    - `in_session`: the cases of the protocol `next_items` that are within a session.
    - `returning`: the cases outside a session, as two `Cases`: one of each protocol.

    Args:
      dataset: the dataset; without a validation split, there are no cases.
      kinds: event kinds that make an item relevant; empty: all.
      held_out_seed: seed of the run that trained a second stage (a network) on some of the validation visitors. Their
        cases are excluded from `returning` and `in_session`. None: no part has a second stage.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return {}
    visitors, rows = (build_cases(dataset, Split.VALIDATION, of, kinds) for of in (returning_visitors, next_items))
    held_out = [
        cases if held_out_seed is None else cases.split_visitors(HELD_OUT_SHARE, seed=held_out_seed)[1]
        for cases in (visitors, rows)
    ]
    in_session = held_out[1].take(np.flatnonzero(_in_session(held_out[1])))
    new_in_session = in_session.take(np.flatnonzero(in_session.is_new))
    cases = {
        "new_items": [visitors] if len(visitors) >= _FEW_VISITORS else [visitors, new_in_session],
        "returning": [each.take(np.flatnonzero(~_in_session(each))) for each in held_out],
        "in_session": [in_session],
    }
    some = {ranking: [each for each in cases[ranking] if len(each)] for ranking in RANKINGS}
    return {ranking: found for ranking, found in some.items() if found}


def _in_session(cases: Cases) -> np.ndarray:
    """[V] bool: whether each case is within a session, as in `models.blend.is_in_session`."""
    return cases.timestamp_ms - cases.history.timestamp_ms[cases.history.ends - 1] < SESSION_GAP_MS


def _fill_missing(weights: dict[str, BlendWeights], num_parts: int) -> dict[str, BlendWeights]:
    """Returns weights for all `RANKINGS`. A ranking missing in `weights` gets the weights of the most similar ranking.

    In `new_items`, the return features get the weight 0. A ranking that has no weights, or only zeros, gets equal
    weights: 1 for all parts; without parts, 1 for the popularity.
    """
    equal = BlendWeights(parts=(1.0,) * num_parts, popularity=float(not num_parts), half_life_days=HALF_LIVES[-1])
    similar = {
        "new_items": ("returning", "in_session"),
        "returning": ("in_session", "new_items"),
        "in_session": ("returning", "new_items"),
    }
    found = {
        ranking: next((weights[other] for other in (ranking, *similar[ranking]) if other in weights), equal)
        for ranking in RANKINGS
    }
    new_items = replace(found["new_items"], returns=(0.0,) * len(RETURN_FEATURES))
    return found | {"new_items": new_items if np.any(new_items.to_array()) else equal}


def baseline_cases(num_items: int) -> int:
    """Returns the number of validation cases that tune a baseline: at most 1,000, and at most 5 × 10⁷ / `num_items`."""
    return min(_BASELINE_CASES, max(_BASELINE_SCORES // num_items, 1))


def blend_alone(
    model: ServedModel | None,
    cases: Mapping[str, Sequence[Cases]],
    events: ItemEvents,
    item_counts: np.ndarray,
    *,
    has_sums: bool = True,
) -> BlendInference:
    """Blends a baseline with the popularity and trend of the items; validation chooses the weights.

    `model`: the baseline; None: popularity and trend only. `has_sums`: whether its scores are sums of weights, see
    `comparable_scores`. `fit_blend` explains the other arguments.
    """
    parts = [] if model is None else [Part(model, has_sums)]
    fit = fit_blend(parts, cases, events, item_counts, has_trend_only=True, max_cases=baseline_cases(len(item_counts)))
    trends = latest_trends(events, half_lives_of(fit.weights))
    return BlendInference(parts, weights=fit.weights, item_counts=item_counts, trends=trends)


def set_trends(systems: Iterable[Scorer], cases: Cases, events: ItemEvents) -> None:
    """Computes the trends at the moments of the cases (see `moments_of`), and sets them in all blends of `systems`."""
    moments = moments_of(cases.timestamp_ms, cases.num_items)
    values: dict[float, np.ndarray] = {}
    for system in systems:
        if isinstance(system, BlendInference):
            for days in system.half_lives_days:
                if days not in values:
                    values[days] = count_trends(events, moments, days).values
            system.set_trends(moments, np.stack([values[days] for days in system.half_lives_days]))
