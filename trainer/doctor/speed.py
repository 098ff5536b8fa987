"""Measures the training speed and the GPU utilisation during training."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from trainer.doctor.bench import Bench, make_config, schedule_of, start_training
from trainer.doctor.findings import Result, State
from trainer.doctor.plan import Kind

_PROGRAM = "nvidia-smi"
_QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
_ROWS = {Kind.GPU: 4_096, Kind.CPU: 128}
"""Batch rows per device."""
_STEPS = {Kind.GPU: 20, Kind.CPU: 2}
"""Steps per compiled call."""
_SECONDS = {Kind.GPU: 8.0, Kind.CPU: 1.0}
"""Training time after the first call, which compiles the steps."""
_SAMPLE_SECONDS = 0.5
_LOW_UTILISATION = 30
"""Mean utilisation in percent below which the finding has advice."""


def check_speed(bench: Bench, preset: str) -> Result:
    """Trains on all devices for a few seconds, and measures examples per second and GPU utilisation."""
    settings = [f"input.batch_size={_ROWS[bench.kind] * bench.count}", "epochs=100000", "max_loss_growth=none"]
    config, steps = make_config(preset, *settings), _STEPS[bench.kind]
    with start_training(bench, config, bench.replicas(bench.count)) as trainer:
        trainer.advance(0, steps)
        end = steps
        with sampling(is_active=bench.kind == Kind.GPU) as samples:
            start_time = time.monotonic()
            while time.monotonic() - start_time < _SECONDS[bench.kind]:
                losses = trainer.advance(end, steps)
                end += steps
            seconds = time.monotonic() - start_time
    rate = schedule_of(bench, config).rows_between(steps, end) / seconds
    if not np.isfinite(losses).all():
        return Result(f"the loss is {losses[-1]} after {end} steps", State.FAILED, "lower optimizer.learning_rate")
    return judge_speed(rate, config.input.batch_size, samples, bench.count)


def judge_speed(rate: float, batch: int, samples: list[np.ndarray], count: int) -> Result:
    """Returns the result of a speed measurement: failed if a GPU was idle, skipped if there are no samples.

    Args:
      rate: examples per second.
      batch: rows of a batch.
      samples: [GPUs, 2] utilisation in percent and used memory in MiB, at several times.
      count: number of GPUs.
    """
    text = f"{rate:,.0f} examples/s with {count} device{'' if count == 1 else 's'} and batches of {batch:,} rows"
    if not samples:
        return Result(f"{text}; GPU utilisation is unknown without figures from {_PROGRAM}", State.SKIPPED)
    utilisation = np.mean(samples, axis=0)[:, 0]
    memory = int(np.max(samples, axis=0)[:, 1].max())
    listed = ", ".join(f"{value:.0f}%" for value in utilisation)
    text = f"{text}; mean utilisation per GPU: {listed}; at most {memory:,} MiB used"
    busy = int((utilisation > 0).sum())
    if busy < count:
        advice = f"check CUDA_VISIBLE_DEVICES, and watch `{_PROGRAM}` during a run"
        return Result(f"{text}; {count - busy} of {count} GPUs were idle", State.FAILED, advice)
    if utilisation.mean() < _LOW_UTILISATION:
        return Result(text, advice="for large datasets, raise input.batch_size_per_replica, or use fewer GPUs")
    return Result(text)


@contextmanager
def sampling(*, is_active: bool = True) -> Iterator[list[np.ndarray]]:
    """Yields a list to which a thread adds a sample [GPUs, 2] twice per second; see `judge_speed`.

    The list stays empty if `is_active` is False, or if nvidia-smi is missing or reports no figures.
    """
    samples: list[np.ndarray] = []
    ended = threading.Event()

    def run() -> None:
        while (sample := read_utilisation()) is not None:
            samples.append(sample)
            if ended.wait(_SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=run, name="utilisation", daemon=True)
    if is_active:
        thread.start()
    try:
        yield samples
    finally:
        ended.set()
        if is_active:
            thread.join()


def read_utilisation() -> np.ndarray | None:
    """Reads the utilisation in percent and the used memory in MiB of each visible GPU: [GPUs, 2]; None if unknown."""
    if shutil.which(_PROGRAM) is None:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    command = [_PROGRAM, *_QUERY, *([f"--id={visible}"] if visible else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    try:
        rows = [[float(value) for value in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    except ValueError:  # nvidia-smi reports no utilisation of a MIG instance, a part of a GPU
        return None
    return np.array(rows) if rows and not done.returncode else None
