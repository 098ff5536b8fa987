"""Counts the starts of a run since its last checkpoint, to end a run that fails repeatedly at the same step.

A worker that hangs or loses another worker exits with a status that requests a restart. Without a limit, a job that
always hangs at the same step would restart until its deadline.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from common import storage
from trainer.distributed.replicas import LOST_WORKER, Replicas
from trainer.runs.checkpoint import saved_step
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

MAX_STARTS = 3
"""After this many starts without a new checkpoint, the next start of the run is refused."""


@contextmanager
def counting_starts(workdir: str, parts: Sequence[str], replicas: Replicas) -> Iterator[None]:
    """Counts a start of a run; refuses the start if too many earlier ones saved no checkpoint.

    The start stays counted if the process is killed or hangs, or if another worker is lost. It is not counted after
    other errors or a requested stop. A normal end or a new checkpoint resets the count to 0. All workers call this
    together; the chief stores the count.

    Args:
      workdir: directory of the run.
      parts: directories of the runs that this run blends; their checkpoints reset the count, too.
      replicas: all replicas.

    Raises:
      ValueError: the count has reached `MAX_STARTS`; it is reset to 0.
    """
    steps = [saved_step(path) for path in (workdir, *parts)]
    earlier = _read_count(workdir, steps) if replicas.is_chief else 0
    earlier = int(replicas.sum_over_workers(np.array(earlier)))
    if earlier >= MAX_STARTS:
        _write_count(workdir, steps, 0, replicas)
        raise ValueError(
            f"none of the last {earlier} starts of {workdir} saved a checkpoint later than step {steps[0]}: each hung, "
            "lost a worker or was killed; the logs of the workers show the cause. Give the workers more memory, raise "
            "step_timeout_seconds if steps are slow, or lower checkpoint_every_steps if machines are preempted often; "
            "then run the same command again to resume"
        )
    _write_count(workdir, steps, earlier + 1, replicas)
    try:
        yield
    except LOST_WORKER:
        raise
    except BaseException:
        _write_count(workdir, steps, earlier, replicas)
        raise
    _write_count(workdir, steps, 0, replicas)


def _read_count(workdir: str, steps: Sequence[int]) -> int:
    """Returns the stored number of starts; 0 if there is none, or if the checkpoints (`steps`) have changed since."""
    path = RunLayout(workdir).starts
    try:
        content = json.loads(storage.read_bytes(path))
        return int(content["starts"]) if content["steps"] == list(steps) else 0
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:  # a damaged count must not stop a run
        log.warning("%s is damaged (%s); the number of starts without progress is counted from 0 again", path, error)
        return 0


def _write_count(workdir: str, steps: Sequence[int], starts: int, replicas: Replicas) -> None:
    if not replicas.is_chief:
        return
    storage.try_to_check_ownership(workdir)
    path = RunLayout(workdir).starts
    try:
        if starts:
            storage.write_bytes(
                path, (json.dumps({"steps": list(steps), "starts": starts}, allow_nan=False) + "\n").encode()
            )
        else:
            storage.remove(path)
    except OSError as error:  # a full disk must not end a run
        log.warning(
            "%s could not be written (%s); this does not stop the run, but its starts without a new checkpoint "
            "(limit: %d) are now counted wrongly",
            path,
            error,
            MAX_STARTS,
        )
