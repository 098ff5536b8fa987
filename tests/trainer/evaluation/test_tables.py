from trainer.evaluation.tables import for_terminal, group_table, ranking_table, rating_table


def test_a_system_is_a_row_with_the_best_of_each_metric_in_bold_and_a_mark_where_it_differs():
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


def test_a_terminal_shows_the_best_in_bold_in_columns_that_line_up():
    table = for_terminal("| mf       | **0.2000** [0.1, 0.3] |\n| item_knn | 0.1800† [0.1, 0.2]    |")
    assert table == "| mf       | \033[1m0.2000\033[0m [0.1, 0.3]     |\n| item_knn | 0.1800† [0.1, 0.2]    |"


def test_a_group_is_a_row_with_its_cases_and_a_cell_for_each_system():
    figures = {"mf": {"ndcg@20": {"value": 0.5, "low": 0.4, "high": 0.6}}}
    table = group_table({"carts": {"cases": 12, "ranking": figures}})
    assert table.split("\n")[0] == "| ndcg@20 | cases | mf                          |"
    assert table.split("\n")[2] == "| carts   | 12    | **0.5000** [0.4000, 0.6000] |"


def test_squared_errors_stand_beside_those_of_constants():
    table = rating_table({"rows": 12, "mse": 0.05, "mse_of_training_mean": 0.0625, "mse_of_one": 0.07, "skill": 0.2})
    assert table.split("\n")[0] == "| event weights                    | 12 rows |"
    assert "| model, MSE                       | 0.0500 " in table
    assert "| skill, 1 − MSE / MSE of the mean | 0.2000 " in table


def test_a_skill_that_nothing_tells_is_a_dash():
    table = rating_table({"rows": 2, "mse": 0.0, "mse_of_training_mean": 0.0, "mse_of_one": 0.0, "skill": None})
    assert "| skill, 1 − MSE / MSE of the mean | –" in table
