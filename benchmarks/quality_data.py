"""The datasets of `quality` and the presets to train on each. Datasets are prepared by the commands that users type."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import run_command
from cartwheel.demo.run import VISITORS

MAX_CASES, MAX_SCORES = 10_000, 250_000_000
"""Maximum of cases and of cases × items, per protocol in the test window. Above a maximum, a sample is measured."""
TUNING_CASES, TUNING_SCORES = 1500, 60_000_000
"""The same maxima for the validation window, on which peers are tuned."""


@dataclass(frozen=True)
class Run:
    """A preset to train, and further flags for the command `train`."""

    preset: str
    """Name of the preset."""
    flags: tuple[str, ...] = ()
    """Further flags of `train`, such as a budget."""


@dataclass(frozen=True)
class QualityData:
    """A dataset of the benchmark `quality`: how to prepare it, and the presets to train on it."""

    prepare: Callable[[Path, Path], Path]
    """Prepares the dataset unless it exists, and returns its path. Takes the folder of the Retailrocket data and the
    folder to write to.
    """
    protocols: tuple[str, ...]
    """The evaluation protocols that have cases in this dataset."""
    runs: tuple[Run, ...]
    """The presets to train."""
    timed_evaluation: str | None = None
    """Name of the preset for which the command `evaluate` is timed; None: the command is not timed."""


def _retailrocket(subset: str) -> Callable[[Path, Path], Path]:
    def prepare(retailrocket: Path, folder: Path) -> Path:
        source = retailrocket / f"retailrocket_{subset}"
        tree = source / "category_tree.csv"
        flags = ["--category-tree", str(tree)] if tree.exists() else []
        return _prepare(folder, "--events", str(source / "events.csv*"), *flags)

    return prepare


def _grocer(_: Path, folder: Path) -> Path:
    shop = folder / "shop"
    if not shop.exists():
        run_command([sys.executable, "-m", "preprocessing", "download", "grocer", "--output", str(shop)])
    return _prepare(folder, "--shop", str(shop / "shop.toml"))


def _demo_shop(_: Path, folder: Path) -> Path:
    """Writes the shop of `make demo` and its dataset; returns the dataset's path."""
    return synthetic_shop(folder, VISITORS)


def synthetic_shop(folder: Path, visitors: int) -> Path:
    """Synthesizes a shop and prepares its dataset; returns the dataset's path."""
    shop = folder / "shop"
    if not shop.exists():
        flags = ["--visitors", str(visitors), "--seed", "0", "--output", str(shop)]
        run_command([sys.executable, "-m", "preprocessing", "synthesize", *flags])
    properties, tree = str(shop / "item_properties_part*.csv"), str(shop / "category_tree.csv")
    events = str(shop / "events.csv")
    return _prepare(folder, "--events", events, "--item-properties", properties, "--category-tree", tree)


def _prepare(folder: Path, *flags: str) -> Path:
    data = folder / "dataset"
    if not data.exists():
        run_command([sys.executable, "-m", "preprocessing", "prepare", *flags, "--output", str(data)])
    return data


def _auto(budget: str) -> Run:
    return Run("auto", ("--budget", budget))


_BOTH = ("returning_visitors", "next_item")

DATASETS: Mapping[str, QualityData] = {
    "grocer": QualityData(_grocer, _BOTH, (Run("walk"), _auto("10m")), timed_evaluation="auto"),
    # distinct pairs with made-up times, so there are no next items to predict
    "matrix": QualityData(_retailrocket("matrix"), ("returning_visitors",), (Run("walk"), Run("mf"), _auto("6m"))),
    # hardly any visitor returns to a session
    "sessions": QualityData(_retailrocket("sessions"), ("next_item",), (Run("walk"), Run("nn"), _auto("6m"))),
    "buyers": QualityData(_retailrocket("buyers"), ("next_item",), (Run("walk"), Run("nn"), _auto("3m"))),
    "shop": QualityData(_demo_shop, _BOTH, (Run("walk"), Run("mf"), Run("nn"), _auto("2m"))),
}
"""The datasets by name. To train another preset on a dataset, add a `Run`."""
