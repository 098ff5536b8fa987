from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import TableScorer, queries_of
from trainer.models.interface import PieceScorer, Queries
from trainer.ranking import pieces
from trainer.ranking.pieces import best_items, visitors_at_once
from trainer.ranking.topk import chunk_size, translate_divergence_errors

PIECE = 128


class TablePieces(TableScorer):
    """Looks up a piece of row v."""

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        rows = tf.gather(self.scores, queries.visitor)
        return lambda begin, size: rows[:, begin : begin + size]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "CPU_SHAPE", (40, PIECE))


@pytest.mark.parametrize("num_items", [PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 70])
@pytest.mark.parametrize("k", [1, 5, 129])
@pytest.mark.parametrize("offered_share", [None, 0.5, 0.02])
def test_pieces_give_the_same_lists_as_sorting_whole_rows(num_items, k, offered_share):
    """Scores have ties within and across pieces, hidden items, and a row in which each piece beats the earlier ones."""
    k = min(k, num_items)
    generator = np.random.default_rng(num_items)
    scores = generator.integers(0, 20, (40, num_items)).astype(np.float32)
    scores[10] = 3
    scores[11] = np.arange(num_items)
    scores[12, -1] = 99
    history = generator.integers(0, num_items + 5, (40, 30))  # some are not in the catalogue
    history[13] = np.arange(30)
    queries = queries_of(range(40), history.tolist())
    is_offered = None if offered_share is None else generator.random(num_items) < offered_share
    shown = scores if is_offered is None else np.where(is_offered, scores, -np.inf)
    hidden = shown.copy()
    for row, items in zip(hidden, history, strict=True):
        row[items[items < num_items]] = -np.inf
    mask = None if is_offered is None else tf.constant(is_offered)
    for visible, is_seen_hidden in ((hidden, True), (shown, False)):
        expected = np.lexsort([np.tile(np.arange(num_items), (40, 1)), -visible])[:, :k]
        values = np.take_along_axis(visible, expected, axis=1)
        options = {"is_seen_hidden": is_seen_hidden, "is_offered": mask}
        top = tf.function(best_items)(TablePieces(scores), queries, k, num_items, **options)
        np.testing.assert_array_equal(top.score, values)
        np.testing.assert_array_equal(
            np.where(np.isinf(values), -1, top.item), np.where(np.isinf(values), -1, expected)
        )


def test_if_all_items_are_hidden_all_scores_are_minus_infinity():
    queries = queries_of([0], [list(range(300))])
    top = best_items(TablePieces(np.ones((1, 300))), queries, 3, 300)
    np.testing.assert_array_equal(top.score, [[-np.inf] * 3])


@pytest.mark.parametrize("item", [0, PIECE + 3, 2 * PIECE + 1])
def test_a_score_that_is_not_finite_raises_in_every_piece(item):
    scores = np.ones((1, 2 * PIECE + 2))
    scores[0, item] = np.nan
    with pytest.raises(ValueError, match="diverged"), translate_divergence_errors():
        best_items(TablePieces(scores), queries_of([0]), 3, scores.shape[1])


def test_a_scorer_without_pieces_is_ranked_by_whole_rows():
    scores = np.arange(600.0)[None]
    top = best_items(TableScorer(scores), queries_of([0], [[599]]), 2, 600)
    np.testing.assert_array_equal(top.item, [[598, 597]])
    assert visitors_at_once(TableScorer(scores), 600) == chunk_size(600)
    assert isinstance(TablePieces(scores), PieceScorer)
    assert visitors_at_once(TablePieces(scores), 600) == 40
