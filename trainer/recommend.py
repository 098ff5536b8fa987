"""The recommend job: writes the best items of all visitors as sharded Parquet and JSON Lines.

Shapes: V visitors, I items, K items of a list.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from common import storage
from common.json_files import encode_json
from common.progress import make_bar
from common.settings import to_json
from common.storage.paths import join, shard_name
from trainer.data.dataset import Dataset
from trainer.data.id_files import read_ids
from trainer.data.offer import OfferRules, dataset_offer
from trainer.data.visitors import read_visitor_timelines
from trainer.distributed.cluster import is_chief, join_cluster
from trainer.distributed.replicas import Replicas, preempt_on_worker_loss, start_replicas
from trainer.models.interface import Queries, Scorer
from trainer.models.top_items import TopItems
from trainer.models.trained_run import TrainedRun, open_trained_run
from trainer.ranking.histories import Histories
from trainer.ranking.pieces import best_items, visitors_at_once
from trainer.ranking.topk import query_chunks, query_signature, translate_divergence_errors
from trainer.runs.checkpoint import weights_checksum
from trainer.serving.recommendation_files import ENCODERS, ItemNames, ShardLists
from trainer.serving.resumable_output import ResumableOutput, open_output

log = logging.getLogger(__name__)

FORMATS = tuple(ENCODERS)
SHARD_ENTRIES = 1_000_000
"""Recommended items per shard: with lists of 20, a shard has 50,000 visitors."""

_SUMMARY = "recommendations.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """Which recommendations to write, and how."""

    k: int = 20
    """Maximum number of items per visitor."""
    visitor_ids: Sequence[str] | None = None
    """Ids of the visitors, in the order of the output. Visitors without events in the dataset get popular items. None:
    all visitors with events."""
    formats: Sequence[str] = FORMATS
    """File formats, among `FORMATS`."""
    rules: OfferRules = field(default_factory=OfferRules)
    """Rules that select the items on offer; all other items are never recommended."""


@dataclass(frozen=True)
class _Audience:
    """The V visitors who get recommendations."""

    ids: Sequence[str]
    """[V] ids."""
    visitor: np.ndarray
    """[V] vocabulary indices; visitors outside the vocabulary have the index after its last one."""
    history: Histories
    """V histories: the whole timelines of the visitors, empty for unknown visitors."""
    is_unknown: np.ndarray
    """[V] bool: whether the dataset does not contain the visitor."""


@dataclass(frozen=True)
class _Shard:
    """A range of the visitors who get recommendations, and the shard's file name in each format."""

    visitors: slice
    files: Mapping[str, str]

    def __len__(self) -> int:
        return int(self.visitors.stop - self.visitors.start)


_Rank = Callable[[slice, Callable[[int], object]], ShardLists]
"""Function of (range, on_progress) that computes the lists for a range of the audience.

After each chunk, it calls `on_progress` with the number of visitors that the workers completed together since the last
call."""


def recommend(
    *,
    workdir: str,
    output: str,
    k: int = 20,
    visitors: str | None = None,
    formats: Sequence[str] = FORMATS,
    data: str | None = None,
    rules: OfferRules | None = None,
) -> dict[str, Any]:
    """Writes the k best items for each visitor, ranked by the run's best model.

    The workers of a cluster divide the visitors among them, and the chief writes the files.

    Args:
      workdir: directory of the run.
      output: directory or URI; may exist only if it is empty or the unfinished output of an interrupted call.
      k: maximum number of items per visitor.
      visitors: path of a file of visitor ids, one per line; None: all visitors with events.
      formats: file formats, among `FORMATS`.
      data: directory of the run's dataset. None: the path that the run was trained from.
      rules: rules that select the items on offer. None: all items, except those that are known to be unavailable at the
        end of the dataset.

    Returns:
      See `write_recommendations`.

    Raises:
      FileExistsError: see `write_recommendations`.
      ValueError: see `write_recommendations` and `open_trained_run`.
      ContractError: there is no dataset, or the dataset is damaged.
      OwnershipError: another process writes to `output`.
    """
    storage.refuse_existing(output, marker=_SUMMARY)
    visitor_ids = read_ids(visitors, "--visitors") if visitors else None
    request = Request(k=k, visitor_ids=visitor_ids, formats=formats, rules=rules or OfferRules())
    cluster = join_cluster()
    owned = storage.own_output(output) if is_chief(cluster) else nullcontext()
    with owned, preempt_on_worker_loss(cluster):
        replicas = start_replicas(1, cluster)
        run = open_trained_run(workdir, data, replicas)
        replicas.wait_for_all()  # every worker has checked `output` before the chief writes there
        summary = write_recommendations(
            run.model,
            run.dataset,
            output,
            request,
            model_checksum=_model_checksum(run),
            replicas=replicas,
        )
        replicas.wait_for_all()
        return summary


