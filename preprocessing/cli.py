"""Flags to a frozen config: `python -m preprocessing prepare | synthesize | download`; the rest goes to Beam."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from absl import logging as absl_logging

from contract.schema import SplitMethod
from preprocessing.config import PrepareConfig, PropertyConfig, SplitConfig, VocabularyConfig, parse_when

log = logging.getLogger(__name__)

DONE, FAILED, MISUSED = 0, 1, 2
_VOCABULARIES = ("visitors", "items", "categories", "property_values")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 1 failed, 2 misused."""
    parser = _build_parser()
    given, beam_arguments = parser.parse_known_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if given.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    if not given.verbose:
        _quiet_libraries()
    if beam_arguments and given.command != "prepare":
        parser.error(f"unrecognized arguments: {' '.join(beam_arguments)}")
    try:
        result = _COMMANDS[given.command](given, beam_arguments)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        log.error("%s", error, exc_info=given.verbose)
        return FAILED
    print(json.dumps(result, indent=2, ensure_ascii=False))
    return DONE


def _prepare(given: argparse.Namespace, beam_arguments: list[str]) -> dict:
    config = _prepare_config(given)
    # imported only now: TensorFlow and Beam take seconds, and --help and wrong flags should not wait for them
    from preprocessing.pipeline import prepare

    return prepare(config, given.output, beam_arguments)


def _synthesize(given: argparse.Namespace, _: list[str]) -> dict:
    from preprocessing.synthetic import SynthesisConfig, synthesize

    return synthesize(SynthesisConfig(visitors=given.visitors, seed=given.seed), given.output)


def _download(given: argparse.Namespace, _: list[str]) -> dict:
    from preprocessing.download import download

    return download(given.output)


_COMMANDS = {"prepare": _prepare, "synthesize": _synthesize, "download": _download}


def _prepare_config(given: argparse.Namespace) -> PrepareConfig:
    split = SplitConfig(
        method=SplitMethod(given.split),
        validation_from_ms=given.validation_from,
        test_from_ms=given.test_from,
        validation_share=given.validation_share,
        test_share=given.test_share,
        seed=given.seed,
    )
    vocabularies = {
        name: VocabularyConfig(
            min_count=getattr(given, f"{name}_min_count"),
            max_size=getattr(given, f"{name}_max_size"),
            oov_buckets=getattr(given, f"{name}_oov_buckets"),
        )
        for name in _VOCABULARIES
    }
    properties = PropertyConfig(
        category=given.category_property,
        availability=given.availability_property,
        price=given.price_property,
        most_frequent=given.num_properties,
    )
    return PrepareConfig(
        events=given.events,
        item_properties=given.item_properties,
        category_tree=given.category_tree,
        split=split,
        max_reject_share=given.max_reject_share,
        max_events_per_day=given.max_events_per_day,
        properties=properties,
        block_rows=given.block_rows,
        partition_bytes=given.partition_bytes,
        num_buckets=given.num_buckets,
        compress=given.compress,
        **vocabularies,
    )


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m preprocessing", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=metadata.version("cartwheel"))
    commands = parser.add_subparsers(dest="command", required=True)
    _add_prepare(commands)
    synthesize = _add_command(
        commands, "synthesize", "write a Retailrocket-like shop: events, properties, category tree"
    )
    synthesize.add_argument("--visitors", type=int, required=True, help="how many visitors the shop has")
    synthesize.add_argument("--seed", type=int, default=0, help="the same seed gives the same shop (default: 0)")
    synthesize.add_argument("--output", required=True, metavar="DIR", help="directory to make")
    download = _add_command(commands, "download", "fetch the real Retailrocket files with your Kaggle account")
    download.add_argument("--output", required=True, metavar="DIR", help="directory to make")
    return parser


def _add_command(commands: argparse._SubParsersAction, name: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("--verbose", action="store_true", help="log more, and show where an error came from")
    return command


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    defaults = PrepareConfig(events="")
    prepare = _add_command(commands, "prepare", "make a dataset from CSV files; flags not listed here go to Beam")
    add = prepare.add_argument
    add("--events", required=True, metavar="GLOB", help=".csv or .csv.gz: timestamp (ms), visitorid, event, itemid")
    add("--item-properties", metavar="GLOB", help=".csv or .csv.gz: timestamp (ms), itemid, property, value")
    add("--category-tree", metavar="FILE", help="categoryid, parentid (empty: a root)")
    add("--output", required=True, metavar="DATASET", help="directory to make; it appears whole or not at all")
    split = prepare.add_argument_group("split")
    split.add_argument("--split", choices=[str(method) for method in SplitMethod], default="time", help="how to divide")
    split.add_argument(
        "--validation-from", type=_when, metavar="WHEN", help="first cut: ISO 8601 (UTC) or milliseconds"
    )
    split.add_argument("--test-from", type=_when, metavar="WHEN", help="second cut")
    split.add_argument("--validation-share", type=float, default=0.1, help="of the events, where no cuts are given")
    split.add_argument("--test-share", type=float, default=0.1, help="the same for the test split")
    split.add_argument("--seed", type=int, default=0, help="of the random split")
    rows = prepare.add_argument_group("rows")
    rows.add_argument(
        "--max-reject-share", type=float, default=defaults.max_reject_share, help="of bad rows; above: fail"
    )
    rows.add_argument("--max-events-per-day", type=int, default=defaults.max_events_per_day, help="above: a robot")
    properties = prepare.add_argument_group("item properties")
    roles = defaults.properties
    properties.add_argument("--category-property", default=roles.category, metavar="NAME", help="its value: a category")
    properties.add_argument("--availability-property", default=roles.availability, metavar="NAME", help="0 or 1")
    properties.add_argument(
        "--price-property", default=roles.price, metavar="NAME", help="a number, n15360.000 or plain"
    )
    properties.add_argument("--num-properties", type=int, default=roles.most_frequent, help="others to keep")
    _add_sizes(prepare, defaults)


def _add_sizes(prepare: argparse.ArgumentParser, defaults: PrepareConfig) -> None:
    sizes = prepare.add_argument_group("sizes")
    sizes.add_argument("--block-rows", type=int, default=defaults.block_rows, help="rows of a timeline block, about")
    sizes.add_argument(
        "--partition-bytes", type=int, default=defaults.partition_bytes, help="input bytes a shard, about"
    )
    sizes.add_argument(
        "--num-buckets", type=int, default=defaults.num_buckets, help="quantile buckets of prices and gaps"
    )
    sizes.add_argument("--compress", action="store_true", help="gzip the timeline shards")
    for name in _VOCABULARIES:
        flag = name.replace("_", "-")
        of = getattr(defaults, name)
        group = prepare.add_argument_group(f"vocabulary of {name.replace('_', ' ')}")
        group.add_argument(f"--{flag}-min-count", type=int, metavar="N", default=of.min_count, help="least count")
        group.add_argument(f"--{flag}-max-size", type=int, metavar="N", default=of.max_size, help="most entries")
        group.add_argument(f"--{flag}-oov-buckets", type=int, metavar="N", default=of.oov_buckets, help="for other ids")


def _when(text: str) -> int:
    try:
        return parse_when(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quiet_libraries() -> None:
    # before TensorFlow is imported: it reads the variable once; its notices on CPU features say nothing to a user
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("tensorflow", "apache_beam"):
        logging.getLogger(name).setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
