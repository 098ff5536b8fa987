"""The flags of the trainer's commands."""

import argparse
from typing import Any

from common import cli
from contract.schema import Split
from trainer.config.presets import AUTO, PRESETS

_FORMATS = ("parquet", "jsonl")  # as in `trainer.recommend`, which takes seconds to import
_DESCRIPTION = "The trainer's command line: train, tune, evaluate, export, recommend, report, demo, doctor."


def build_parser(program: str = "python -m trainer") -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    parser, commands = cli.make_parser(program, _DESCRIPTION)
    _add_train(commands)
    _add_tune(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_recommend(commands)
    report = cli.add_command(commands, "report", "redraw report.html of a run", "--workdir demo/runs/auto")
    _add_run(report)
    _add_demo(commands)
    doctor = cli.add_command(
        commands, "doctor", "check this machine and the given directories, and suggest fixes", "demo/dataset s3://shop"
    )
    doctor.add_argument(
        "uri",
        nargs="*",
        metavar="URI",
        help="directory to check; in an object store, the check writes and removes a small file",
    )
    doctor.add_argument(
        "--gpu",
        action="store_true",
        help="check training on all GPUs instead, in less than ten minutes: kernels, results, precision, several GPUs, "
        "a killed run, an export, and speed; each line of the report says PASS, FAIL or SKIP",
    )
    doctor.add_argument(
        "--devices",
        choices=["gpu", "cpu"],
        default="gpu",
        help="devices for the checks of --gpu; cpu: rehearse the checks on two logical CPUs (default: gpu)",
    )
    for command in commands.choices.values():
        cli.add_output_flags(command)
    return parser


def _add_train(commands: cli.Commands) -> None:
    train = cli.add_command(
        commands,
        "train",
        "train a preset, refit a run on all events, or resume a stopped run",
        "--preset auto --data demo/dataset --workdir runs/auto",
    )
    source = train.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--preset",
        choices=[AUTO, *PRESETS],
        metavar="NAME",
        help=f"named settings: {', '.join(PRESETS)}; or auto, which trains several models within --budget and blends "
        "them",
    )
    source.add_argument(
        "--refit",
        metavar="RUN",
        help="finished run to train again, with the same settings, on the events of all splits; the best checkpoint of "
        "the run determines the number of epochs",
    )
    train.add_argument(
        "--budget",
        type=_seconds,
        metavar="TIME",
        help="time for --preset auto, such as 90s, 10m or 2h (default: 10m)",
    )
    train.add_argument(
        "--data",
        metavar="DATASET",
        help="prepared dataset, required with --preset; with --refit, the original run's dataset (default) or one that "
        "was prepared with --split none",
    )
    train.add_argument(
        "--workdir", required=True, metavar="RUN", help="directory of the run; an existing run is resumed"
    )
    train.add_argument(
        "--warm-start",
        metavar="RUN",
        help="another run; training starts from its vectors, matched by id; the dataset of that run must still be at "
        "its original path",
    )
    cli.add_settings_flag(train, "epochs=3 model.dim=32")


