"""Runs prepare, train, tune and evaluate-export as jobs on a Kubernetes cluster. Needs only kubectl."""

import argparse
from collections.abc import Sequence

from common.cli import DONE, FAILED, print_text, to_json, usage_errors
from common.uris import refuse_credentials_in_arguments
from k8s.errors import KubectlError
from k8s.flags import build_parser
from k8s.kubectl import Kubectl
from k8s.placement import choose_placement
from k8s.progress import Follower, Removal, Screen
from k8s.rendering import STEPS, Placement, Step, render
from k8s.steps import build_steps
from k8s.submission import Found, NotOwned, SettingsConflict, find, pods_of, remove, submit
from k8s.waiting import find_state

DETACHED = 130
"""Exit status after Ctrl-C, which leaves the step running."""


def main(arguments: Sequence[str] | None = None, *, program: str = "python k8s/submit.py") -> int:
    """Runs a command and returns its exit status.

    Args:
      arguments: command line arguments; None: those of the process.
      program: first words of the command line, for usage and examples.

    Returns:
      0 done, or submitted with `--detach`; 1 failed, or not submitted; 2 wrong arguments; 130 Ctrl-C, after which a
        submitted step keeps running.
    """
    parser = build_parser(program)
    given = parser.parse_args(arguments)
    with usage_errors(parser):
        refuse_credentials_in_arguments(given)
    screen = Screen()
    try:
        if given.command in _QUERIES:
            return _QUERIES[given.command](given, screen)
        with usage_errors(parser):
            placement = choose_placement(given)
            steps, epochs = build_steps(given, placement)
        return _run(steps, placement, epochs, given, screen)
    except (KubectlError, NotOwned) as error:
        screen.line(str(error))
        return FAILED


def _run(
    steps: Sequence[Step], placement: Placement, epochs: int | None, given: argparse.Namespace, screen: Screen
) -> int:
    """Submits each step when the previous one is done; returns the exit status.

    `epochs` is the number of epochs of the step `train`; None: no step trains.
    """
    kubectl = _kubectl(given)
    if given.dry_run:
        print_text("---\n".join(render(step, placement, kubectl) for step in steps), end="")
        return DONE
    for step in steps:
        try:
            submission = submit(step, placement, kubectl, _removal(given, screen).wait)
        except SettingsConflict as conflict:
            _show(conflict.diff, screen)
            cancel = f"{_command('cancel', given)} {step.name}"
            screen.line(f"{step.name} is running with other settings; cancel it first: `{cancel}`")
            return FAILED
        _show(submission.diff, screen)
        screen.line(f"{step.name} {submission.found.value}")
        if given.detach:
            screen.line(f"follow it with `{_command('logs', given)} {step.name}`")
            return DONE
        if submission.found is Found.DONE and len(steps) > 1:
            continue
        status = _follow(step.name, epochs if step.name == "train" else None, given, screen)
        if status != DONE:
            return status
    return DONE


def _follow(step: str, epochs: int | None, given: argparse.Namespace, screen: Screen) -> int:
    follower = Follower(_kubectl(given), step, screen, given.poll, given.patience * 60, epochs)
    try:
        outcome = follower.follow()
    except KeyboardInterrupt:
        screen.line(f"detached; {step} keeps running. Follow it again with `{_command('logs', given)} {step}`")
        if given.command == "pipeline":
            screen.line("later steps were not submitted; run the same command again to continue with them")
        return DETACHED
    screen.line(outcome.text)
    if outcome.result is not None:
        print_text(to_json(outcome.result))
    return DONE if outcome.is_done else FAILED


def _status(given: argparse.Namespace, _: Screen) -> int:
    kubectl = _kubectl(given)
    for step in STEPS:
        try:
            workload = find(step, kubectl)
        except NotOwned as error:
            print_text(f"{step}: {error}")
            continue
        if workload is None:
            print_text(f"{step}: not submitted")
            continue
        state = find_state(workload, pods_of(workload, kubectl), kubectl)
        print_text(": ".join(part for part in (f"{step} {state.phase.value}", state.text) if part))
    return DONE


def _logs(given: argparse.Namespace, screen: Screen) -> int:
    if find(given.step, _kubectl(given)) is None:
        screen.line(f"{given.step} was not submitted, or was deleted a week after its end")
        return FAILED
    return _follow(given.step, None, given, screen)


def _cancel(given: argparse.Namespace, screen: Screen) -> int:
    kubectl = _kubectl(given)
    workload = find(given.step, kubectl)
    if workload is None:
        screen.line(f"{given.step} was not submitted")
        return FAILED
    screen.line(f"cancelling {given.step}; its pods may take two minutes to save")
    remove(workload, kubectl, _removal(given, screen).wait)
    screen.line(f"{given.step} is cancelled; its published and saved files are kept")
    return DONE


_QUERIES = {"status": _status, "logs": _logs, "cancel": _cancel}


def _kubectl(given: argparse.Namespace) -> Kubectl:
    return Kubectl(given.context, given.namespace)


def _removal(given: argparse.Namespace, screen: Screen) -> Removal:
    return Removal(_kubectl(given), screen, given.poll, given.patience * 60)


def _command(name: str, given: argparse.Namespace) -> str:
    """Formats a command of `submit.py` for the given cluster and namespace."""
    flags = [f" --{flag} {value}" for flag in ("context", "namespace") if (value := getattr(given, flag))]
    return f"{given.program} {name}{''.join(flags)}"


def _show(diff: Sequence[str], screen: Screen) -> None:
    for line in diff:
        screen.line(line)
