from trainer.evaluation.tables import (
    describe_available,
    primary_ranking,
    ranking_table,
    rating_table,
    secondary_ranking,
    summary_text,
)


def test_a_system_is_a_row_with_the_best_in_bold_and_a_mark_for_differences():
    table = ranking_table(
        {
            "mf": {"ndcg@20": {"value": 0.2, "low": 0.1, "high": 0.3}, "coverage@20": {"value": 0.5}, "ndcg@1": {}},
            "popular": {
                "ndcg@20": {"value": 0.05, "low": 0.04, "high": 0.06, "p": 0.04},
                "coverage@20": {"value": 0.75},
            },
            "item_knn": {
                "ndcg@20": {"value": 0.18, "low": 0.1, "high": 0.2, "p": 0.06},
                "coverage@20": {"value": 0.25},
            },
        }
    )
    assert table.split("\n") == [
        "| system   | ndcg@20                     | coverage@20 |",
        "| -------- | --------------------------- | ----------- |",
        "| mf       | **0.2000** [0.1000, 0.3000] | 0.5000      |",
        "| popular  | 0.0500† [0.0400, 0.0600]    | 0.7500      |",
        "| item_knn | 0.1800 [0.1000, 0.2000]     | 0.2500      |",
    ]


def test_squared_errors_are_compared_with_those_of_constants():
    table = rating_table({"rows": 12, "mse": 0.05, "mse_of_training_mean": 0.0625, "mse_of_one": 0.07, "skill": 0.2})
    assert table.split("\n")[0] == "| event weights                    | 12 rows |"
    assert "| model, MSE                       | 0.0500 " in table
    assert "| skill, 1 − MSE / MSE of the mean | 0.2000 " in table


def test_a_skill_of_null_is_a_dash():
    table = rating_table({"rows": 2, "mse": 0.0, "mse_of_training_mean": 0.0, "mse_of_one": 0.0, "skill": None})
    assert "| skill, 1 − MSE / MSE of the mean | –" in table


def protocol(primary="seen_shown", **ndcg):
    """A protocol with these systems and their NDCG@20; without systems, it has no cases."""
    first = next(iter(ndcg), None)
    ranking = {
        name: {
            metric: {"value": value, "low": value / 2, "high": 1, **({} if name == first else {"p": 0.01})}
            for metric in ("ndcg@20", "recall@20", "mrr@20")
        }
        | {"coverage@20": {"value": 0.5}}
        for name, value in ndcg.items()
    }
    return {
        "cases": {"cases": 1234, "cases_in_all": 1234, "visitors": 56, "catalogue_items": 7890},
        "primary": primary,
        "rankings": {"seen_hidden": None, "seen_shown": None, "available_only": None, primary: ranking or None},
    }


def test_a_protocol_has_a_primary_and_a_secondary_ranking():
    given = protocol("seen_hidden", nn=0.5)
    assert list(primary_ranking(given)) == ["nn"]
    assert secondary_ranking(given) == ("seen_shown", None)
    assert primary_ranking(protocol()) is None


def test_the_summary_is_a_table_of_the_main_protocol_and_a_line_on_each_other():
    result = {
        "step": 1500,
        "split": "test",
        "main_protocol": "next_item",
        "protocols": {
            "returning_visitors": protocol("seen_hidden", nn=0.02, random=0.001, item_knn_tfidf=0.03),
            "next_item": protocol(nn=0.25, item_knn_tfidf=0.2),
        },
        "ratings": None,
    }
    text = summary_text(result)
    assert text.split("\n") == [
        "Step 1,500, test split, next item: 1,234 cases, 56 visitors, 7,890 items",
        "  system          NDCG@20                 recall@20               MRR@20    coverage@20",
        "  nn              0.250 [0.125, 1.000]    0.250 [0.125, 1.000]    0.250     0.500",
        "  item_knn_tfidf  0.200† [0.100, 1.000]   0.200† [0.100, 1.000]   0.200†    0.500",
        "[95% intervals]; † differs from nn: paired bootstrap over visitors, p < 0.05",
        "Returning visitors: NDCG@20 is 0.020 for nn and 0.030 for item_knn_tfidf, the best baseline",
    ]
    assert max(map(len, text.split("\n"))) <= 100


def test_a_line_compares_the_systems_with_only_available_items():
    given = protocol("seen_hidden", nn=0.5, popular=0.25, random=0.125)
    assert describe_available(given) is None
    given["rankings"]["available_only"] = protocol("seen_hidden", nn=0.25, popular=0.125, random=0.375)["rankings"][
        "seen_hidden"
    ]
    given["cases"]["available_items"] = 4000
    assert describe_available(given) == (
        "With only available items as candidates (4,000 of 7,890 items; unavailable relevant items count as misses): "
        "NDCG@20 is 0.250 for nn and 0.375 for random, the best baseline"
    )
    assert secondary_ranking(given) == ("seen_shown", None)
    result = {"step": 7, "split": "test", "main_protocol": "p", "protocols": {"p": given}, "ratings": None}
    assert summary_text(result).endswith(
        "\nAvailable items only: NDCG@20 is 0.250 for nn and 0.375 for random, the best baseline"
    )


def test_the_summary_names_the_size_of_a_sample():
    sampled, whole = protocol(nn=0.25, random=0.125), protocol(nn=0.25, random=0.125)
    sampled["cases"] |= {"cases_in_all": 56789}
    result = {"step": 7, "split": "test", "main_protocol": "next_item", "ratings": None}
    lines = summary_text(result | {"protocols": {"next_item": sampled, "returning_visitors": whole}}).split("\n")
    assert lines[0] == "Step 7, test split, next item: 1,234 cases (sampled from 56,789), 56 visitors, 7,890 items"
    assert lines[-1] == "Returning visitors: NDCG@20 is 0.250 for nn and 0.125 for random, the best baseline"
    lines = summary_text(result | {"protocols": {"next_item": whole, "returning_visitors": sampled}}).split("\n")
    assert lines[-2:] == [
        "Returning visitors, 1,234 cases (sampled from 56,789):",
        "  NDCG@20 is 0.250 for nn and 0.125 for random, the best baseline",
    ]


def test_the_summary_names_missing_cases_and_the_squared_error():
    ratings = {"mse": 0.05, "skill": -0.25}
    result = {"step": 7, "split": "validation", "main_protocol": "next_item", "ratings": ratings}
    text = summary_text(result | {"protocols": {"next_item": protocol(), "returning_visitors": protocol()}})
    assert text.split("\n") == [
        "Step 7, validation split, next item: no cases",
        "Returning visitors: no cases",
        "Squared error on event weights: 0.0500, skill -0.25 over the training mean",
    ]
    constant = summary_text(result | {"protocols": {"next_item": protocol()}, "ratings": {"mse": 0.05, "skill": None}})
    assert constant.endswith("\nSquared error on event weights: 0.0500")
