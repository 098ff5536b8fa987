"""The trainer's command line: train, tune, evaluate, export, recommend, report, demo, doctor."""

import argparse
import logging
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from common import cli, logs, storage
from common.cli import DONE, FAILED, PREEMPTED, TERMINATED
from common.json_files import encode_json
from common.settings import apply_settings
from common.signals import StopSignals, describe_stop
from common.uris import refuse_credentials_in_arguments
from contract.schema import Split
from trainer.config.flags import build_parser, offer_flags
from trainer.config.presets import AUTO, PRESETS, auto_trials
from trainer.config.run import RunConfig
from trainer.config.search import parse_search
from trainer.distributed.preemption import Preempted
from trainer.evaluation.config import EvaluationConfig
from trainer.pages import summaries

log = logging.getLogger(__name__)

_RESUMABLE = ("train", "tune")
"""Commands that save a checkpoint when SIGTERM or SIGHUP stops them."""


def main(arguments: Sequence[str] | None = None, *, program: str = "python -m trainer") -> int:
    """Runs a command and returns its exit status.

    Args:
      arguments: command-line arguments; None: those of the process.
      program: start of the command line in usage and examples.

    Returns:
      0: done. 1: failed. 2: wrong arguments.
      73: another process owns the workdir or the output.
      75: `train` or `tune` was stopped by SIGTERM or SIGHUP or lost a worker, and can be resumed; or another process
        has taken over the workdir or the output.
      130: stopped with Ctrl-C; `demo` returns 0 instead.
      143: ended at once by SIGTERM or SIGHUP; for `train` and `tune`, by the second such signal.
    """
    parser = build_parser(program)
    # the budget of --preset auto includes the imports
    given = parser.parse_args(arguments, argparse.Namespace(started=time.monotonic()))
    with cli.usage_errors(parser):
        refuse_credentials_in_arguments(given)
    _check_train_flags(given, parser)
    _check_doctor_flags(given, parser)
    config = _read_config(given, parser)
    logs.start_log(verbose=given.verbose)
    # until training installs its own handlers
    stop = StopSignals(PREEMPTED if given.command in _RESUMABLE else TERMINATED)
    try:
        # the GPU driver may hang; the checks of GPUs ask it in a process with a time limit
        if not given.__dict__.get("gpu"):
            logs.import_tensorflow(verbose=given.verbose)
        with storage.explain_full_disk(given.__dict__.get("workdir"), given.__dict__.get("output")):
            result = _run(given, config)
    except Preempted as preempted:
        log.warning("%s", preempted)
        return PREEMPTED
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if stop.caused(error):
            resumes = given.command in (*_RESUMABLE, "recommend")
            log.error("%s", describe_stop(stop, given.__dict__.get("output"), resumes=resumes), exc_info=given.verbose)
            return stop.status
        if not isinstance(error, Exception):
            raise
        return _fail(error, verbose=given.verbose)
    cli.print_result(result, summaries.SUMMARIES[given.command], as_json=given.json)
    return DONE if result.get("is_healthy", True) else FAILED


def _fail(error: Exception, *, verbose: bool) -> int:
    """Logs an error and returns the exit status."""
    if isinstance(error, ValueError | OSError):
        log.error("%s", error, exc_info=verbose)
        return cli.failure_status(error)
    # a log file gets the traceback, because it may be all that is left of a long run
    if verbose or not sys.stderr.isatty():
        log.error("traceback of an unexpected error:", exc_info=True)
    log.error("%s: %s; %s", type(error).__name__, textwrap.shorten(str(error), 500), _advice(error))
    return FAILED


_ADVICE = {
    "MemoryError": "the machine ran out of memory; lower input.batch_size or model.dim",
    "ResourceExhaustedError": "the device ran out of memory; lower input.batch_size or model.dim",
    "ModuleNotFoundError": "install the missing package with `pip install '.[trainer]'` in the clone",
}


def _advice(error: Exception) -> str:
    """Returns advice for the user after an error; compares error types by name, to avoid importing TensorFlow."""
    default = (
        "run `cartwheel doctor`; if it finds no problem, report this bug of Cartwheel with its traceback (--verbose)"
    )
    return _ADVICE.get(type(error).__name__, default)


# Jobs are imported when they run: TensorFlow takes seconds to import, and --help and usage errors must be fast.


def _run(given: argparse.Namespace, config: RunConfig | EvaluationConfig | None) -> dict[str, Any]:
    if isinstance(config, EvaluationConfig):
        return _evaluate(given, config)
    return _train(given, config) if given.command == "train" else _COMMANDS[given.command](given)


def _train(given: argparse.Namespace, config: RunConfig | None) -> dict[str, Any]:
    """Trains a preset, or refits a run if `config` is None."""
    from trainer.distributed.cluster import is_chief, join_cluster
    from trainer.distributed.departure import leave_together

    cluster = join_cluster()
    if is_chief(cluster):
        with storage.own_directory(given.workdir):
            result = _train_and_report(given, config)
    else:
        result = (_refit(given) if config is None else _train_preset(given, config)) | {"report": None}
    leave_together(cluster)
    return result


