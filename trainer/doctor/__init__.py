"""The `doctor` command: checks this machine or, with `--gpu`, its GPUs, and advises what to change."""

from trainer.doctor.findings import Finding, State
from trainer.doctor.gpu import examine_gpus
from trainer.doctor.machine import examine

__all__ = ["Finding", "State", "examine", "examine_gpus"]
