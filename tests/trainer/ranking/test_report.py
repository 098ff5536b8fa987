from trainer.ranking.report import ranking_table, rating_table


def test_the_best_of_each_metric_but_coverage_is_bold_and_intervals_stand_in_brackets():
    table = ranking_table(
        {
            "mf": {"ndcg@10": {"value": 0.2, "low": 0.1, "high": 0.3}, "coverage@10": {"value": 0.5}},
            "popular": {"ndcg@10": {"value": 0.05, "low": 0.04, "high": 0.06}, "coverage@10": {"value": 0.75}},
        }
    )
    assert table.split("\n") == [
        "| metric      | mf                          | popular                 |",
        "| ----------- | --------------------------- | ----------------------- |",
        "| ndcg@10     | **0.2000** [0.1000, 0.3000] | 0.0500 [0.0400, 0.0600] |",
        "| coverage@10 | 0.5000                      | 0.7500                  |",
    ]


def test_squared_errors_stand_beside_those_of_constants():
    table = rating_table({"rows": 12, "mse": 0.05, "mse_of_training_mean": 0.0625, "mse_of_one": 0.07, "skill": 0.2})
    assert table.split("\n")[0] == "| event weights                    | 12 rows |"
    assert "| model, MSE                       | 0.0500 " in table
    assert "| skill, 1 − MSE / MSE of the mean | 0.2000 " in table


def test_a_skill_that_nothing_tells_is_a_dash():
    table = rating_table({"rows": 2, "mse": 0.0, "mse_of_training_mean": 0.0, "mse_of_one": 0.0, "skill": None})
    assert "| skill, 1 − MSE / MSE of the mean | –" in table
