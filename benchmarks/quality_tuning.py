"""Tunes the peers of `quality` on the validation window. Trials are stored, so that they are not repeated.

A peer is tuned for each task by NDCG@20, first alone, then with the trend added to its scores.
"""

import json
import logging
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.families import TREND_SEARCH, Family
from benchmarks.peers.interface import Peer, PeerData
from benchmarks.peers.trend import TrendSettings
from benchmarks.quality_ranking import RankedBlock
from benchmarks.tuning import Settings, best_of, search

log = logging.getLogger(__name__)

TUNED_BY = "ndcg@20"


class TrialFile:
    """A JSON file that stores the tuning trials of one kind of peer (a method to compare with) on one dataset."""

    def __init__(self, file: Path, checksum: str) -> None:
        """Reads the file if it exists.

        Raises:
          ValueError: the file has trials on another dataset.
        """
        self._file = file
        self._content: dict[str, Any] = {"dataset_checksum": checksum, "trials": {}, "trend": {}}
        if file.exists():
            self._content = json.loads(file.read_text())
        if self._content["dataset_checksum"] != checksum:
            raise ValueError(f"{file} has trials on another dataset; delete it to tune the peer again")

    def find(self, kind: str, task: str, settings: Settings) -> dict[str, Any] | None:
        """Returns the stored trial of these settings; None if there is none.

        `kind` is `trials` if the trial ranked by the peer's scores, `trend` if it added a trend to them.
        """
        trials = self._content[kind].get(task, [])
        return next((trial for trial in trials if trial["settings"] == settings), None)

    def add(self, kind: str, task: str, trial: Mapping[str, Any]) -> None:
        """Stores a trial; see `find` for `kind`."""
        self._content[kind].setdefault(task, []).append(dict(trial))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._content, indent=1) + "\n")


def restore_trials(record: Path, part: str, checksum: str, folder: Path) -> None:
    """Writes the tuning trials of an earlier record as trial files, so that they are not repeated.

    Args:
      record: JSON file in `benchmarks/results`, or another record of `quality`.
      part: name of the dataset.
      checksum: checksum of the dataset.
      folder: folder for the trial files; existing files stay as they are.

    Raises:
      ValueError: the record has no trials on this version of the dataset.
    """
    found = json.loads(record.read_text())["figures"].get(part, {})
    if found.get("dataset_checksum") != checksum:
        raise ValueError(f"{record} has no trials on this version of {part}; run without --trials to tune the peers")
    for family, by_task in found["grids"].items():
        file = folder / f"{family}.json"
        if not file.exists():
            trials = TrialFile(file, checksum)
            for task, result in by_task.items():
                for trial in result["grid"]:
                    trials.add("trials", task, trial)
                peer = best_of(result["grid"])["settings"]
                for trial in result["trend_grid"]:
                    trials.add("trend", task, {**trial, "settings": {"peer": peer, **trial["settings"]}})


def tune_family(
    name: str, family: Family, data: PeerData, block: RankedBlock, trials: TrialFile
) -> dict[str, dict[str, Any]]:
    """Tunes one kind of peer for each task in `family.tasks`.

    Returns:
      By task: `grid`, all trials of settings in order of time; `trend_grid`, the trials that add different trends to
        the scores of the best peer, empty unless `family.takes_trend`.
    """
    tuner = _Tuner(name, family, data, block, trials)
    found = {}
    for task in (task for task in block.tasks if task in family.tasks):
        grid = search(family.search, partial(tuner.measure, task))
        trend_grid: list[dict[str, Any]] = []
        if family.takes_trend:
            trend_grid = search(TREND_SEARCH, partial(tuner.measure_trend, task, best_of(grid)["settings"]))
        found[task] = {"grid": grid, "trend_grid": trend_grid}
    return found


class _Tuner:
    """Measures settings of one kind of recommender; fits it once for consecutive trials with the same settings."""

    def __init__(self, name: str, family: Family, data: PeerData, block: RankedBlock, trials: TrialFile) -> None:
        self._name, self._family, self._data, self._block, self._trials = name, family, data, block, trials
        self._loaded: Settings | None = None

    def measure(self, task: str, settings: Settings) -> tuple[float, float]:
        """Ranks by a peer's scores; returns the NDCG@20 on a task and the seconds of fitting and scoring."""
        if self._trials.find("trials", task, settings) is None:
            seconds = self._load(settings)
            for each in self._block.tasks:  # all tasks have the same scores
                if each in self._family.tasks and self._trials.find("trials", each, settings) is None:
                    value = float(self._block.rank(each)[TUNED_BY].mean())
                    log.info("%s, %s %s: %.4f, %.1f s", each, self._name, dict(settings), value, seconds)
                    self._trials.add(
                        "trials", each, {"settings": dict(settings), "validation": value, "seconds": seconds}
                    )
        return self._values("trials", task, settings)

    def measure_trend(self, task: str, settings: Settings, trend: Settings) -> tuple[float, float]:
        """Ranks by the sum of a peer's scores and a trend; returns the NDCG@20 and the seconds of the ranking."""
        both = {"peer": dict(settings), **trend}
        if self._trials.find("trend", task, both) is None:
            self._load(settings)
            begin = time.perf_counter()
            value = float(self._block.rank(task, TrendSettings(**trend))[TUNED_BY].mean())
            seconds = time.perf_counter() - begin
            log.info("%s, %s with trend %s: %.4f", task, self._name, dict(trend), value)
            self._trials.add("trend", task, {"settings": both, "validation": value, "seconds": seconds})
        return self._values("trend", task, both)

    def _load(self, settings: Settings) -> float:
        begin = time.perf_counter()
        if self._loaded != settings:
            peer: Peer = self._family.fit(self._data, settings)
            self._block.load(peer)
            self._loaded = dict(settings)
        return time.perf_counter() - begin

    def _values(self, kind: str, task: str, settings: Settings) -> tuple[float, float]:
        trial = self._trials.find(kind, task, settings)
        assert trial is not None
        return trial["validation"], trial["seconds"]


def summarize(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the best settings without and with a trend, and the number and total seconds of all trials.

    `result` is the result of `tune_family` for one task.
    """
    best = best_of(result["grid"])
    with_trend = best_of(result["trend_grid"]) if result["trend_grid"] else None
    return {
        "settings": best["settings"],
        "validation": best["validation"],
        "trend": with_trend and with_trend["settings"],
        "validation_with_trend": with_trend and with_trend["validation"],
        "trials": len(result["grid"]) + len(result["trend_grid"]),
        "seconds": sum(trial["seconds"] for trial in [*result["grid"], *result["trend_grid"]]),
    }
