"""Checks whole runs: one that is killed and resumed, and one that is exported."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from contract.schema import Vocabulary
from trainer.distributed.precision import full_float32
from trainer.distributed.preemption import StopRequest
from trainer.doctor.bench import Bench, make_config
from trainer.doctor.findings import Result, State
from trainer.doctor.plan import Kind
from trainer.doctor.steps import relative_difference
from trainer.export import export
from trainer.models.interface import Queries
from trainer.models.trained_run import open_trained_run
from trainer.ranking.topk import visible_scores
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import read_lines
from trainer.train import train

RESUME_TOLERANCE = 2e-3
"""Largest relative difference between the losses of a resumed run and of an uninterrupted one. On CPUs, they are
equal; GPUs may add in any order."""
SCORE_TOLERANCE = 1e-3
"""Largest difference between the scores of an export and of its run, relative to the run's largest score."""
_ROWS = {Kind.GPU: 512, Kind.CPU: 128}
"""Batch rows per device of the killed run."""
_POLL_SECONDS = 0.02
_VISITORS, _HISTORY, _K = 20, 5, 10
"""Visitors, items of each history and recommended items of the check of an export."""


def check_resume(bench: Bench, preset: str) -> Result:
    """Kills a run after its first checkpoint and resumes it; its losses must be those of an uninterrupted run."""
    uninterrupted, killed = (os.path.join(bench.folder, name) for name in ("uninterrupted", "killed"))
    _finish(_start_run(bench, preset, uninterrupted), uninterrupted)
    step = _kill_after_checkpoint(_start_run(bench, preset, killed), killed)
    if step is None:
        advice = "run `cartwheel doctor --gpu` again; the run was too fast for this check"
        return Result("the run ended before it was killed", State.FAILED, advice)
    _finish(_start_run(bench, preset, killed), killed)
    return judge_resume(_losses(killed), _losses(uninterrupted), _resumed_at(killed), step)


def judge_resume(found: Mapping[int, float], expected: Mapping[int, float], resumed: int, killed: int) -> Result:
    """Returns a failed result if a run did not resume from its checkpoint, or its losses differ from the expected ones.

    Args:
      found: losses of the killed and resumed run, by step.
      expected: losses of the uninterrupted run, by step.
      resumed: step at which the run resumed; 0: it started from the beginning.
      killed: step of the last checkpoint before the run was killed.
    """
    advice = "do not rely on resuming on this machine: report the figures as a bug of Cartwheel"
    if resumed < killed:
        return Result(f"killed after step {killed}, but continued from step {resumed}", State.FAILED, advice)
    if found.keys() != expected.keys():
        text = f"the resumed run has {len(found)} losses, the uninterrupted one {len(expected)}"
        return Result(text, State.FAILED, advice)
    difference = relative_difference(np.array([found[step] for step in expected]), np.array(list(expected.values())))
    last = max(expected)
    text = (
        f"killed after step {killed} of {last}, resumed at step {resumed}; last loss {found[last]:.6f}, "
        f"{expected[last]:.6f} uninterrupted; losses differ by at most {difference:.1e}"
    )
    if difference <= RESUME_TOLERANCE:
        return Result(text)
    return Result(f"{text}; allowed: {RESUME_TOLERANCE:.0e}", State.FAILED, advice)


def _start_run(bench: Bench, preset: str, workdir: str) -> subprocess.Popen[bytes]:
    """Starts a run of three epochs on all devices, with a checkpoint every ten steps."""
    settings = [
        *("blend=false", "epochs=3", "steps_per_execution=1", "checkpoint_every_steps=10", "patience=none"),
        f"input.batch_size={_ROWS[bench.kind] * bench.count}",
        f"{'gpus' if bench.kind == Kind.GPU else 'devices'}={bench.count}",
    ]
    command = [sys.executable, "-m", "trainer", "train", f"--preset={preset}", f"--data={bench.data}"]
    with open(f"{workdir}.log", "ab") as log:
        return subprocess.Popen(
            [*command, f"--workdir={workdir}", "--set", *settings], stdout=log, stderr=subprocess.STDOUT
        )


