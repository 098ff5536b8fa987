"""Tests the inputs of the demo, and its table of results."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from cartwheel.demo import run, stages
from cartwheel.demo.__main__ import main
from cartwheel.demo.run import Inputs, choose_presets, find_input, run_demo
from cartwheel.demo.stages import Stages
from cartwheel.demo.tables import results_table


class FakeStages(Stages):
    """Records the stages instead of running them."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ran: list[tuple[object, ...]] = []

    def run(self, verb: str, *flags: object, creates: Path, label: str = "") -> None:
        self.ran.append((verb, *flags))


@pytest.mark.parametrize(
    ("inputs", "stage", "flags"),
    [
        (Inputs(), ("synthesize", "--visitors", 20_000, "--seed", 0, "--output"), 6),
        (Inputs(data="grocer"), ("download", "grocer", "--output"), 2),
    ],
)
def test_without_files_of_your_own_the_demo_writes_a_shop(inputs, stage, flags, tmp_path) -> None:
    stages = FakeStages(tmp_path)
    found = find_input(stages, inputs)
    assert stages.ran == [(*stage, tmp_path / "shop")]
    assert len(found) == flags
    assert all(str(tmp_path / "shop") in path for path in found[1::2])


def test_your_own_files_are_prepared_as_they_are(tmp_path) -> None:
    stages = FakeStages(tmp_path)
    assert list(find_input(stages, Inputs(shop="my/shop.toml"))) == ["--shop", "my/shop.toml"]
    assert find_input(stages, Inputs(events="log.csv", category_tree="tree.csv")) == [
        "--events",
        "log.csv",
        "--category-tree",
        "tree.csv",
    ]
    assert stages.ran == []


def test_data_shop_and_events_exclude_each_other(tmp_path) -> None:
    with pytest.raises(SystemExit, match="give only one of DATA, SHOP and EVENTS"):
        main(["--output", str(tmp_path), "--data", "grocer", "--shop", "shop.toml"])


def test_a_log_of_one_kind_has_no_weights_that_the_notebooks_models_could_learn() -> None:
    assert choose_presets(None) == ("notebook-mf", "notebook-nn", "auto")
    assert choose_presets("transaction") == ["auto"]


def evaluation(model: str, new: float, following: float, cases: int, ratings: dict | None) -> dict:
    """Builds an evaluation of `model` and the baseline popular: NDCG@20 of new items and of the next item."""

    def protocol(primary: str, value: float, counts: dict) -> dict:
        estimate = {"value": value, "low": value / 2, "high": value * 2}
        metrics = dict.fromkeys(("ndcg@20", "recall@20", "mrr@20", "coverage@20"), estimate)
        return {"primary": primary, "rankings": {primary: {model: metrics, "popular": metrics}}, "cases": counts}

    counts = {"cases": 2143, "cases_in_all": 2143, "catalogue_items": 92331}
    return {
        "protocols": {
            "returning_visitors": protocol("seen_hidden", new, counts),
            "next_item": protocol("seen_shown", following, counts | {"cases": cases, "cases_in_all": 9000}),
        },
        "ratings": ratings,
    }


def test_the_table_shows_new_items_and_the_next_item_of_all_systems() -> None:
    nn = evaluation("nn", 0.125, 0.25, 5000, None)
    notebook = evaluation("notebook-nn", 0.0625, 0.03125, 5000, {"mse": 1.127, "skill": -14.53})
    lines = results_table({"notebook-nn": notebook, "nn": nn}).splitlines()
    assert lines == [
        "Test window: new items of 2,143 returning visitors, 92,331 items ranked. [95% intervals]",
        "  system           NDCG@20                recall@20   MRR@20  coverage@20  next item     MSE (skill)",
        "  nn               0.125 [0.062, 0.250]       0.125    0.125        0.125      0.250",
        "  popular          0.125 [0.062, 0.250]       0.125    0.125        0.125      0.250",
        "  notebook-nn      0.062 [0.031, 0.125]       0.062    0.062        0.062      0.031  1.127 (-14.53)",
        "next item: NDCG@20 of the item of the next event, new or seen; a sample of 5,000 of 9,000 events.",
        "Overlapping intervals don't show a difference; report.html has paired tests.",
    ]
    assert max(map(len, lines)) <= 100
    assert results_table({"nn": evaluation("nn", 0.125, 0.25, 9000, None)}).splitlines()[-2].endswith("9,000 events.")


def test_the_demo_prints_one_screen_and_keeps_the_output_of_its_stages_in_logs(tmp_path, capfd, monkeypatch) -> None:
    def run_command(words, stdout, stderr, check) -> subprocess.CompletedProcess:
        stdout.write(b"a row or a line of TensorFlow\n" * 1000)
        if "evaluate" in words:
            workdir = Path(words[words.index("--workdir") + 1])
            workdir.mkdir(parents=True)
            result = evaluation(workdir.name, 0.125, 0.25, 9000, None)
            (workdir / "evaluation-test.json").write_text(json.dumps(result))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(stages, "subprocess", SimpleNamespace(run=run_command))
    monkeypatch.setattr(run, "read_manifest", lambda _: SimpleNamespace(event_kinds=("view", "transaction")))
    monkeypatch.setattr(run, "_recommendations", lambda *_, **__: "the lists")
    run_demo(tmp_path, Inputs())
    out, err = capfd.readouterr()
    assert "TensorFlow" not in out + err
    assert len(out.splitlines()) <= 40
    assert "  evaluate auto" in out
    assert len((tmp_path / "logs" / "evaluate-auto.log").read_text().splitlines()) == 1000
