"""Tests when a run stops for a request."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from trainer.distributed.preemption import Preempted, StopRequest
from trainer.distributed.replicas import start_replicas
from trainer.training.callbacks import TrainingCallbacks


class Writer(Mock):
    """A fake writer. A stop is requested while it reads the rows of a checkpoint."""

    def begin(self, step: int, _: object) -> None:
        self.steps.append(step)
        self.request.request()

    def finish(self, _: object) -> bool:
        self.finished += 1
        return True


def test_a_stop_that_is_requested_during_a_checkpoint_ends_the_run_with_this_checkpoint(tmp_path: Path) -> None:
    request = StopRequest()
    writer = Writer(request=request, steps=[], finished=0, **{"is_due.return_value": True})
    callbacks = TrainingCallbacks(
        workdir=str(tmp_path),
        schedule=Mock(steps=40),
        replicas=start_replicas(1, None),
        writer=writer,
        validation=None,
        run_log=Mock(),
        watchdog=Mock(),
        request=request,
        checkpoint_every_seconds=10.0,
        patience=None,
    )
    with pytest.raises(Preempted, match="stopped at step 20 of 40"):
        callbacks.on_steps_end(20, np.zeros(20))
    assert (writer.steps, writer.finished) == ([20], 1)
