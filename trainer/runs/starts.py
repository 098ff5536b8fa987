"""Counts the starts of a run that save no checkpoint, so that a run that fails at the same place again and again ends.

A worker that is lost, or that hangs, ends with the status that asks for a restart. Without a limit, a job whose workers
always hang at the same step would restart until its deadline.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from common import storage
from trainer.distributed.replicas import LOST_WORKER, Replicas
from trainer.runs.checkpoint import saved_step
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

MAX_STARTS = 3
"""Starts of a run without a new checkpoint; the next start is refused."""


@contextmanager
def counting_starts(workdir: str, parts: Sequence[str], replicas: Replicas) -> Iterator[None]:
    """Counts a start of the run at `workdir`, unless the context ends with a result or an error of its own.

    A start thus counts if its process was killed, stopped responding, or lost another worker. A requested stop does not
    count, nor does an error: it ends the run anyway. The chief keeps the count in the run directory. All workers call
    this together.

    Args:
      workdir: directory of the run.
      parts: directories of the runs that are part of its model, whose checkpoints are progress, too.
      replicas: all replicas.

    Raises:
      ValueError: the last `MAX_STARTS` starts saved no checkpoint. This ends the count: the next start is allowed.
    """
    steps = [saved_step(path) for path in (workdir, *parts)]
    earlier = _read_count(workdir, steps) if replicas.is_chief else 0
    earlier = int(replicas.sum_over_workers(np.array(earlier)))
    if earlier >= MAX_STARTS:
        _write_count(workdir, steps, 0, replicas)
        raise ValueError(
            f"the last {earlier} starts of this run were killed, hung or lost a worker without saving a checkpoint "
            f"after step {steps[0]}; the logs of the workers show where they ended. Give them more memory, raise "
            "step_timeout_seconds if steps are slow, or lower checkpoint_every_steps if the machines are taken away; "
            "then run the same command again to resume"
        )
    is_new = storage.is_local(workdir) and not storage.exists(workdir)
    _write_count(workdir, steps, earlier + 1, replicas)
    try:
        yield
    except LOST_WORKER:
        raise
    except BaseException:
        _write_count(workdir, steps, earlier, replicas)
        if is_new:  # a run that is refused leaves no directory
            with suppress(OSError):  # it is not empty
                os.rmdir(storage.local_path(workdir))
        raise
    _write_count(workdir, steps, 0, replicas)


def _read_count(workdir: str, steps: Sequence[int]) -> int:
    """Returns the number of starts since the run saved its checkpoint of these steps."""
    try:
        content = json.loads(storage.read_bytes(RunLayout(workdir).starts))
    except FileNotFoundError:
        return 0
    return int(content["starts"]) if content["steps"] == list(steps) else 0


def _write_count(workdir: str, steps: Sequence[int], starts: int, replicas: Replicas) -> None:
    if not replicas.is_chief:
        return
    path = RunLayout(workdir).starts
    try:
        if starts:
            storage.write_bytes(
                path, (json.dumps({"steps": list(steps), "starts": starts}, allow_nan=False) + "\n").encode()
            )
        else:
            storage.remove(path)
    except OSError as error:  # a full disk does not end a run
        log.warning("the starts of the run cannot be counted: %s", error)
