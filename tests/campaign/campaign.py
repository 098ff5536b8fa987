"""Runs cases of all kinds in rounds until the time is over, and counts the outcomes."""

import itertools
import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign import inputs, quick
from tests.campaign.commands import COMMANDS, Products
from tests.campaign.kills import kill
from tests.campaign.programs import Fault, Folder, finish, start

KILLS = tuple(f"kill-{name}" for name in COMMANDS)
KINDS = (*quick.KINDS, *inputs.KINDS, *KILLS)
"""All kinds of cases."""
QUICK_BATCH = 200
"""Number of cases of each quick kind per round. A round has one or two cases of each other kind."""
SEED_STEP = 1_000_000
"""Distance between the case numbers of two seeds, so that campaigns with different seeds try different cases."""
_FAST_KILLS = ("kill-export", "kill-recommend", "kill-refresh", "kill-train")
"""Kinds with two cases per round, because a case takes only seconds."""

_QUICK = """
import json, sys
from tests.campaign.quick import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case."""

    kind: str
    number: int
    reason: str | None = None
    """The error message, if the command refused its input."""
    signal: str | None = None
    """The signal that killed the command, if the command had the right result when it was run again."""
    fault: str | None = None
    """The broken promise."""

    def to_json(self) -> dict[str, Any]:
        """Returns the name of the case and all values that are not empty, as JSON values."""
        found = {"reason": self.reason, "signal": self.signal, "fault": self.fault}
        return {"case": f"{self.kind}:{self.number}"} | {name: value for name, value in found.items() if value}


@dataclass
class Campaign:
    """Runs cases and returns their outcomes. Keeps the folders of cases with a fault, and deletes the others."""

    output: Path
    products: Products = field(init=False)

    def __post_init__(self) -> None:
        self.products = Products(self.output / "products")

    def run(self, kind: str, number: int, count: int = 1) -> list[Outcome]:
        """Runs one case or, for a quick kind, `count` cases starting with `number`."""
        folder = Folder(self.output / f"{kind}-{number}")
        folder.create()
        if kind in quick.KINDS:
            outcomes = self._run_quick(kind, number, count, folder)
        else:
            outcomes = [self._run_command(kind, number, folder)]
        if not any(outcome.fault for outcome in outcomes):
            shutil.rmtree(folder.root)
        return outcomes

    def _run_command(self, kind: str, number: int, folder: Folder) -> Outcome:
        choices = random.Random(f"{kind}:{number}")
        try:
            if kind in inputs.KINDS:
                return Outcome(kind, number, reason=inputs.KINDS[kind](choices, folder, self.products))
            sent = kill(kind.removeprefix("kill-"), choices, folder, self.products)
            return Outcome(kind, number, signal=sent.name if sent else None)
        except (Fault, AssertionError) as fault:  # comparisons of arrays raise AssertionError
            return Outcome(kind, number, fault=str(fault).strip())
        except Exception as error:  # noqa: BLE001 (such as a result that cannot be read)
            return Outcome(kind, number, fault=f"unexpected {type(error).__name__}: {error}")

    def _run_quick(self, kind: str, first: int, count: int, folder: Folder) -> list[Outcome]:
        products = json.dumps({name: str(self.products(name)) for name in ("data", "train")})
        outcomes, tried = [], first
        try:
            ended = finish(start([kind, str(first), str(count), products], folder, _QUICK), folder)
        except Fault as fault:
            return [Outcome(kind, first, fault=f"a case from this one on: {fault}")]
        for line in ended.out.splitlines():
            case = json.loads(line)
            if isinstance(case, dict):
                outcomes.append(Outcome(kind, **case))
            else:
                tried = case
        if ended.status:
            outcomes.append(Outcome(kind, tried, fault=f"crashed with {ended.status}: {ended.err[-300:]}"))
        return outcomes


def plan(kinds: Sequence[str], seed: int) -> Iterator[tuple[str, int, int]]:
    """Yields the kind, the number and the count of cases to run, in endless rounds."""
    for turn in itertools.count():
        for kind in kinds:
            count = QUICK_BATCH if kind in quick.KINDS else 1
            for repeat in range(2 if kind in _FAST_KILLS else 1):
                yield kind, seed * SEED_STEP + (2 * turn + repeat) * count, count


def run_cases(
    campaign: Campaign, cases: Iterable[tuple[str, int, int]], *, seconds: float, jobs: int
) -> Iterator[Outcome]:
    """Yields outcomes as cases (kind, number, count) end; starts none after `seconds`. `jobs` run concurrently."""
    deadline, running = time.monotonic() + seconds, set[Future[list[Outcome]]]()
    with ThreadPoolExecutor(jobs) as pool:
        for case in cases:
            while len(running) >= jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
            if time.monotonic() > deadline:
                break
            running.add(pool.submit(campaign.run, *case))
        for future in running:
            yield from future.result()


def summarize(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts the outcomes as JSON values: cases by kind, kills by command and signal, and all faults."""
    cases: dict[str, Counter[str]] = defaultdict(Counter)
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts = cases[outcome.kind]
        counts["cases"] += 1
        counts["faults" if outcome.fault else "refused" if outcome.reason else "survived"] += 1
        if outcome.signal:
            kills[outcome.kind.removeprefix("kill-")][outcome.signal] += 1
    return {
        "cases": len(outcomes),
        "by_kind": {kind: dict(cases[kind]) for kind in KINDS if kind in cases},
        "kills_with_identical_results": sum(counts.total() for counts in kills.values()),
        "kills": {name: dict(sorted(kills[name].items())) for name in COMMANDS if name in kills},
        "faults": [outcome.to_json() for outcome in outcomes if outcome.fault],
    }


def log_outcome(outcome: Outcome) -> None:
    """Writes the outcome of a case to standard error as a JSON line; skips quick cases without a fault."""
    if outcome.fault or outcome.kind not in quick.KINDS:
        sys.stderr.write(json.dumps(outcome.to_json(), ensure_ascii=False) + "\n")
