"""Flags to the trainer's jobs: `python -m trainer COMMAND`."""

import argparse
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from absl import logging as absl_logging

from common.progress import LogHandler
from common.settings import apply_settings
from contract.schema import Split
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.distributed.preemption import Preempted
from trainer.evaluation.config import EvaluationConfig

log = logging.getLogger(__name__)

DONE, FAILED, MISUSED, PREEMPTED = 0, 1, 2, 75
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

EXAMPLES = {
    "train": "--preset mf --data demo/dataset --workdir demo/runs/mf --set epochs=3",
    "evaluate": "--workdir demo/runs/mf --split test",
    "export": "--workdir demo/runs/mf --output demo/export",
    "recommend": "--workdir demo/runs/mf --output demo/recommendations --k 10",
    "report": "--workdir demo/runs/mf",
    "demo": "--model demo/export --data demo/dataset",
    "doctor": "demo/dataset s3://shop/runs",
}

_FORMATS = ("parquet", "jsonl")  # of `trainer.recommend`, whose import takes seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 failed, 2 misused, 75 preempted and resumable.

    A worker that lost another of its workers was preempted, too. SIGTERM ends `train` with 75 and the other commands,
    which publish nothing then, with 143; Ctrl-C ends any with 130, and `demo`,
    which ends in no other way, with 0.
    """
    parser = _build_parser()
    given = parser.parse_args(arguments)
    config = _read_config(given, parser)
    logging.basicConfig(
        level=logging.DEBUG if given.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        handlers=[LogHandler()],
    )
    if not given.verbose:
        _quiet_libraries()
    _stop_on_sigterm(PREEMPTED if given.command == "train" else TERMINATED)
    try:
        result = _run(given, config)
    except (ValueError, OSError) as error:
        log.error("%s", error, exc_info=given.verbose)
        return FAILED
    except Preempted as stop:
        log.warning("%s", stop)
        return PREEMPTED
    except KeyboardInterrupt:
        resumes = given.command in ("train", "recommend")
        log.error("interrupted; %s", "the same command goes on" if resumes else "nothing was published")
        return INTERRUPTED
    except Exception as error:
        # a log that nobody watches keeps where it happened: it may be the only trace of a run of many hours
        if given.verbose or not sys.stderr.isatty():
            log.error("not foreseen, and so told in full:", exc_info=True)
        log.error("%s: %s; %s", type(error).__name__, textwrap.shorten(str(error), 500), _advice(error))
        return FAILED
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return DONE if result.get("is_healthy", True) else FAILED


_ADVICE = {
    "MemoryError": "there is too little memory: set a smaller input.batch_size or model.dim",
    "ResourceExhaustedError": "the device has too little memory: set a smaller input.batch_size or model.dim",
    "ModuleNotFoundError": "`pip install '.[trainer]'` in the clone brings what is missing",
}


def _advice(error: Exception) -> str:
    """What to do about an error that no job foresaw; by name, for TensorFlow's need not be imported yet."""
    otherwise = "`python -m trainer doctor` checks this machine, and --verbose shows where it happened"
    return _ADVICE.get(type(error).__name__, otherwise)


# The jobs are imported only when they run: TensorFlow takes seconds, and --help and wrong flags should not wait.


def _run(given: argparse.Namespace, config: RunConfig | EvaluationConfig | None) -> dict[str, Any]:
    if isinstance(config, RunConfig):
        return _train(given, config)
    return _evaluate(given, config) if config else _COMMANDS[given.command](given)


def _train(given: argparse.Namespace, config: RunConfig) -> dict[str, Any]:
    from trainer.distributed.cluster import join_cluster
    from trainer.pages.report import try_to_write_report
    from trainer.runs.record import has_run
    from trainer.train import train

    report = None
    try:
        result = train(config, data=given.data, workdir=given.workdir, warm_start=given.warm_start)
    finally:  # a run that was stopped or failed is the one that is looked at
        cluster = join_cluster()
        if (cluster is None or cluster.index == 0) and has_run(given.workdir):
            report = try_to_write_report(given.workdir, data=given.data, shown="training")
    return result | {"report": report}


def _evaluate(given: argparse.Namespace, config: EvaluationConfig) -> dict[str, Any]:
    from trainer.evaluate import evaluate
    from trainer.pages.report import try_to_write_report

    result = evaluate(workdir=given.workdir, data=given.data, split=Split(given.split), config=config)
    try_to_write_report(given.workdir, data=given.data, shown="evaluation")
    return result


