"""The objective of the two towers: the item that came next against all others, estimated from samples.

Shapes: B rows of the global batch, b = B / R rows of this replica, H history, N drawn items, C = B + N candidates,
D embedding, W columns of the item table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import tensorflow as tf

from trainer.config import SampledSoftmaxConfig
from trainer.input_pipeline import Batch
from trainer.losses import sampled_softmax
from trainer.models.objectives import Prepared, Tables
from trainer.models.towers import DenseWeights, History, Towers, age_of
from trainer.negative_sampling import NegativeSampler


class _Inputs(NamedTuple):
    """Inputs of `NextItemObjective.loss`.

    item, event, age, is_entry   [b, H] the fields of `History`
    chosen                       [b] item of each row
    chosen_place                 [b] its place among the candidates
    weight                       [b] share of the global batch's weight
    candidates                   [C] items: those of the global batch, then the drawn ones
    log_expected_count           [C]
    is_candidate                 [C] False for padding and unknown items
    keep                         [b, H, D] 0 for a hidden entry of a history vector, else 1 / share kept
    """

    item: tf.Tensor
    event: tf.Tensor
    age: tf.Tensor
    is_entry: tf.Tensor
    chosen: tf.Tensor
    chosen_place: tf.Tensor
    weight: tf.Tensor
    candidates: tf.Tensor
    log_expected_count: tf.Tensor
    is_candidate: tf.Tensor
    keep: tf.Tensor


@dataclass(frozen=True)
class NextItemObjective:
    """Cross entropy of the next item against those of the history, of the global batch, and drawn ones.

    The items of a row's own history compete with certainty, so they are not corrected, and the same items among the
    batch's and the drawn ones are excluded for that row: counted twice, or corrected as if drawn, they would teach the
    model to return too rarely or too often. A row whose item, or whose whole history, is not in the vocabulary neither
    counts nor is a candidate.
    """

    config: SampledSoftmaxConfig
    tables: Tables
    replicas: int
    model: Towers
    sampler: NegativeSampler
    num_items: int
    seed: int

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        is_entry = batch.is_history & (batch.history < self.num_items)
        is_counted = batch.is_row & (batch.item < self.num_items) & tf.reduce_any(is_entry, axis=1)
        weights = tf.gather(tf.constant(self.config.event_weights), batch.event) * tf.cast(is_counted, tf.float32)
        drawn = self.sampler.draw(step)
        candidates = tf.concat([batch.item, drawn], axis=0)
        num_others = tf.maximum(tf.reduce_sum(tf.cast(is_counted, tf.float32)) - 1, 0)
        size = batch.item.shape[0] // self.replicas
        own = slice(replica * size, (replica + 1) * size)
        inputs = _Inputs(
            item=batch.history[own],
            event=batch.history_event[own],
            age=age_of(batch.history_age_ms[own]),
            is_entry=is_entry[own],
            chosen=batch.item[own],
            chosen_place=tf.range(own.start, own.stop),
            weight=tf.math.divide_no_nan(weights, tf.reduce_sum(weights))[own],
            candidates=candidates,
            log_expected_count=self.sampler.log_expected_count(tf.minimum(candidates, self.num_items - 1), num_others),
            is_candidate=tf.concat([is_counted, tf.ones_like(drawn, tf.bool)], axis=0),
            keep=self._keep(batch.history.shape, step)[own],
        )
        history = tf.reshape(batch.history, [-1])
        lookup = self.tables["item"].lookup(replica, tf.concat([history, candidates], axis=0), is_divided=False)
        # every replica reads the rows of all histories, but uses those of its own share alone
        length = batch.history.shape[1]
        place = tf.concat(
            [lookup.place[own.start * length : own.stop * length], lookup.place[history.shape[0] :]], axis=0
        )
        return Prepared({"item": replace(lookup, place=place)}, inputs)

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        given, weights = _Inputs(*inputs), DenseWeights(*dense)
        history = History(given.item, given.event, given.age, given.is_entry)
        num_entries = given.item.shape[0] * given.item.shape[1]
        history_rows = tf.reshape(vectors["item"][:num_entries], [*given.item.shape, -1])
        read = history_rows[..., : self.model.config.dim] * given.keep
        visitors = self.model.place_visitors(weights, read, history)
        items, biases = self.model.place_items(vectors["item"][num_entries:])
        scores = self.model.candidate_scores(visitors, items, biases)
        # [b, H, H]: an item that stands in the history twice has both bonuses, and competes once
        bonus = self.model.bonuses(weights, history)
        is_same = tf.equal(given.item[:, :, None], given.item[:, None, :]) & given.is_entry[:, None, :]
        own_items, own_biases = self.model.place_items(history_rows)
        own_scores = tf.einsum("bd,bhd->bh", visitors, own_items) + own_biases
        own_scores += tf.einsum("bij,bj->bi", tf.cast(is_same, tf.float32), bonus)
        is_repeated = tf.reduce_any(is_same & _is_earlier_column(given.item.shape[1]), axis=2)

        is_chosen = tf.equal(given.item, given.chosen[:, None]) & given.is_entry
        positive = tf.gather(scores, given.chosen_place, batch_dims=1)
        positive += tf.reduce_sum(tf.where(is_chosen, bonus, 0.0), axis=1)
        is_hit = tf.equal(given.chosen[:, None], given.candidates[None, :]) | _is_among(given.candidates, history)
        losses = sampled_softmax(
            positive,
            tf.concat([scores, own_scores], axis=1),
            tf.concat([tf.broadcast_to(given.log_expected_count, tf.shape(scores)), tf.zeros_like(own_scores)], axis=1),
            tf.concat([is_hit | ~given.is_candidate, is_chosen | is_repeated | ~given.is_entry], axis=1),
        )
        return tf.reduce_sum(given.weight * losses)

    def _keep(self, shape: tf.TensorShape, step: tf.Tensor) -> tf.Tensor:
        """[B, H, D]; a function of the seed, the step and the row's place in the global batch."""
        rate = self.model.config.dropout
        full = [*shape, self.model.config.dim]
        if rate == 0:
            return tf.ones(full)
        seed = tf.stack([tf.constant(self.seed, tf.int64), step])
        # folded, or the entries would follow the same numbers that drew the step's negatives
        uniform = tf.random.stateless_uniform(full, tf.random.fold_in(seed, 1))
        return tf.cast(uniform >= rate, tf.float32) / (1 - rate)


def _is_earlier_column(size: int) -> tf.Tensor:
    """[H, H] bool: True where the column comes before the row."""
    place = tf.range(size)
    return place[None, :] < place[:, None]


def _is_among(candidates: tf.Tensor, history: History) -> tf.Tensor:
    """[b, C] bool: the candidate is in the row's history."""
    item = tf.where(history.is_entry, history.item, -1)
    found = tf.equal(item[:, :1], candidates[None, :])
    for place in range(1, item.shape[1]):  # [b, C, H] at once would be ten times the scores
        found |= tf.equal(item[:, place, None], candidates[None, :])
    return found