def _seconds(text: str) -> float:
    """Parses a time such as 90s, 10m or 2h; returns seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        seconds = float(text[:-1]) * units[text[-1]]
    except (KeyError, ValueError, IndexError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a duration; give a number and a unit (s, m or h), such as 10m"
        )
    return seconds


def _add_tune(commands: cli.Commands) -> None:
    tune = cli.add_command(
        commands,
        "tune",
        "search settings of a preset by validation, or resume a stopped search",
        "--preset mf --data demo/dataset --workdir demo/tune \\\n"
        "    --search model.dim=64,128 optimizer.learning_rate=0.05..0.5:log",
    )
    tune.add_argument("--preset", required=True, choices=list(PRESETS), help="named settings")
    tune.add_argument("--data", required=True, metavar="DATASET", help="prepared dataset with a validation split")
    tune.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="directory of the search; the run of each trial is in its subdirectory trials/",
    )
    tune.add_argument(
        "--search",
        action="extend",
        nargs="+",
        required=True,
        metavar="KEY=VALUES",
        help="settings to search: a list such as 64,128, a range such as 0.05..0.5, or 0.05..0.5:log for a "
        "logarithmic scale",
    )
    tune.add_argument("--trials", type=int, default=20, help="number of trials, over all processes (default: 20)")
    tune.add_argument("--seed", type=int, default=0, help="seed of the search (default: 0)")
    tune.add_argument(
        "--storage",
        metavar="URL",
        help="database for the records of the trials, such as postgresql://…, for processes on several machines "
        "(default: a file in --workdir)",
    )
    tune.add_argument(
        "--trial",
        type=int,
        metavar="N",
        help="index (from 0) of the only trial to run, if each trial is a separate job (default: all trials)",
    )
    cli.add_settings_flag(tune, "epochs=5 (in all trials)")


def _add_evaluate(commands: cli.Commands) -> None:
    evaluate = cli.add_command(
        commands,
        "evaluate",
        "evaluate the best model of a run next to the baselines",
        "--workdir demo/runs/auto --split test",
    )
    _add_run(evaluate)
    # not the training split, which the model has seen
    evaluate.add_argument(
        "--split",
        choices=[str(split) for split in (Split.VALIDATION, Split.TEST)],
        default=str(Split.TEST),
        help="split to evaluate on (default: test)",
    )
    cli.add_settings_flag(evaluate, "max_cases=10000")


def _add_export(commands: cli.Commands) -> None:
    export = cli.add_command(
        commands,
        "export",
        "publish the best model of a run as a SavedModel that takes raw ids",
        "--workdir demo/runs/auto --output demo/export",
    )
    _add_run(export)
    export.add_argument("--output", required=True, metavar="URI", help="new directory; published whole or not at all")
    add_offer_flags(export)


def _add_recommend(commands: cli.Commands) -> None:
    recommend = cli.add_command(
        commands,
        "recommend",
        "write the best items for all visitors as sharded files",
        "--workdir demo/runs/auto --output demo/recommendations --k 10",
    )
    _add_run(recommend)
    recommend.add_argument(
        "--output",
        required=True,
        metavar="URI",
        help="new directory; published whole or not at all; if the command is killed, run it again to resume",
    )
    recommend.add_argument("--k", type=int, default=20, help="items per visitor (default: 20)")
    recommend.add_argument(
        "--visitors",
        metavar="FILE",
        help="file of visitor ids, one per line, without a header (default: all visitors with events)",
    )
    recommend.add_argument(
        "--format", nargs="+", choices=_FORMATS, default=_FORMATS, help="formats of the output files (default: both)"
    )
    add_offer_flags(recommend)


def _add_demo(commands: cli.Commands) -> None:
    demo = cli.add_command(
        commands,
        "demo",
        "serve a page that compares exports side by side",
        "--model demo/export --data demo/dataset",
    )
    demo.add_argument("--model", required=True, nargs="+", metavar="EXPORT", help="directories that `export` published")
    demo.add_argument(
        "--data",
        metavar="DATASET",
        help="dataset; the page shows its item titles, categories and availability, and its visitors' histories",
    )
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, this machine only); there is no access control",
    )
    demo.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any free port (default: 8000)")


def add_offer_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags that choose which items may be recommended."""
    command.add_argument(
        "--include-unavailable", action="store_true", help="also recommend items that are marked as unavailable"
    )
    command.add_argument(
        "--deny", metavar="FILE", help="file of item ids, one per line; these items are never recommended"
    )
    for name, meaning in (("only", "recommend only items"), ("without", "recommend no items")):
        command.add_argument(
            f"--{name}-category",
            action="extend",
            nargs="+",
            default=[],
            metavar="ID",
            help=f"{meaning} in these categories or in categories below them",
        )


def offer_flags(given: argparse.Namespace) -> dict[str, Any]:
    """Converts the flags that `add_offer_flags` added to arguments for `trainer.data.offer.make_rules`."""
    return {
        "include_unavailable": given.include_unavailable,
        "deny": given.deny,
        "only_categories": given.only_category,
        "without_categories": given.without_category,
    }


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workdir", required=True, metavar="RUN", help="directory of the run")
    command.add_argument("--data", metavar="DATASET", help="the run's dataset, if it has moved since training")