def _model_checksum(run: TrainedRun) -> str:
    """Returns a SHA-256 of everything that changes the ranking: the weights, the blend and the settings."""
    tables = [weights_checksum(workdir, step) for workdir, step in run.checkpoints.items()]
    blend = None if run.blend is None else asdict(run.blend)
    content = json.dumps([tables, blend, to_json(run.record.config)], sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def write_recommendations(
    scorer: Scorer,
    dataset: Dataset,
    output: str,
    request: Request,
    *,
    model_checksum: str,
    replicas: Replicas | None = None,
) -> dict[str, Any]:
    """Writes for each visitor the k best items on offer that the visitor's timeline does not contain.

    Lists are shorter if fewer items are left. The output is visible only when all lists are written. After an
    interruption, the same call resumes.

    Args:
      scorer: ranks the catalogue of the dataset.
      dataset: supplies the visitors and their timelines.
      output: directory or URI; may exist only if it is empty or the unfinished output of an interrupted call.
      request: what to write; `request.k` must be from 1 to I.
      model_checksum: identifies the scorer; a resumed call must pass the same value.
      replicas: the replicas of the run; its workers divide the visitors among them. None: this process works alone.

    Returns:
      The content of `recommendations.json` in `output`: the numbers of visitors and items, the checksums, and the paths
      of the shards by format.

    Raises:
      FileExistsError: `output` contains files other than the shards of an interrupted call with the same arguments.
      ValueError: k is out of range, there are no visitors, no item is on offer, or a score is NaN or infinite.
    """
    k, formats = request.k, sorted(set(request.formats))
    if not 1 <= k <= dataset.num_items:
        raise ValueError(f"k must be from 1 to {dataset.num_items}, the number of items in the catalogue; got {k}")
    is_chief = replicas is None or replicas.is_chief
    if is_chief:
        storage.refuse_existing(output, marker=_SUMMARY)
    audience = _choose_visitors(dataset, request.visitor_ids)
    if not audience.ids:
        raise ValueError("no visitors to recommend to: the list of visitors is empty; give at least one visitor id")
    offer = dataset_offer(dataset, request.rules)
    shard_visitors = max(SHARD_ENTRIES // k, 1)
    inputs = {
        "k": k,
        "formats": formats,
        "dataset": dataset.checksum,
        "model": model_checksum,
        "visitors": hashlib.sha256("\n".join(audience.ids).encode()).hexdigest(),
        "offered": hashlib.sha256(offer.is_offered.tobytes()).hexdigest(),
        "shard_visitors": shard_visitors,
    }
    shards = _divide(len(audience.ids), shard_visitors, formats)
    unfinished = open_output(output, inputs, marker=_SUMMARY) if is_chief else None
    missing = _find_missing(unfinished, shards, replicas)
    rank = _compile_ranking(scorer, audience, offer.is_offered, k, replicas)
    _write_shards(unfinished, missing, len(audience.ids), rank, dataset)
    summary = {
        "output": output,
        "k": k,
        "visitors": len(audience.ids),
        "visitors_unknown": int(audience.is_unknown.sum()),
        "offer": offer.to_json(),
        "dataset_checksum": dataset.checksum,
        "model_checksum": model_checksum,
        "files": {form: [join(output, shard.files[form]) for shard in shards] for form in formats},
    }
    if unfinished is not None:
        unfinished.publish(encode_json(summary))
        message = "wrote up to %d items for each of %d visitors (%d unknown) in %d shards of %s to %s"
        unknown = summary["visitors_unknown"]
        log.info(message, k, len(audience.ids), unknown, len(shards), " and ".join(formats), output)
    return summary


def _choose_visitors(dataset: Dataset, visitor_ids: Sequence[str] | None) -> _Audience:
    ids, rows = read_visitor_timelines(dataset)
    # the index after the last visitor has an empty history, and stands for ids that the dataset does not contain
    bounds = np.searchsorted(rows.visitor, np.arange(len(ids) + 1))
    histories = Histories.from_rows(rows, bounds, np.append(bounds[1:], len(rows)))
    if visitor_ids is None:
        chosen = np.flatnonzero(histories.lengths > 0)
        visitor_ids = [ids[index] for index in chosen.tolist()]
    else:
        index_of = {visitor_id: index for index, visitor_id in enumerate(ids)}
        chosen = np.array([index_of.get(visitor_id, len(ids)) for visitor_id in visitor_ids], np.int64)
    # all visitors outside the vocabulary share the first index beyond it; models know them by their histories
    return _Audience(
        ids=visitor_ids,
        visitor=np.minimum(chosen, dataset.num_visitors),
        history=histories.take(chosen),
        is_unknown=chosen == len(ids),
    )


def _divide(num_visitors: int, shard_visitors: int, formats: Sequence[str]) -> list[_Shard]:
    starts = range(0, num_visitors, shard_visitors)
    return [
        _Shard(
            slice(start, min(start + shard_visitors, num_visitors)),
            {form: shard_name("recommendations", number, len(starts), f".{form}") for form in formats},
        )
        for number, start in enumerate(starts)
    ]


def _find_missing(
    unfinished: ResumableOutput | None, shards: Sequence[_Shard], replicas: Replicas | None
) -> list[_Shard]:
    """Returns, on all workers, the shards that are not written yet; only the chief passes the output, `unfinished`."""
    is_missing = np.array(
        [unfinished is not None and not unfinished.has(shard.files.values()) for shard in shards], int
    )
    if replicas is not None:
        is_missing = replicas.sum_over_workers(is_missing)
    return [shard for shard, missing in zip(shards, is_missing, strict=True) if missing]


def _write_shards(
    unfinished: ResumableOutput | None, missing: Sequence[_Shard], num_visitors: int, rank: _Rank, dataset: Dataset
) -> None:
    """All workers rank items for the visitors of the missing shards; the chief writes the shards."""
    names = ItemNames.of(dataset)
    num_missing = sum(len(shard) for shard in missing)
    initial, is_shown = num_visitors - num_missing, unfinished is not None
    with make_bar(num_visitors, "visitors", initial=initial, is_shown=is_shown) as progress:
        for shard in missing:
            lists = rank(shard.visitors, progress.update)
            if unfinished is not None:
                unfinished.write({name: ENCODERS[form](lists, names) for form, name in shard.files.items()})
                log.info("wrote %s", ", ".join(shard.files.values()))


def _compile_ranking(
    scorer: Scorer, audience: _Audience, is_offered: np.ndarray, k: int, replicas: Replicas | None
) -> _Rank:
    num_items = len(is_offered)
    size = visitors_at_once(scorer, num_items)
    mask = None if is_offered.all() else tf.constant(is_offered)
    # the time of all requests is that of the last event in the dataset
    now_ms = np.full(len(audience.ids), audience.history.timestamp_ms.max(initial=0))

    @tf.function(input_signature=[query_signature(size)], autograph=False)
    def rank_chunk(queries: Queries) -> TopItems:
        return best_items(scorer, queries, k, num_items, is_offered=mask)

    def rank(visitors: slice, on_progress: Callable[[int], object]) -> ShardLists:
        history = audience.history.take(np.arange(visitors.start, visitors.stop))
        items, scores = np.zeros((len(history), k), np.int64), np.zeros((len(history), k), np.float32)
        reported = 0
        for chunk, queries in query_chunks(audience.visitor[visitors], history, now_ms[visitors], size, replicas):
            with translate_divergence_errors():
                top = rank_chunk(queries)
            count = chunk.stop - chunk.start
            items[chunk], scores[chunk] = top.item[:count].numpy(), top.score[:count].numpy()
            on_progress(chunk.stop - reported)
            reported = chunk.stop
        on_progress(len(history) - reported)
        if replicas is not None:  # one worker ranked for each visitor; the others hold zeros
            items, scores = replicas.sum_over_workers(items), replicas.sum_over_workers(scores)
        return ShardLists(audience.ids[visitors], items, scores)

    return rank
