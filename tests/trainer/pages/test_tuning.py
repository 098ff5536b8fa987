"""The page of a search has a table of all trials, and a picture of those with a validation."""

from common.report.page import Block, Note, Picture
from trainer.config.search import Choices, Range
from trainer.pages.tuning import tuning_page
from trainer.runs.trials import Trial

DIMENSIONS = [Choices("model.dim", ("16", "32")), Range("optimizer.learning_rate", 0.01, 1.0, True, False)]
TRIALS = [
    Trial(
        number=0,
        state="complete",
        settings={"model.dim": "16", "optimizer.learning_rate": "0.1"},
        value=0.25,
        validations={1: 0.2, 2: 0.25},
    ),
    Trial(
        number=1,
        state="pruned",
        settings={"model.dim": "32", "optimizer.learning_rate": "0.02"},
        value=0.125,
        validations={1: 0.125},
    ),
    Trial(
        number=2,
        state="failed",
        settings={"model.dim": "16", "optimizer.learning_rate": "0.9"},
        value=None,
        validations={},
        problem="the loss is NaN",
    ),
]
BEST = {"trial": 0, "metric": "ndcg@20", "value": 0.25, "settings": TRIALS[0].settings, "train": "T", "refit": "R"}


def test_the_table_has_all_trials_and_the_picture_those_with_a_validation() -> None:
    page = tuning_page("tune/mf", DIMENSIONS, TRIALS, BEST)
    picture, block = page.sections[1].parts
    assert isinstance(picture, Picture)
    assert isinstance(block, Block)
    assert [row[0] for row in picture.table.rows] == [0, 1]
    assert "from 0.1250 to 0.2500" in picture.summary
    for text in ("trial", "model.dim", "optimizer.learning_rate", "validation NDCG@20"):
        assert f">{text}<" in picture.svg
    assert "mathdefault" not in picture.svg, "powers of ten would be TeX"
    assert list(block.table.rows) == [
        [0, "complete", "16", "0.1", 2, 0.25, ""],
        [1, "pruned", "32", "0.02", 1, 0.125, ""],
        [2, "failed", "16", "0.9", None, None, "the loss is NaN"],
    ]


def test_a_search_without_a_validation_has_a_note_instead_of_a_picture() -> None:
    page = tuning_page("tune/mf", DIMENSIONS, TRIALS[2:], None)
    assert page.sections[1].parts[0] == Note("No trial is validated yet.")
