"""Every knob of a training run, as frozen dataclasses; `common.settings` reads them from JSON and `key=value`."""

from dataclasses import dataclass, field, replace
from typing import Literal

from common.settings import check
from contract.schema import EVENT_KINDS


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig:
    """A vector for each visitor and item; the score is their similarity.

    history_length    0: a visitor's vector is his own. Else it is the direction of the sum of his items' directions
                      (FISM: Kabbur et al., KDD 2013), in training of at most so many beside the one to be found: then
                      visitors never seen in training are served from their history
    similarity        cosine: scale × cosine of the vectors; dot: scale × their dot product
    is_scale_learnt   the scale, 1 / temperature, is where it begins, and moves by Adam at 0.001
    has_item_bias     adds a learnt number for each item
    visitor_dropout   share of a visitor vector's entries hidden in a training step
    initial_stddev    of the normal distribution that tables start from
    """

    kind: Literal["matrix_factorization"] = "matrix_factorization"
    dim: int = 64
    history_length: int = 0
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: float = 10.0
    is_scale_learnt: bool = False
    has_item_bias: bool = True
    visitor_dropout: float = 0.0
    initial_stddev: float = 0.1

    def __post_init__(self) -> None:
        check(self.dim >= 1, "model.dim", self.dim, "at least 1")
        check(self.history_length >= 0, "model.history_length", self.history_length, "at least 0")
        check(
            not self.history_length or self.similarity == "cosine",
            "model.similarity",
            self.similarity,
            "cosine where model.history_length is not 0: the number of items must not raise the scores",
        )
        check(self.scale > 0, "model.scale", self.scale, "above 0")
        check(0 <= self.visitor_dropout < 1, "model.visitor_dropout", self.visitor_dropout, "in [0, 1)")
        check(self.initial_stddev > 0, "model.initial_stddev", self.initial_stddev, "above 0")

    @property
    def is_sequential(self) -> bool:
        """A visitor is made of all his items, whatever their order."""
        return False


@dataclass(frozen=True, kw_only=True)
class NeuralConfig:
    """The notebook's network: both vectors side by side, dense relu layers, one relu output.

    hidden            units of the dense layers
    initial_stddev    of the normal distribution that tables start from
    """

    kind: Literal["neural"] = "neural"
    dim: int = 5
    hidden: tuple[int, ...] = (80, 40, 20)
    initial_stddev: float = 0.03

    def __post_init__(self) -> None:
        check(self.dim >= 1, "model.dim", self.dim, "at least 1")
        check(bool(self.hidden) and min(self.hidden) >= 1, "model.hidden", self.hidden, "sizes of at least 1")
        check(self.initial_stddev > 0, "model.initial_stddev", self.initial_stddev, "above 0")

    @property
    def history_length(self) -> int:
        """A row stands alone."""
        return 0

    @property
    def is_sequential(self) -> bool:
        """A row stands alone."""
        return False


@dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """Two towers over timelines: the score is scale × cosine of what the latest items say and of the item's vector.

    history_length        latest items of a visitor that are looked at
    dropout               share of a history vector's entries hidden in a training step
    id_dropout           share of the items whose own vector is hidden in a training step, so that their content learns
                          to speak for them alone; nothing is hidden where the catalogue tells nothing of the items
    visitor_min_events    training events from which on a visitor has a vector of his own; none: nobody has
    visitor_dropout       share of these vectors hidden in a training step
    return_bonus          added to the score of what is in the history when the catalogue is ranked, beside the bonuses
                          learnt: in the second epoch, training has seen what comes next and trusts new items too much
    initial_scale         of the cosine, learnt from there
    initial_stddev        of the normal distribution that the item table starts from
    dense_learning_rate   of Adam, which moves what is not a table; the tables follow `optimizer`
    """

    kind: Literal["towers"] = "towers"
    dim: int = 64
    history_length: int = 10
    dropout: float = 0.2
    id_dropout: float = 0.3
    visitor_min_events: int | None = None
    visitor_dropout: float = 0.5
    return_bonus: float = 3.0
    initial_scale: float = 8.0
    initial_stddev: float = 0.05
    dense_learning_rate: float = 0.001

    def __post_init__(self) -> None:
        check(self.dim >= 1, "model.dim", self.dim, "at least 1")
        check(self.history_length >= 1, "model.history_length", self.history_length, "at least 1")
        for name in ("dropout", "id_dropout", "visitor_dropout"):
            check(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "in [0, 1)")
        least = self.visitor_min_events
        check(least is None or least >= 1, "model.visitor_min_events", least, "at least 1, or none")
        check(self.initial_scale > 0, "model.initial_scale", self.initial_scale, "above 0")
        check(self.initial_stddev > 0, "model.initial_stddev", self.initial_stddev, "above 0")
        check(self.dense_learning_rate > 0, "model.dense_learning_rate", self.dense_learning_rate, "above 0")

    @property
    def is_sequential(self) -> bool:
        """The history is what came before."""
        return True


