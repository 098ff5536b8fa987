"""Kills one of two workers repeatedly: the chief or the other, by SIGKILL or SIGTERM, during a save or between saves.

The run must end with the same checkpoint as an undisturbed run, bit for bit, and the other worker must not hang.
Otherwise, or if fewer kills than requested happen, the soak prints the reason and exits with status 1.

usage: python -m tests.integration.soak --data DATASET --output DIRECTORY [--kills 30] [--seed 0] [--set key=value …]
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.harness import report
from tests.integration.processes import clusters, environment, last_state, saved_step, train_arguments
from tests.warm_python import start_python
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.record import read_record

WORKERS = 2
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
STALL_SECONDS = 900
"""Seconds without progress, such as a checkpoint, after which the soak fails."""


class SoakFailed(Exception):  # noqa: N818 (a result of the soak, not an error in it)
    """The run broke a promise."""


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Parameters of a soak."""

    kills: int
    """Number of kills."""
    seed: int
    """Seed of the plan."""
    settings: Sequence[str]
    """Settings of the run."""
    max_delay: float = 1
    """Maximum number of seconds between the due time of a kill and the kill."""
    end_seconds: float = 60
    """Seconds in which all workers must end after a kill. Only a machine with other load needs more than 60."""
    program: Sequence[str] = ("-m", "trainer")
    """The program of the killed workers, as arguments of Python."""


@dataclass(frozen=True)
class Kill:
    """A kill of one worker."""

    worker: int
    """Index of the worker; 0 is the chief."""
    signal: signal.Signals
    """SIGKILL or SIGTERM."""
    is_saving: bool
    """Whether to kill while a checkpoint is being written; otherwise, between checkpoints."""
    step: int
    """Step at which the kill is due: as soon as the run has resumed and this step or a later one is saved."""
    delay: float
    """Seconds between due time and kill; halved until the kill hits the right moment."""

    def kind(self) -> str:
        """Describes worker, signal and moment, as a key of `by_kind`."""
        who, when = ("chief", "other")[self.worker > 0], ("between", "saving")[self.is_saving]
        return f"{who} {self.signal.name} {when}"

    def statuses(self) -> list[int]:
        """Returns the expected exit status of each worker: killed for the victim of SIGKILL, otherwise preempted."""
        ends = [75] * WORKERS
        if self.signal == signal.SIGKILL:
            ends[self.worker] = -signal.SIGKILL
        return ends


def plan_kills(count: int, last_step: int, max_delay: float, choices: random.Random) -> list[Kill]:
    """Plans kills, each later in the run than the one before.

    Kills are planned in groups of four. A group combines each worker with each signal, and two of its kills happen
    during a save. Each pair of groups (the first two, the next two, …) contains every combination of worker, signal and
    moment.

    Args:
      count: number of kills.
      last_step: upper bound of the steps at which kills are due.
      max_delay: maximum delay of a kill in seconds.
      choices: source of random numbers.

    Raises:
      ValueError: the run is too short.
    """
    if last_step < count:
        raise ValueError(
            f"{count} kills need {count} different steps, got {max(last_step, 0)}; raise epochs or save more often"
        )
    steps = sorted(choices.sample(range(last_step), count))
    pairs, kinds = list(product(range(WORKERS), SIGNALS)), []
    while len(kinds) < count:
        saves = [index % 2 == 0 for index in range(len(pairs))]
        choices.shuffle(saves)
        for half in (saves, [not is_saving for is_saving in saves]):
            four = list(zip(pairs, half, strict=True))
            choices.shuffle(four)
            kinds += four
    return [
        Kill(worker, number, is_saving, step, choices.uniform(0, max_delay))
        for ((worker, number), is_saving), step in zip(kinds, steps, strict=False)
    ]


def soak(data: str, output: Path, wanted: Soak) -> dict[str, Any]:
    """Trains with and without kills; returns figures of the kills, and whether the last checkpoints are equal.

    Raises:
      SoakFailed: a worker hung or exited with a wrong status, or the run ended before the last kill.
    """
    whole, disturbed = output / "whole", output / "disturbed"
    _finish(data, whole, wanted.settings)
    steps = checkpoint.last_step(str(whole)) or 0
    every = read_record(str(whole)).config.checkpoint_every_steps or steps
    plan = plan_kills(wanted.kills, steps - 4 * every, wanted.max_delay, random.Random(wanted.seed))
    done, highest_load = [], 0.0
    for number, kill in enumerate(plan, 1):
        done.append(_disturb(data, disturbed, wanted, kill))
        highest_load = max(highest_load, os.getloadavg()[0])
        print(json.dumps({"kill": number, "kind": kill.kind(), **done[-1]}), file=sys.stderr, flush=True)
    _finish(data, disturbed, wanted.settings)
    return {
        "steps": steps,
        "kills": len(done),
        "by_kind": dict(sorted(Counter(kill.kind() for kill in plan).items())),
        "longest_seconds_until_all_ended": max(kill["seconds_until_all_ended"] for kill in done),
        "highest_load_average": round(highest_load, 1),
        "last_step": checkpoint.last_step(str(disturbed)),
        "same_tables": last_state(whole) == last_state(disturbed),
    }


