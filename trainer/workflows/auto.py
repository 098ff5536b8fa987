"""`--preset auto`: trains several models within a budget and blends them by validation.

The models are ordinary runs below the run's directory. The runs with a nonzero weight become the parts of the blend, so
nothing is trained twice. `auto.json` records the results, so that the same call resumes after a kill.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from common import storage
from contract.schema import Split
from trainer.config.presets import AUTO, auto_trials
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.cluster import join_cluster
from trainer.distributed.preemption import StopRequest, stop_on_signals
from trainer.distributed.replicas import start_replicas
from trainer.evaluation.blend_weights import OutOfTimeError
from trainer.evaluation.blending import blend_runs
from trainer.evaluation.cases import most_common_cases
from trainer.models.trained_run import part_directory
from trainer.runs import checkpoint
from trainer.runs.blend_record import BlendRecord, read_blend
from trainer.runs.layout import part_name
from trainer.runs.record import RunRecord, has_run, read_record, write_record
from trainer.workflows.budget import Budget
from trainer.workflows.longer_histories import LEAST_SLOWDOWN, NAME, longer_history, slowdown
from trainer.workflows.trials import Trial, TrialRunner

log = logging.getLogger(__name__)

DEFAULT_BUDGET_SECONDS = 600.0
_DENSE_EVENTS = 30  # events per visitor; from this mean on, a matrix is dense for least squares


def train_auto(
    *,
    data: str,
    workdir: str,
    budget_seconds: float = DEFAULT_BUDGET_SECONDS,
    settings: Sequence[str] = (),
    stop: StopRequest | None = None,
    started: float | None = None,
) -> dict[str, Any]:
    """Trains the models of `presets.auto_trials` within a time budget, and blends them.

    If visitors have long histories and time is left, also trains `nn` with a longer history; see `longer_histories`.
    Nothing is trained if the run is finished, even if the budget is larger than before.

    Args:
      data: path of the prepared dataset.
      workdir: directory of the run; created if it does not exist.
      budget_seconds: seconds for training, blending and the report that follows; the first model is always trained to
        its end. If no time is left for a blend, the best model is used instead; the trend of items is added.
      settings: changes to the settings of all trials, such as `evaluate.kinds=transaction`.
      stop: request that stops the run; None: SIGTERM stops the run.
      started: start of the budget, as a time of `time.monotonic`; None: this call.

    Returns:
      JSON values: the `trials`, the `blend` and its `main_model`, and the `seconds` since `started`.

    Raises:
      Preempted: a stop was requested. Call again to resume.
      ValueError: a setting is wrong, all trials failed, or the workdir has another run.
      OwnershipError: another process trains in `workdir`.
    """
    started = time.monotonic() if started is None else started
    cluster = join_cluster()
    if cluster is not None:
        raise ValueError(
            "--preset auto needs a single process (it uses all GPUs of that process), but this is a cluster of "
            f"{len(cluster.hosts)} workers; run it with one worker, then train the best model with all workers"
        )
    dataset = open_dataset(data)
    configs = auto_trials(settings, is_dense=_is_dense(dataset))
    with storage.own_directory(workdir):
        _check_workdir(workdir, [*configs, NAME], dataset)
        runner = TrialRunner(workdir, data)
        budget = Budget.of_call(budget_seconds, started, runner.trials, dataset)
        if runner.trials and read_blend(workdir) is not None:  # which would not use further models
            log.info("%s has a finished run; to try more with a larger --budget, give another --workdir", workdir)
        else:
            with stop_on_signals(stop) as request:
                _run_trials(runner, configs, dataset, budget, request)
        if not runner.usable:
            reasons = "; ".join(f"{trial.name}: {trial.reason}" for trial in runner.trials)
            raise ValueError(f"no model could be trained ({reasons}); fix the causes, then give another --workdir")
        blend = _blend(workdir, runner.usable, configs, dataset, budget.deadline)
        record = read_record(part_directory(workdir, blend.parts[0]))
        write_record(replace(record, config=replace(record.config, name=AUTO)), workdir)
    return _summarize(workdir, runner.trials, blend, record, time.monotonic() - started)


def _is_dense(dataset: Dataset) -> bool:
    split = dataset.manifest.splits[Split.TRAIN]
    return split.target_rows >= _DENSE_EVENTS * split.visitors


def _run_trials(
    runner: TrialRunner, configs: Mapping[str, RunConfig], dataset: Dataset, budget: Budget, request: StopRequest
) -> None:
    """Runs the trials of `configs` and, if it may help, one with a longer history.

    All trials except the first have a time limit, so that time is left for the final blend.
    """
    for number, (name, config) in enumerate(configs.items()):
        limit = budget.limit(runner.trials, is_last=number == len(configs) - 1)
        runner.run(name, config, request, limit=limit, least_seconds=budget.least_trial_seconds)
    _try_longer_history(runner, configs["nn"], dataset, budget, request)


def _try_longer_history(
    runner: TrialRunner, config: RunConfig, dataset: Dataset, budget: Budget, request: StopRequest
) -> None:
    """Runs a trial of `config` with a longer history, if there are long histories and enough time is left."""
    usual = runner.find("nn")
    # a trial that was stopped has used all the time
    if usual is None or usual.state != "trained" or runner.find(NAME) is not None:
        return
    limit = budget.limit(runner.trials, is_last=True)
    least = max(usual.seconds * LEAST_SLOWDOWN, budget.least_trial_seconds)
    if limit is not None and limit < least:  # reading the validation split would take time from the blend
        log.info("no time is left to try a longer history (%.1f of at least %.1f s)", max(limit, 0.0), least)
        return
    longer = longer_history(config, dataset)
    if longer is None:
        return
    needed = max(usual.seconds * slowdown(config, longer), budget.least_trial_seconds)
    limit = budget.limit(runner.trials, is_last=True)
    # up to four times the history may need more memory than the machine has
    runner.run(longer.name, longer, request, limit=limit, least_seconds=needed, runs_once=True)


def _blend(
    workdir: str, names: Sequence[str], configs: Mapping[str, RunConfig], dataset: Dataset, deadline: float
) -> BlendRecord:
    """Blends the models by the deadline. If the time is too short, uses only the best one, with its trend."""
    first = configs[names[0]]
    replicas = start_replicas(first.devices, None, first.gpus)

    def blend(names: Sequence[str], *, is_forced: bool) -> BlendRecord:
        parts = [part_name(name) for name in names]
        kinds = first.evaluate.kinds
        return blend_runs(workdir, parts, dataset, replicas, kinds=kinds, deadline=deadline, is_forced=is_forced)

    if len(names) == 1:
        return blend(names, is_forced=True)
    try:
        return blend(names, is_forced=False)
    except OutOfTimeError as error:
        best = _best_model(workdir, names, dataset)
        log.warning(
            "the budget is too short to choose the weights of a blend (%s), so %s is used alone; raise --budget and "
            "give another --workdir to blend the models",
            error,
            best,
        )
    # one model is faster, and without a trend, baselines that have one may be better
    return blend([best], is_forced=True)


def _best_model(workdir: str, names: Sequence[str], dataset: Dataset) -> str:
    """Returns the model with the best validation metric; skips models with a different metric from the first."""
    if Split.VALIDATION not in dataset.manifest.splits:
        return names[0]
    configs = {name: read_record(part_directory(workdir, part_name(name))).config for name in names}
    kinds = configs[names[0]].evaluate.kinds
    is_counted_by_visitor = most_common_cases(dataset, Split.VALIDATION, kinds).hides_seen

    def ranks_visitors(name: str) -> bool:
        return is_counted_by_visitor if configs[name].solver == "count" else configs[name].model.kind != "towers"

    comparable = [name for name in names if ranks_visitors(name) == ranks_visitors(names[0])]
    values = {name: checkpoint.read_validations(part_directory(workdir, part_name(name))).values for name in comparable}
    return max(comparable, key=lambda name: max(values[name].values(), default=0.0))


def _check_workdir(workdir: str, names: Sequence[str], dataset: Dataset) -> None:
    """Raises ValueError if the workdir contains a run of another preset, a refit, or models of another dataset.

    Args:
      workdir: directory of the run.
      names: names of all trials.
      dataset: the requested dataset.
    """
    if has_run(workdir):
        record = read_record(workdir)
        if record.config.name != AUTO:
            raise ValueError(
                f"{workdir} has a run of the preset {record.config.name}; use another --workdir for --preset auto"
            )
        if record.refit_of is not None:
            raise ValueError(f"{workdir} has a refit of {record.refit_of['run']}; give another --workdir")
    for part in (part_directory(workdir, part_name(name)) for name in names):
        if has_run(part) and read_record(part).dataset_checksum != dataset.checksum:
            record = read_record(part)
            raise ValueError(
                f"the models in {workdir} were trained on the dataset {record.data} (checksum "
                f"{record.dataset_checksum[:12]}…), but {dataset.root} has the checksum {dataset.checksum[:12]}…; give "
                "the original dataset with --data, or another --workdir"
            )


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
