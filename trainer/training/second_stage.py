"""Trains the second stage of the towers after their last epoch, on next-item cases of the validation split.

The second stage is a network that reorders the best items of the towers. The towers were not trained on this split, so
the network learns how well their scores predict future events. It is trained on most of the visitors, and used only if
it ranks better than the towers alone for the other visitors. Every worker trains the same network, so training needs no
communication.

Shapes: V cases, E examples, C candidates, K candidates of an example, F features, I items of the vocabulary.
"""

import hashlib
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows
from trainer.config.models import TowersConfig, WalkConfig
from trainer.config.run import RunConfig
from trainer.data.baskets import baskets_of
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import HELD_OUT_SHARE, Cases, build_cases, next_items
from trainer.evaluation.evaluator import Evaluator
from trainer.models.interface import UNKNOWN_EVENT, Queries, Scorer
from trainer.models.second_stage import (
    FEATURES,
    UNITS,
    WALK,
    ItemFacts,
    Layers,
    RerankedTowers,
    SecondStage,
    score_candidates,
)
from trainer.models.second_stage_file import (
    SecondStageRecord,
    encode_second_stage,
    read_record_of_stage,
    write_second_stage,
)
from trainer.models.towers import inference_model
from trainer.models.walk import count_walk
from trainer.ranking.topk import chunk_size, query_chunks, query_signature
from trainer.runs import checkpoint

log = logging.getLogger(__name__)

LIST_LENGTH = 20
METRIC = f"ndcg@{LIST_LENGTH}"
"""Metric that decides whether the second stage is used."""
MAX_CASES = 4000
"""Maximum number of cases that the second stage is measured on."""

_RECENT_SHARE = 0.1  # share of the training events that count as recent
_PRIOR_EVENTS = 10.0  # events with the mean repeat rate, added to each item's own events
_MAX_CHUNK = 128
# candidates of an example: the positive and random others; doubling the number of cases helped more than doubling this
_NUM_KEPT = 24
_BATCH = 256
_EPOCHS, _LEAST_STEPS = 8, 450  # few examples get more epochs, for at least this many steps
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 1e-3


class Examples(NamedTuple):
    """E training examples of the second stage."""

    feature: np.ndarray
    """[E, K, F] float32 features of the candidates; the relevant item comes first."""
    score: np.ndarray
    """[E, K] float32 scores that the towers give the candidates, including the bonuses of seen items."""
    is_candidate: np.ndarray
    """[E, K] bool; False for padding."""


