"""Cartwheel's Python API: the verbs of the `cartwheel` command as functions.

    import cartwheel

    cartwheel.prepare("shop/events.csv", "dataset")
    cartwheel.train("dataset", "runs/mf", preset="mf")
    cartwheel.evaluate("runs/mf")
    cartwheel.export("runs/mf", "export")
    cartwheel.load("export").recommend(history=["5979", "752"], k=10)

Every function returns the result that the command prints with `--json`. TensorFlow and Beam are imported when a
function first needs them.
"""

from cartwheel.api import (
    doctor,
    evaluate,
    export,
    inspect,
    prepare,
    recommend,
    refit,
    refresh,
    report,
    synthesize,
    train,
    tune,
)
from cartwheel.recommender import Recommendation, Recommender, load

__all__ = [
    "Recommendation",
    "Recommender",
    "doctor",
    "evaluate",
    "export",
    "inspect",
    "load",
    "prepare",
    "recommend",
    "refit",
    "refresh",
    "report",
    "synthesize",
    "train",
    "tune",
]