@dataclass(frozen=True, kw_only=True)
class SquaredErrorConfig:
    """Error between the score and the weight of the event's kind: of `losses.WEIGHT_LOSSES` that of the same name.

    event_weights     what a view, an addtocart and a transaction are worth
    """

    kind: Literal["squared_error"] = "squared_error"
    event_weights: tuple[float, ...] = (1.0, 2.0, 3.0)

    def __post_init__(self) -> None:
        _check_event_weights(self.event_weights)


@dataclass(frozen=True, kw_only=True)
class SampledSoftmaxConfig:
    """Loss of the item chosen against the items of the global batch and drawn ones: `losses.SAMPLED_LOSSES` has it.

    num_negatives         items drawn a step, the same on every replica
    negative_power       items are drawn in proportion to (training events + 1) ** negative_power; 0: all alike
    uniform_share     of the draws that are of all items alike instead, so that rare items compete too
    in_batch_negatives   whether the other rows' items compete
    event_weights     weight of an example by the kind of its event
    half_life_days    an example weighs half as much as one so many days younger; none: all ages weigh alike
    l2                of the rows that a step reads, those of visitors, items chosen and items drawn; for dot products:
                      directions have no length to keep short
    """

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    num_negatives: int = 1024
    negative_power: float = 0.5
    uniform_share: float = 0.0
    in_batch_negatives: bool = True
    event_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    half_life_days: float | None = None
    l2: float = 0.0

    def __post_init__(self) -> None:
        check(self.num_negatives >= 0, "loss.num_negatives", self.num_negatives, "at least 0")
        check(0 <= self.negative_power <= 1, "loss.negative_power", self.negative_power, "in [0, 1]")
        check(0 <= self.uniform_share <= 1, "loss.uniform_share", self.uniform_share, "in [0, 1]")
        rule = "above 0 with loss.in_batch_negatives false: something must compete"
        check(self.in_batch_negatives or self.num_negatives > 0, "loss.num_negatives", self.num_negatives, rule)
        half_life = self.half_life_days
        check(half_life is None or half_life > 0, "loss.half_life_days", half_life, "above 0, or none")
        check(self.l2 >= 0, "loss.l2", self.l2, "at least 0")
        _check_event_weights(self.event_weights)


