"""Settings of a training run, as frozen dataclasses; `common.settings` reads them from JSON and `key=value`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.settings import check
from trainer.config.losses import LossConfig
from trainer.config.models import ModelConfig
from trainer.config.optimizers import AdamConfig, AlternatingConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """Settings of the input pipeline, from training rows to batches."""

    batch_size: int = 1024
    """Number of rows of a global batch, over all replicas."""
    batch_size_per_replica: int | None = None
    """Number of rows per replica. If it is set, the global batch grows with the number of replicas, and the settings of
    the optimizer, which are meant for `batch_size`, are adapted. The run records the adapted settings, so only the same
    number of replicas can resume it. None: a global batch has `batch_size` rows."""
    streams: int = 8
    """Maximum number of streams, the parts of the training rows that are read at the same time. Each stream supplies
    the same number of rows to a batch, so the number of streams is the largest divisor of the batch size up to this
    maximum; it is smaller if there are few blocks. A worker reads only the streams that contain its rows. If there are
    more workers than streams, several workers read the same stream."""
    window_blocks: int = 256
    """Number of blocks that are shuffled together, on average and over all streams. A block is a record of the dataset
    with whole timelines."""

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        rows = self.batch_size_per_replica
        check(rows is None or rows >= 1, "batch_size_per_replica", rows, "at least 1, or none")
        check(self.streams >= 1, "streams", self.streams, "at least 1")
        check(self.window_blocks >= 1, "window_blocks", self.window_blocks, "at least 1")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """Determines the relevant items in validation and evaluation."""

    kinds: tuple[str, ...] = ()
    """Event kinds that make an item relevant, such as `transaction`. Events of other kinds are only history. Empty: all
    kinds of the dataset; for the command `evaluate`, the kinds of the run's validation."""

    def check_kinds(self, known: Sequence[str]) -> None:
        """Raises ValueError if one of the `kinds` is not an event kind of the dataset (`known`)."""
        unknown = [kind for kind in self.kinds if kind not in known]
        check(not unknown, "evaluate.kinds", ", ".join(unknown), f"among the dataset's event kinds, {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a training run; together with the dataset, they determine the result."""

    model: ModelConfig
    """Model that scores pairs of visitors and items."""
    loss: LossConfig
    """Loss that training minimises."""
    optimizer: OptimizerConfig
    """Optimizer of the embedding tables."""
    name: str = "custom"
    """Name of the model in tables, reports and model cards; each preset sets its own."""
    input: InputConfig = field(default_factory=InputConfig)
    """The input pipeline."""
    evaluate: TargetConfig = field(default_factory=TargetConfig)
    """Which items are relevant in validation; the command `evaluate` has a setting of the same name."""
    solver: Literal["sgd", "als", "count"] = "sgd"
    """`sgd`: gradient steps. `als`: weighted alternating least squares for a factorization; an epoch is one sweep,
    scores are plain dot products without biases, and only event_weights and half_life_days of the loss are used.
    `count`: computes a walk, session kNN or EASE from counts; an epoch is one combination of powers, `epochs` has no
    effect, and the only setting of the loss that is used is event_weights: kinds with the weight 0 are skipped."""
    als: AlternatingConfig = field(default_factory=AlternatingConfig)
    """Settings of alternating least squares; used with `solver=als` only."""
    companions: tuple[str, ...] = ()
    """Presets that are trained after this model, in directories below the run, and blended with it. No effect without
    `blend`."""
    blend: bool = False
    """Whether the run ends with a blend: a weighted sum of the scores of the model and its `companions`, of the
    popularity and trend of the items, and of features of the visitor's history. Validation chooses the weights. False:
    the scores of the model are used alone."""
    epochs: int = 1
    """Passes over the training rows, or sweeps of least squares; see `solver` for the epochs of counted models."""
    seed: int = 0
    """Seed of initial values, the order of rows, sampled negatives and dropout."""
    devices: int | None = None
    """Number of replicas in each process, on GPUs if there are any, else on logical CPUs; none: all GPUs or one CPU."""
    gpus: int | None = None
    """Number of GPUs that each process needs, one per replica. A process with fewer GPUs stops with an error. None:
    `devices` decides, and a machine without GPUs trains on its CPU."""
    mixed_precision: bool = False
    """Whether matrix products use bfloat16; tables, losses and updates stay float32."""
    jit_compile: bool = False
    """Whether XLA compiles the loss and the gradients."""
    steps_per_execution: int = 20
    """Training steps per compiled call; a stop waits for the call to end."""
    checkpoint_every_steps: int | None = None
    """Steps between checkpoints within an epoch; none: only `checkpoint_every_seconds` applies. Each epoch also ends
    with a checkpoint."""
    checkpoint_every_seconds: float | None = 300.0
    """Seconds of training between checkpoints within an epoch; none: only `checkpoint_every_steps` applies."""
    step_timeout_seconds: float = 300.0
    """Maximum seconds for one compiled call (`steps_per_execution` training steps) or one validation chunk; used with
    several workers only. After this time, a worker is assumed to hang, and all workers exit, so that the cluster
    restarts them. The first call may take five times as long, because it is compiled."""
    validate_every_epochs: int = 1
    """Epochs between validations; the last epoch is always validated."""
    patience: int | None = 3
    """Early stopping: the run ends after this many consecutive validations without a new best value; none: all epochs
    are trained."""
    max_loss_growth: float | None = 10.0
    """The run stops with an error if the mean loss of 20 steps exceeds this multiple of the first loss, or if a loss is
    NaN or infinite; none: only if a loss is NaN or infinite."""

    def __post_init__(self) -> None:
        check(bool(self.name.strip()), "name", repr(self.name), "a word, such as mf")
        check(1 <= self.epochs <= 1_000_000, "epochs", self.epochs, "in [1, 1000000]")
        check(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2147483648)")
        check(self.devices is None or self.devices >= 1, "devices", self.devices, "at least 1, or none")
        check(self.gpus is None or self.gpus >= 1, "gpus", self.gpus, "at least 1, or none")
        check(self.gpus is None or self.devices is None, "devices", self.devices, "none if gpus is set")
        check(self.steps_per_execution >= 1, "steps_per_execution", self.steps_per_execution, "at least 1")
        every = self.checkpoint_every_steps
        check(every is None or every >= 1, "checkpoint_every_steps", every, "at least 1, or none")
        seconds = self.checkpoint_every_seconds
        check(seconds is None or seconds > 0, "checkpoint_every_seconds", seconds, "above 0, or none")
        check(self.step_timeout_seconds > 0, "step_timeout_seconds", self.step_timeout_seconds, "above 0")
        check(self.validate_every_epochs >= 1, "validate_every_epochs", self.validate_every_epochs, "at least 1")
        check(self.patience is None or self.patience >= 1, "patience", self.patience, "at least 1, or none")
        growth = self.max_loss_growth
        check(growth is None or growth > 1, "max_loss_growth", growth, "above 1, or none")
        self.model.check_loss(self.loss)
        has_form = self.model.least_squares_form is not None
        if self.solver == "als" and not (has_form and self.loss.kind == "sampled_softmax"):
            raise ValueError(
                "solver=als needs model.kind=matrix_factorization and loss.kind=sampled_softmax, "
                f"got model.kind={self.model.kind} and loss.kind={self.loss.kind}; use solver=sgd or the preset mf"
            )

        check(
            self.loss.is_ranking or not self.blend, "blend", self.blend, "false for a model that predicts event weights"
        )
        if (self.solver == "count") != (self.model.num_combinations is not None):
            raise ValueError(
                "model.kind=walk, session_knn and ease need solver=count, and other models cannot use it; got "
                f"model.kind={self.model.kind} and solver={self.solver}; use a preset without changing its solver"
            )

    @property
    def num_epochs(self) -> int:
        """Maximum number of epochs. With `solver=count`, each epoch tries one combination of the model's powers."""
        return self.model.num_combinations or self.epochs

    @property
    def scored_model(self) -> ModelConfig:
        """Settings of the model that ranks: `model` or, with `solver=als`, its `least_squares_form`."""
        form = self.model.least_squares_form if self.solver == "als" else None
        return self.model if form is None else form

    @property
    def history_length(self) -> int:
        """Maximum number of history events in each training example."""
        return self.scored_model.history_length

    @property
    def is_sequential(self) -> bool:
        """Whether the history of a training example contains only earlier events; False: later events too."""
        return self.model.is_sequential

    @property
    def has_times(self) -> bool:
        """Whether training needs the times of events."""
        return self.loss.half_life_days is not None

    @property
    def dense_optimizer(self) -> OptimizerConfig:
        """Optimizer of the dense weights: Adam if the model sets a learning rate for them, otherwise `optimizer`."""
        rate = self.model.dense_learning_rate
        if rate is None:
            return self.optimizer
        return AdamConfig(learning_rate=rate, warmup_steps=self.optimizer.warmup_steps)
