"""Checks that TensorFlow sees a GPU."""

import tensorflow as tf

from trainer.distributed.gpus import diagnose_gpus
from trainer.doctor.bench import Bench
from trainer.doctor.findings import Result, State
from trainer.doctor.machine import check_gpus
from trainer.doctor.plan import Kind

_REHEARSAL = "`cartwheel doctor --gpu --devices cpu` rehearses the checks on logical CPUs"


def check_devices(bench: Bench, _: str) -> Result:
    """Lists the GPUs and the driver; fails with the reason if there is no GPU. Is skipped in a rehearsal."""
    if bench.kind == Kind.CPU:
        return Result("a rehearsal on two logical CPUs, which checks no GPU", State.SKIPPED)
    if not tf.config.list_physical_devices("GPU"):
        why = diagnose_gpus()
        return Result(f"no GPU: {why.found}", State.FAILED, f"{why.advice}; {_REHEARSAL}")
    found = check_gpus()
    return Result(found.found, State.OK, found.advice)
