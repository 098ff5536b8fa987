"""Compares two full-size training steps of matrix factorization: row-sparse updates and Keras `fit`.

Both minimise the squared error of dot products with Adam, on the same ids and on tables of the same shapes. Two more
steps are measured on such tables: one with Adagrad, and one with the loss (sampled softmax), optimizer and batch size
of the preset `mf`. Unlike these steps, the preset itself has tables of 128 columns, and computes a visitor's vector
from the items of their history.

The tables use huge pages where available, as in the container images. The row-sparse Adam is also measured without huge
pages.

usage: python -m benchmarks.mf_step
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.harness import peak_mib, report, run_command
from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.models import MatrixFactorizationConfig
from trainer.config.optimizers import AdagradConfig, AdamConfig
from trainer.config.presets import PRESETS
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import ShardedTable, initialize
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.models.matrix_factorization import MatrixFactorization, item_width
from trainer.models.objectives import Objective, SampledSoftmaxObjective, SquaredErrorObjective, TrainingModel
from trainer.training.step import TrainingStep, compile_steps

VISITORS, ITEMS, DIM, BATCH = 1_400_000, 235_000, 64, 8192
WARM_UP_STEPS, STEPS, KERAS_STEPS = 5, 100, 10
TURNS = 3
TARGETS = {"ratio": 50}


def main() -> None:
    """Runs each implementation in several processes, interleaved, and records each implementation's median run."""
    turns = [{name: _in_a_process(name) for name in _WAYS} for _ in range(TURNS)]
    ways = {name: _middle([turn[name] for turn in turns]) for name in _WAYS}

    def ratio(name: str) -> float:
        return round(ways[name]["examples_per_second"] / ways["keras_adam"]["examples_per_second"], 1)

    ratios = {"ratio": ratio("row_adam"), "ratio_small_pages": ratio(_SMALL_PAGES)}
    report("mf_step", {**ways, **ratios, "targets": TARGETS})


def _middle(turns: list[dict[str, float]]) -> dict[str, float]:
    return sorted(turns, key=lambda turn: turn["ms_per_step"])[len(turns) // 2]


def _in_a_process(name: str) -> dict[str, float]:
    # the C library reads it at process start
    os.environ["GLIBC_TUNABLES"] = "" if name == _SMALL_PAGES else "glibc.malloc.hugetlb=1"
    figures: dict[str, float] = json.loads(run_command([sys.executable, "-m", __spec__.name, name]).stdout)
    return figures


def _keras_adam() -> tuple[float, int]:
    """Times Keras `fit` with Adam; returns the seconds and the rows per step."""
    import keras

    visitor, item = keras.Input((), dtype="int64"), keras.Input((), dtype="int64")
    vectors = keras.layers.Embedding(VISITORS, DIM)(visitor), keras.layers.Embedding(ITEMS, DIM)(item)
    model = keras.Model([visitor, item], keras.layers.Dot(axes=1)(vectors))
    model.compile(keras.optimizers.Adam(), "mse")
    batches = _batches(BATCH).map(lambda batch: ((batch.visitor, batch.item), tf.ones([BATCH, 1])))
    model.fit(batches.take(2), verbose=0)
    begin = time.perf_counter()
    model.fit(batches.take(KERAS_STEPS), verbose=0)
    return (time.perf_counter() - begin) / KERAS_STEPS, BATCH


def _row_sparse(optimizer: AdamConfig | AdagradConfig) -> tuple[float, int]:
    config = MatrixFactorizationConfig(dim=DIM, similarity="dot", scale=1.0, has_item_bias=False)
    model = MatrixFactorization(config)

    def predict(_dense: object, visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        vectors, biases = model.embed_items(items)
        return model.pair_scores(model.embed_visitors(visitors), vectors, biases)

    replicas = start_replicas(1, None)
    tables = _tables(replicas, optimizer, config)
    return _seconds_per_step(
        replicas, tables, SquaredErrorObjective(SquaredErrorConfig(), tables, replicas, predict), BATCH
    )


def _sampled_softmax() -> tuple[float, int]:
    preset = PRESETS["mf"]
    assert isinstance(preset.model, MatrixFactorizationConfig)
    assert isinstance(preset.loss, SampledSoftmaxConfig)
    config = MatrixFactorizationConfig(dim=DIM, visitor_dropout=preset.model.visitor_dropout)
    replicas = start_replicas(1, None)
    tables = _tables(replicas, preset.optimizer, config)
    sampler = NegativeSampler(
        np.bincount(_items(1_000_000), minlength=ITEMS),
        num_negatives=preset.loss.num_negatives,
        negative_power=preset.loss.negative_power,
        seed=0,
    )
    objective = SampledSoftmaxObjective(preset.loss, tables, replicas, MatrixFactorization(config), sampler, seed=0)
    return _seconds_per_step(replicas, tables, objective, preset.input.batch_size)


_SMALL_PAGES = "row_adam_small_pages"
_WAYS: dict[str, Callable[[], tuple[float, int]]] = {
    "keras_adam": _keras_adam,
    "row_adam": lambda: _row_sparse(AdamConfig()),
    _SMALL_PAGES: lambda: _row_sparse(AdamConfig()),
    "row_adagrad": lambda: _row_sparse(AdagradConfig()),
    "row_sampled_softmax": _sampled_softmax,
}


def measure(name: str) -> None:
    """Measures the implementation `name`; prints the result as JSON."""
    seconds, rows = _WAYS[name]()
    figures = {
        "ms_per_step": round(seconds * 1000, 1),
        "batch": rows,
        "examples_per_second": round(rows / seconds),
        "peak_mib": round(peak_mib()),
    }
    print(json.dumps(figures))


def _tables(
    replicas: Replicas, optimizer: AdamConfig | AdagradConfig, config: MatrixFactorizationConfig
) -> dict[str, ShardedTable]:
    sizes = {"visitor": (VISITORS, DIM), "item": (ITEMS, item_width(config))}
    tables = {
        name: ShardedTable(rows=rows, dim=dim, replicas=replicas, optimizer=row_optimizer(optimizer))
        for name, (rows, dim) in sizes.items()
    }
    for name, table in tables.items():
        initialize(table, name=name, seed=0, stddev=0.1)
    return tables


def _seconds_per_step(
    replicas: Replicas, tables: dict[str, ShardedTable], objective: Objective, batch: int
) -> tuple[float, int]:
    step = TrainingStep(TrainingModel(tables, [], objective), replicas, optimizer=None, jit_compile=False)
    run = compile_steps(step, replicas)
    batches: Iterator[Batch] = iter(_batches(batch))
    run(batches, tf.constant(0, tf.int64), tf.constant(WARM_UP_STEPS))
    begin = time.perf_counter()
    losses = run(batches, tf.constant(WARM_UP_STEPS, tf.int64), tf.constant(STEPS))
    losses.numpy()
    return (time.perf_counter() - begin) / STEPS, batch


def _items(count: int) -> np.ndarray:
    draws = np.random.default_rng(0).pareto(0.8, count)
    return np.minimum((draws * 30).astype(np.int64), ITEMS - 1)


def _batches(size: int) -> tf.data.Dataset:
    count = 50
    generator = np.random.default_rng(1)
    visitor, item = generator.integers(0, VISITORS, (count, size)), _items(count * size).reshape(count, size)
    rows = (visitor, item, np.zeros((count, size), np.int64), np.ones((count, size), bool))
    return tf.data.Dataset.from_tensor_slices(rows).map(Batch.without_history).repeat().prefetch(2)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        main()
