"""The recommendation job: the best items for everyone, as sharded Parquet and JSON Lines.

Shapes: V visitors, B visitors of a chunk, I items, K list.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from common import storage
from common.progress import make_bar
from common.settings import to_json
from common.storage.paths import join, shard_name
from contract.schema import Vocabulary
from contract.shards import Shard, read_timelines
from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset
from trainer.distributed.cluster import join_cluster
from trainer.distributed.replicas import Replicas, preempt_on_worker_loss, start_replicas
from trainer.models.interface import Queries, Scorer
from trainer.ranking.histories import Histories
from trainer.ranking.pieces import best_items, visitors_at_once
from trainer.ranking.topk import TopItems, query_chunks, query_signature, translate_divergence_errors
from trainer.runs.checkpoint import weights_checksum
from trainer.serving.recommendation_files import ENCODERS, ShardLists
from trainer.serving.resumable_output import ResumableOutput, open_output
from trainer.trained_run import TrainedRun, open_trained_run

log = logging.getLogger(__name__)

FORMATS = tuple(ENCODERS)
SHARD_ENTRIES = 1_000_000
"""Items of all lists of a shard: of lists of 20, those of 50,000 visitors."""

_SUMMARY = "recommendations.json"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be written.

    k             items a visitor
    visitor_ids   whom to answer, in this order; ids that training never saw have no history. None: everyone in the
                  vocabulary who has one
    formats       any of `FORMATS`: every shard is written in each
    """

    k: int = 20
    visitor_ids: Sequence[str] | None = None
    formats: Sequence[str] = FORMATS


@dataclass(frozen=True)
class _Audience:
    """The visitors to answer: V ids, vocabulary indices [V], V histories."""

    ids: Sequence[str]
    visitor: np.ndarray
    history: Histories


@dataclass(frozen=True)
class _Shard:
    """A stretch of the audience, and the names of its files by format."""

    visitors: slice
    files: Mapping[str, str]

    def __len__(self) -> int:
        return int(self.visitors.stop - self.visitors.start)


_Rank = Callable[[slice, Callable[[int], object]], ShardLists]
"""Ranks for a stretch of the audience, and tells after each chunk how many visitors nearer to the end that is, those of
other workers included."""


def recommend(
    *,
    workdir: str,
    output: str,
    k: int = 20,
    visitors: str | None = None,
    formats: Sequence[str] = FORMATS,
    data: str | None = None,
) -> dict[str, Any]:
    """Publishes the k best new items of each visitor by a run's best model; see `write_recommendations`.

    Workers of a cluster (see `cluster.read_cluster`) divide the ranking; the chief publishes.

    Args:
      workdir: directory of the run.
      output: a directory or URI where nothing stands yet.
      k: items a visitor.
      visitors: a file of the ids to answer, one a line; by default everyone who was seen.
      formats: any of `FORMATS`.
      data: where the run's dataset lies now; by default where it lay when the run began.
    """
    storage.refuse_existing(output, marker=_SUMMARY)
    request = Request(k=k, visitor_ids=read_visitor_ids(visitors) if visitors else None, formats=formats)
    cluster = join_cluster()
    with preempt_on_worker_loss(cluster):
        replicas = start_replicas(1, cluster)
        run = open_trained_run(workdir, data, replicas)
        replicas.wait_for_all()  # all have seen that nothing stands at `output`
        summary = write_recommendations(
            run.model,
            run.dataset,
            output,
            request,
            model_checksum=_model_checksum(run, workdir),
            replicas=replicas,
        )
        replicas.wait_for_all()
        return summary


