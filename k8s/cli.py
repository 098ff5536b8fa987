"""Runs prepare, train, tune and evaluate-export as jobs on a Kubernetes cluster. Needs only kubectl.

Each command submits a step, follows it and ends with its result or the reason of its failure. Ctrl-C only stops
following: the step keeps running. The same command, run again, follows a running step, restarts a failed one and leaves
a finished one unchanged.
"""

import argparse
import math
import posixpath
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from common.cli import DONE, FAILED, Commands, Parser, add_command, print_text, to_json
from common.uris import refuse_credentials_in_arguments
from contract.schema import Split
from k8s.errors import KubectlError
from k8s.kubectl import Kubectl
from k8s.progress import Follower, Removal, Screen
from k8s.rendering import GPU, OVERLAYS, STEPS, Placement, Step, render
from k8s.settings import training_settings
from k8s.step_sizes import VocabularySizes, largest_config, parse_vocabulary, set_sizes
from k8s.submission import Found, NotOwned, SettingsConflict, find, pods_of, remove, submit
from k8s.waiting import find_state
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.config.search import parse_search

DETACHED = 130
"""Exit status after Ctrl-C, which leaves the step running."""
_CLOUDS = {"gs": "gke", "s3": "eks", "": "local", "file": "local"}
_SEVERAL = ("multi-node", "jobset")
# Kubernetes would accept plain bytes, and `64m` as thousandths of a byte, which are mistakes here
_SIZE, _CORES = r"[1-9][0-9]*(\.[0-9]+)?([MGT]i?)", r"[1-9][0-9]*m?|[0-9]+\.[0-9]*[1-9][0-9]*"
_QUEUE = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
_REGISTRY, _TAG = r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*/?", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_RESOURCE, _LABEL = r"[a-z0-9.-]+/[A-Za-z0-9._-]+", r"([a-z0-9.-]+/)?[A-Za-z0-9._-]+"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_WORD, _LINE = r"\S+", r"[^\r\n]*"
_MANAGED_RESOURCES = ("cpu", "memory", "ephemeral-storage", GPU)
"""Resources that other flags or the manifests set."""
_MANAGED_VARIABLE = re.compile(
    "TF_CONFIG|JOB_COMPLETION_INDEX|CARTWHEEL_(?!CACHE_BYTES$|STORAGE_PATIENCE_SECONDS$).*", re.DOTALL
)
"""Variables that describe the cluster to its workers; the two exceptions are limits that users may change."""
_SECRET = "cartwheel-credentials"
_CREDENTIAL = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_PATH_FLAGS = ("events", "item_properties", "category_tree", "output", "data", "workdir")
"""Flags with paths or URIs."""

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
    try:
        refuse_credentials_in_arguments(given)
    except ValueError as error:
        parser.error(str(error))
    screen = Screen()
    try:
        if given.command in _QUERIES:
            return _QUERIES[given.command](given, screen)
        placement = _placement(given, parser)
        try:
            steps, config = _steps(given, placement, parser)
            if given.vocabulary:
                steps = set_sizes(steps, given.vocabulary, config, placement, has_bucket=_has_bucket(given))
        except ValueError as error:
            parser.error(str(error))
        return _run(steps, placement, config.num_epochs if config else None, given, screen)
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


def _steps(
    given: argparse.Namespace, placement: Placement, parser: argparse.ArgumentParser
) -> tuple[list[Step], RunConfig | None]:
    """Returns the steps to submit, in order, and the config of training, with the largest model of a search.

    The config is None if no step trains.
    """
    is_all = given.command == "pipeline"
    steps: list[Step] = []
    config: RunConfig | None = None
    if given.command == "prepare" or is_all:
        output = given.data if is_all else given.output
        flags = {"events": given.events, "item-properties": given.item_properties, "category-tree": given.category_tree}
        files = [f"--{name}={value}" for name, value in flags.items() if value]
        steps.append(Step(name="prepare", arguments={"prepare": [*files, f"--output={output}", *given.options]}))
    if given.command == "train" or is_all:
        config, settings = training_settings(given.preset, given.set, placement)
        inputs = [f"--preset={given.preset}", f"--data={given.data}", f"--workdir={given.workdir}"]
        steps.append(Step(name="train", arguments={"train": [*inputs, *(f"--set={value}" for value in settings)]}))
    if given.command == "tune":
        step, config = _tuning_step(given, placement, parser)
        steps.append(step)
    if given.command == "evaluate-export" or is_all:
        evaluate = [f"--workdir={given.workdir}", f"--split={given.split}"]
        export = [f"--workdir={given.workdir}", f"--output={given.output}"]
        steps.append(Step(name="evaluate-export", arguments={"evaluate": evaluate, "export": export}))
    return steps, config