def _train_and_report(given: argparse.Namespace, config: RunConfig | None) -> dict[str, Any]:
    from trainer.pages.report import try_to_write_report
    from trainer.runs.layout import RunLayout
    from trainer.runs.progress import read_progress
    from trainer.runs.record import has_run

    before = read_progress(given.workdir)
    try:
        result = _refit(given) if config is None else _train_preset(given, config)
    except BaseException:  # the report of a run that was stopped or failed is needed most
        storage.try_to_check_ownership(given.workdir)
        # after a refusal, the run and its report stay as they are
        if has_run(given.workdir) and read_progress(given.workdir) != before:
            try_to_write_report(given.workdir, data=given.data, shown="training")
        raise
    if not has_run(given.workdir):
        return result | {"report": None}
    storage.check_ownership(given.workdir)
    result |= {"report": try_to_write_report(given.workdir, data=given.data, shown="training")}
    storage.write_bytes(RunLayout(given.workdir).result, encode_json(result))
    return result


def _train_preset(given: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    from trainer.train import train
    from trainer.workflows.auto import DEFAULT_BUDGET_SECONDS, train_auto

    if given.preset == AUTO:
        budget = given.budget or DEFAULT_BUDGET_SECONDS
        return train_auto(
            data=given.data, workdir=given.workdir, budget_seconds=budget, settings=given.set, started=given.started
        )
    return train(config, data=given.data, workdir=given.workdir, warm_start=given.warm_start)


def _refit(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.workflows.refit import refit

    return refit(given.refit, workdir=given.workdir, data=given.data, settings=given.set)


def _evaluate(given: argparse.Namespace, config: EvaluationConfig) -> dict[str, Any]:
    from trainer.evaluate import evaluate
    from trainer.pages.report import try_to_write_report

    result = evaluate(workdir=given.workdir, data=given.data, split=Split(given.split), config=config)
    try_to_write_report(given.workdir, data=given.data, shown="evaluation")
    return result


def _tune(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.workflows.tune import tune

    return tune(
        given.preset,
        given.search,
        data=given.data,
        workdir=given.workdir,
        trials=given.trials,
        settings=given.set,
        seed=given.seed,
        storage_url=given.storage,
        only=given.trial,
    )


def _export(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.data.offer import make_rules
    from trainer.export import export

    rules = make_rules(**offer_flags(given))
    return export(workdir=given.workdir, output=given.output, data=given.data, rules=rules)


def _recommend(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.data.offer import make_rules
    from trainer.recommend import recommend

    return recommend(
        workdir=given.workdir,
        output=given.output,
        k=given.k,
        visitors=given.visitors,
        formats=given.format,
        data=given.data,
        rules=make_rules(**offer_flags(given)),
    )


def _report(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.pages.report import write_report

    return {"report": write_report(given.workdir, data=given.data)}


def _demo(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.demo.server import serve_demo

    return serve_demo(models=given.model, data=given.data, host=given.host, port=given.port)


def _doctor(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.doctor import examine, examine_gpus

    return examine_gpus(given.devices) if given.gpu else examine(given.uri)


_COMMANDS = {
    "tune": _tune,
    "report": _report,
    "export": _export,
    "recommend": _recommend,
    "demo": _demo,
    "doctor": _doctor,
}


def _check_train_flags(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exits with 2 if flags of `train` contradict each other."""
    if given.command != "train":
        return
    if given.preset and not given.data:
        parser.error("train --preset needs the dataset: --data DATASET")
    if given.refit and given.warm_start:
        parser.error("train --refit starts from the same initial vectors as the run that it refits; drop --warm-start")
    if given.preset == AUTO and given.warm_start:
        parser.error("train --preset auto trains all its models from scratch; drop --warm-start")
    if given.budget and given.preset != AUTO:
        parser.error("--budget applies to --preset auto only; limit other presets with --set epochs=N")


def _check_doctor_flags(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exits with 2 if flags of `doctor` contradict each other."""
    if given.command != "doctor":
        return
    if given.gpu and given.uri:
        parser.error("doctor --gpu checks GPUs alone; check directories without --gpu")
    if given.devices != "gpu" and not given.gpu:
        parser.error("--devices applies to --gpu only")


def _read_config(given: argparse.Namespace, parser: argparse.ArgumentParser) -> RunConfig | EvaluationConfig | None:
    """Returns the settings of a command, changed by --set; None if the command has no settings.

    Exits with 2 if a setting is wrong. For `--preset auto`, returns the settings of the first model.
    """
    with cli.usage_errors(parser):
        if given.command == "train" and given.preset == AUTO:
            return next(iter(auto_trials(given.set).values()))
        if given.command == "train" and given.preset:
            return apply_settings(PRESETS[given.preset], given.set)
        if given.command == "tune":
            parse_search(given.search, apply_settings(PRESETS[given.preset], given.set))
        return apply_settings(EvaluationConfig(), given.set) if given.command == "evaluate" else None