def _model_checksum(run: TrainedRun, workdir: str) -> str:
    """SHA-256 that stands for the model: of its weights and its settings, some of which count in ranking alone."""
    content = json.dumps([weights_checksum(workdir, run.step), to_json(run.record.config)], sort_keys=True)
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
    """Publishes the k best new items of each visitor, whole or not at all.

    Every item of a visitor's timeline, up to the end of the dataset, is hidden; where fewer than k items are left, his
    list is shorter. What a process had finished when it was killed is kept beside the output (see `resumable_output`):
    the same call goes on from there, and makes the same files.

    Args:
      scorer: ranks the catalogue of the dataset.
      dataset: whose visitors and timelines.
      output: a directory or URI where nothing stands yet.
      request: k from 1 to I.
      model_checksum: stands for the scorer: shards of others do not go together with its own.
      replicas: whose workers share the ranking; the chief publishes.

    Returns:
      Counts and the paths of the shards, by format; `recommendations.json` beside them holds the same.

    Raises:
      FileExistsError: something stands at `output`, or what is unfinished there was asked for otherwise.
      ValueError: k is out of range, nobody is to be answered, or a score is NaN or infinite.
    """
    k, formats = request.k, sorted(set(request.formats))
    if not 1 <= k <= dataset.num_items:
        raise ValueError(f"k must be from 1 to {dataset.num_items}, the number of items in the catalogue; got {k}")
    is_chief = replicas is None or replicas.is_chief
    if is_chief:
        storage.refuse_existing(output, marker=_SUMMARY)
    audience = _choose_visitors(dataset, request.visitor_ids)
    if not audience.ids:
        raise ValueError("there is nobody to recommend to: the list of visitors is empty")
    shard_visitors = max(SHARD_ENTRIES // k, 1)
    made_of = {
        "k": k,
        "formats": formats,
        "dataset": dataset.checksum,
        "model": model_checksum,
        "visitors": hashlib.sha256("\n".join(audience.ids).encode()).hexdigest(),
        "shard_visitors": shard_visitors,
    }
    shards = _divide(len(audience.ids), shard_visitors, formats)
    unfinished = open_output(output, made_of, marker=_SUMMARY) if is_chief else None
    missing = _find_missing(unfinished, shards, replicas)
    rank = _compile_ranking(scorer, audience, dataset.num_items, k, replicas)
    _write_shards(unfinished, missing, len(audience.ids), rank, dataset)
    summary = {
        "output": output,
        "k": k,
        "visitors": len(audience.ids),
        "visitors_unknown": int((audience.visitor >= dataset.num_visitors).sum()),
        "dataset_checksum": dataset.checksum,
        "model_checksum": model_checksum,
        "files": {form: [join(output, shard.files[form]) for shard in shards] for form in formats},
    }
    if unfinished is not None:
        unfinished.publish((json.dumps(summary, indent=2) + "\n").encode())
        told = "recommended up to %d items to each of %d visitors, %d of them unknown, in %d shards of %s at %s"
        unknown = summary["visitors_unknown"]
        log.info(told, k, len(audience.ids), unknown, len(shards), " and ".join(formats), output)
    return summary


def read_visitor_ids(path: str) -> list[str]:
    """The ids of a file, one a line; empty lines are left out, and of an id that comes twice the first counts.

    Raises:
      ValueError: there is no such file.
    """
    if not storage.exists(path):
        raise ValueError(f"--visitors {path} does not exist; give a file of visitors' ids, one a line")
    lines = storage.read_bytes(path).decode().split("\n")  # an id may hold what `splitlines` takes for a line's end
    return list(dict.fromkeys(line.rstrip("\r") for line in lines if line.rstrip("\r")))


def visitor_histories(dataset: Dataset) -> Histories:
    """A history for each visitor of the vocabulary: his whole timeline, all splits, oldest first."""
    parts = [
        _known_targets(shard, dataset.num_visitors)
        for split in dataset.manifest.splits
        for shard in dataset.shards(split)
    ]
    rows = TimelineRows.concatenate(parts)
    # stable: events of one moment stay in their order
    rows = rows[np.lexsort([rows.timestamp_ms, rows.visitor])]
    bounds = np.searchsorted(rows.visitor, np.arange(dataset.num_visitors + 1))
    return Histories.from_rows(rows, bounds[:-1], bounds[1:])


def _known_targets(shard: Shard, num_visitors: int) -> TimelineRows:
    """Each row of a dataset is a target in one split; the context would repeat it."""
    rows = read_timelines([shard])
    return rows[(rows.is_target == 1) & (rows.visitor < num_visitors)]


def _choose_visitors(dataset: Dataset, visitor_ids: Sequence[str] | None) -> _Audience:
    known_ids, histories = dataset.vocabulary(Vocabulary.VISITORS), visitor_histories(dataset)
    if visitor_ids is None:
        visitor = np.flatnonzero(histories.lengths > 0)
        return _Audience([known_ids[index] for index in visitor], visitor, histories.take(visitor))
    index_of = {visitor_id: index for index, visitor_id in enumerate(known_ids)}
    # unknown visitors are all alike: the first index beyond the vocabulary, where an empty history is put
    visitor = np.array([index_of.get(visitor_id, len(known_ids)) for visitor_id in visitor_ids], np.int64)
    with_empty = replace(histories, begins=np.append(histories.begins, 0), ends=np.append(histories.ends, 0))
    return _Audience(list(visitor_ids), visitor, with_empty.take(visitor))


def _divide(num_visitors: int, shard_visitors: int, formats: Sequence[str]) -> list[_Shard]:
    begins = range(0, num_visitors, shard_visitors)
    return [
        _Shard(
            slice(begin, min(begin + shard_visitors, num_visitors)),
            {form: shard_name("recommendations", number, len(begins), f".{form}") for form in formats},
        )
        for number, begin in enumerate(begins)
    ]


def _find_missing(
    unfinished: ResumableOutput | None, shards: Sequence[_Shard], replicas: Replicas | None
) -> list[_Shard]:
    """The shards that are to be written, as the chief finds them."""
    is_missing = np.array(
        [unfinished is not None and not unfinished.has(shard.files.values()) for shard in shards], int
    )
    if replicas is not None:
        is_missing = replicas.sum_over_workers(is_missing)
    return [shard for shard, is_one in zip(shards, is_missing, strict=True) if is_one]


def _write_shards(
    unfinished: ResumableOutput | None, missing: Sequence[_Shard], num_visitors: int, rank: _Rank, dataset: Dataset
) -> None:
    """Ranks for the shards that are missing; the chief, who has the output, writes them."""
    item_ids = np.array(dataset.vocabulary(Vocabulary.ITEMS), object)
    num_missing = sum(len(shard) for shard in missing)
    initial, is_shown = num_visitors - num_missing, unfinished is not None
    with make_bar(num_visitors, "visitors", initial=initial, is_shown=is_shown) as progress:
        for shard in missing:
            lists = rank(shard.visitors, progress.update)
            if unfinished is not None:
                unfinished.write({name: ENCODERS[form](lists, item_ids) for form, name in shard.files.items()})
                log.info("wrote %s", ", ".join(shard.files.values()))


def _compile_ranking(scorer: Scorer, audience: _Audience, num_items: int, k: int, replicas: Replicas | None) -> _Rank:
    size = visitors_at_once(scorer, num_items)
    # the end of the dataset is the present, for everyone
    now_ms = np.full(len(audience.ids), audience.history.timestamp_ms.max(initial=0))

    @tf.function(input_signature=[query_signature(size)], autograph=False)
    def rank_chunk(queries: Queries) -> TopItems:
        return best_items(scorer, queries, k, num_items)

    def rank(visitors: slice, tell: Callable[[int], object]) -> ShardLists:
        history = audience.history.take(np.arange(visitors.start, visitors.stop))
        items, scores = np.zeros((len(history), k), np.int64), np.zeros((len(history), k), np.float32)
        told = 0
        for chunk, queries in query_chunks(audience.visitor[visitors], history, now_ms[visitors], size, replicas):
            with translate_divergence_errors():
                top = rank_chunk(queries)
            count = chunk.stop - chunk.start
            items[chunk], scores[chunk] = top.item[:count].numpy(), top.score[:count].numpy()
            tell(chunk.stop - told)
            told = chunk.stop
        tell(len(history) - told)
        if replicas is not None:  # each visitor was ranked for by one worker, and has zeros with the others
            items, scores = replicas.sum_over_workers(items), replicas.sum_over_workers(scores)
        return ShardLists(audience.ids[visitors], items, scores)

    return rank
