"""Settings of an evaluation, as frozen dataclasses; `common.settings` reads them from `key=value`."""

from dataclasses import dataclass, field

from common.settings import check
from trainer.config.run import TargetConfig


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation, which determine its cases and their relevant items."""

    max_cases: int | None = None
    """Maximum number of cases per protocol; if there are more, a random sample is evaluated. None: 2 × 10⁸ / number of
    items, so that a system takes about two seconds on two cores."""
    evaluate: TargetConfig = field(default_factory=TargetConfig)
    """Which items are relevant; empty `kinds`: the same as in the run's validation."""

    def __post_init__(self) -> None:
        check(self.max_cases is None or self.max_cases >= 1, "max_cases", self.max_cases, "at least 1, or none")
