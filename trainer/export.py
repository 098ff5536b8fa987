"""The export job: a run's best model as a SavedModel that takes raw ids, with its model card."""

import json
import logging
import os
import tempfile
from typing import Any

import tensorflow as tf

from common import storage
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.schema import Split, Vocabulary
from trainer.data.dataset import Dataset
from trainer.models.interface import InferenceModel
from trainer.runs.layout import RunLayout
from trainer.serving.model_card import Subject, model_card
from trainer.serving.module import ServingModel
from trainer.trained_run import TrainedRun, open_trained_run

log = logging.getLogger(__name__)

# a reader of an object store takes a directory without it for unfinished
_MARKER = "saved_model.pb"

CARD = "assets.extra/model_card.md"
"""Where the card lies in an export: the folder that the SavedModel format keeps for files that no graph reads, which
TensorFlow Serving leaves alone."""

_EXAMPLE_ITEMS = 2


def export(*, workdir: str, output: str, data: str | None = None) -> dict[str, Any]:
    """Publishes a run's best model; see `export_model`.

    Args:
      workdir: directory of the run.
      output: a directory or URI where nothing stands yet.
      data: where the run's dataset lies now; by default where it lay when the run began.
    """
    storage.refuse_existing(output)
    run = open_trained_run(workdir, data)
    return export_model(run.model, run.dataset, output, card=describe_run(workdir, run))


def describe_run(workdir: str, run: TrainedRun) -> str:
    """The model card of a run's best model.

    Raises:
      ValueError: an evaluation of the run is damaged.
    """
    subject = Subject(
        record=run.record,
        step=run.step,
        manifest=run.dataset.manifest,
        period=_period(run.dataset),
        evaluations=_evaluations(workdir, run.step),
        items=run.dataset.vocabulary(Vocabulary.ITEMS)[:_EXAMPLE_ITEMS],
    )
    return model_card(subject)


def export_model(model: InferenceModel, dataset: Dataset, output: str, *, card: str | None = None) -> dict[str, Any]:
    """Publishes a model, whole or not at all.

    Args:
      model: a `tf.Module`.
      dataset: the one it was trained on: its vocabularies become assets.
      output: a directory or URI where nothing stands yet.
      card: text of the model card, published with the rest; None: without one.

    Returns:
      Where it is, its signatures, vocabulary sizes, bytes, and where its card is.

    Raises:
      FileExistsError: something stands at `output`.
      ValueError: a weight is NaN or infinite, or an id holds a carriage return.
    """
    storage.refuse_existing(output)
    _refuse_diverged(model)
    with tempfile.TemporaryDirectory(prefix="cartwheel-") as scratch:
        serving = ServingModel(
            model,
            visitors_file=_local_vocabulary(dataset, Vocabulary.VISITORS, scratch),
            visitors=dataset.manifest.vocabularies[Vocabulary.VISITORS],
            items_file=_local_vocabulary(dataset, Vocabulary.ITEMS, scratch),
            items=dataset.manifest.vocabularies[Vocabulary.ITEMS],
        )
        signatures = {
            "serving_default": serving.recommend,
            "recommend": serving.recommend,
            "recommend_events": serving.recommend_events,
            "score": serving.score,
            "similar_items": serving.similar_items,
        }
        with storage.publish_directory(output, marker=_MARKER) as staging:
            tf.saved_model.save(serving, staging, signatures=signatures)
            if card is not None:
                storage.write_bytes(join(staging, CARD), card.encode())
            num_bytes = sum(os.path.getsize(f"{staging}/{name}") for name in storage.list_files(staging))
    log.info("exported %d items and %d visitors to %s", dataset.num_items, dataset.num_visitors, output)
    return {
        "output": output,
        "signatures": list(signatures),
        "items": dataset.num_items,
        "visitors": dataset.num_visitors,
        "bytes": num_bytes,
        "card": None if card is None else join(output, CARD),
    }


def _period(dataset: Dataset) -> tuple[str, str] | None:
    try:
        statistics = json.loads(storage.read_bytes(DatasetLayout(dataset.root).statistics))
    except FileNotFoundError:
        return None
    days = sorted(statistics["events"]["by_day"])
    return (days[0], days[-1]) if days else None


def _evaluations(workdir: str, step: int) -> dict[Split, dict[str, Any]]:
    """The run's evaluations of the checkpoint of `step`; what was measured before it was made tells nothing of it."""
    found = {}
    for split in (Split.TEST, Split.VALIDATION):
        path = RunLayout(workdir).evaluation(split)
        try:
            figures = json.loads(storage.read_bytes(path))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); evaluate the run again, or remove the file") from error
        if figures.get("step") == step:
            found[split] = figures
        else:
            log.warning("%s is of another checkpoint than that of step %d: not in the model card", path, step)
    return found


def _refuse_diverged(model: InferenceModel) -> None:
    for variable in model.variables:
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
            raise ValueError(
                f"{variable.name} holds weights that are not finite: the model has diverged; train it anew"
            )


def _local_vocabulary(dataset: Dataset, name: Vocabulary, scratch: str) -> str:
    """A local copy of a vocabulary, wherever the dataset lies."""
    content = storage.read_bytes(DatasetLayout(dataset.root).vocabulary(name))
    if b"\r" in content:
        raise ValueError(
            f"an id of the {name} vocabulary holds a carriage return, which TensorFlow's lookup tables drop; "
            "remove it from the events and prepare the dataset again"
        )
    path = os.path.join(scratch, f"{name}.txt")
    storage.write_bytes(path, content)
    return path
