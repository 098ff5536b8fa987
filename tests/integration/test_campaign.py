"""A short campaign with fixed seeds, and the outcomes that count as faults."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import inputs, quick
from tests.campaign.campaign import KINDS, Campaign, Outcome, plan, run_cases, summarize
from tests.campaign.commands import same_files
from tests.campaign.mutations import mutate
from tests.campaign.programs import Ended, Fault, Folder, find_reason, finish, start
from tests.planted import SECRET

pytestmark = pytest.mark.integration

SHORT = (
    *((kind, 0, 50) for kind in quick.KINDS),
    ("events", 0, 1),
    ("arguments", 0, 1),
    ("secret", 0, 1),
    ("secret", 1, 1),
    ("ids", 0, 1),
    ("kill-recommend", 0, 1),
    ("kill-recommend", 1, 1),
)
"""Cases that take seconds; they need a dataset and a run of a few steps."""


@pytest.mark.slow
def test_no_case_of_a_short_campaign_breaks_a_promise(tmp_path: Path) -> None:
    outcomes = list(run_cases(Campaign(tmp_path), SHORT, seconds=600, jobs=1))
    figures = summarize(outcomes)
    assert not figures["faults"], json.dumps(figures["faults"], indent=2)
    assert figures["cases"] == 50 * len(quick.KINDS) + 7
    refused = {kind: counts["refused"] for kind, counts in figures["by_kind"].items() if "refused" in counts}
    assert {"rows", "setting", "shop", "manifest", "metadata", "secret"} <= refused.keys()
    assert figures["by_kind"]["kill-recommend"] == {"cases": 2, "survived": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["products"], "folders of cases without a fault are removed"


@pytest.mark.parametrize(
    ("status", "err", "fault"),
    [
        (1, "Traceback (most recent call last):\n  …\nKeyError: 'x'", "traceback: KeyError"),
        (-11, "", "status -11 without a reason"),
        (1, "", "status 1 without a reason"),
        (1, "04:00:00 ERROR preprocessing.cli: KeyError: 'x'", "unclear error message: KeyError"),
        (1, "04:00:00 ERROR trainer.cli: [Errno 39] Directory not empty", "unclear error message: .Errno 39"),
        (1, "04:00:00 ERROR trainer.cli: 'utf-8' codec can't decode byte 0xff", "unclear error message: 'utf-8' codec"),
    ],
)
def test_an_end_without_a_clear_reason_is_a_fault(status: int, err: str, fault: str) -> None:
    with pytest.raises(Fault, match=fault):
        find_reason(Ended(status, "", err))


def test_a_clear_refusal_has_its_reason() -> None:
    assert find_reason(Ended(0, "", "")) is None
    usage = "usage: cartwheel …\ncartwheel prepare: error: argument --split: invalid choice: 'x'"
    assert find_reason(Ended(2, "", usage)) == "argument --split: invalid choice: 'x'"
    line = "04:00:00 ERROR trainer.cli: run has no run (no run.json); start one with `cartwheel train`"
    assert find_reason(Ended(1, "", f"{line}\n")) == line.partition("cli: ")[2]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "case")
    folder.create()
    return folder


@pytest.mark.slow
def test_a_secret_in_an_output_is_a_fault(folder: Folder) -> None:
    program = f"import os\nopen('output', 'w').write(os.environ['PGPASSWORD'])\nprint('{SECRET}')"
    with pytest.raises(Fault, match=r"a secret is in stdout, .*work/output"):
        finish(start(["-"], folder, program), folder)


def test_what_is_left_next_to_an_output_is_litter(folder: Folder) -> None:
    (folder.output / "checkpoints" / "step-1.partial").mkdir(parents=True)
    (folder.output / "run.json").touch()
    (folder.work / ".output.partial-host-1-x").mkdir()
    (folder.temporary / "cartwheel-x").mkdir()
    assert folder.litter() == [
        "tmp/cartwheel-x",
        "work/.output.partial-host-1-x",
        "work/output/checkpoints/step-1.partial",
    ]


def test_results_differ_in_a_byte_or_a_file_but_not_in_their_path(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root in (first, second):
        root.mkdir()
        (root / "summary.json").write_text(f"{root}/lists")
        (root / "lists").write_text("a")
    same_files(first, second)
    (second / "lists").write_text("b")
    with pytest.raises(Fault, match="lists differs"):
        same_files(first, second)
    same_files(first, second, "lists")
    (second / "more").touch()
    with pytest.raises(Fault, match="files in one directory only: more"):
        same_files(first, second)


def test_rounds_try_each_kind_with_new_numbers() -> None:
    cases = plan(KINDS, seed=3)
    numbers: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for kind, first, count in (next(cases) for _ in range(200)):
        numbers[kind] += range(first, first + count)
    assert all(numbers.values())
    assert all(len(set(tried)) == len(tried) and min(tried) >= 3_000_000 for tried in numbers.values())


def test_outcomes_are_counted_by_kind_command_and_signal() -> None:
    outcomes = [
        Outcome("rows", 0),
        Outcome("rows", 1, reason="too many"),
        Outcome("kill-export", 0, signal="SIGINT"),
        Outcome("kill-export", 1, signal="SIGINT"),
        Outcome("kill-export", 2, fault="another file"),
    ]
    assert summarize(outcomes) == {
        "cases": 5,
        "by_kind": {
            "rows": {"cases": 2, "survived": 1, "refused": 1},
            "kill-export": {"cases": 3, "survived": 2, "faults": 1},
        },
        "kills_with_identical_results": 2,
        "kills": {"export": {"SIGINT": 2}},
        "faults": [{"case": "kill-export:2", "fault": "another file"}],
    }


def test_no_case_starts_after_the_time_is_over(tmp_path: Path) -> None:
    def cases() -> Iterator[tuple[str, int, int]]:
        yield "rows", 0, 1

    assert list(run_cases(Campaign(tmp_path), cases(), seconds=-1, jobs=1)) == []


def test_the_same_choices_mutate_alike() -> None:
    content = b"timestamp,visitorid\n1,v\n2,w\n"
    mutated = [mutate(content, random.Random(seed)) for seed in range(200)]
    assert mutated == [mutate(content, random.Random(seed)) for seed in range(200)]
    assert len(set(mutated)) > 150
    assert mutate(b"", random.Random(0)) is not None


def test_a_damaged_file_is_the_one_that_is_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"content, 1\n" * 9)
    for seed in range(20):
        before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        damaged = inputs._damage(tmp_path, random.Random(seed))
        others = [path for path in before if path != damaged]
        assert all(path.read_bytes() == before[path] for path in others)
        if damaged.is_dir():
            damaged.rmdir()
        damaged.write_bytes(b"content, 1\n" * 9)