def _finish(data: str, workdir: Path, settings: Sequence[str]) -> None:
    """Trains to the end without kills."""
    statuses = [process.wait() for process in _start(data, workdir, settings)]
    if statuses != [0] * WORKERS:
        raise SoakFailed(f"the run at {workdir} ended with {statuses} without a kill; see {workdir}.log")


def _disturb(data: str, workdir: Path, wanted: Soak, kill: Kill) -> dict[str, Any]:
    """Starts the run, kills a worker when due, waits until all workers have ended, and returns figures of the kill."""
    start_time, first_step = time.time(), saved_step(workdir)
    # some kills come before a new checkpoint, and after three of them in a row the run would be refused
    Path(RunLayout(str(workdir)).starts).unlink(missing_ok=True)
    processes = _start(data, workdir, wanted.settings, wanted.program)
    try:
        await_moment(processes, workdir, kill, start_time)
        killed_beyond = saved_step(workdir)
        processes[kill.worker].send_signal(kill.signal)
        killed = time.monotonic()
        statuses = _await_end(processes, wanted.end_seconds)
        seconds = time.monotonic() - killed
    finally:
        for process in processes:  # after a hang
            process.kill()
    if statuses != kill.statuses():
        raise SoakFailed(f"{kill.kind()}: ended with {statuses}, should be {kill.statuses()}; see {workdir}.log")
    return {
        "due_step": kill.step,
        "started_at_step": first_step,
        "killed_beyond_step": killed_beyond,
        "ended_at_step": saved_step(workdir),
        "seconds_until_all_ended": round(seconds, 2),
    }


def await_moment(processes: Sequence[subprocess.Popen], workdir: Path, kill: Kill, start_time: float) -> None:
    """Waits for the moment of the kill.

    Args:
      processes: the workers.
      workdir: directory of the run.
      kill: the next kill.
      start_time: Unix time at which the workers started; older files are ignored.

    Raises:
      SoakFailed: the run ended by itself, or makes no progress.
    """
    history, checkpoints = Path(RunLayout(str(workdir)).history), Path(RunLayout(str(workdir)).checkpoints)

    def wait_until(is_true: Callable[[], bool]) -> None:
        step, deadline = saved_step(workdir), time.monotonic() + STALL_SECONDS
        while not is_true():
            if any(process.poll() is not None for process in processes):
                statuses = [process.poll() for process in processes]
                raise SoakFailed(f"{kill.kind()}: ended with {statuses} before its kill was due; see {workdir}.log")
            if saved_step(workdir) != step:
                step, deadline = saved_step(workdir), time.monotonic() + STALL_SECONDS
            if time.monotonic() > deadline:
                raise SoakFailed(f"{kill.kind()}: no progress for {STALL_SECONDS} s; see {workdir}.log")
            time.sleep(0.001)

    wait_until(lambda: _changed_since(history, start_time))
    wait_until(lambda: saved_step(workdir) >= kill.step)
    delay = kill.delay
    while True:
        wait_until(lambda: _is_saving(checkpoints, start_time) == kill.is_saving)
        time.sleep(delay)
        if _is_saving(checkpoints, start_time) == kill.is_saving:
            return
        delay /= 2


def _await_end(processes: Sequence[subprocess.Popen], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(deadline - time.monotonic(), 0)) for process in processes]
    except subprocess.TimeoutExpired as error:
        statuses = [process.poll() for process in processes]
        raise SoakFailed(f"a worker hangs {seconds:g} s after the kill; exit statuses: {statuses}") from error


def _start(
    data: str, workdir: Path, settings: Sequence[str], program: Sequence[str] = ("-m", "trainer")
) -> list[subprocess.Popen]:
    command = [*program, *train_arguments("mf", data, workdir, settings)]
    with open(f"{workdir}.log", "a") as log:
        return [
            start_python(command, env=environment(cluster), stdout=subprocess.DEVNULL, stderr=log)
            for cluster in clusters(WORKERS)
        ]


def _is_saving(checkpoints: Path, since: float) -> bool:
    """Returns True if a checkpoint is being written, ignoring leftovers of an earlier kill."""
    return any(_changed_since(path, since) for path in checkpoints.glob("*.partial"))


def _changed_since(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime > since
    except FileNotFoundError:  # published or not created yet
        return False


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max-delay", type=float, default=1, help="maximum number of seconds from the due time of a kill"
    )
    parser.add_argument(
        "--end-seconds", type=float, default=60, help="seconds in which all workers must end after a kill"
    )
    parser.add_argument("--set", nargs="+", default=["epochs=3", "checkpoint_every_steps=10", "steps_per_execution=2"])
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/soak.json")
    return parser


def main() -> int:
    """Runs a soak and prints its result or its failure."""
    given = build_parser().parse_args()
    given.output.mkdir(parents=True)
    wanted = Soak(
        kills=given.kills,
        seed=given.seed,
        settings=given.set,
        max_delay=given.max_delay,
        end_seconds=given.end_seconds,
    )
    begin = time.monotonic()
    try:
        figures = soak(given.data, given.output, wanted)
    except SoakFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    figures["minutes"] = round((time.monotonic() - begin) / 60, 1)
    print(json.dumps(figures, indent=2))
    if given.record:
        report("soak", figures, module="tests.integration.soak", quiet=True)
    if not figures["same_tables"]:
        print("the tables differ from those of the undisturbed run", file=sys.stderr)
    return 0 if figures["same_tables"] else 1


if __name__ == "__main__":
    sys.exit(main())