def _has_bucket(given: argparse.Namespace) -> bool:
    """Returns whether an input or output of training or evaluation is in an object store."""
    paths = [getattr(given, name, None) or "" for name in ("data", "workdir", "output")]
    return any(urlsplit(path).scheme not in ("", "file") for path in paths)


def _tuning_step(
    given: argparse.Namespace, placement: Placement, parser: argparse.ArgumentParser
) -> tuple[Step, RunConfig]:
    """Returns the step, and the config of the trial with the largest model."""
    if placement.nodes > 1:
        several = "".join(f" and --overlay {name}" for name in placement.overlays if name in _SEVERAL)
        parser.error(f"tune trains each trial on one machine, got {placement.nodes} machines; remove --nodes{several}")
    if not given.storage and "local" not in placement.overlays:
        parser.error(
            f"the trials of {given.workdir}, which is in an object store, need a database to share: give its URL with "
            "--storage, or use --overlay local with a --workdir below /data, a shared file system"
        )
    config, settings = training_settings(given.preset, given.set, placement)
    searched = parse_search(given.search, config)
    flags = {"preset": given.preset, "data": given.data, "workdir": given.workdir, "trials": given.trials}
    flags |= {"storage": given.storage} if given.storage else {}
    lists = [*(f"--search={value}" for value in given.search), *(f"--set={value}" for value in settings)]
    arguments = [*(f"--{name}={value}" for name, value in flags.items()), *lists]
    parallel = min(given.parallel, given.trials)
    step = Step(name="tune", arguments={"tune": arguments}, trials=given.trials, parallel=parallel)
    return step, largest_config(config, searched)


def _placement(given: argparse.Namespace, parser: argparse.ArgumentParser) -> Placement:
    """Builds the placement; exits if its flags contradict each other."""
    overlays = _overlays(given, parser)
    _check_paths(given, overlays, parser)
    several = [name for name in overlays if name in _SEVERAL]
    if several and given.nodes == 1:
        parser.error(
            f"--overlay {several[0]} is for several machines, got --nodes 1; give --nodes 2 or more, or drop --overlay "
            f"{several[0]}"
        )
    gpus = (0 if "local" in overlays else 1) if given.gpus is None else given.gpus
    _check_gpus(gpus, given, parser)
    _check_pairs(given, parser)
    return Placement(
        overlays=overlays,
        gpus=gpus,
        nodes=(2 if several else 1) if given.nodes is None else given.nodes,
        memory=given.memory,
        cpu=given.cpu,
        registry=given.registry,
        tag=given.tag,
        queue=given.queue,
        gpu_resource=given.gpu_resource or GPU,
        resources=dict(given.resource),
        node_labels=dict(given.node_label),
        topology=given.topology,
        environment=dict(given.env),
    )


