"""The result tables, from records with known numbers."""

import pytest

from tools.tables import _headlines, _returning, _speed, read_results, renew

RECORD = {"command": "python -m benchmarks.quality", "commit": "abc", "machine": {"cpus": 2, "processor": "CPU"}}


def metrics(value, p=None):
    estimate = {"value": value, "low": value - 0.01, "high": value + 0.01}
    tested = estimate if p is None else {**estimate, "p": p}
    return dict.fromkeys(("ndcg@20", "recall@20", "mrr@20", "hit_rate@20"), tested) | {"coverage@20": {"value": 0.5}}


def test_the_best_system_is_bold_and_those_that_differ_from_mf_have_a_dagger():
    ranking = {"mf": metrics(0.19), "far": metrics(0.1, p=0.002), "near": metrics(0.185, p=0.2)}
    record = {**RECORD, "figures": {"matrix": {"measured": {"ranking": ranking}}}}
    lines = _returning({"quality": record}).splitlines()
    assert [line.split("|")[1:3] for line in lines[2:5]] == [
        [" mf ", " **0.190** [0.180, 0.200] "],
        [" near ", " 0.185 [0.175, 0.195] "],
        [" far ", " 0.100† [0.090, 0.110] "],
    ]


@pytest.mark.parametrize(
    ("benchmark", "figures", "line", "met"),
    [
        ("mf_step", {"ratio": 50.0}, "training step of `mf`", "yes"),  # a result equal to its target meets it
        ("mf_step", {"ratio": 49.9}, "training step of `mf`", "**no**"),
        (
            "preprocessing",
            {"full_size_events": {"seconds": 39.0, "peak_gib": 4.1}},
            "`prepare` at full size (",
            "**no**",
        ),
        (
            "statistics",
            {"with_properties": {"cpu_seconds": {"added_by_counting": 0.16, "added": 0.1}}},
            "statistics and charts of the report",
            "**no**",
        ),
        ("input", {"ratio": 31.0, "block_rows_per_second": 2_999_999}, "input", "**no**"),
        ("synthesize", {"within": 87}, "`synthesize` at full size", "**no**"),
        ("start", {"commands": {"train": {"seconds": 0.3}, "evaluate": {"seconds": 1.0}}}, "slowest", "**no**"),
    ],
)
def test_a_target_is_met_only_if_all_its_bounds_are(benchmark, figures, line, met):
    results = read_results()
    record = results[benchmark]
    record["figures"] |= figures
    (found,) = [row.split(" | ") for row in _speed(results).splitlines() if row.startswith(f"| {line}")]
    assert found[3] == met


def test_the_headlines_name_every_missed_target():
    results = read_results()
    targets = results["quality"]["figures"]["targets"]
    results["quality"]["figures"]["targets"] = [row | {"is_met": False} for row in targets]
    text = _headlines(results)
    assert text.count("| **no** |") == 5  # of six rows, that of `prepare` is met
    for row in targets:
        shown_or_listed = row["what"] in text or f"| {row['target']} | {row['reached']:.3f} |" in text
        assert shown_or_listed or row["what"].startswith("sessions, next item: nn recall@20")  # under its short name


def test_a_document_without_its_markers_is_rejected():
    assert renew("a\n<!-- results of x -->\nold\n<!-- end of x -->\nb", {"x": lambda _: "new"}, {}) == (
        "a\n<!-- results of x -->\nnew\n<!-- end of x -->\nb"
    )
    with pytest.raises(ValueError, match="the markers of the table `x` are missing"):
        renew("a", {"x": lambda _: "new"}, {})
