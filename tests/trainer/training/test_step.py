from typing import Any

import pytest
import tensorflow as tf

from tests.trainer.tiny_runs import checkerboard_dataset, first_epoch, make_config
from trainer.data.dataset import Dataset
from trainer.distributed.optimizers import dense_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.models.build import build_training_model
from trainer.training.step import TrainingStep, compile_steps


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.mark.parametrize(("preset", "count"), [("notebook-mf", 2), ("notebook-nn", 4), ("nn", 2)])
def test_a_step_sums_loss_and_dense_gradients_in_one_operation(
    preset: str, count: int, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(preset)
    replicas = start_replicas(count, None)
    model = build_training_model(config, dataset, replicas)
    with replicas.strategy.scope():
        optimizer = dense_optimizer(config.dense_optimizer)
        optimizer.build(model.dense)
    summed: list[Any] = []
    all_reduce = tf.distribute.ReplicaContext.all_reduce

    def count_and_sum(context: tf.distribute.ReplicaContext, operation: tf.distribute.ReduceOp, value: Any) -> Any:
        summed.extend(tf.nest.flatten(value))
        return all_reduce(context, operation, value)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", count_and_sum)
    steps = compile_steps(TrainingStep(model, replicas, optimizer=optimizer, jit_compile=False), replicas)
    batches = first_epoch(config, dataset)
    steps.get_concrete_function(iter(batches), tf.constant(0, tf.int64), tf.constant(1))

    size = 1 + sum(int(tf.size(weight.value)) for weight in model.dense)  # the loss is one number
    assert [value.shape.as_list() for value in summed] == [[size]] * count
