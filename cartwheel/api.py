"""The verbs of the `cartwheel` command as functions. A function imports the code of its job only when called."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.data.dataset import Dataset

Settings = Mapping[str, Any]
"""Setting values by dotted key, such as `{"model.dim": 32, "epochs": 3}`; see the settings reference."""


def synthesize(output: str, *, visitors: int = 20_000, seed: int = 0) -> dict[str, Any]:
    """Writes a synthetic shop: events, item properties and a category tree.

    Args:
      output: new directory for the files.
      visitors: number of visitors.
      seed: the same seed and number of visitors give the same shop.

    Returns:
      The paths of the files, and the numbers of events, property rows and other contents.

    Raises:
      FileExistsError: `output` is not empty.
    """
    from preprocessing.synthetic import SynthesisConfig
    from preprocessing.synthetic import synthesize as write_shop

    return write_shop(SynthesisConfig(visitors=visitors, seed=seed), output)


def inspect(files: str) -> dict[str, Any]:
    """Describes the columns of an event log, and proposes how to read it.

    Args:
      files: path or glob of CSV, Parquet or JSON Lines files, or a directory of them.

    Returns:
      JSON values: `format`, `columns`, the first `events`, `warnings`, and `shop`, the text of the proposed shop.toml.

    Raises:
      ValueError: a file cannot be read.
      OSError: no file matches.
    """
    from preprocessing import inspection

    return inspection.as_json(inspection.inspect(files))


def prepare(
    events: str | None = None,
    output: str = "dataset",
    *,
    shop: str | None = None,
    columns: Mapping[str, str] | None = None,
    where: Sequence[str] = (),
    item_properties: str | None = None,
    category_tree: str | None = None,
    settings: Settings | None = None,
    beam_options: Sequence[str] = (),
    baseline: str | None = None,
) -> dict[str, Any]:
    """Builds a prepared dataset, and its report, from an event log.

    Args:
      events: path, glob or directory of the event log.
      output: new directory for the dataset. If the job fails, there is no dataset.
      shop: path of a shop.toml, which sets files, columns and settings; the other arguments override it.
      columns: column names such as `{"item": "StockCode"}`, for `visitor`, `item`, `time`, `kind`, `transaction` and
        `weight`. Absent keys take the names in `shop` or `EventColumns`.
      where: conditions such as `Quantity > 0`; events that fail a condition are skipped.
      item_properties: path or glob of the item properties.
      category_tree: path of the category tree.
      settings: settings of `PrepareConfig` to change.
      beam_options: flags of Beam, such as `["--runner=PortableRunner", "--job_endpoint=localhost:8099"]`.
      baseline: an earlier dataset of the same shop; the job fails if the new dataset differs too much.

    Returns:
      A summary as JSON values, and `report`, the path of the report; None if drawing failed.

    Raises:
      ValueError: a setting or the input is wrong, or the dataset differs too much from `baseline`.
      OSError: a file cannot be read or written, or `output` is not empty.
    """
    from common.settings import apply_settings
    from preprocessing import pipeline
    from preprocessing.beam.job import parse_beam_options
    from preprocessing.pages.report import try_to_write_report
    from preprocessing.shop import make_config

    given = {
        "events": events,
        "item_properties": item_properties,
        "category_tree": category_tree,
        "where": list(where) or None,
        "columns": columns,
    }
    config = apply_settings(make_config(shop, given), _format_assignments(settings))
    result = pipeline.prepare(config, output, parse_beam_options(list(beam_options)), baseline=baseline)
    return result | {"report": try_to_write_report(output)}


def train(
    data: str,
    workdir: str,
    *,
    preset: str = "auto",
    settings: Settings | None = None,
    warm_start: str | None = None,
    budget_seconds: float = 600.0,
) -> dict[str, Any]:
    """Trains a preset, or resumes the run at `workdir`, and draws its report.

    Args:
      data: prepared dataset.
      workdir: directory of the run; created if it does not exist.
      preset: `mf`, `nn`, `walk`, `session_knn`, `ease`, `notebook-mf`, `notebook-nn`, or `auto`, which tries several
        models and blends them.
      settings: settings of the preset to change.
      warm_start: directory of an earlier run; training starts from that run's vectors. Not allowed with `auto`.
      budget_seconds: time that `auto` and its report may take; other presets ignore it.

    Returns:
      Results as JSON values, and `report`, the path of the report; None if drawing failed.

    Raises:
      ValueError: a setting is wrong, `workdir` contains another run, or the loss diverged.
      Preempted: a stop was requested and the run is saved; the same call resumes it.
    """
    started = time.monotonic()  # before the imports, which take seconds
    from common.settings import apply_settings
    from trainer.config.presets import AUTO, PRESETS
    from trainer.pages.report import try_to_write_report
    from trainer.train import train as run_training
    from trainer.workflows.auto import train_auto

    if preset == AUTO:
        if warm_start is not None:
            raise ValueError("preset auto trains all its models from scratch; leave out warm_start")
        changes = _format_assignments(settings)
        result = train_auto(
            data=data, workdir=workdir, budget_seconds=budget_seconds, settings=changes, started=started
        )
    elif preset in PRESETS:
        config = apply_settings(PRESETS[preset], _format_assignments(settings))
        result = run_training(config, data=data, workdir=workdir, warm_start=warm_start)
    else:
        raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join([AUTO, *PRESETS])}")
    return result | {"report": try_to_write_report(workdir, data=data, shown="training")}


def refit(run: str, workdir: str, *, data: str | None = None) -> dict[str, Any]:
    """Trains a finished run's model again, on the events of all splits, and draws a report.

    Args:
      run: directory of the finished run. Its settings and its best number of epochs are used.
      workdir: directory of the refit. An unfinished refit of `run` is resumed.
      data: the run's dataset, or a dataset prepared with `split.method=none`. Without `data`, the directory that `run`
        was trained from is used.

    Returns:
      Results as JSON values, and `report`, the path of the report; None if drawing failed.

    Raises:
      ValueError: `run` cannot be refitted, `data` does not suit `run`, or `workdir` contains another run.
      Preempted: a stop was requested and the refit is saved; the same call resumes it.
    """
    from trainer.pages.report import try_to_write_report
    from trainer.workflows.refit import refit as run_refit

    result = run_refit(run, workdir=workdir, data=data)
    return result | {"report": try_to_write_report(workdir, data=data, shown="training")}


def tune(
    data: str,
    workdir: str,
    search: Mapping[str, str | Sequence[Any]],
    *,
    preset: str = "mf",
    settings: Settings | None = None,
    trials: int = 20,
    seed: int = 0,
    storage: str | None = None,
) -> dict[str, Any]:
    """Searches for the settings that reach the best validation metric; resumes the search in `workdir`.

    Args:
      data: prepared dataset with a validation split.
      workdir: directory of the search; the runs of its trials are in the subdirectory `trials`.
      search: the values to try for each setting: a list such as `[64, 128]`, or a range such as `"0.05..0.5:log"`.
      preset: name of the preset.
      settings: settings of the preset to change in all trials.
      trials: number of trials. Several processes that make the same call divide the trials among them.
      seed: seed of the search.
      storage: database for the records of the trials, such as `postgresql://…`; None: a file in `workdir`.

    Returns:
      JSON values: the number of trials by state, the best trial with its settings, and the path of the report.

    Raises:
      ValueError: an argument is wrong, or `workdir` contains a different search.
      Preempted: a stop was requested; the same call resumes the search.
    """
    from trainer.workflows.tune import tune as run_search

    texts = {key: values if isinstance(values, str) else _format_choices(values) for key, values in search.items()}
    return run_search(
        preset,
        [f"{key}={values}" for key, values in texts.items()],
        data=data,
        workdir=workdir,
        trials=trials,
        settings=_format_assignments(settings),
        seed=seed,
        storage_url=storage,
    )


def evaluate(
    workdir: str, *, split: str = "test", data: str | None = None, settings: Settings | None = None
) -> dict[str, Any]:
    """Measures how well the run's best model and the baselines rank the whole catalogue.

    Args:
      workdir: directory of the run.
      split: `test` or `validation`.
      data: directory of the run's dataset; None: the directory that the run was trained from.
      settings: settings of `EvaluationConfig` to change.

    Returns:
      The metrics of all systems, which are also written to `evaluation-SPLIT.json` in `workdir`.

    Raises:
      ContractError: the dataset has no such split.
      ValueError: `workdir` has no run, the run is a refit, or `data` is not the dataset of the run.
    """
    from common.settings import apply_settings
    from contract.schema import Split
    from trainer.evaluate import evaluate as measure
    from trainer.evaluation.config import EvaluationConfig
    from trainer.pages.report import try_to_write_report

    config = apply_settings(EvaluationConfig(), _format_assignments(settings))
    result = measure(workdir=workdir, data=data, split=Split(split), config=config)
    try_to_write_report(workdir, data=data, shown="evaluation")
    return result


def export(
    workdir: str,
    output: str,
    *,
    data: str | None = None,
    include_unavailable: bool = False,
    deny: str | None = None,
    only_categories: Sequence[str] = (),
    without_categories: Sequence[str] = (),
) -> dict[str, Any]:
    """Publishes the run's best model as a SavedModel that takes raw ids; `load` opens it.

    Args:
      workdir: directory of the run.
      output: new directory for the export. If the call fails, there is no export.
      data: directory of the run's dataset; None: the directory that the run was trained from.
      include_unavailable: whether to also recommend items that are marked as unavailable.
      deny: file with the ids of items that are never recommended, one per line.
      only_categories: if given, recommend only items in these categories or their subcategories.
      without_categories: recommend no items in these categories or their subcategories.

    Returns:
      JSON values that describe the export, such as its path and the number of items on offer.

    Raises:
      FileExistsError: `output` exists.
      ValueError: `workdir` has no run, `data` is not the run's dataset, or no item would be on offer.
    """
    from trainer.data.offer import make_rules
    from trainer.export import export as publish

    rules = make_rules(
        include_unavailable=include_unavailable,
        deny=deny,
        only_categories=only_categories,
        without_categories=without_categories,
    )
    return publish(workdir=workdir, output=output, data=data, rules=rules)


def refresh(
    export: str,
    output: str,
    *,
    items: str | None = None,
    shop: str | None = None,
    columns: Mapping[str, str] | None = None,
    data: str | None = None,
    include_unavailable: bool = False,
    deny: str | None = None,
    only_categories: Sequence[str] = (),
    without_categories: Sequence[str] = (),
) -> dict[str, Any]:
    """Publishes a copy of an export that recommends only the items now on offer. Does not train.

    Needs a newer table of items (`items` or `shop`) or a newer dataset (`data`), which also updates the items' trend.
    Items that are missing in the table or dataset count as available, even if the old export did not recommend them.

    Args:
      export: directory of the old export; it is not changed.
      output: new directory for the copy. If the call fails, there is no copy.
      items: path or glob of a newer table with one row per item.
      shop: path of a shop.toml; its `item_table` names the columns and the files of the table.
      columns: column names for the `id`, `availability` and `category` of an item. Several columns of a category path
        are separated by commas.
      data: directory of a newer dataset. Prepare it with `split.method=none`, otherwise its catalogue is less recent.
      include_unavailable: whether to also recommend items that are marked as unavailable.
      deny: file with the ids of items that are never recommended, one per line.
      only_categories: if given, recommend only items in these categories or their subcategories.
      without_categories: recommend no items in these categories or their subcategories.

    Returns:
      JSON values, such as the path of the new export and how many items were `added` and `removed`.

    Raises:
      FileExistsError: `output` exists.
      ValueError: the table or dataset is wrong, an id or a category is unknown, or no item would be on offer.
    """
    from trainer.data.offer import make_rules
    from trainer.serving.refresh import refresh as publish

    if (data is None) == (items is None and shop is None):
        raise ValueError("pass either a newer table of items (items=… or shop=…) or a newer dataset (data=…)")
    rules = make_rules(
        include_unavailable=include_unavailable,
        deny=deny,
        only_categories=only_categories,
        without_categories=without_categories,
    )
    newer = None
    if data is not None:
        from trainer.data.dataset import open_dataset

        newer = open_dataset(data)
    facts = _read_item_facts(items, shop, columns, newer)
    return publish(export=export, output=output, facts=facts, rules=rules, newer=newer)


def recommend(
    workdir: str,
    output: str,
    *,
    k: int = 20,
    visitors: str | None = None,
    formats: Sequence[str] = ("parquet", "jsonl"),
    data: str | None = None,
    include_unavailable: bool = False,
    deny: str | None = None,
    only_categories: Sequence[str] = (),
    without_categories: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes a list for every visitor: the `k` best items that are not in the visitor's history.

    The files are sharded. They contain titles if the catalogue has titles.

    Args:
      workdir: directory of the run.
      output: new directory for the files, published when all are complete. After a failure, the same call resumes.
      k: maximum number of items per visitor.
      visitors: file of visitor ids, one per line; None: all visitors with events.
      formats: `parquet`, `jsonl` or both.
      data: directory of the run's dataset; None: the directory that the run was trained from.
      include_unavailable: whether to also recommend items that are marked as unavailable.
      deny: file with the ids of items that are never recommended, one per line.
      only_categories: if given, recommend only items in these categories or their subcategories.
      without_categories: recommend no items in these categories or their subcategories.

    Returns:
      Counts, and the paths of the files by format, as JSON values.

    Raises:
      FileExistsError: `output` exists.
      ValueError: `k` is out of range, there are no visitors, or no item would be on offer.
    """
    from trainer.data.offer import make_rules
    from trainer.recommend import recommend as write_lists

    rules = make_rules(
        include_unavailable=include_unavailable,
        deny=deny,
        only_categories=only_categories,
        without_categories=without_categories,
    )
    return write_lists(workdir=workdir, output=output, k=k, visitors=visitors, formats=formats, data=data, rules=rules)


