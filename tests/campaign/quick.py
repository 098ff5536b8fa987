"""Reads mutated inputs, hundreds per second, in a separate process.

The function of a case returns the error message if the input is refused. Otherwise, it checks the values that were read
and returns None.
"""

import codecs
import gzip
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unittest import mock

from common.errors import ContractError
from common.settings import apply_settings, from_json, settings_of, to_json
from contract.manifest import read_manifest
from preprocessing.config import PrepareConfig
from preprocessing.shop import make_config
from preprocessing.sources import text_files
from tests.campaign.mutations import mutate
from tests.campaign.programs import Fault, check_reason
from tests.preprocessing.sources.readers import CSV_LINES, HEADER, JSON_LINES, read
from trainer.config.presets import PRESETS
from trainer.evaluation.config import EvaluationConfig
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout

SHOP = """\
events = "events.csv"
item_properties = "properties.csv"
where = ["event is not null"]
max_reject_share = 1.0

[columns]
visitor = "visitorid"
item = "itemid"
time = "timestamp"
kind = "event"

[time]
unit = "ms"

[kinds]
names = ["view", "addtocart", "transaction"]
weights = [1, 2, 3.5]

[kinds.words]
look = "view"
"""
_CONFIGS = {"prepare": PrepareConfig(events="a.csv"), "evaluate": EvaluationConfig()} | PRESETS
_SETTINGS = [(name, key) for name, config in _CONFIGS.items() for key in settings_of(config)]
_VALUES = (
    "",
    "none",
    "true",
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    "9" * 30,
    "9" * 5000,
    "1,2",
    ",",
    "\0",
    "é",
    "1_0",
    "٣",
)


def rows(choices: random.Random, folder: Path, products: Mapping[str, str]) -> str | None:
    """Reads a mutated event log. Each line must be counted once, and splitting the file must not change the rows."""
    header, known = choices.choice(((HEADER, CSV_LINES), (b"", JSON_LINES)))
    content = mutate(header + b"\n".join([known[0], *choices.choices(known, k=choices.randint(0, 20))]), choices)
    path = folder / "events"
    path.write_bytes(content)
    try:
        whole = read(path)
    except (ValueError, OSError) as error:
        check_reason(str(error), str(path))
        return str(error)
    lines = count_lines(content)
    if whole.num_lines not in (lines, lines - 1):  # the first line may be a header
        raise Fault(f"the reader accounts for {whole.num_lines} of {lines} lines")
    with mock.patch.object(text_files, "READ_BYTES", choices.randint(4, 200)):
        if read(path) != whole:
            raise Fault(f"different rows if it is read in parts of {text_files.READ_BYTES} bytes")
    return None


def count_lines(content: bytes) -> int:
    """Counts the lines of a file that the reader accepts, without the reader's code."""
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        content = content.decode("utf-16").encode()
    content = content.removeprefix(codecs.BOM_UTF8)
    return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")


def setting(choices: random.Random, folder: Path, products: Mapping[str, str]) -> str | None:
    """Sets a setting to an unusual value. An error must name the setting, and an accepted value must survive JSON."""
    name, key = choices.choice(_SETTINGS)
    value = choices.choice(_VALUES)
    if choices.random() < 0.5:
        value = mutate(str(settings_of(_CONFIGS[name])[key]).encode(), choices).decode(errors="replace")
    try:
        config = apply_settings(_CONFIGS[name], [f"{key}={value}"])
    except ValueError as error:
        # a flag such as --max-reject-share stands for its setting
        check_reason(str(error).replace("-", "_"), *filter(None, (key, *key.rpartition(".")[::2])))
        return str(error)
    if from_json(type(config), json.loads(json.dumps(to_json(config), allow_nan=False))) != config:
        raise Fault(f"{name}: {key}={value!r} does not survive JSON")
    return None


def shop(choices: random.Random, folder: Path, products: Mapping[str, str]) -> str | None:
    """Reads a mutated shop.toml."""
    path = folder / "shop.toml"
    path.write_bytes(mutate(SHOP.encode(), choices))
    try:
        config = make_config(str(path), {})
    except (ValueError, OSError) as error:
        check_reason(str(error))
        return str(error)
    if from_json(PrepareConfig, json.loads(json.dumps(to_json(config), allow_nan=False))) != config:
        raise Fault("the settings do not survive JSON")
    return None


def manifest(choices: random.Random, folder: Path, products: Mapping[str, str]) -> str | None:
    """Reads a mutated manifest, which must be refused or have unchanged content."""
    source, path = Path(products["data"], "manifest.json"), folder / "manifest.json"
    path.write_bytes(mutate(source.read_bytes(), choices))
    try:
        found = read_manifest(str(folder))
    except ContractError as error:
        check_reason(str(error), str(path))
        return str(error)
    if found != read_manifest(products["data"]):
        raise Fault("a manifest with different content is accepted")
    return None


def metadata(choices: random.Random, folder: Path, products: Mapping[str, str]) -> str | None:
    """Mutates a file of the last checkpoint, which must then be skipped or have unchanged metadata."""
    workdir = folder / "run"
    if not workdir.exists():
        shutil.copytree(products["train"], workdir)
    last = checkpoint.saved_step(str(workdir))
    expected = checkpoint.read_state(str(workdir), last)
    files = [path for path in Path(RunLayout(str(workdir)).checkpoint(last)).iterdir() if path.name != checkpoint.DENSE]
    path = choices.choice([*files, Path(RunLayout(str(workdir)).checkpoint(last), checkpoint.STATE)])
    whole = path.read_bytes()
    path.write_bytes(mutate(whole, choices))
    try:
        step = checkpoint.last_step(str(workdir))
        if step == last and checkpoint.read_state(str(workdir), last) != expected:
            raise Fault("metadata with different content is accepted")
        if step is None:
            raise Fault("the checkpoint before it is not found")
        return None if step == last else f"{path.name} is damaged, so the checkpoint of step {step} is used"
    finally:
        path.write_bytes(whole)


KINDS: Mapping[str, Callable[[random.Random, Path, Mapping[str, str]], str | None]] = {
    "rows": rows,
    "setting": setting,
    "shop": shop,
    "manifest": manifest,
    "metadata": metadata,
}
"""The function that runs a case, by kind. It takes random choices, an empty folder and the paths of the products."""


def main(arguments: Sequence[str]) -> int:
    """Runs cases of a kind, and prints a JSON line for each case with its number, its error message and its fault."""
    kind, first, count, products = arguments[0], int(arguments[1]), int(arguments[2]), json.loads(arguments[3])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            # flushed before the case, so that the last number is that of a crash or a hang
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            reason, fault = None, None
            try:
                reason = KINDS[kind](random.Random(f"{kind}:{number}"), Path(folder), products)
            except Fault as broken:
                fault = str(broken)
            except Exception as error:  # noqa: BLE001 (any error is what the campaign looks for)
                fault = f"unexpected {type(error).__name__}: {error}"
            sys.stdout.write(json.dumps({"number": number, "reason": reason, "fault": fault}) + "\n")
    return 0
