"""The flags of submit.py and the types of their values."""

import argparse
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from common.cli import Commands, Parser, add_command
from contract.schema import Split
from k8s.rendering import GPU, OVERLAYS, STEPS
from k8s.step_sizes import VocabularySizes, parse_vocabulary
from trainer.config.presets import PRESETS

_DESCRIPTION = "Runs prepare, train, tune and evaluate-export as jobs on a Kubernetes cluster. Needs only kubectl."
_DETAILS = (
    "Each command submits a step, follows it and ends with its result or the reason of its failure. Ctrl-C only stops "
    "following: the step keeps running. The same command, run again, follows a running step, restarts a failed one and "
    "leaves a finished one unchanged."
)
# Kubernetes would accept plain bytes, and `64m` as thousandths of a byte, which are mistakes here
_SIZE, _CORES = r"[1-9][0-9]*(\.[0-9]+)?([MGT]i?)", r"[1-9][0-9]*m?|[0-9]+\.[0-9]*[1-9][0-9]*"
_QUEUE = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
_REGISTRY, _TAG = r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_RESOURCE, _LABEL = r"[a-z0-9.-]+/[A-Za-z0-9._-]+", r"([a-z0-9.-]+/)?[A-Za-z0-9._-]+"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_WORD, _LINE = r"\S+", r"[^\r\n]*"

_RUN = "--workdir gs://shop/runs/mf"
EXAMPLES = {
    "prepare": ("--events 'gs://shop/events*.csv' --output gs://shop/dataset",),
    "train": ("--preset mf --data gs://shop/dataset", f"{_RUN} --gpus 2"),
    "tune": (
        "--preset mf --data /data/dataset --workdir /data/tune",
        "--search model.dim=64,128 optimizer.learning_rate=0.05..0.5:log",
    ),
    "evaluate-export": (f"{_RUN} --output gs://shop/cartwheel/1",),
    "pipeline": (
        "--events 'gs://shop/events*.csv' --data gs://shop/dataset",
        f"--preset mf {_RUN} --output gs://shop/cartwheel/1",
    ),
    "status": ("--namespace shop",),
    "logs": ("train",),
    "cancel": ("train",),
}
"""Example arguments of each command, line by line."""
_TRAINING = "--preset PRESET --data DATASET --workdir RUN"
"""Start of the usage of steps that train. The whole usage has a dozen lines; the list below it has all options."""
_NO_DEVICES: Mapping[str, Any] = {"gpu_resource": None, "resource": [], "node_label": [], "topology": None, "env": []}
"""Values of the flags of `_add_devices` in commands without these flags."""


def build_parser(program: str = "python k8s/submit.py") -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    epilog = f"{_DETAILS} COMMAND --help shows the flags of a command, their defaults and an example."
    parser = Parser(prog=program, description=_DESCRIPTION, epilog=epilog, allow_abbrev=False)
    parser.set_defaults(program=program)
    commands = parser.add_subparsers(dest="command", required=True)
    for add_step in (_add_prepare, _add_train, _add_tune, _add_evaluate_export):
        step = add_step(commands)
        step.add_argument("--detach", action="store_true", help="end after submitting the step, without following it")
    _add_pipeline(commands)
    _add_command(commands, "status", "show the state of each step")
    logs = _add_command(commands, "logs", "follow a step that was submitted")
    cancel = _add_command(commands, "cancel", "stop a step and delete it")
    for command in (logs, cancel):
        command.add_argument("step", choices=STEPS)
    for name, command in commands.choices.items():
        if name != "status":
            _add_following(command)
        command.add_argument("--context", help="context of kubectl (default: the current one)")
        command.add_argument("--namespace", help="namespace (default: that of the context)")
    return parser


def _add_prepare(commands: Commands) -> argparse.ArgumentParser:
    prepare = _add_step(commands, "prepare", "build a dataset from CSV files")
    _add_files(prepare)
    prepare.add_argument("--output", required=True, metavar="DATASET", help="new directory for the dataset")
    prepare.add_argument(
        "options", nargs="*", metavar="-- OPTION", help="more options of `python -m preprocessing prepare`"
    )
    prepare.set_defaults(**_NO_DEVICES)
    return prepare


def _add_train(commands: Commands) -> argparse.ArgumentParser:
    train = _add_step(commands, "train", "train a preset, or resume a stopped run")
    _add_training(train)
    train.usage = f"%(prog)s {_TRAINING} [option ...]"
    return train


def _add_tune(commands: Commands) -> argparse.ArgumentParser:
    tune = _add_step(commands, "tune", "search for the best settings of a preset, with one pod per trial")
    _add_training(tune)
    _add_search(tune)
    tune.usage = f"%(prog)s {_TRAINING} \\\n    --search KEY=VALUES [option ...]"
    return tune


def _add_evaluate_export(commands: Commands) -> argparse.ArgumentParser:
    evaluate = _add_step(commands, "evaluate-export", "evaluate a run, then publish its model")
    evaluate.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run")
    _add_evaluation(evaluate)
    evaluate.set_defaults(**_NO_DEVICES)
    return evaluate


def _add_pipeline(commands: Commands) -> None:
    pipeline = _add_step(commands, "pipeline", "prepare, train, evaluate and export in sequence")
    _add_files(pipeline)
    _add_training(pipeline)
    _add_evaluation(pipeline)
    pipeline.usage = f"%(prog)s --events GLOB {_TRAINING} \\\n    --output URI [option ...]"
    pipeline.set_defaults(options=[], detach=False)


