"""The objective of the two towers: the item that came next against all others, estimated from samples.

Shapes: B rows of the global batch, b = B / R rows of this replica, H history, N drawn items, C = B + N candidates,
D embedding, W columns of the item table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import tensorflow as tf

from trainer.config import SampledSoftmaxConfig
from trainer.input_pipeline import Batch
from trainer.losses import sampled_softmax
from trainer.models.objectives import Candidates, Prepared, Tables, dropout_mask, own_slice
from trainer.models.towers import DenseWeights, History, Towers, age_of
from trainer.negative_sampling import NegativeSampler


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
    seed: int

    def prepare(self, replica: int, batch: Batch, step: tf.Tensor) -> Prepared:
        is_entry = batch.is_history & (batch.history < self.sampler.num_items)
        is_counted = batch.is_row & (batch.item < self.sampler.num_items) & tf.reduce_any(is_entry, axis=1)
        own = own_slice(batch, replica, self.replicas)
        candidates = Candidates.of_batch(batch, is_counted, self.config.event_weights, self.sampler, step, own)
        entries = History(
            batch.history[own], batch.history_event[own], age_of(batch.history_age_ms[own]), is_entry[own]
        )
        shape = [*batch.history.shape, self.model.config.dim]
        keep = dropout_mask(shape, self.model.config.dropout, self.seed, step)
        history = tf.reshape(batch.history, [-1])
        lookup = self.tables["item"].lookup(replica, tf.concat([history, candidates.items], axis=0), is_divided=False)
        # every replica reads the rows of all histories, but uses those of its own share alone
        length = batch.history.shape[1]
        place = tf.concat(
            [lookup.place[own.start * length : own.stop * length], lookup.place[history.shape[0] :]], axis=0
        )
        return Prepared({"item": replace(lookup, place=place)}, (*candidates, *entries, keep[own]))

    def loss(
        self, vectors: Mapping[str, tf.Tensor], dense: Sequence[tf.Tensor], inputs: tuple[tf.Tensor, ...]
    ) -> tf.Tensor:
        *sampled, item, event, age, is_entry, keep = inputs
        given, history, weights = Candidates(*sampled), History(item, event, age, is_entry), DenseWeights(*dense)
        num_entries = item.shape[0] * item.shape[1]
        history_rows = tf.reshape(vectors["item"][:num_entries], [*item.shape, -1])
        read = history_rows[..., : self.model.config.dim] * keep
        visitors = self.model.place_visitors(weights, read, history)
        items, biases = self.model.place_items(vectors["item"][num_entries:])
        scores = self.model.candidate_scores(visitors, items, biases)
        # [b, H, H]: an item that stands in the history twice has both bonuses, and competes once
        bonus = self.model.bonuses(weights, history)
        is_same = tf.equal(item[:, :, None], item[:, None, :]) & is_entry[:, None, :]
        own_items, own_biases = self.model.place_items(history_rows)
        own_scores = tf.einsum("bd,bhd->bh", visitors, own_items) + own_biases
        own_scores += tf.einsum("bij,bj->bi", tf.cast(is_same, tf.float32), bonus)
        is_repeated = tf.reduce_any(is_same & _is_earlier_column(item.shape[1]), axis=2)

        is_chosen = tf.equal(item, given.chosen[:, None]) & is_entry
        positive = tf.gather(scores, given.chosen_place, batch_dims=1)
        positive += tf.reduce_sum(tf.where(is_chosen, bonus, 0.0), axis=1)
        is_hit = tf.equal(given.chosen[:, None], given.items[None, :]) | _is_among(given.items, history)
        losses = sampled_softmax(
            positive,
            tf.concat([scores, own_scores], axis=1),
            tf.concat([tf.broadcast_to(given.log_expected_count, tf.shape(scores)), tf.zeros_like(own_scores)], axis=1),
            tf.concat([is_hit | ~given.is_candidate, is_chosen | is_repeated | ~is_entry], axis=1),
        )
        return tf.reduce_sum(given.weight * losses)


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