@dataclass(frozen=True, kw_only=True)
class AdagradConfig:
    """Adagrad (Duchi et al., JMLR 2011); only the rows of a step are touched.

    initial_accumulator   far below a squared gradient, or rows hardly move: the loss is a mean over the batch, so an
                          entry of a row's gradient is about scale / batch_size, squared 1e-7
    is_row_wise           one accumulator a row of a table, of the mean over its columns: half the memory
    warmup_steps         steps in which the rate, and that of the dense weights, rises evenly to what is set; 0: none
    """

    kind: Literal["adagrad"] = "adagrad"
    learning_rate: float = 0.1
    initial_accumulator: float = 1e-9
    epsilon: float = 1e-7
    is_row_wise: bool = False
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "above 0")
        check(self.initial_accumulator >= 0, "optimizer.initial_accumulator", self.initial_accumulator, "at least 0")
        check(self.epsilon > 0, "optimizer.epsilon", self.epsilon, "above 0")
        check(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "at least 0")


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam (Kingma and Ba, ICLR 2015); tables use its lazy form: rows outside a step keep value and moments.

    warmup_steps     steps in which the rate, and that of the dense weights, rises evenly to what is set; 0: none
    """

    kind: Literal["adam"] = "adam"
    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "above 0")
        check(0 <= self.beta_1 < 1, "optimizer.beta_1", self.beta_1, "in [0, 1)")
        check(0 <= self.beta_2 < 1, "optimizer.beta_2", self.beta_2, "in [0, 1)")
        check(self.epsilon > 0, "optimizer.epsilon", self.epsilon, "above 0")
        check(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "at least 0")


@dataclass(frozen=True, kw_only=True)
class AlternatingConfig:
    """Weighted alternating least squares of a factorization; see `models.least_squares` for the objective.

    unobserved_weight   u: of each pair without an event, and added to each with one
    l2                  λ of a vector, times the power below
    l2_power            of (entries of the row + unobserved_weight × others) that λ grows with; 0: λ is l2 for all
    batch_entries       pairs that a replica reads at a time
    """

    unobserved_weight: float = 0.01
    l2: float = 0.01
    l2_power: float = 0.0
    batch_entries: int = 32_768

    def __post_init__(self) -> None:
        check(self.unobserved_weight > 0, "als.unobserved_weight", self.unobserved_weight, "above 0")
        check(self.l2 > 0, "als.l2", self.l2, "above 0")
        check(0 <= self.l2_power <= 1, "als.l2_power", self.l2_power, "in [0, 1]")
        check(self.batch_entries >= 1, "als.batch_entries", self.batch_entries, "at least 1")


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How training rows become batches.

    batch_size        rows of a global batch, over all replicas
    window_blocks     timeline blocks that are shuffled together
    open_files        shards read at the same time
    """

    batch_size: int = 1024
    window_blocks: int = 256
    open_files: int = 4

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "input.batch_size", self.batch_size, "at least 1")
        check(self.window_blocks >= 1, "input.window_blocks", self.window_blocks, "at least 1")
        check(self.open_files >= 1, "input.open_files", self.open_files, "at least 1")


ModelConfig = MatrixFactorizationConfig | NeuralConfig | TowersConfig
"""The settings of each model: beside its own an `initial_stddev`, a `history_length` and whether it `is_sequential`."""

