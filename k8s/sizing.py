"""Memory and disk that steps need, in GiB; `docs/operations.md` explains the formulas.

`tests/integration/test_training_memory.py` compares the memory of training with the measured peak of runs.
"""

import math
from dataclasses import dataclass

GIB = 2**30
CACHE = 16.0
"""Default size of the cache of remote files."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Size of a model, from which the resources of its steps follow."""

    table_rows: int
    """Rows of all tables: the items and, if they have learnt vectors, the visitors."""
    ranked_rows: int
    """Vectors that ranking needs at the same time: those of the items and, with `mf`, of the visitors."""
    dim: int
    """Number of entries of an embedding vector."""
    arrays_per_table: int = 2
    """The weights and the optimizer's state: 2 with Adagrad, 3 with Adam."""

    @property
    def tables(self) -> float:
        """GiB of the tables, with the optimizer's state."""
        return self.arrays_per_table * _rows(self.table_rows, self.dim)

    @property
    def vectors(self) -> float:
        """GiB of the vectors that ranking needs."""
        return _rows(self.ranked_rows, self.dim)


def prepare_memory(visitors: int, items: int) -> float:
    """Returns the GiB of memory of `prepare`."""
    return 2 + 0.3 * visitors / 1e6 + 0.5 * items / 1e6


def train_memory(size: ModelSize, *, gpus: int, nodes: int) -> float:
    """Returns the GiB of memory of a training machine with `gpus` GPUs (0: on CPUs), one of `nodes` machines."""
    waiting = 0.05 * size.tables / nodes  # rows of a checkpoint that wait to be written
    held = 2 * gpus if gpus else size.tables / nodes
    return waiting + held + size.vectors + 4


def gpu_memory(size: ModelSize, *, replicas: int) -> float:
    """Returns the GiB of memory of each of `replicas` GPUs."""
    return size.tables / replicas + 2


def shared_memory(gpus: int) -> int:
    """Returns the GiB of `/dev/shm` of a machine with `gpus` GPUs, for NCCL."""
    return max(1, gpus)


def train_tmp(size: ModelSize, *, cache: float = CACHE) -> float:
    """Returns the GiB of `/tmp` of training with a bucket: the cache of files and a checkpoint to upload.

    `cache` is the GiB of CARTWHEEL_CACHE_BYTES; the cache exceeds it if the files in use are larger.
    """
    return max(cache, size.vectors) + size.tables


def evaluate_memory(size: ModelSize) -> float:
    """Returns the GiB of memory of `evaluate-export`."""
    return 4 + size.vectors


def evaluate_tmp(size: ModelSize) -> float:
    """Returns the GiB of `/tmp` of `evaluate-export` with a bucket: the cache of files and an export to upload."""
    return max(CACHE, size.vectors) + size.vectors


def whole(gib: float) -> int:
    """Rounds up to whole GiB."""
    return math.ceil(gib)


def _rows(rows: int, dim: int) -> float:
    """Returns the GiB of `rows` rows of `dim` float32 numbers and a bias."""
    return rows * (dim + 1) * 4 / GIB