def _finish(process: subprocess.Popen[bytes], workdir: str) -> None:
    """Waits until a run ends; raises RuntimeError with the end of its log if it failed."""
    if status := process.wait():
        with open(f"{workdir}.log", encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
        raise RuntimeError(f"`train` exited with status {status}: {' '.join(lines[-2:])}")


def _kill_after_checkpoint(process: subprocess.Popen[bytes], workdir: str) -> int | None:
    """Kills a run once it has a checkpoint; returns the step of its last checkpoint, or None if the run had ended."""
    while process.poll() is None and not checkpoint.saved_step(workdir):
        time.sleep(_POLL_SECONDS)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        _finish(process, workdir)
        return None
    return checkpoint.saved_step(workdir)


def _losses(workdir: str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_lines(RunLayout(workdir).metrics) if "loss" in line}


def _resumed_at(workdir: str) -> int:
    """Returns the step at which a run resumed for the last time; 0 if it never did."""
    events = read_lines(RunLayout(workdir).history)
    return max((line["step"] for line in events if line["event"] == "resumed"), default=0)


def check_export(bench: Bench, preset: str) -> Result:
    """Trains on one device and exports; the export must recommend the same items as the run, with the same scores."""
    workdir, output = (os.path.join(bench.folder, f"{name}-{preset}") for name in ("run", "export"))
    config = make_config(preset, "epochs=1", "devices=1")
    train(config, data=bench.data, workdir=workdir, stop=StopRequest())
    export(workdir=workdir, output=output)
    run = open_trained_run(workdir)
    items = np.random.default_rng(0).integers(0, run.dataset.num_items, (_VISITORS, _HISTORY))
    visitor, history = tf.range(_VISITORS, dtype=tf.int64), tf.constant(items)
    queries = Queries.of_items(visitor, history, tf.fill([_VISITORS], tf.constant(_HISTORY, tf.int64)))
    names = np.array(run.dataset.vocabulary(Vocabulary.ITEMS))
    with full_float32():
        live = visible_scores(run.model, queries, False).numpy()
        answer = tf.saved_model.load(output).signatures["recommend"](
            visitor_id=tf.constant(run.dataset.vocabulary(Vocabulary.VISITORS)[:_VISITORS]),
            history=tf.constant(names[items]),
            k=tf.constant(_K),
            exclude_seen=tf.constant(False),
        )
    return judge_export(live, _indices(names, answer["item_id"]), answer["score"].numpy())


def _indices(names: np.ndarray, item_id: Any) -> np.ndarray:
    """Returns the indices [B, K] of item ids."""
    index = {name: number for number, name in enumerate(names)}
    return np.array([[index[name.decode()] for name in row] for row in item_id.numpy()])


def judge_export(live: np.ndarray, item: np.ndarray, score: np.ndarray) -> Result:
    """Returns a failed result if an export recommends worse items than its run, or gives them other scores.

    The order of two items may differ only if their scores in the run are nearly equal.

    Args:
      live: [B, I] scores of the run.
      item: [B, K] items that the export recommends, best first.
      score: [B, K] their scores in the export.
    """
    best = -np.sort(-live, axis=1)[:, : item.shape[1]]
    own = np.take_along_axis(live, item, axis=1)
    scale = float(np.abs(best).max())
    rank, value = (float(np.abs(other - own).max()) / scale for other in (best, score))
    same = int((np.argsort(-live, axis=1, kind="stable")[:, : item.shape[1]] == item).sum())
    text = f"{same} of {item.size} recommended items are the same; scores differ by at most {value:.1e}"
    if rank <= SCORE_TOLERANCE and value <= SCORE_TOLERANCE:
        return Result(text)
    advice = "serve exports on CPUs, and report the figures as a bug of Cartwheel"
    return Result(f"{text}; allowed: {SCORE_TOLERANCE:.0e}", State.FAILED, advice)