def _export(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.export import export

    return export(workdir=given.workdir, output=given.output, data=given.data)


def _recommend(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.recommend import recommend

    return recommend(
        workdir=given.workdir,
        output=given.output,
        k=given.k,
        visitors=given.visitors,
        formats=given.format,
        data=given.data,
    )


def _report(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.pages.report import write_report

    return {"report": write_report(given.workdir, data=given.data)}


def _demo(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.demo.server import serve_demo

    return serve_demo(models=given.model, data=given.data, host=given.host, port=given.port)


def _doctor(given: argparse.Namespace) -> dict[str, Any]:
    from trainer.doctor import examine

    return examine(given.uri)


_COMMANDS = {
    "report": _report,
    "export": _export,
    "recommend": _recommend,
    "demo": _demo,
    "doctor": _doctor,
}


def _read_config(given: argparse.Namespace, parser: argparse.ArgumentParser) -> RunConfig | EvaluationConfig | None:
    """The command's config with the settings applied; what is wrong with them is a misuse, like a wrong flag."""
    try:
        if given.command == "train":
            return apply_settings(PRESETS[given.preset], given.set)
        return apply_settings(EvaluationConfig(), given.set) if given.command == "evaluate" else None
    except ValueError as error:
        parser.error(str(error))


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=__doc__,
        epilog="COMMAND --help tells a command's flags, their defaults and an example. @FILE among the arguments "
        "stands for those in the file, one a line.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=metadata.version("cartwheel"))
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands)
    evaluate = _add_command(commands, "evaluate", "measure a run's best model beside the baselines")
    _add_run(evaluate)
    # not the training split: a model is not measured on what it has seen
    evaluate.add_argument(
        "--split",
        choices=[str(split) for split in (Split.VALIDATION, Split.TEST)],
        default=str(Split.TEST),
        help="what to measure on (default: test)",
    )
    _add_set(evaluate, "neighbours.num_neighbours=100, of the baselines")
    export = _add_command(commands, "export", "publish a run's best model as a SavedModel that takes raw ids")
    _add_run(export)
    export.add_argument(
        "--output", required=True, metavar="URI", help="directory to make; it appears whole or not at all"
    )
    recommend = _add_command(commands, "recommend", "write the best items for everyone as sharded files")
    _add_run(recommend)
    recommend.add_argument(
        "--output",
        required=True,
        metavar="URI",
        help="directory to make; it appears whole, and a killed command goes on when it is given again",
    )
    recommend.add_argument("--k", type=int, default=20, help="items a visitor (default: 20)")
    recommend.add_argument(
        "--visitors", metavar="FILE", help="ids, one a line, no header; without it: everyone who was seen"
    )
    recommend.add_argument(
        "--format", nargs="+", choices=_FORMATS, default=_FORMATS, help="of the shards (default: both)"
    )
    _add_run(_add_command(commands, "report", "draw a run's pages anew, as report.html in it"))
    _add_demo(commands)
    doctor = _add_command(commands, "doctor", "check this machine, and the directories given, and say what to do")
    doctor.add_argument(
        "uri", nargs="*", metavar="URI", help="to read from or write to; in a store a small file is written and removed"
    )
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = _add_command(commands, "train", "train a preset, or go on with a run that was stopped")
    train.add_argument("--preset", required=True, choices=list(PRESETS), help="named settings")
    train.add_argument("--data", required=True, metavar="DATASET", help="prepared dataset")
    train.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run; resumed where it exists")
    train.add_argument(
        "--warm-start",
        metavar="RUN",
        help="begin with the vectors of another run, carried over by id; its dataset must lie where it lay",
    )
    _add_set(train, "epochs=3 model.dim=32")


def _add_set(command: argparse.ArgumentParser, example: str) -> None:
    command.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help=f"settings to change: {example}"
    )


def _add_demo(commands: argparse._SubParsersAction) -> None:
    demo = _add_command(commands, "demo", "serve a page on which exports are tried side by side")
    demo.add_argument("--model", required=True, nargs="+", metavar="EXPORT", help="what `export` published")
    demo.add_argument("--data", metavar="DATASET", help="adds categories, availability and visitors' timelines")
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; whoever reaches it can ask (default: 127.0.0.1, this machine only)",
    )
    demo.add_argument("--port", type=int, default=8000, help="0: any free one (default: 8000)")


def _add_command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  python -m trainer {name} {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--verbose", action="store_true", help="log more, and show where an error came from")
    return command


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run")
    command.add_argument("--data", metavar="DATASET", help="the run's dataset, where it has moved since training")


def _stop_on_sigterm(status: int) -> None:
    """Ends the program at SIGTERM, until training looks for it itself.

    Without a handler SIGTERM does not end the first process of a container at all; it is killed half a minute later.
    """

    def stop(*_: object) -> NoReturn:
        raise SystemExit(status)

    signal.signal(signal.SIGTERM, stop)


def _quiet_libraries() -> None:
    # before TensorFlow is imported: it reads the variable once; its notices on CPU features say nothing to a user
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
