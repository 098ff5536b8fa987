"""Scales the global batch with the number of replicas, and adapts the settings of the optimizer.

If the global batch is k times as large as `input.batch_size` (docs/distributed.md, larger global batches):

- Adagrad's initial accumulator is divided by k², because the gradient of an id that occurs in one row of the batch is
  1/k as large;
- the tables keep their learning rate; the learning rate of the towers' dense weights is multiplied by √k (Malladi et
  al., NeurIPS 2022);
- from k = 8 on, a tenth of the first epoch is warmup, unless a warmup is set.
"""

import logging
import math
from dataclasses import replace

from trainer.config.models import TowersConfig
from trainer.config.optimizers import AdagradConfig
from trainer.config.run import RunConfig

log = logging.getLogger(__name__)

SMALL_GPU_BATCH = 512
"""Rows per GPU below which a step mostly waits for kernels to start and for communication."""
_WARMUP_FROM, _WARMUP_SHARE = 8, 0.1


def scale_batch(config: RunConfig, replicas: int, training_rows: int) -> RunConfig:
    """Returns `config` with the global batch and the optimizer's settings for the number of replicas.

    Args:
      config: settings of a run; returned unchanged if `input.batch_size_per_replica` is None or `solver` is not `sgd`.
      replicas: number of replicas, over all workers.
      training_rows: approximate number of rows per epoch; determines the length of the warmup.
    """
    rows = config.input.batch_size_per_replica
    if rows is None or config.solver != "sgd":
        return config
    batch_size = rows * replicas
    factor = batch_size / config.input.batch_size
    optimizer, model = config.optimizer, config.model
    if isinstance(optimizer, AdagradConfig):
        optimizer = replace(optimizer, initial_accumulator=optimizer.initial_accumulator / factor**2)
    if factor >= _WARMUP_FROM and optimizer.warmup_steps == 0:
        optimizer = replace(optimizer, warmup_steps=math.ceil(_WARMUP_SHARE * training_rows / batch_size))
    if isinstance(model, TowersConfig):
        model = replace(model, dense_learning_rate=model.dense_learning_rate * math.sqrt(factor))
    log.info(
        "global batch: %d replicas × %d rows, which is %g × input.batch_size; the settings of the optimizer are "
        "adapted to it, and run.json contains the new values",
        replicas,
        rows,
        factor,
    )
    inputs = replace(config.input, batch_size=batch_size, batch_size_per_replica=None)
    return replace(config, input=inputs, optimizer=optimizer, model=model)


def warn_of_small_batch(batch_size: int, gpus: int) -> None:
    """Warns if a global batch has too few rows per GPU; `gpus`: number of GPUs of all workers."""
    if gpus > 1 and batch_size < gpus * SMALL_GPU_BATCH:
        log.warning(
            "input.batch_size=%d is %d rows for each of %d GPUs, too few to keep them busy; train on fewer GPUs, or "
            "set input.batch_size_per_replica to %d or more",
            batch_size,
            batch_size // gpus,
            gpus,
            SMALL_GPU_BATCH,
        )