def add_second_stage(
    workdir: str, config: RunConfig, dataset: Dataset, replicas: Replicas, on_chunk: Callable[[], None]
) -> SecondStageRecord | None:
    """Trains a second stage for a run's best checkpoint, if it has none yet; all workers call this together.

    Args:
      workdir: directory of the run; its epochs must be complete.
      config: settings of the run.
      dataset: dataset of the run.
      replicas: all replicas; the chief writes the files.
      on_chunk: called between short pieces of work; an exception from it ends the training.

    Returns:
      The record of the second stage; None if the stage is not enabled, or if there are too few `training_cases`.
    """
    if not isinstance(config.model, TowersConfig) or not config.model.second_stage_cases:
        return None
    step = checkpoint.choose_step(workdir, replicas=replicas)
    record = read_record_of_stage(workdir)
    is_done = record is not None and record.step == step
    if replicas.any_worker(is_done and replicas.is_chief):
        return record
    cases = training_cases(config.model, config.evaluate.kinds, dataset)
    if cases is None:
        return None
    towers = inference_model(config.model, config, dataset)
    with checkpoint.read_weights_of_step(workdir, step).kept_open() as weights:
        towers.fill(weights)
    model = RerankedTowers(towers, dataset.num_items)
    training, held_out = cases.split_visitors(HELD_OUT_SHARE, seed=config.seed)
    stage = train_stage(model, training, config.model, config.seed, dataset, on_chunk)
    model.fill_stage(stage)
    held_out = held_out.sample(MAX_CASES, seed=config.seed)
    before, after = (_measure(scorer, held_out, replicas, on_chunk) for scorer in (towers, model))
    log.info(
        "second stage (re-ranking): %s is %.4f with it and %.4f without it, on %d held-out next-item cases",
        METRIC,
        after,
        before,
        len(held_out),
    )
    content = encode_second_stage(stage)
    record = SecondStageRecord(
        step=step,
        metric=METRIC,
        towers=before,
        second_stage=after,
        cases=len(held_out),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    if replicas.is_chief:
        write_second_stage(workdir, content, record)
    replicas.wait_for_all()
    return record


def _measure(scorer: Scorer, cases: Cases, replicas: Replicas, on_chunk: Callable[[], None]) -> float:
    return Evaluator(scorer, cases, [LIST_LENGTH], replicas=replicas).measure(on_chunk).mean(METRIC)


def training_cases(model: TowersConfig, kinds: Sequence[str], dataset: Dataset) -> Cases | None:
    """Builds the cases that train the second stage: the next-item cases of the validation split.

    An event of one of the `kinds` makes its item relevant.

    Returns None if there are fewer cases than the setting `second_stage_min_cases`.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = build_cases(dataset, Split.VALIDATION, next_items, kinds=kinds)
    if len(cases) >= model.second_stage_min_cases:
        return cases
    log.info(
        "no second stage (re-ranking): the validation split has only %d next-item cases; "
        "model.second_stage_min_cases requires %d",
        len(cases),
        model.second_stage_min_cases,
    )
    return None


def train_stage(
    model: RerankedTowers,
    cases: Cases,
    config: TowersConfig,
    seed: int,
    dataset: Dataset,
    on_chunk: Callable[[], None] = lambda: None,
) -> SecondStage:
    """Trains a second stage for trained towers.

    Args:
      model: the towers. This call sets their item walk and item statistics, but not their second-stage network.
      cases: next-item cases that are later than the training events.
      config: settings of the towers.
      seed: seed of all random choices.
      dataset: the dataset.
      on_chunk: called between short pieces of work; an exception from it ends the training.
    """
    rows = _training_rows(dataset)
    baskets = baskets_of(rows, dataset.num_items, max_items=WalkConfig().max_items)
    walk = count_walk(baskets, WALK.combinations[0], WALK.num_neighbours, on_chunk)
    facts = count_facts(rows, dataset.num_items)
    model.fill_facts(walk, facts)
    sample = cases.sample(config.second_stage_cases, seed=seed)
    examples = collect_examples(model, sample, config.context_dropout, seed, on_chunk)
    log.info(
        "second stage (re-ranking): training on %d of %d cases; in the other cases, the next item is not among the "
        "candidates",
        len(examples.score),
        len(sample),
    )
    return SecondStage(walk, facts, fit_layers(examples, seed, on_chunk))


def count_facts(rows: TimelineRows, num_items: int) -> ItemFacts:
    """Computes statistics of each item from the training events; see `ItemFacts`.

    Args:
      rows: the training events, grouped by timeline.
      num_items: the number of items, I.
    """
    known = rows[rows.item < num_items]
    start = np.quantile(rows.timestamp_ms, 1 - _RECENT_SHARE)
    timeline = np.cumsum(rows.position == 0) - 1
    is_repeat = np.ones(len(rows), bool)
    is_repeat[np.unique(timeline * (rows.item.max(initial=0) + 1) + rows.item, return_index=True)[1]] = False
    has_history = (rows.position > 0) & (rows.item < num_items)

    def count(item: np.ndarray) -> np.ndarray:
        return np.bincount(item, minlength=num_items)

    repeats, events = count(rows.item[has_history & is_repeat]), count(rows.item[has_history])
    mean = repeats.sum() / max(events.sum(), 1)
    return ItemFacts(
        popularity=np.log1p(count(known.item)).astype(np.float32),
        recent_popularity=np.log1p(count(known.item[known.timestamp_ms >= start])).astype(np.float32),
        repeat_rate=((repeats + _PRIOR_EVENTS * mean) / (events + _PRIOR_EVENTS)).astype(np.float32),
    )


def collect_examples(
    model: RerankedTowers, cases: Cases, dropped_share: float, seed: int, on_chunk: Callable[[], None] = lambda: None
) -> Examples:
    """Builds training examples; skips cases if their relevant item is not among the model's candidates.

    Args:
      model: the towers, the walk and the statistics of the items.
      cases: cases with one relevant item each.
      dropped_share: share of the cases that are passed to the model without event kinds and times.
      seed: seed for the choice of these cases and of the kept candidates.
      on_chunk: called before each chunk of cases.
    """
    generator, chunk_rows = np.random.default_rng(seed), min(_MAX_CHUNK, chunk_size(cases.num_items))
    find = tf.function(model.candidates, input_signature=[query_signature(chunk_rows)], autograph=False)
    # padded, because the last chunk of queries is padded
    is_context_dropped = np.pad(generator.random(len(cases)) < dropped_share, (0, chunk_rows))
    parts = []
    for chunk, queries in query_chunks(cases.visitor, cases.history, cases.timestamp_ms, chunk_rows):
        on_chunk()
        found = find(_drop_context(queries, is_context_dropped[chunk.start : chunk.start + chunk_rows]))
        size = chunk.stop - chunk.start
        item, is_candidate, score, feature = (column.numpy()[:size] for column in found)
        is_positive = (item == cases.relevant.values[chunk, None]) & is_candidate
        # the positive first, then candidates in random order, then padding
        order = np.argsort(generator.random(item.shape) - 2.0 * is_positive + 2.0 * ~is_candidate, axis=1)
        rows = np.flatnonzero(is_positive.any(axis=1))[:, None]
        kept = order[rows[:, 0], :_NUM_KEPT]
        parts.append(Examples(*(column[rows, kept] for column in (feature, score, is_candidate))))
    return Examples(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def fit_layers(examples: Examples, seed: int, on_epoch: Callable[[], None] = lambda: None) -> Layers:
    """Trains the network with the cross entropy of the relevant item among the candidates.

    Args:
      examples: E examples.
      seed: seed of the initial weights and of the order of the examples.
      on_epoch: called before each epoch.
    """
    generator = np.random.default_rng(seed)
    inputs = examples.feature[examples.is_candidate]
    if not len(inputs):  # no relevant item is a candidate: the network adds nothing
        inputs = np.zeros((1, len(FEATURES)))
    mean, deviation = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64) + 1e-3
    weights = [tf.Variable(value, dtype=tf.float32) for value in _initial_weights(generator)]
    optimizer = keras.optimizers.AdamW(_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    optimizer.build(weights)
    normalisation = [tf.constant(value, tf.float32) for value in (mean, deviation)]

    # any number of examples, so that the shorter last batch is not traced separately
    @tf.function(
        input_signature=[tf.TensorSpec([None, *column.shape[1:]], column.dtype) for column in examples],
        autograph=False,
    )
    def step(feature: tf.Tensor, score: tf.Tensor, is_candidate: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = score_candidates(Layers(*normalisation, *weights), feature, score)
            logits = tf.where(is_candidate, logits, -np.inf)
            loss = tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    steps_per_epoch = -(-len(examples.score) // _BATCH)
    epochs = max(_EPOCHS, -(-_LEAST_STEPS // max(steps_per_epoch, 1)))
    for epoch in range(epochs):
        on_epoch()
        optimizer.learning_rate.assign(_LEARNING_RATE * (1 - epoch / epochs))
        order = generator.permutation(len(examples.score))
        for begin in range(0, len(order), _BATCH):
            batch = order[begin : begin + _BATCH]
            step(*(tf.constant(column[batch]) for column in examples))
    return Layers(*(value.astype(np.float32) for value in (mean, deviation, *(weight.numpy() for weight in weights))))


def _initial_weights(generator: np.random.Generator) -> list[np.ndarray]:
    """Returns initial weights for `Layers`, without `mean` and `deviation`; the weights of the output layer are 0."""
    sizes = (len(FEATURES), *UNITS)
    first, second = (
        generator.normal(0, np.sqrt(2 / (before + after)), (before, after))
        for before, after in itertools.pairwise(sizes)
    )
    return [first, np.zeros(UNITS[0]), second, np.zeros(UNITS[1]), np.zeros((UNITS[1], 1)), np.ones(())]


def _drop_context(queries: Queries, is_context_dropped: np.ndarray) -> Queries:
    """Sets the event kinds of some queries to unknown; models then ignore the times of these events, too."""
    return queries._replace(history_event=tf.where(is_context_dropped[:, None], UNKNOWN_EVENT, queries.history_event))


def _training_rows(dataset: Dataset) -> TimelineRows:
    parts = []
    for shard in dataset.shards(Split.TRAIN):
        rows = read_timelines([shard])
        parts.append(rows[rows.is_target == 1])
    return TimelineRows.concatenate(parts)