def report(*, workdir: str | None = None, data: str | None = None) -> str:
    """Redraws the report of a run (`workdir`) or of a dataset (`data`); returns the report's path.

    If both are given, redraws the report of the run; `data` is the current directory of the run's dataset.

    Raises:
      ValueError: neither is given.
    """
    if workdir is not None:
        from trainer.pages.report import write_report as write_run_report

        return write_run_report(workdir, data=data)
    if data is None:
        raise ValueError("pass workdir=… for the report of a run, or data=… for the report of a dataset")
    from preprocessing.pages.report import write_report as write_dataset_report

    return write_dataset_report(data)


def doctor(*uris: str, gpu: bool = False) -> dict[str, Any]:
    """Checks this machine, and whether it can access the given directories; or training on the GPUs of this machine.

    Args:
      uris: paths or URIs of directories. In an object store, a small file is written and removed.
      gpu: whether to check the GPUs instead, in at most ten minutes; then there must be no `uris`. Needs a process that
        has not trained: after training, a process keeps the memory of the GPUs, and the check fails.

    Returns:
      `is_healthy`: False if a check failed; `findings`: the results of all checks.

    Raises:
      ValueError: both `uris` and `gpu` are given.
    """
    from trainer.doctor import examine, examine_gpus

    if gpu and uris:
        raise ValueError("gpu=True checks GPUs alone; check directories in another call")
    return examine_gpus() if gpu else examine(uris)


def _read_item_facts(
    items: str | None, shop: str | None, columns: Mapping[str, str] | None, dataset: "Dataset | None"
) -> Any:
    """Reads availability and categories from `dataset` or, if it is None, from a table of items."""
    if dataset is not None:
        from trainer.data.offer import read_item_facts as read_catalogue_facts

        return read_catalogue_facts(dataset)
    from preprocessing.item_facts import read_item_facts

    return read_item_facts(items, shop, columns)


def _format_assignments(settings: Settings | None) -> list[str]:
    return [f"{key}={_text(value)}" for key, value in (settings or {}).items()]


def _format_choices(values: Sequence[Any]) -> str:
    """Formats the values to try for a setting, as the flag `--search` expects them."""
    are_lists = any(isinstance(value, list | tuple) for value in values)
    return ("|" if are_lists else ",").join(map(_text, values))


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)
