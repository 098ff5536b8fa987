"""Tune: searches settings with Optuna. Each trial is a run like any other, with validation.

Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) chooses the settings of a trial, as a pure
function of the seed, the trial's number and the finished trials. A trial is pruned if, after an epoch, it is worse than
the median of the finished trials after the same epoch. Several processes can share the trials: each takes the next
trial that no other process runs.
"""

import fcntl
import logging
import os
import random
import shlex
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError

from common import storage
from common.settings import apply_settings
from contract.manifest import dataset_checksum, read_manifest
from contract.schema import Split
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.config.search import Choices, Dimension, parse_search
from trainer.distributed.cluster import join_cluster
from trainer.distributed.preemption import Preempted, StopRequest, stop_on_signals
from trainer.pages.tuning import write_tuning_report
from trainer.runs import checkpoint
from trainer.runs.trials import SearchLayout, State, Trial, check_definition, write_json, write_trials
from trainer.train import train

log = logging.getLogger(__name__)

_OPENINGS = 10  # attempts to open a database that another process may be creating
_STARTUP_TRIALS = 10  # the first trials are drawn at random, until the estimator has enough of them
_TRIALS_BEFORE_PRUNING = 4
_NUMBER, _PROBLEM = "number", "problem"  # attributes of a trial in Optuna's storage
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def tune(
    preset: str,
    search: Sequence[str],
    *,
    data: str,
    workdir: str,
    trials: int = 20,
    settings: Sequence[str] = (),
    seed: int = 0,
    storage_url: str | None = None,
    only: int | None = None,
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Runs the unfinished trials of a search, and writes the trials, the best settings and the report.

    A repeated call resumes the search; with larger `trials`, it adds trials. Several processes may make the same call
    to divide the trials.

    Args:
      preset: name of the preset.
      search: the settings to search and their values, see `config.search`.
      data: path of the prepared dataset, which needs a validation split.
      workdir: directory of the search; the run of a trial is `trials/NUMBER` below it.
      trials: number of trials of all processes and calls together.
      settings: changes to other settings of the preset, as `KEY=VALUE`.
      seed: seed of the search, not of the runs.
      storage_url: URL of the database where Optuna stores the trials, like `postgresql://…`; None: a file in `workdir`.
      only: number of the trial to run; None: all trials that no other process runs.
      stop: request that stops the running trial; None: SIGTERM stops the trial.

    Returns:
      JSON values: the `workdir`, the number of `trials` by state, the `best` trial as in `best.json` or None, and the
      path of the `report`.

    Raises:
      ContractError: there is no dataset.
      ValueError: an argument is wrong, or `workdir` has a different search.
      Preempted: a stop was requested. Tune again to resume.
    """
    if join_cluster() is not None:
        raise ValueError(
            "a trial runs in one process, but TF_CONFIG describes several workers; unset TF_CONFIG. For parallel "
            "trials, start the same command several times"
        )
    _check_trials(workdir, trials, storage_url, only)
    # a trial is the model alone: its blend would have to be fitted again for the chosen settings
    config = replace(apply_settings(PRESETS[preset], settings), companions=(), blend=False)
    dimensions = parse_search(search, config)
    if Split.VALIDATION not in read_manifest(data).splits:
        raise ValueError(f"{data} has no validation split to compare trials on; prepare it with `--split time`")
    layout = SearchLayout(workdir)
    definition = {"preset": preset, "settings": list(settings), "search": list(search), "seed": seed}
    check_definition(layout, {**definition, "dataset_checksum": dataset_checksum(data)})
    found = Search(config, dimensions, layout, data, _open_study(config, layout, storage_url, seed))
    with stop_on_signals(stop) as request:
        try:
            for number in range(trials) if only is None else [only]:
                found.run(number, request)
        finally:  # the report of a stopped search shows its trials so far
            result = found.write_results(_train_command(preset, data, settings))
    return result


def _check_trials(workdir: str, trials: int, storage_url: str | None, only: int | None) -> None:
    """Raises ValueError if `trials` or `only` is out of range.

    If `workdir` is in an object store, `storage_url` and `only` must not be None.
    """
    if trials < 1:
        raise ValueError(f"--trials must be at least 1, got {trials}")
    if only is not None and not 0 <= only < trials:
        raise ValueError(f"--trial must be from 0 to {trials - 1}, as --trials is {trials}; got {only}")
    if not storage.is_local(workdir) and (storage_url is None or only is None):
        raise ValueError(
            f"{workdir} is in an object store, where processes can neither append to a file nor lock it; either "
            "give a local --workdir, or give both --storage (a database) and --trial (which trial to run: 0, 1, …)"
        )


def _open_study(config: RunConfig, layout: SearchLayout, storage_url: str | None, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # a walk computes a model of its own in each epoch, so its first epochs say nothing about later ones
    can_prune = config.solver != "count"
    return optuna.create_study(
        # a file belongs to one search, also after its directory was moved; a database has several
        study_name="tune" if storage_url is None else _identify(layout.root),
        storage=_open_storage(layout, storage_url),
        sampler=SeededSampler(seed),
        pruner=optuna.pruners.MedianPruner(_TRIALS_BEFORE_PRUNING) if can_prune else optuna.pruners.NopPruner(),
        direction="maximize" if config.loss.is_ranking else "minimize",
        load_if_exists=True,
    )


def _open_storage(layout: SearchLayout, url: str | None) -> BaseStorage:
    if url is None:
        os.makedirs(storage.local_path(layout.root), exist_ok=True)
        return JournalStorage(JournalFileBackend(storage.local_path(layout.journal)))
    try:
        return _open_database(url)
    except ImportError as error:
        scheme = url.partition(":")[0]
        raise ValueError(
            f"--storage {scheme}:… needs a driver that is not installed: {error.__cause__}; install it with pip"
        ) from error
    except ArgumentError as error:
        raise ValueError(f"--storage is not the URL of a database, such as sqlite:///trials.db: {error}") from error


def _open_database(url: str) -> RDBStorage:
    """Opens a database, and creates its tables if it is new. Tries again if another process creates them meanwhile."""
    for _ in range(_OPENINGS):
        try:
            return RDBStorage(url)
        except DatabaseError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    return RDBStorage(url)


def _identify(workdir: str) -> str:
    """Returns the search's path, which is the name of the search in a shared database."""
    return os.path.abspath(storage.local_path(workdir)) if storage.is_local(workdir) else workdir


class SeededSampler(BaseSampler):
    """Samples each setting of each trial with a new tree-structured Parzen estimator.

    The seed of each estimator depends only on the seed of the search, the trial and the setting, so a resumed search
    samples the same values.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """Returns an empty space, because `sample_independent` samples all settings."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Returns no settings, because `sample_independent` samples all of them."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Samples a value for the setting `param_name` of a trial."""
        key = [self._seed, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # constant_liar: running trials count as bad ones, so that processes try different settings
            sampler = TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS, constant_liar=True)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


class Search:
    """The trials of a search: settings and metrics in Optuna's storage, runs in the search directory."""

    def __init__(
        self, config: RunConfig, dimensions: Sequence[Dimension], layout: SearchLayout, data: str, study: optuna.Study
    ) -> None:
        self._config, self._dimensions, self._layout, self._data = config, dimensions, layout, data
        self._study = study
        self._distributions = {dimension.key: _distribution(dimension) for dimension in dimensions}

    def run(self, number: int, request: StopRequest) -> None:
        """Runs or resumes a trial, unless it is finished or runs in another process; raises Preempted on a stop."""
        if request.is_requested:
            raise Preempted(f"stopped before trial {number}; run the same command again to resume")
        with _locked(self._layout.lock(number)) as is_mine:
            if not is_mine:
                log.info("another process runs trial %d", number)
                return
            trial = self._find(number)
            if trial is None:
                new = self._study.ask(self._distributions)
                new.set_user_attr(_NUMBER, number)
                trial = self._study.get_trials(deepcopy=False)[new.number]
            if not trial.state.is_finished():
                self._run(number, trial, request)

    def _find(self, number: int) -> FrozenTrial | None:
        """Returns the trial with this number in the search, or None; Optuna's own trial numbers can differ."""
        trials = self._study.get_trials(deepcopy=False)
        return next((trial for trial in trials if trial.user_attrs.get(_NUMBER) == number), None)

    def _run(self, number: int, frozen: FrozenTrial, request: StopRequest) -> None:
        trial = optuna.Trial(self._study, frozen._trial_id)  # Optuna has no public way to resume a trial
        settings = self._settings_of(frozen)
        log.info("trial %d: %s", number, ", ".join(f"{key}={value}" for key, value in settings.items()))
        is_pruned = False

        def on_validation(epoch: int, value: float) -> bool:
            nonlocal is_pruned
            if epoch not in frozen.intermediate_values:  # a killed process may have reported it already
                trial.report(value, epoch)
            is_pruned = trial.should_prune()
            return is_pruned

        try:
            config = apply_settings(self._config, [f"{key}={value}" for key, value in settings.items()])
            workdir = self._layout.run(number)
            result = train(config, data=self._data, workdir=workdir, stop=request, on_validation=on_validation)
            if result["best_validation"] is None:
                raise ValueError(
                    f"the run has no validation results: in the validation split of {self._data}, no visitor "
                    "has both earlier events and an event to predict; prepare the dataset with a longer "
                    "validation split: an earlier --validation-from, or a larger split.validation_share"
                )
        except ValueError as error:  # settings that do not go together, or a loss that diverges
            log.warning("trial %d failed: %s", number, error)
            trial.set_user_attr(_PROBLEM, str(error))
            self._study.tell(frozen.number, state=TrialState.FAIL)
            return
        state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
        self._study.tell(frozen.number, None if is_pruned else result["best_validation"], state=state)
        log.info("trial %d %s; best validation: %.4f", number, _STATES[state], result["best_validation"])

    def trials(self) -> list[Trial]:
        """Returns the trials so far, sorted by number."""
        is_higher_better = self._study.direction == optuna.study.StudyDirection.MAXIMIZE
        best = max if is_higher_better else min
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            if _NUMBER not in trial.user_attrs:
                continue  # its process was killed before it started
            validations = trial.intermediate_values
            found.append(
                Trial(
                    number=trial.user_attrs[_NUMBER],
                    state=_STATES[trial.state],
                    settings=self._settings_of(trial),
                    value=trial.value
                    if trial.state == TrialState.COMPLETE
                    else best(validations.values(), default=None),
                    validations=validations,
                    problem=trial.user_attrs.get(_PROBLEM),
                )
            )
        return sorted(found, key=lambda trial: trial.number)

    def write_results(self, command: Sequence[str]) -> dict[str, Any]:
        """Writes `trials.json`, `best.json` and the report; returns the summary of the search.

        Args:
          command: words of the command that trains the preset, without the searched settings and --workdir.
        """
        trials, layout = self.trials(), self._layout
        write_trials(layout, trials)
        best = self._best(trials, command)
        if best is not None:
            write_json(layout.best, best)
        write_tuning_report(layout, self._dimensions, trials, best)
        counts = {state: sum(trial.state == state for trial in trials) for state in _STATES.values()}
        return {"workdir": layout.root, "trials": counts, "best": best, "report": layout.report}

    def _best(self, trials: Sequence[Trial], command: Sequence[str]) -> dict[str, Any] | None:
        """Returns the contents of `best.json`; None if no trial is complete."""
        complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
        if not complete:
            return None
        sign = 1 if self._study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
        best = max(complete, key=lambda trial: sign * (trial.value or 0.0))
        run = self._layout.run(best.number)
        changes = [f"{key}={value}" for key, value in best.settings.items()]
        return {
            "trial": best.number,
            "run": run,
            "metric": checkpoint.read_validations(run).metric,
            "value": best.value,
            "settings": dict(best.settings),
            "train": shlex.join([*command, "--workdir", "RUN", "--set", *changes]),
            "refit": shlex.join(["cartwheel", "train", "--refit", run, "--workdir", "RUN"]),
        }

    def _settings_of(self, trial: FrozenTrial) -> dict[str, str]:
        return {dimension.key: _format_value(trial.params[dimension.key]) for dimension in self._dimensions}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choices):
        return CategoricalDistribution(dimension.values)
    if dimension.is_whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _format_value(value: object) -> str:
    """Formats a sampled value, with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _train_command(preset: str, data: str, settings: Sequence[str]) -> list[str]:
    changes = ["--set", *settings] if settings else []
    return ["cartwheel", "train", "--preset", preset, "--data", data, *changes]


@contextmanager
def _locked(path: str) -> Iterator[bool]:
    """Tries to lock a file and yields whether that succeeded; yields True in object stores, which have no locks."""
    if not storage.is_local(path):
        yield True
        return
    local = storage.local_path(path)
    os.makedirs(os.path.dirname(local), exist_ok=True)
    with open(local, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
