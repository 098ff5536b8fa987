"""The export job: publishes a run's best model as a SavedModel for raw ids, with a model card and warm-up requests."""

import json
import logging
import os
from typing import Any

import tensorflow as tf

from common import storage
from common.errors import explain_damage
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.schema import Split, Vocabulary
from trainer.data.dataset import Dataset
from trainer.data.offer import OfferRules, dataset_offer
from trainer.distributed.replicas import start_replicas
from trainer.models.blend import BlendInference
from trainer.models.interface import ServedModel
from trainer.models.trained_run import TrainedRun, open_trained_run, part_directory
from trainer.runs.blend_record import OWN_RUN, BlendRecord, part_title
from trainer.runs.layout import RunLayout
from trainer.runs.record import RunRecord, read_record
from trainer.serving import layout
from trainer.serving.model_card import Subject, model_card
from trainer.serving.module import ServingModel
from trainer.serving.warm_up import warm_up_requests, write_warm_up

log = logging.getLogger(__name__)

_EXAMPLE_ITEMS = 2


def export(*, workdir: str, output: str, data: str | None = None, rules: OfferRules | None = None) -> dict[str, Any]:
    """Publishes a run's best model and its model card; see `export_model`.

    Args:
      workdir: directory of the run.
      output: directory or URI, which must not exist yet.
      data: directory of the run's dataset; None: the path that the run was trained from.
      rules: determine which items are on offer; None: see `export_model`.
    """
    storage.refuse_existing(output)
    with storage.own_output(output):
        run = open_trained_run(workdir, data, start_replicas(1, None))
        name, card = run.record.config.name, describe_run(workdir, run)
        return export_model(run.model, run.dataset, output, name=name, card=card, rules=rules)


def describe_run(workdir: str, run: TrainedRun) -> str:
    """Returns the model card of a run's best model.

    Raises:
      ValueError: an evaluation of the run is damaged.
    """
    evaluated = run.step if run.record.refit_of is None else run.record.refit_of["step"]
    subject = Subject(
        record=run.record,
        step=run.step,
        manifest=run.dataset.manifest,
        period=_period(run.dataset),
        evaluations=_evaluations(workdir, evaluated),
        items=run.dataset.vocabulary(Vocabulary.ITEMS)[:_EXAMPLE_ITEMS],
        blend=run.blend,
        trials=_trials(workdir, run.blend),
    )
    return model_card(subject)


def _trials(workdir: str, blend: BlendRecord | None) -> dict[str, RunRecord]:
    if blend is None or OWN_RUN in blend.parts:
        return {}
    return {part_title(part, ""): read_record(part_directory(workdir, part)) for part in blend.parts}


