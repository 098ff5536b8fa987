"""`--preset auto`: trains several models within a budget and blends them by validation.

The models are ordinary runs below the run's directory. The runs with a nonzero weight become the parts of the blend, so
nothing is trained twice. `auto.json` records the results, so that the same call resumes after a kill.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from common import storage
from common.errors import explain_damage
from contract.schema import Split
from trainer.config.presets import AUTO, auto_trials
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.cluster import join_cluster
from trainer.distributed.preemption import Preempted, StopRequest, stop_on_signals
from trainer.distributed.replicas import start_replicas
from trainer.evaluation.blend_weights import MAX_CASES, OutOfTimeError
from trainer.evaluation.blending import blend_runs, use_alone
from trainer.evaluation.cases import most_common_cases
from trainer.models.trained_run import part_directory
from trainer.runs import checkpoint
from trainer.runs.blend_record import RANKINGS, BlendRecord
from trainer.runs.layout import RunLayout, part_name
from trainer.runs.metrics_log import VALIDATION_RATE, read_lines
from trainer.runs.record import RunRecord, has_run, read_record, write_record
from trainer.train import train

log = logging.getLogger(__name__)

DEFAULT_BUDGET_SECONDS = 600.0
_BLEND_START_SECONDS = 10.0  # for loading the models and the events
_LARGEST_BLEND_SHARE = 0.3  # of the budget: validations of few cases measure the start of a model, not its speed
_FIT_SECONDS = 0.002  # per case, to choose the weights after the ranking
_LEAST_SECONDS = 5.0  # a trial with less time left is not started
_LARGEST_SHARE, _LAST_SHARE = 0.5, 0.95  # of the remaining time for a trial: if others follow, if none do
_DENSE_EVENTS = 30  # events per visitor; from this mean on, a matrix is dense for least squares


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of training one model."""

    name: str
    """Name of the trial: a key of `presets.auto_trials`."""
    state: str
    """`trained`: training reached its end. `stopped`: its time ran out. `skipped`: there was no time for a first step.
    `failed`: training raised an error."""
    seconds: float
    """Seconds of training."""
    reason: str = ""
    """Why the trial failed, was stopped or was skipped; empty for `trained`."""
    case_seconds: float = 0.0
    """Seconds to rank a validation case; 0 if the model was not validated."""