def _add_command(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    return add_command(commands, name, summary, " \\\n    ".join(EXAMPLES[name]))


def _add_step(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    """Adds a command that submits steps; `text` is one line of help."""
    command = _add_command(commands, name, text)
    add = command.add_argument
    add("--dry-run", action="store_true", help="print the manifests; needs no cluster")
    add(
        "--overlay",
        action="append",
        default=[],
        choices=OVERLAYS,
        help="can be repeated; without gke, eks and local, the URI adds one: gke for gs://, eks for s3://, local for a "
        "path",
    )
    add("--gpus", type=_count(0), metavar="N", help="GPUs per training machine (default: 1; with --overlay local: 0)")
    add("--nodes", type=_count(1), metavar="N", help="machines that train together (default: 1)")
    add(
        "--memory",
        type=_matching(_SIZE, "64Gi or 512Mi"),
        metavar="SIZE",
        help="memory per machine, such as 64Gi (default: 8Gi, or 8Gi per GPU)",
    )
    add(
        "--vocabulary",
        type=_vocabulary,
        metavar="VISITORS,ITEMS",
        help="visitors and items, such as 10M,1M, from which memory and /tmp follow",
    )
    add("--cpu", type=_matching(_CORES, "4 or 1500m"), metavar="N", help="cores per machine (default: 2, or 2 per GPU)")
    add(
        "--registry",
        type=_matching(_REGISTRY, "europe-docker.pkg.dev/project/cartwheel, without a scheme or a tag"),
        metavar="REGISTRY",
        help="registry of the images, such as europe-docker.pkg.dev/project/cartwheel",
    )
    add("--tag", type=_matching(_TAG, "1.4.0"), default="latest", help="tag of the images (default: latest)")
    _add_queue(command)
    return command


def _add_devices(command: argparse.ArgumentParser) -> None:
    """Adds the flags that choose devices, nodes and variables of training."""
    add = command.add_argument
    add(
        "--gpu-resource",
        type=_matching(_RESOURCE, "nvidia.com/mig-3g.20gb"),
        metavar="NAME",
        help=f"resource that --gpus counts (default: {GPU})",
    )
    _add_pairs(command, "--resource", (_LABEL, _WORD), "vpc.amazonaws.com/efa=4", "other resource")
    _add_pairs(command, "--node-label", (_LABEL, _WORD), "disk=ssd", "label of the nodes")
    add(
        "--topology",
        type=_matching(_LABEL, "topology.kubernetes.io/zone"),
        metavar="LABEL",
        help="node label whose value the workers should share (default: the zone)",
    )
    _add_pairs(command, "--env", (_VARIABLE, _LINE), "NCCL_SOCKET_IFNAME=eth0", "variable of training")


def _add_pairs(command: argparse.ArgumentParser, flag: str, patterns: tuple[str, str], example: str, text: str) -> None:
    """Adds a flag that can be repeated, with a name and a value, which match `patterns`."""
    check = _matching("=".join(patterns), example)

    def parse(value: str) -> tuple[str, str]:
        first, _, second = check(value).partition("=")
        return first, second

    command.add_argument(
        flag,
        action="append",
        default=[],
        type=parse,
        metavar="KEY=VALUE",
        help=f"{text}, such as {example}; can be repeated",
    )


def _add_queue(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--queue",
        type=_matching(_QUEUE, "research"),
        metavar="NAME",
        help="LocalQueue of Kueue; implies --overlay kueue (default queue: cartwheel)",
    )


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("--events", required=True, metavar="GLOB", help="the event log")
    command.add_argument("--item-properties", metavar="GLOB", help="the item properties")
    command.add_argument("--category-tree", metavar="GLOB", help="the category tree")


def _add_training(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", required=True, choices=list(PRESETS), help="named settings")
    command.add_argument("--data", required=True, metavar="DATASET", help="the prepared dataset")
    command.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run")
    command.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the preset to change"
    )
    _add_devices(command)


def _add_search(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--search",
        action="extend",
        nargs="+",
        required=True,
        metavar="KEY=VALUES",
        help="settings to search: 64,128 or 0.05..0.5 or 0.05..0.5:log",
    )
    add("--trials", type=_count(1), default=20, metavar="N", help="number of trials (default: 20)")
    add("--parallel", type=_count(1), default=4, metavar="N", help="trials at the same time (default: 4)")
    add(
        "--storage",
        metavar="URL",
        help="database of the trials, without a password (default: a file in --workdir)",
    )


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output", required=True, metavar="URI", help="new directory of the model, such as gs://shop/cartwheel/1"
    )
    command.add_argument(
        "--split",
        choices=[Split.VALIDATION, Split.TEST],
        default=Split.TEST,
        help="split to evaluate on (default: test)",
    )


def _add_following(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--poll", type=_duration, default=3.0, metavar="SECONDS", help="seconds between two polls (default: 3)"
    )
    command.add_argument(
        "--patience",
        type=_duration,
        default=15.0,
        metavar="MINUTES",
        help="minutes to wait for a queue, quota, volume or machine (default: 15)",
    )


def _count(least: int) -> Callable[[str], int]:
    """Returns a parser of whole numbers that are at least `least`."""

    def count(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return count


def _matching(pattern: str, example: str) -> Callable[[str], str]:
    """Returns a parser that accepts only texts that match `pattern` as a whole."""

    def match(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not valid; give a value such as {example}")
        return text

    return match


def _vocabulary(text: str) -> VocabularySizes:
    try:
        return parse_vocabulary(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _duration(text: str) -> float:
    try:
        duration = float(text)
    except ValueError:
        duration = math.nan
    if not 0 <= duration < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number of at least 0")
    return duration
