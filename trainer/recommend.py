"""The recommendation job: the best items for everyone, as JSON Lines.

Shapes: V visitors, B visitors of a chunk, I items, K list.
"""

import collections
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from contract import storage
from contract.layout import join, shard_name
from contract.schema import Vocabulary
from contract.shards import Shard, read_timelines
from contract.timelines import TimelineRows
from trainer.cluster import join_cluster
from trainer.dataset import Dataset
from trainer.distribution import Replicas, start_replicas, stop_without_others
from trainer.models.interface import Queries, Scorer
from trainer.ranking.histories import Histories
from trainer.ranking.topk import (
    TopItems,
    chunk_size,
    query_chunks,
    query_signature,
    refusing_diverged,
    top_k,
    visible_scores,
)
from trainer.trained_run import open_trained_run

log = logging.getLogger(__name__)

SHARD_VISITORS = 50_000
_SUMMARY = "recommendations.json"


def recommend(
    *, workdir: str, output: str, k: int = 20, visitors: str | None = None, data: str | None = None
) -> dict[str, Any]:
    """Publishes the k best new items of each visitor by a run's best model; see `write_recommendations`.

    Workers of a cluster (see `cluster.read_cluster`) divide the ranking; the chief publishes.

    Args:
      workdir: directory of the run.
      output: a directory or URI where nothing stands yet.
      k: items a visitor.
      visitors: a file of the ids to answer, one a line; by default everyone who was seen.
      data: where the run's dataset lies now; by default where it lay when the run began.
    """
    storage.refuse_existing(output)
    cluster = join_cluster()
    with stop_without_others(cluster):
        replicas = start_replicas(1, cluster)
        visitor_ids = read_visitor_ids(visitors) if visitors else None
        run = open_trained_run(workdir, data)
        replicas.wait_for_all()  # all have seen that nothing stands at `output`
        summary = write_recommendations(run.model, run.dataset, output, k, visitor_ids, replicas)
        replicas.wait_for_all()
        return summary