def _overlays(given: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """Returns the overlays. If none is for a cloud, adds the one that fits the URI scheme of the output."""
    scheme = urlsplit(given.output if given.command == "prepare" else given.workdir).scheme
    if not given.overlay and scheme not in _CLOUDS:
        parser.error(f"{scheme}:// does not identify a cloud; give an --overlay: {', '.join(OVERLAYS)}")
    cloud = _CLOUDS.get(scheme)
    names_cloud = not set(given.overlay).isdisjoint(_CLOUDS.values())
    overlays = tuple(given.overlay) if names_cloud or cloud is None else (cloud, *given.overlay)
    return (*overlays, "kueue") if given.queue and "kueue" not in overlays else overlays


def _check_paths(given: argparse.Namespace, overlays: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Exits if the files of a path would be lost with the pod."""
    for name in _PATH_FLAGS:
        value = getattr(given, name, None)
        if value and not _is_kept(value, overlays):
            flag = name.replace("_", "-")
            parser.error(
                f"--{flag} {value} is inside the pod and would be lost with it; give the URI of a bucket, or a path "
                "below /data, the volume of --overlay local"
            )


def _check_gpus(gpus: int, given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exits if the number of GPUs does not fit their resource."""
    if given.gpu_resource and not gpus:
        parser.error(f"--gpu-resource {given.gpu_resource} needs --gpus, which is 0 with --overlay local by default")
    if "/mig-" in (given.gpu_resource or "") and gpus > 1:
        parser.error(f"a process uses one MIG instance, got --gpus {gpus} of {given.gpu_resource}; give --gpus 1")


def _check_pairs(given: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exits if a resource or a variable would replace one of `submit.py`, or a variable contains a credential."""
    for name, _ in given.resource:
        if name in (*_MANAGED_RESOURCES, given.gpu_resource):
            parser.error(
                f"--resource is for network devices and the like, got {name}; give cores, memory and GPUs with --cpu, "
                "--memory, --gpus and --gpu-resource"
            )
    for name, _ in given.env:
        if _MANAGED_VARIABLE.fullmatch(name):
            parser.error(
                f"--env {name} would replace what submit.py or Kubernetes sets; remove it, and give the number of "
                "machines with --nodes"
            )
        if _CREDENTIAL.search(name):
            parser.error(f"--env {name} would store a credential in the manifest; put it in the Secret {_SECRET}")


def _is_kept(path: str, overlays: Sequence[str]) -> bool:
    """Returns True if `path` outlives the pod, that is, if it is a URI or on the volume of the overlay `local`."""
    parts = urlsplit(path)
    if parts.scheme not in ("", "file"):
        return True
    return "local" in overlays and not parts.netloc and posixpath.normpath(parts.path).startswith("/data/")


def build_parser(program: str = "python k8s/submit.py") -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    summary, _, details = str(__doc__).partition("\n\n")
    epilog = f"{details} COMMAND --help shows the flags of a command, their defaults and an example."
    parser = Parser(prog=program, description=summary, epilog=epilog, allow_abbrev=False)
    parser.set_defaults(program=program)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = _add_step(commands, "prepare", "build a dataset from CSV files")
    _add_files(prepare)
    prepare.add_argument("--output", required=True, metavar="DATASET", help="new directory for the dataset")
    prepare.add_argument(
        "options", nargs="*", metavar="-- OPTION", help="more options of `python -m preprocessing prepare`"
    )
    train = _add_step(commands, "train", "train a preset, or resume a stopped run")
    _add_training(train)
    tune = _add_step(commands, "tune", "search for the best settings of a preset, with one pod per trial")
    _add_training(tune)
    _add_search(tune)
    evaluate = _add_step(commands, "evaluate-export", "evaluate a run, then publish its model")
    evaluate.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run")
    _add_evaluation(evaluate)
    for other in (prepare, evaluate):
        other.set_defaults(gpu_resource=None, resource=[], node_label=[], topology=None, env=[])
    pipeline = _add_step(commands, "pipeline", "prepare, train, evaluate and export in sequence")
    _add_files(pipeline)
    _add_training(pipeline)
    _add_evaluation(pipeline)
    # the whole usage has a dozen lines; the list below it has all options
    train.usage = f"%(prog)s {_TRAINING} [option ...]"
    tune.usage = f"%(prog)s {_TRAINING} \\\n    --search KEY=VALUES [option ...]"
    pipeline.usage = f"%(prog)s --events GLOB {_TRAINING} \\\n    --output URI [option ...]"
    pipeline.set_defaults(options=[])
    for step in (prepare, train, tune, evaluate):
        step.add_argument("--detach", action="store_true", help="end after submitting the step, without following it")
    pipeline.set_defaults(detach=False)
    status = _add_command(commands, "status", "show the state of each step")
    logs = _add_command(commands, "logs", "follow a step that was submitted")
    cancel = _add_command(commands, "cancel", "stop a step and delete it")
    for command in (logs, cancel):
        command.add_argument("step", choices=STEPS)
    for command in (prepare, train, tune, evaluate, pipeline, logs, cancel):
        _add_following(command)
    for command in (prepare, train, tune, evaluate, pipeline, logs, cancel, status):
        command.add_argument("--context", help="context of kubectl (default: the current one)")
        command.add_argument("--namespace", help="namespace (default: that of the context)")
    return parser


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