def train_auto(
    *,
    data: str,
    workdir: str,
    budget_seconds: float = DEFAULT_BUDGET_SECONDS,
    settings: Sequence[str] = (),
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Trains the models of `presets.auto_trials` within a time budget, and blends them.

    Args:
      data: path of the prepared dataset.
      workdir: directory of the run; created if it does not exist.
      budget_seconds: seconds for training and blending; the first model is always trained to its end. If no time is
        left for a blend, the best model is used alone.
      settings: changes to the settings of all trials, such as `evaluate.kinds=transaction`.
      stop: request that stops the run; None: SIGTERM stops the run.

    Returns:
      JSON values: the `trials`, the `blend` and its `main_model`, and the `seconds` of this call.

    Raises:
      Preempted: a stop was requested. Call again to resume.
      ValueError: a setting is wrong, all trials failed, or the workdir has another run.
      OwnershipError: another process trains in `workdir`.
    """
    started = time.monotonic()
    cluster = join_cluster()
    if cluster is not None:
        raise ValueError(
            "--preset auto needs a single process (it uses all GPUs of that process), but this is a cluster of "
            f"{len(cluster.hosts)} workers; run it with one worker, then train the best model with all workers"
        )
    layout, dataset = RunLayout(workdir), open_dataset(data)
    train_split = dataset.manifest.splits[Split.TRAIN]
    is_dense = train_split.target_rows >= _DENSE_EVENTS * train_split.visitors
    configs = auto_trials(settings, is_dense=is_dense)
    with storage.own_directory(workdir):
        _check_workdir(workdir)
        trials = _read_trials(layout)
        deadline = started + budget_seconds - sum(trial.seconds for trial in trials)
        num_cases, largest = _count_cases(dataset), _LARGEST_BLEND_SHARE * budget_seconds

        def blend_seconds(trials: Sequence[Trial]) -> float:
            return min(_blend_seconds(trials, num_cases), largest)

        with stop_on_signals(stop) as request:
            _run_trials(trials, configs, data, layout, deadline, blend_seconds, request)
        usable = [trial.name for trial in trials if trial.state in ("trained", "stopped")]
        if not usable:
            reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in trials)
            raise ValueError(f"no model could be trained ({reasons}); fix the causes, then give another --workdir")
        blend = _blend(workdir, usable, configs, dataset, deadline)
        record = read_record(part_directory(workdir, blend.parts[0]))
        write_record(replace(record, config=replace(record.config, name=AUTO)), workdir)
    return _summarize(workdir, trials, blend, record, time.monotonic() - started)


def _run_trials(
    trials: list[Trial],
    configs: Mapping[str, RunConfig],
    data: str,
    layout: RunLayout,
    deadline: float,
    blend_seconds: Callable[[Sequence[Trial]], float],
    request: StopRequest,
) -> None:
    """Runs the trials of `configs` that have no result in `trials` yet, and appends their results.

    All trials except the first have a time limit, so that time is left for the final blend.

    Args:
      trials: results of the earlier trials.
      configs: settings of all trials, by name.
      data: path of the dataset.
      layout: paths of the run.
      deadline: end of the budget, as a time of `time.monotonic`.
      blend_seconds: predicts the time of the final blend.
      request: request to stop.
    """
    for number, (name, config) in enumerate(configs.items()):
        if name in {trial.name for trial in trials}:
            continue
        left = deadline - time.monotonic() - blend_seconds(trials)
        share = _LAST_SHARE if number == len(configs) - 1 else _LARGEST_SHARE
        limit = left * share if trials else None
        trials.append(_try(name, config, data, layout, limit, request))
        _write_trials(trials, layout)


def _count_cases(dataset: Dataset) -> int:
    """Returns an upper limit of the number of validation cases that a blend is fitted on."""
    splits = dataset.manifest.splits
    rows = splits[Split.VALIDATION].target_rows if Split.VALIDATION in splits else 0
    return len(RANKINGS) * min(MAX_CASES, rows)


def _blend_seconds(trials: Sequence[Trial], num_cases: int) -> float:
    """Predicts the seconds to blend the trained models and the model that is trained next.

    A model without validation is assumed to be as slow as the slowest other model.
    """
    seconds = [trial.case_seconds for trial in trials if trial.state in ("trained", "stopped")]
    slowest = max(seconds, default=0.0)
    return _BLEND_START_SECONDS + num_cases * (sum(each or slowest for each in seconds) + slowest + _FIT_SECONDS)


def _blend(
    workdir: str, names: Sequence[str], configs: Mapping[str, RunConfig], dataset: Dataset, deadline: float
) -> BlendRecord:
    """Blends the models by the deadline. If the time is too short, uses only the best one, with a trend if possible."""
    first = configs[names[0]]
    replicas = start_replicas(first.devices, None, first.gpus)

    def blend(names: Sequence[str]) -> BlendRecord:
        parts = [part_name(name) for name in names]
        return blend_runs(workdir, parts, dataset, replicas, kinds=first.evaluate.kinds, deadline=deadline)

    try:
        return blend(names)
    except OutOfTimeError as error:
        best = _best_model(workdir, names, configs, dataset)
        log.warning(
            "the budget is too short to choose the weights of a blend (%s), so %s is used alone; raise --budget and "
            "give another --workdir to blend the models",
            error,
            best,
        )
    try:
        return blend([best])  # one model is faster; without a trend, baselines that have one may be better
    except OutOfTimeError:
        return use_alone(workdir, part_name(best))


def _best_model(workdir: str, names: Sequence[str], configs: Mapping[str, RunConfig], dataset: Dataset) -> str:
    """Returns the model with the best validation metric; skips models with a different metric from the first."""
    if Split.VALIDATION not in dataset.manifest.splits:
        return names[0]
    kinds = configs[names[0]].evaluate.kinds
    is_counted_by_visitor = most_common_cases(dataset, Split.VALIDATION, kinds).hides_seen

    def ranks_visitors(name: str) -> bool:
        return is_counted_by_visitor if configs[name].solver == "count" else configs[name].model.kind != "towers"

    comparable = [name for name in names if ranks_visitors(name) == ranks_visitors(names[0])]
    values = {name: checkpoint.read_validations(part_directory(workdir, part_name(name))).values for name in comparable}
    return max(comparable, key=lambda name: max(values[name].values(), default=0.0))


def _case_seconds(workdir: str) -> float:
    """Returns the seconds per validation case in a run's fastest validation; 0 if the run has no validation."""
    rates = [line[VALIDATION_RATE] for line in read_lines(RunLayout(workdir).metrics) if VALIDATION_RATE in line]
    return 1 / max(rates) if any(rates) else 0.0


def _try(
    name: str, config: RunConfig, data: str, layout: RunLayout, limit: float | None, request: StopRequest
) -> Trial:
    """Trains or resumes one of the models for at most `limit` seconds; None: no limit.

    Raises:
      Preempted: `request` stopped the training.
    """
    if limit is not None and limit < _LEAST_SECONDS:
        return Trial(name=name, state="skipped", seconds=0.0, reason="no time was left")
    log.info("trial %s starts, %s", name, "without a time limit" if limit is None else f"for at most {limit:.0f} s")
    started = time.monotonic()
    with _stop_after(limit, request) as own:
        try:
            train(config, data=data, workdir=layout.part(name), stop=own)
        except Preempted:
            if request.is_requested:
                raise
            seconds = time.monotonic() - started
            if checkpoint.last_step(layout.part(name)) is None:
                return Trial(
                    name=name, state="skipped", seconds=seconds, reason="out of time before its first step ended"
                )
            return Trial(
                name=name,
                state="stopped",
                seconds=seconds,
                reason="out of time",
                case_seconds=_case_seconds(layout.part(name)),
            )
        except ValueError as error:  # such as a dataset without events of the right kind, or a diverged model
            log.warning("trial %s failed: %s", name, error)
            return Trial(name=name, state="failed", seconds=time.monotonic() - started, reason=str(error))
    seconds = time.monotonic() - started
    return Trial(name=name, state="trained", seconds=seconds, case_seconds=_case_seconds(layout.part(name)))


@contextmanager
def _stop_after(seconds: float | None, request: StopRequest) -> Iterator[StopRequest]:
    """Yields a stop request that is set after `seconds` (None: never) and also whenever `request` is set."""
    own = _LinkedRequest(request)
    timer = threading.Timer(seconds or 0.0, own.request)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield own
    finally:
        timer.cancel()


class _LinkedRequest(StopRequest):
    """A stop request that is also set when the request `other` is set."""

    def __init__(self, other: StopRequest) -> None:
        self._other, self._is_own = other, False

    @property
    def is_requested(self) -> bool:  # type: ignore[override]  # an attribute there
        return self._is_own or self._other.is_requested

    def request(self) -> None:
        self._is_own = True


def _check_workdir(workdir: str) -> None:
    """Raises ValueError if the workdir contains a run of a preset other than `auto`."""
    if has_run(workdir) and read_record(workdir).config.name != AUTO:
        name = read_record(workdir).config.name
        raise ValueError(f"{workdir} has a run of the preset {name}; use another --workdir for --preset auto")


def _read_trials(layout: RunLayout) -> list[Trial]:
    if not storage.exists(layout.auto):
        return []
    with explain_damage(layout.auto, "remove it to train all models again"):
        return [Trial(**values) for values in json.loads(storage.read_bytes(layout.auto))]


def _write_trials(trials: Sequence[Trial], layout: RunLayout) -> None:
    storage.check_ownership(layout.root)
    content = json.dumps([asdict(trial) for trial in trials], indent=2, allow_nan=False) + "\n"
    storage.write_bytes(layout.auto, content.encode())


def _summarize(
    workdir: str, trials: Sequence[Trial], blend: BlendRecord, record: RunRecord, seconds: float
) -> dict[str, Any]:
    return {
        "workdir": workdir,
        "name": AUTO,
        "main_model": record.config.name,
        "trials": [asdict(trial) for trial in trials],
        "blend": asdict(blend),
        "training_rows": record.training_rows,
        "seconds": round(seconds, 3),
    }