def write_recommendations(
    scorer: Scorer,
    dataset: Dataset,
    output: str,
    k: int,
    visitor_ids: Sequence[str] | None = None,
    replicas: Replicas | None = None,
) -> dict[str, Any]:
    """Publishes the k best new items of each visitor, whole or not at all.

    Every item of a visitor's timeline, up to the end of the dataset, is hidden; where fewer than k items are left, his
    list is shorter.

    Args:
      scorer: ranks the catalogue of the dataset.
      dataset: whose visitors and timelines.
      output: a directory or URI where nothing stands yet.
      k: from 1 to I.
      visitor_ids: whom to answer, in this order; ids that training never saw have no history. By default everyone in
        the vocabulary who has one.
      replicas: whose workers share the ranking; the chief publishes.

    Returns:
      Counts and the paths of the shards; `recommendations.json` beside them holds the same.

    Raises:
      FileExistsError: something stands at `output`.
      ValueError: k is out of range, nobody is to be answered, or a score is NaN or infinite.
    """
    if not 1 <= k <= dataset.num_items:
        raise ValueError(f"k must be from 1 to {dataset.num_items}, the number of items in the catalogue; got {k}")
    storage.refuse_existing(output)
    ids, visitor, history = _choose_visitors(dataset, visitor_ids)
    if not ids:
        raise ValueError("there is nobody to recommend to: the list of visitors is empty")
    num_shards = -(-len(ids) // SHARD_VISITORS)
    names = [shard_name("recommendations", shard, num_shards, ".jsonl") for shard in range(num_shards)]
    item_ids = np.array(dataset.vocabulary(Vocabulary.ITEMS), object)
    chunks = _ranked_chunks(scorer, visitor, history, dataset.num_items, k, replicas)
    lines = (line for chunk, top in chunks for line in _lines(ids[chunk], item_ids, top))
    summary = {
        "output": output,
        "k": k,
        "visitors": len(ids),
        "visitors_unknown": int((visitor >= dataset.num_visitors).sum()),
        "dataset_checksum": dataset.checksum,
        "files": [join(output, name) for name in names],
    }
    if replicas is None or replicas.is_chief:
        _publish(output, names, lines, summary)
    else:
        collections.deque(lines, maxlen=0)  # its share of the ranking goes to the chief
    return summary


def _publish(output: str, names: Sequence[str], lines: Iterator[str], summary: dict[str, Any]) -> None:
    """Writes the lines into the files `names`, SHARD_VISITORS each, and the summary beside them."""
    with (
        storage.publish_directory(output, marker=_SUMMARY) as staging,
        tqdm(lines, total=summary["visitors"], unit="visitor", disable=None) as progress,  # shown on a terminal alone
    ):
        remaining = iter(progress)
        for name in names:
            shard = "".join(itertools.islice(remaining, SHARD_VISITORS))
            storage.write_bytes(join(staging, name), shard.encode())
            log.info("wrote %s", name)
        storage.write_bytes(join(staging, _SUMMARY), (json.dumps(summary, indent=2) + "\n").encode())


def read_visitor_ids(path: str) -> list[str]:
    """The ids of a file, one a line; empty lines are left out, and of an id that comes twice the first counts.

    Raises:
      FileNotFoundError: there is no such file.
    """
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


def _choose_visitors(dataset: Dataset, visitor_ids: Sequence[str] | None) -> tuple[list[str], np.ndarray, Histories]:
    """Ids, vocabulary indices [V] and histories of the visitors to answer."""
    known_ids, histories = dataset.vocabulary(Vocabulary.VISITORS), visitor_histories(dataset)
    if visitor_ids is None:
        visitor = np.flatnonzero(histories.lengths > 0)
        return [known_ids[index] for index in visitor], visitor, histories.take(visitor)
    index_of = {visitor_id: index for index, visitor_id in enumerate(known_ids)}
    # unknown visitors are all alike: the first index beyond the vocabulary, where an empty history is put
    visitor = np.array([index_of.get(visitor_id, len(known_ids)) for visitor_id in visitor_ids], np.int64)
    with_empty = replace(histories, begins=np.append(histories.begins, 0), ends=np.append(histories.ends, 0))
    return list(visitor_ids), visitor, with_empty.take(visitor)


def _ranked_chunks(
    scorer: Scorer, visitor: np.ndarray, history: Histories, num_items: int, k: int, replicas: Replicas | None
) -> Iterator[tuple[slice, TopItems]]:
    """Where each stretch of visitors lies, and their best items as NumPy arrays [B, K].

    Of a stretch, each worker ranks one chunk, and all get all.
    """
    size, workers = chunk_size(num_items), replicas.workers if replicas else 1

    @tf.function(input_signature=[query_signature(size)])
    def rank(queries: Queries) -> TopItems:
        return top_k(visible_scores(scorer, queries, is_seen_hidden=True), k)

    # the end of the dataset is the present, for everyone
    now_ms = np.full(len(visitor), history.timestamp_ms.max(initial=0))
    chunks = query_chunks(visitor, history, now_ms, size, replicas)
    for begin in range(0, len(visitor), workers * size):
        stretch = slice(begin, min(begin + workers * size, len(visitor)))
        item, score = np.zeros((stretch.stop - begin, k), np.int64), np.zeros((stretch.stop - begin, k), np.float32)
        for chunk, queries in itertools.islice(chunks, 1):  # in the last stretch, there may be none for this worker
            with refusing_diverged():
                top = rank(queries)
            own, count = slice(chunk.start - begin, chunk.stop - begin), chunk.stop - chunk.start
            item[own], score[own] = top.item[:count].numpy(), top.score[:count].numpy()
        if replicas is not None:
            item, score = replicas.sum_over_workers(item), replicas.sum_over_workers(score)
        yield stretch, TopItems(item, score)


def _lines(ids: Sequence[str], item_ids: np.ndarray, top: TopItems) -> Iterator[str]:
    for visitor_id, names, scores in zip(ids, item_ids[top.item], top.score.tolist(), strict=True):
        items = [
            {"item_id": name, "score": score}
            for name, score in zip(names, scores, strict=True)
            if score > -np.inf  # a hidden item fills the list up where too few are left
        ]
        yield json.dumps({"visitor_id": visitor_id, "items": items}, ensure_ascii=False) + "\n"