LossConfig = SquaredErrorConfig | SampledSoftmaxConfig
OptimizerConfig = AdagradConfig | AdamConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A training run; with the dataset it determines the result.

    solver                   sgd: the loss by gradient steps; als: weighted alternating least squares, of a
                             factorization: an epoch is then a sweep, scores are plain dot products without biases, and
                             of the loss only the events' weights and their half-life are used
    devices                  replicas in this process: GPUs where there are any, else logical CPUs; none: all GPUs, or
                             one CPU
    mixed_precision          matrix products in bfloat16; tables, losses and updates stay float32
    jit_compile              compile loss and gradients with XLA
    steps_per_execution           steps run between two looks of the program at the run: a stop waits for that many
    checkpoint_every_steps   also save within an epoch, after so many steps; none: not by steps
    checkpoint_every_seconds also save within an epoch, when so long nothing was saved; none: not by time
    step_timeout_seconds     several workers give up, to be started again, when no step and no chunk of validation ends
                             for so long: one of them hangs; the first step, which is compiled, has five times as long
    validate_every_epochs    the model is measured on the validation split after every so many epochs, and at the end
    patience                 measurements in a row that are no better than the best, after which the run ends; none: it
                             takes all its epochs
    max_loss_growth          a mean loss of 20 steps above so many times the first loss stops the run as diverged; none:
                             only a loss that is not finite does
    """

    model: ModelConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    name: str = "custom"
    """What tables, reports and model cards call the model; each preset sets its own name."""
    input: InputConfig = field(default_factory=InputConfig)
    solver: Literal["sgd", "als"] = "sgd"
    als: AlternatingConfig = field(default_factory=AlternatingConfig)
    epochs: int = 1
    seed: int = 0
    devices: int | None = None
    mixed_precision: bool = False
    jit_compile: bool = False
    steps_per_execution: int = 20
    checkpoint_every_steps: int | None = None
    checkpoint_every_seconds: float | None = 300.0
    step_timeout_seconds: float = 300.0
    validate_every_epochs: int = 1
    patience: int | None = 3
    max_loss_growth: float | None = 10.0

    def __post_init__(self) -> None:
        check(bool(self.name.strip()), "name", repr(self.name), "a word, such as mf")
        check(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        check(0 <= self.seed < 2**31, "seed", self.seed, "in [0, 2147483648)")
        check(self.devices is None or self.devices >= 1, "devices", self.devices, "at least 1, or none")
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
        if isinstance(self.model, NeuralConfig) and isinstance(self.loss, SampledSoftmaxConfig):
            raise ValueError("the neural model scores one pair at a time: it trains with loss.kind squared_error only")
        if isinstance(self.model, TowersConfig) and not isinstance(self.loss, SampledSoftmaxConfig):
            raise ValueError("the towers rank, they predict no weights: they train with loss.kind sampled_softmax only")

        if isinstance(self.model, MatrixFactorizationConfig) and self.model.history_length:
            rule = "0 with loss.kind squared_error, which predicts an event's weight from the visitor's own vector"
            check(isinstance(self.loss, SampledSoftmaxConfig), "model.history_length", self.model.history_length, rule)
        if isinstance(self.loss, SampledSoftmaxConfig):
            is_of_dots = isinstance(self.model, MatrixFactorizationConfig) and self.model.similarity == "dot"
            rule = (
                "0, but for a factorization with model.similarity=dot and history_length=0: directions have no length"
            )
            check(self.loss.l2 == 0 or is_of_dots, "loss.l2", self.loss.l2, rule)
        if self.solver == "als" and (self.model.kind, self.loss.kind) != ("matrix_factorization", "sampled_softmax"):
            raise ValueError(
                f"solver=als ranks with a factorization, got model {self.model.kind} and loss {self.loss.kind}: leave "
                "solver at sgd, or train the preset mf"
            )

    @property
    def scored_model(self) -> ModelConfig:
        """The model as its tables are scored: least squares know neither lengths of 1 nor biases."""
        if self.solver == "als" and isinstance(self.model, MatrixFactorizationConfig):
            plain = replace(self.model, history_length=0, similarity="dot", scale=1.0, is_scale_learnt=False)
            return replace(plain, has_item_bias=False, visitor_dropout=0.0)
        return self.model

    @property
    def history_length(self) -> int:
        """Other rows of the timeline that each training example comes with; with 0, rows stand alone."""
        return self.scored_model.history_length

    @property
    def is_sequential(self) -> bool:
        """Whether examples come with the rows before them, not with those around them."""
        return self.model.is_sequential

    @property
    def has_times(self) -> bool:
        """Whether an example's weight depends on its age."""
        return isinstance(self.loss, SampledSoftmaxConfig) and self.loss.half_life_days is not None

    @property
    def dense_optimizer(self) -> OptimizerConfig:
        """What moves the weights that are not tables."""
        warmup_steps = self.optimizer.warmup_steps
        if isinstance(self.model, TowersConfig):
            return AdamConfig(learning_rate=self.model.dense_learning_rate, warmup_steps=warmup_steps)
        if isinstance(self.model, MatrixFactorizationConfig):
            return AdamConfig(warmup_steps=warmup_steps)
        return self.optimizer


def _check_event_weights(weights: tuple[float, ...]) -> None:
    rule = f"{len(EVENT_KINDS)} numbers of at least 0, one for each of {', '.join(EVENT_KINDS)}"
    is_met = len(weights) == len(EVENT_KINDS) and min(weights) >= 0 and max(weights) > 0
    check(is_met, "loss.event_weights", weights, rule)
