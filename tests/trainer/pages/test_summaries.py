"""Tests the summaries of made-up results."""

from trainer.pages.summaries import _describe_blend


def test_a_blend_without_a_model_is_the_same_for_every_visitor() -> None:
    alone = {"parts": [0.0], "popularity": -9.0, "trend": 2.0, "half_life_days": 7.0, "returns": [0.0] * 4}
    figures = {"cases": 30, "blend": 0.25, "parts": {"parts/walk": 0.125}}
    blend = {
        "parts": ["parts/walk"],
        "weights": {"new_items": alone, "returning": alone | {"parts": [0.5]}, "in_session": alone},
        "validation": {"new_items": figures, "returning": figures, "in_session": None},
    }
    assert _describe_blend(blend) == [
        "Blend for items new to the visitor: validation NDCG@20 0.250, best single model 0.125: "
        "2 × 7-day trend - 9 × popularity",
        "  No model has a weight here: apart from hidden seen items, all visitors get the same list.",
        "Blend for new or seen items after a break: validation NDCG@20 0.250, best single model 0.125: "
        "0.5 × walk + 2 × 7-day trend - 9 × popularity",
    ]


def test_the_summary_warns_of_weights_that_few_cases_chose() -> None:
    weights = {"parts": [1.0], "popularity": 0.0, "trend": 0.0, "half_life_days": 7.0, "returns": [0.0] * 4}
    figures = {"cases": 1, "blend": 0.5, "parts": {"parts/walk": 0.5}}
    rankings = ("new_items", "returning", "in_session")
    blend = {
        "parts": ["parts/walk"],
        "weights": dict.fromkeys(rankings, weights),
        "validation": {"new_items": None, "returning": {**figures, "cases": 29}, "in_session": figures},
    }
    lines = _describe_blend(blend)
    assert lines[1::2] == [
        "  Only 29 validation cases: these weights may be far from the best.",
        "  Only 1 validation case: these weights may be far from the best.",
    ]
