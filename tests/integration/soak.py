"""Two workers, killed again and again: chief or not, by SIGKILL or SIGTERM, between steps or while they save.

The run must end with the tables of one that nothing disturbed, bit for bit, and no survivor may hang.

usage: python -m tests.integration.soak --data DATASET --output DIRECTORY [--kills 30] [--seed 0] [--set key=value …]
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from contract.layout import RunLayout
from trainer import checkpoint
from trainer.cluster import Cluster, tf_config

WORKERS = 2
ENDINGS = {0, 75, -signal.SIGKILL}
"""Done, preempted or without another worker, killed."""
LIMIT_SECONDS = 60
"""Within which the others must end."""


@dataclass(frozen=True)
class Kill:
    """What was done to one worker, and how the workers ended.

    was_saving   a checkpoint was being written
    step         of the last checkpoint, when all had ended
    """

    worker: int
    signal: str
    was_saving: bool
    statuses: list[int]
    seconds_until_all_ended: float
    step: int | None


def soak(data: str, output: Path, kills: int, seed: int, settings: list[str], max_delay: float) -> dict:
    """Runs undisturbed and disturbed; what was done, and whether the tables are the same.

    Raises:
      AssertionError: a worker hung or ended otherwise than it should.
    """
    whole, disturbed = output / "whole", output / "disturbed"
    for process in _start(data, whole, settings):
        assert process.wait() == 0, f"the undisturbed run failed, see {whole}.log"
    choices, done = random.Random(seed), []
    while len(done) < kills:
        processes = _start(data, disturbed, settings)
        try:
            kill = _disturb(processes, disturbed, choices, max_delay)
        finally:
            for process in processes:  # where one hung
                process.kill()
        if kill is None:
            break  # the run was done before its turn came
        done.append(kill)
        print(json.dumps(asdict(kill)), file=sys.stderr, flush=True)
    for process in _start(data, disturbed, settings):
        assert process.wait() == 0, f"the disturbed run could not be finished, see {disturbed}.log"
    return {
        "kills": len(done),
        "by_signal": Counter(kill.signal for kill in done),
        "of_the_chief": sum(kill.worker == 0 for kill in done),
        "while_saving": sum(kill.was_saving for kill in done),
        "longest_until_all_ended": max((kill.seconds_until_all_ended for kill in done), default=0),
        "last_step": checkpoint.last_step(str(disturbed)),
        "same_tables": _same(whole, disturbed),
    }


def _start(data: str, workdir: Path, settings: list[str]) -> list[subprocess.Popen]:
    sockets = [socket.socket() for _ in range(WORKERS)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    hosts = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in sockets)
    for free in sockets:
        free.close()
    command = [sys.executable, "-m", "trainer", "train", "--preset", "mf", "--data", data, "--workdir", str(workdir)]
    with open(f"{workdir}.log", "a") as log:
        return [
            subprocess.Popen(
                [*command, "--set", *settings],
                env=os.environ | {"TF_CONFIG": tf_config(Cluster(hosts, index))},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            for index in range(WORKERS)
        ]


def _disturb(processes: list[subprocess.Popen], workdir: Path, choices: random.Random, max_delay: float) -> Kill | None:
    """Kills one of the processes once they train, and sees that all end; None: they were done before."""
    victim, number = choices.randrange(WORKERS), choices.choice([signal.SIGKILL, signal.SIGTERM])
    wants_saving, delay = choices.random() < 0.3, choices.uniform(0, max_delay)
    metrics, saving = Path(RunLayout(str(workdir)).metrics), Path(RunLayout(str(workdir)).checkpoints)
    began, deadline = time.time(), time.monotonic() + 600
    while not (_is_saving(saving, began) or _changed_since(metrics, began)) and time.monotonic() < deadline:
        if all(process.poll() is not None for process in processes):
            break
        time.sleep(0.05)
    time.sleep(delay)
    while (
        wants_saving and not _is_saving(saving, began) and time.monotonic() < deadline and processes[0].poll() is None
    ):
        time.sleep(0.001)
    if processes[victim].poll() is not None:
        statuses = [process.wait(LIMIT_SECONDS) for process in processes]
        assert statuses == [0] * WORKERS, f"ended with {statuses}, undisturbed; see {workdir}.log"
        return None
    was_saving = _is_saving(saving, began)
    begin = time.monotonic()
    processes[victim].send_signal(number)
    statuses = [process.wait(LIMIT_SECONDS) for process in processes]
    assert set(statuses) <= ENDINGS, f"ended with {statuses}; see {workdir}.log"
    return Kill(
        victim,
        signal.Signals(number).name,
        was_saving,
        statuses,
        round(time.monotonic() - begin, 2),
        checkpoint.last_step(str(workdir)),
    )


def _is_saving(checkpoints: Path, since: float) -> bool:
    """Whether a checkpoint is being written; what an earlier kill left unfinished does not count."""
    return any(_changed_since(path, since) for path in checkpoints.glob("*.partial"))


def _changed_since(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime > since
    except FileNotFoundError:  # published, or not there yet
        return False


def _same(first: Path, second: Path) -> bool:
    one, two = (checkpoint.read_weights(str(workdir), "last") for workdir in (first, second))
    same_dense = all(np.array_equal(a, b) for a, b in zip(one.dense, two.dense, strict=True))
    return same_dense and all(np.array_equal(table, two.tables[name]) for name, table in one.tables.items())


def main() -> int:
    """Prints what came out; fails where the tables differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-delay", type=float, default=8, help="seconds after the first sign of life")
    parser.add_argument("--set", nargs="+", default=["epochs=3", "checkpoint_every_steps=20", "steps_per_call=5"])
    given = parser.parse_args()
    given.output.mkdir(parents=True)
    result = soak(given.data, given.output, given.kills, given.seed, given.set, given.max_delay)
    print(json.dumps(result, indent=2))
    return 0 if result["same_tables"] else 1


if __name__ == "__main__":
    sys.exit(main())
