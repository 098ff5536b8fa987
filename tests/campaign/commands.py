"""The commands that the campaign runs. Each has a function that compares two of its outputs."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf

from contract.manifest import dataset_checksum
from tests.campaign.programs import Fault, Folder, find_reason, finish, run, start
from tests.integration.processes import assert_same
from tests.preprocessing.shop import small_shop
from trainer.runs.checkpoint import read_validations
from trainer.serving import layout

TRAIN = ("input.batch_size=64", "model.dim=8", "epochs=6", "checkpoint_every_steps=4", "steps_per_execution=2")
_BUILD = """
import sys
from tests.trainer.tiny_runs import checkerboard_dataset
checkerboard_dataset(sys.argv[1])
"""

Product = Callable[[str], Path]
"""A function that returns the path of a product, given its name. Products are outputs of undisturbed commands."""


@dataclass(frozen=True)
class Command:
    """A command that is killed, or that reads mutated input."""

    arguments: Callable[[Product, Path], list[str | Path]]
    """Returns the arguments of the command, given a function that returns products, and the path of the output."""
    compare: Callable[[Path, Path], None]
    """Raises Fault or AssertionError if two outputs differ."""
    starts_from: str | None = None
    """Product that is copied to the output before the command starts."""


def same_files(first: Path, second: Path, *others: str) -> None:
    """Compares two directories byte by byte. Ignores the files `others`, and the directories' own paths in files."""
    names = [
        {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} - set(others)
        for root in (first, second)
    ]
    if names[0] != names[1]:
        raise Fault(f"files in one directory only: {', '.join(sorted(names[0] ^ names[1])[:5])}")
    for name in sorted(names[0]):
        one, two = (Path(root, name).read_bytes().replace(str(root).encode(), b"ROOT") for root in (first, second))
        if one != two:
            raise Fault(f"{name} differs")


def same_dataset(first: Path, second: Path) -> None:
    """Compares two datasets except for the transform graph, which TensorFlow serialises differently each time."""
    if dataset_checksum(str(first)) != dataset_checksum(str(second)):
        raise Fault("the checksum of the dataset differs")
    graph = [f"transform/transform_fn/{name}" for name in ("saved_model.pb", "fingerprint.pb")]
    # a report is drawn after the dataset is published
    same_files(first, second, "manifest.json", "report.html", "data_page.html", *graph)


def same_run(first: Path, second: Path) -> None:
    """Compares the weights (bit for bit), the validations and the blends of two runs."""
    assert_same(first, second)
    if read_validations(str(first)) != read_validations(str(second)):
        raise Fault("the validations differ")
    for path in first.rglob("blend.json"):
        if path.read_bytes() != Path(second, path.relative_to(first)).read_bytes():
            raise Fault("blend.json differs")
    for part in sorted(path.parent.relative_to(first) for path in first.glob("parts/*/run.json")):
        same_run(first / part, second / part)


def same_evaluation(first: Path, second: Path) -> None:
    """Compares the figures of two evaluations of the test split."""
    one, two = (json.loads((root / "evaluation-test.json").read_text()) | {"workdir": ""} for root in (first, second))
    if one != two:
        raise Fault("the evaluation differs")


def same_export(first: Path, second: Path) -> None:
    """Compares all of two exports but the graph, which TensorFlow serialises differently each time."""
    varying = [layout.MARKER, "fingerprint.pb", *(layout.VARIABLES + end for end in (".index", ".data-00000-of-00001"))]
    same_files(first, second, layout.INFO, *varying)
    infos = [layout.read_info(str(root)) for root in (first, second)]
    for info in infos:
        info["files"] = {name: value for name, value in info["files"].items() if name not in varying}
    if infos[0] != infos[1]:
        raise Fault(f"{layout.INFO} differs")
    readers = [tf.train.load_checkpoint(str(root / layout.VARIABLES)) for root in (first, second)]
    names = [sorted(reader.get_variable_to_shape_map()) for reader in readers]
    if names[0] != names[1]:
        raise Fault("the names of the variables differ")
    for name in names[0]:
        one, two = (reader.get_tensor(name) for reader in readers)
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH" and not np.array_equal(one, two):
            raise Fault(f"the values of {name} differ")


def _train(*settings: str) -> Callable[[Product, Path], list[str | Path]]:
    def arguments(product: Product, output: Path) -> list[str | Path]:
        data = product("data")
        return ["train", "--preset", "mf", "--data", data, "--workdir", output, "--set", *TRAIN, *settings]

    return arguments


def _prepare(product: Product, output: Path) -> list[str | Path]:
    files = product("shop")
    inputs = [f"--events={files}/events.csv", f"--item-properties={files}/properties.csv"]
    return ["prepare", *inputs, f"--category-tree={files}/tree.csv", "--output", output, "--json"]


COMMANDS: Mapping[str, Command] = {
    "prepare": Command(_prepare, same_dataset),
    "train": Command(_train("blend=false"), same_run),
    "blend": Command(_train(), same_run),
    "evaluate": Command(lambda _, output: ["evaluate", "--workdir", output], same_evaluation, "train"),
    "export": Command(
        lambda product, output: ["export", "--workdir", product("train"), "--output", output], same_export
    ),
    "recommend": Command(
        lambda product, output: ["recommend", "--workdir", product("train"), "--output", output], same_files
    ),
    "refresh": Command(
        lambda product, output: ["refresh", product("export"), "--data", product("data"), "--output", output],
        same_export,
    ),
}
"""All commands by name; `blend` is `train` with a blend at its end."""


@dataclass
class Products:
    """Results of undisturbed commands. Each command runs once, when a case first needs its result."""

    root: Path
    """Directory of all products."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that the command of each product took."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __call__(self, name: str) -> Path:
        """Returns the path of a product: the output of a command, the small shop `shop`, or the dataset `data`."""
        folder = Folder(self.root / name)
        with self._lock:
            if not folder.root.exists():
                folder.create()
                self._make(name, folder)
        return folder.output

    def _make(self, name: str, folder: Folder) -> None:
        if name == "shop":
            folder.output.mkdir()
            small_shop(folder.output)
        elif name == "data":
            ended = finish(start([folder.output], folder, _BUILD), folder)
            if ended.status:
                raise Fault(f"no dataset could be built: {ended.err[-300:]}")
        else:
            begin_output(COMMANDS[name], self, folder)
            arguments = COMMANDS[name].arguments(self, folder.output)
            begin = time.monotonic()
            reason = find_reason(run(arguments, folder))
            self.seconds[name] = time.monotonic() - begin
            if reason or folder.litter():
                raise Fault(f"an undisturbed {name} is refused or leaves {folder.litter()}: {reason}")


def begin_output(command: Command, product: Product, folder: Folder) -> None:
    """Copies the product that a command starts from, if any, to the command's output."""
    if command.starts_from:
        shutil.copytree(product(command.starts_from), folder.output)