def export_model(
    model: ServedModel,
    dataset: Dataset,
    output: str,
    *,
    name: str,
    card: str | None = None,
    rules: OfferRules | None = None,
) -> dict[str, Any]:
    """Publishes a model as a SavedModel, either with all files or not at all.

    Args:
      model: the trained model, a `tf.Module`.
      dataset: the dataset that the model was trained on; its vocabularies become assets.
      output: directory or URI, which must not exist yet.
      name: name of the model on the demo page.
      card: text of the model card; None: no card.
      rules: determine which items are on offer; None: all items, except those known to be unavailable at the end of
        training.

    Returns:
      `output`: the path. `model`: the name. `signatures`: the names of the signatures. `items`, `visitors`: the sizes
        of the vocabularies. `offer`: which items are on offer. `bytes`: the size of all files. `card`: the path of the
        model card, or None.

    Raises:
      FileExistsError: `output` exists.
      ValueError: a weight is NaN or infinite, an id contains a carriage return, or no item is on offer.
    """
    storage.refuse_existing(output)
    _refuse_diverged(model)
    offer = dataset_offer(dataset, rules)
    with storage.scratch_folder("export") as scratch:
        serving = ServingModel(
            model,
            visitors_file=_local_vocabulary(dataset, Vocabulary.VISITORS, scratch),
            visitors=dataset.manifest.vocabularies[Vocabulary.VISITORS],
            items_file=_local_vocabulary(dataset, Vocabulary.ITEMS, scratch),
            items=dataset.manifest.vocabularies[Vocabulary.ITEMS],
            event_kinds=dataset.manifest.event_kinds,
            is_offered=offer.is_offered,
        )
        signatures = {
            "serving_default": serving.recommend,
            "recommend": serving.recommend,
            "recommend_events": serving.recommend_events,
            "score": serving.score,
            "similar_items": serving.similar_items,
        }
        with storage.publish_directory(output, marker=layout.MARKER) as staging:
            tf.saved_model.save(serving, staging, signatures=signatures)
            _write_warm_up(dataset, join(staging, layout.WARM_UP))
            days = model.half_lives_days if isinstance(model, BlendInference) else ()
            layout.write_info(staging, {"name": name, "offer": offer.to_json(), "half_lives_days": days})
            if card is not None:
                storage.write_bytes(join(staging, layout.CARD), card.encode())
            num_bytes = sum(os.path.getsize(f"{staging}/{file}") for file in storage.list_files(staging))
    offered = offer.to_json()["offered"]
    message = "exported %s with %d items, %d of them on offer, and %d visitors to %s"
    log.info(message, name, dataset.num_items, offered, dataset.num_visitors, output)
    return {
        "output": output,
        "model": name,
        "signatures": list(signatures),
        "items": dataset.num_items,
        "visitors": dataset.num_visitors,
        "offer": offer.to_json(),
        "bytes": num_bytes,
        "card": None if card is None else join(output, layout.CARD),
    }


def _write_warm_up(dataset: Dataset, path: str) -> None:
    """Writes a warm-up request for each signature of the model, with the most frequent items as history."""
    items = dataset.vocabulary(Vocabulary.ITEMS)[:_EXAMPLE_ITEMS]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_warm_up(path, warm_up_requests(items, dataset.manifest.event_kinds, dataset.num_items))


def _period(dataset: Dataset) -> tuple[str, str] | None:
    try:
        statistics = json.loads(storage.read_bytes(DatasetLayout(dataset.root).statistics))
    except FileNotFoundError:
        return None
    days = sorted(statistics["events"]["by_day"])
    return (days[0], days[-1]) if days else None


def _evaluations(workdir: str, step: int) -> dict[Split, dict[str, Any]]:
    found = {}
    for split in (Split.TEST, Split.VALIDATION):
        path = RunLayout(workdir).evaluation(split)
        if not storage.exists(path):
            continue
        with explain_damage(path, "evaluate the run again, or remove the file"):
            evaluation = dict(json.loads(storage.read_bytes(path)))
        if evaluation.get("step") == step:
            found[split] = evaluation
        else:
            log.warning(
                "%s is excluded from the model card, because it does not belong to the exported checkpoint (step %d); "
                "evaluate and export the run again",
                path,
                step,
            )
    return found


def _refuse_diverged(model: ServedModel) -> None:
    for variable in model.variables:
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable))):
            raise ValueError(
                f"{variable.name} contains NaN or infinite weights: the model has diverged; lower "
                "optimizer.learning_rate (with solver=als, raise als.l2) and train into another --workdir"
            )


def _local_vocabulary(dataset: Dataset, name: Vocabulary, scratch: str) -> str:
    """Copies a vocabulary to a file in the directory `scratch`; returns its path."""
    content = storage.read_bytes(DatasetLayout(dataset.root).vocabulary(name))
    if b"\r" in content:
        found = next(entry for entry in content.split(b"\n") if b"\r" in entry).decode()
        raise ValueError(
            f"the id {found!r:.80} of the {name} vocabulary contains a carriage return, which TensorFlow's lookup "
            "tables drop; remove the carriage return from the input and prepare the dataset again"
        )
    path = os.path.join(scratch, f"{name}.txt")
    storage.write_bytes(path, content)
    return path
