"""Builds the steps to submit, with their arguments and sizes, from the flags of submit.py."""

import argparse
from urllib.parse import urlsplit

from k8s.placement import SEVERAL
from k8s.rendering import Placement, Step
from k8s.settings import training_settings
from k8s.step_sizes import largest_config, set_sizes
from trainer.config.run import RunConfig
from trainer.config.search import parse_search


def build_steps(given: argparse.Namespace, placement: Placement) -> tuple[list[Step], int | None]:
    """Returns the steps of a command, in order, and the number of epochs of training; None: no step trains.

    Args:
      given: see `flags.build_parser`.
      placement: where the steps run.

    Raises:
      ValueError: a setting is unknown or invalid, does not fit the placement, or a search cannot run.
    """
    steps, config = _steps(given, placement)
    if given.vocabulary:
        steps = set_sizes(steps, given.vocabulary, config, placement, has_bucket=_has_bucket(given))
    return steps, config.num_epochs if config else None


def _steps(given: argparse.Namespace, placement: Placement) -> tuple[list[Step], RunConfig | None]:
    """Returns the steps without sizes, and the config of training, with the largest model of a search."""
    if given.command == "tune":
        step, config = _tune(given, placement)
        return [step], config
    is_all = given.command == "pipeline"
    steps: list[Step] = []
    trained: RunConfig | None = None
    if given.command == "prepare" or is_all:
        steps.append(_prepare(given, given.data if is_all else given.output))
    if given.command == "train" or is_all:
        step, trained = _train(given, placement)
        steps.append(step)
    if given.command == "evaluate-export" or is_all:
        steps.append(_evaluate_export(given))
    return steps, trained


def _prepare(given: argparse.Namespace, output: str) -> Step:
    flags = {"events": given.events, "item-properties": given.item_properties, "category-tree": given.category_tree}
    files = [f"--{name}={value}" for name, value in flags.items() if value]
    return Step(name="prepare", arguments={"prepare": [*files, f"--output={output}", *given.options]})


def _train(given: argparse.Namespace, placement: Placement) -> tuple[Step, RunConfig]:
    config, settings = training_settings(given.preset, given.set, placement)
    inputs = [f"--preset={given.preset}", f"--data={given.data}", f"--workdir={given.workdir}"]
    return Step(name="train", arguments={"train": [*inputs, *(f"--set={value}" for value in settings)]}), config


def _evaluate_export(given: argparse.Namespace) -> Step:
    evaluate = [f"--workdir={given.workdir}", f"--split={given.split}"]
    export = [f"--workdir={given.workdir}", f"--output={given.output}"]
    return Step(name="evaluate-export", arguments={"evaluate": evaluate, "export": export})


def _tune(given: argparse.Namespace, placement: Placement) -> tuple[Step, RunConfig]:
    """Returns the step, and the config of the trial with the largest model."""
    _check_search(given, placement)
    config, settings = training_settings(given.preset, given.set, placement)
    searched = parse_search(given.search, config)
    flags = {"preset": given.preset, "data": given.data, "workdir": given.workdir, "trials": given.trials}
    flags |= {"storage": given.storage} if given.storage else {}
    lists = [*(f"--search={value}" for value in given.search), *(f"--set={value}" for value in settings)]
    arguments = [*(f"--{name}={value}" for name, value in flags.items()), *lists]
    parallel = min(given.parallel, given.trials)
    step = Step(name="tune", arguments={"tune": arguments}, trials=given.trials, parallel=parallel)
    return step, largest_config(config, searched)


def _check_search(given: argparse.Namespace, placement: Placement) -> None:
    """Refuses a search on several machines, and one whose pods share no record of the trials."""
    if placement.nodes > 1:
        several = "".join(f" and --overlay {name}" for name in placement.overlays if name in SEVERAL)
        raise ValueError(
            f"tune trains each trial on one machine, got {placement.nodes} machines; remove --nodes{several}"
        )
    if not given.storage and "local" not in placement.overlays:
        raise ValueError(
            f"{given.workdir} is in an object store, so its trials need a shared database: give the URL of the "
            "database with --storage, or use --overlay local with a --workdir below /data, a shared file system"
        )


def _has_bucket(given: argparse.Namespace) -> bool:
    """Returns whether an input or output of training or evaluation is in an object store."""
    paths = [getattr(given, name, None) or "" for name in ("data", "workdir", "output")]
    return any(urlsplit(path).scheme not in ("", "file") for path in paths)
