"""Fakes for the tests of `--preset auto`: a clock, and training that only takes time."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.config.run import RunConfig
from trainer.distributed.preemption import Preempted


class FakeTraining:
    """Replaces the clock and the training of `--preset auto`."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        seconds: Mapping[str, float],
        stopped: Sequence[str] = (),
        during: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        """Replaces them until the end of the test.

        Args:
          monkeypatch: the fixture.
          seconds: by the name of the model, the time of its training.
          stopped: models that are stopped.
          during: by the name of the model, a function that its training calls, for example to raise an error.
        """
        self.now, self.configs = 0.0, list[RunConfig]()
        self._seconds, self._stopped, self.during = seconds, stopped, dict(during or {})
        for module in ("auto", "budget", "trials"):
            monkeypatch.setattr(f"trainer.workflows.{module}.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr("trainer.workflows.trials.train", self._train)

    def _train(self, config: RunConfig, **_: Any) -> None:
        self.configs.append(config)
        self.now += self._seconds[config.name]
        self.during.get(config.name, lambda: None)()
        if config.name in self._stopped:
            raise Preempted
