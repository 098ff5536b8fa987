"""The Model page shows the models that were tried, their metrics, and the weights in use."""

from common.report.page import Block, Note
from trainer.pages.blend import blend_page
from trainer.runs.blend_record import BlendRecord, BlendWeights

BLEND = BlendRecord(
    parts=(".", "parts/walk"),
    steps=(12, 3),
    weights={
        "new_items": BlendWeights(parts=(1.5, 0.25), trend=0.75, half_life_days=7.0),
        "returning": BlendWeights(parts=(0.0, 0.0), half_life_days=30.0, returns=(0.0, 1.0, 0.0, 0.0)),
        "in_session": BlendWeights(
            parts=(1.0, 0.0), popularity=-0.5, trend=0.25, half_life_days=1.0, returns=(2.0, 0.0, 0.5, 0.0)
        ),
    },
    validation={
        "new_items": {
            "cases": 1234,
            "parts": {".": 0.2, "parts/walk": 0.1, "parts/als": 0.3},
            "frequency": None,
            "blend": 0.4,
        },
        "returning": {"cases": 5, "parts": {".": 0.2, "parts/walk": 0.1}, "frequency": 0.3, "blend": 0.3},
        "in_session": None,
    },
)
TRIALS = [{"name": "walk", "state": "trained", "seconds": 12.34, "reason": ""}]


def test_weights_have_names_and_zeros_are_excluded() -> None:
    assert BLEND.describe_weights("new_items", "mf") == [
        ("mf", 1.5),
        ("walk", 0.25),
        ("trend, half-life 7 days", 0.75),
    ]
    assert BLEND.describe_weights("in_session", "mf") == [
        ("mf", 1.0),
        ("popularity", -0.5),
        ("trend, half-life 1 day", 0.25),
        ("returns: is seen", 2.0),
        ("returns: recency", 0.5),
    ]


def test_the_page_lists_all_systems_that_were_tried_best_first() -> None:
    tried, new, returning, in_session = blend_page("mf", BLEND, TRIALS).sections
    (trials,) = tried.parts
    assert isinstance(trials, Block)
    assert trials.table.rows == [["walk", "trained", 12.3, ""]]
    figures = new.parts[0]
    assert isinstance(figures, Block)
    assert figures.title.startswith("Validation: 1,234 cases")
    assert figures.table.rows == [["the blend", 0.4], ["als", 0.3], ["mf", 0.2], ["walk", 0.1]]
    own = returning.parts[0]
    assert isinstance(own, Block)
    assert own.table.rows[-1] == ["the visitor's own most frequent items", 0.3]
    assert isinstance(in_session.parts[0], Note)  # no cases
    assert [section.title for section in blend_page("mf", BLEND, []).sections] == [
        "New items",
        "New or seen items, after a break of at least half an hour",
        "New or seen items, within a session",
    ]
