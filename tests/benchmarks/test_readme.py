"""The README's tables, of records whose every number is known."""

from benchmarks.readme import _returning

RECORD = {"command": "python -m benchmarks.quality", "commit": "abc", "machine": {"cpus": 2, "processor": "CPU"}}


def metrics(value, p=None):
    estimate = {"value": value, "low": value - 0.01, "high": value + 0.01}
    tested = estimate if p is None else {**estimate, "p": p}
    return dict.fromkeys(("ndcg@20", "recall@20", "mrr@20", "hit_rate@20"), tested) | {"coverage@20": {"value": 0.5}}


def test_the_best_is_bold_and_what_differs_from_mf_has_a_dagger():
    ranking = {"mf": metrics(0.19), "far": metrics(0.1, p=0.002), "near": metrics(0.185, p=0.2)}
    record = {**RECORD, "figures": {"matrix": {"measured": {"ranking": ranking}}}}
    lines = _returning({"quality": record}).splitlines()
    assert [line.split("|")[1:3] for line in lines[2:5]] == [
        [" mf ", " **0.190** [0.180, 0.200] "],
        [" near ", " 0.185 [0.175, 0.195] "],
        [" far ", " 0.100† [0.090, 0.110] "],
    ]
