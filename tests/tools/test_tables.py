"""Tests the result tables with records of known numbers."""

import pytest

from tools.headlines import render_headlines
from tools.tables import _speed, _systems, _tuned, read_results, renew
from tools.targets import read_targets

RECORD = {"command": "python -m benchmarks.quality", "commit": "abc", "machine": {"cpus": 2, "processor": "CPU"}}


def metrics(value, p=None):
    estimate = {"value": value, "low": value - 0.01, "high": value + 0.01}
    tested = estimate if p is None else {**estimate, "p": p}
    return dict.fromkeys(("ndcg@20", "recall@20", "mrr@20", "hit_rate@20"), tested) | {"coverage@20": {"value": 0.5}}


def test_the_best_system_is_bold_and_those_that_differ_from_the_best_peer_have_a_dagger():
    ranking = {"mf": metrics(0.19, p=0.2), "als": metrics(0.185), "far": metrics(0.1, p=0.002)}
    found = {"cases": 1000, "visitors": 900, "ranking": ranking}
    matrix = {"commit": "abc", "items": 5000, "tasks": {"new": found}}
    others = {"als": {"commit": "def"}, "cold": {"commit": "abc"}}
    record = {**RECORD, "figures": {"targets": [], "matrix": matrix, **others}}
    lines = _systems({"quality": record}).splitlines()
    assert lines[-1] == "`python -m benchmarks.quality`, 2 cores (CPU), no GPU: matrix, cold at abc; als at def."
    assert lines[0] == "**matrix, returning visitors, new items**: 1,000 cases, 900 visitors, 5,000 items"
    assert [line.split("|")[1:3] for line in lines[4:7]] == [
        [" mf ", " **0.190** [0.180, 0.200] "],
        [" als ", " 0.185 [0.175, 0.195] "],
        [" far ", " 0.100† [0.090, 0.110] "],
    ]


def test_tuned_peers_are_listed_with_their_trend():
    best = {"settings": {"factors": 64, "alpha": 40.0}, "validation": 0.1, "trials": 12, "seconds": 34.4}
    trend = {"link": "log", "half_life_days": 7.0, "beta": 0.5}
    by_task = {
        "new": {**best, "trend": trend, "validation_with_trend": 0.12},
        "next": {**best, "trend": None, "validation_with_trend": None},
    }
    figures = {"matrix": {"commit": "abc", "tasks": {}, "tuned": {"als": by_task}}}
    lines = _tuned({"quality": {**RECORD, "figures": figures}}).splitlines()
    assert lines[4:6] == [
        "| als | returning visitors, new items | factors 64, alpha 40 | 0.1000 | "
        "0.1200 (log, 7 days, β 0.5) | 12 | 34 |",
        "| als | next item | factors 64, alpha 40 | 0.1000 |  | 12 | 34 |",
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


def test_the_headlines_show_the_first_missed_targets_and_count_all():
    results = read_results()
    quality = results["quality"]["figures"]
    quality["targets"] = [row | {"is_met": False} for row in quality["targets"]]
    targets = read_targets(results)
    num_missed = sum(not target.is_met for target in targets)
    text = render_headlines(results)
    assert text.count("| **no** |") == 5  # of six rows, that of `prepare` is met
    assert f"meets {len(targets) - num_missed} of its {len(targets)} targets." in text
    assert f"shows 5 of the missed targets; the other {num_missed - 5} are in" in text
    quality["targets"][0] |= {"compared_with": "item_walk, 0.0600 / 0.0500; p 0.002", "reached": 1.2}
    assert "| 0.0600 / 0.0500 (item walk) = 1.200 |" in render_headlines(results)


def test_a_document_without_its_markers_is_rejected():
    assert renew("a\n<!-- results of x -->\nold\n<!-- end of x -->\nb", {"x": lambda _: "new"}, {}) == (
        "a\n<!-- results of x -->\nnew\n<!-- end of x -->\nb"
    )
    with pytest.raises(ValueError, match="the markers of the table `x` are missing"):
        renew("a", {"x": lambda _: "new"}, {})
