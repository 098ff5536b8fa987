"""The GPU checks: their order, the lines of their report, and their time limits."""

from dataclasses import dataclass
from enum import StrEnum

TOTAL_SECONDS = 600
"""Time limit of all checks together."""
CPU_LIMIT_FACTOR = 20
"""Factor of all time limits in a rehearsal, because CPUs are slower than GPUs."""


class Kind(StrEnum):
    """Devices that the checks use."""

    GPU = "gpu"
    """All GPUs."""
    CPU = "cpu"
    """Two logical CPUs: a rehearsal, which skips what only a GPU can show."""


@dataclass(frozen=True)
class Check:
    """A check that runs in its own process, so that a device that hangs or crashes does not stop the other checks."""

    name: str
    """Name of the check: its key in `trainer.doctor.__main__.CHECKS`."""
    title: str
    """Name of the check's lines in the report; `{}` is replaced by the preset."""
    presets: tuple[str, ...]
    """Presets that are checked, one line each; '' if the check needs none."""
    seconds: int
    """Time limit of the process, which includes a few seconds to import TensorFlow."""

    def line(self, preset: str) -> str:
        """Returns the name of a line of the report."""
        return self.title.format(preset)


DEVICES = Check("devices", "devices", ("",), 60)
"""Checks whether TensorFlow sees GPUs. If it sees none, no other check is run."""
PLAN = (
    DEVICES,
    # the first check on the GPU has more time, because the driver may have to compile kernels
    Check("kernels", "kernels of {}", ("mf", "nn"), 240),
    Check("step", "step of {}", ("notebook-mf", "notebook-nn", "mf", "nn"), 120),
    Check("precision", "precision of {}", ("mf", "nn"), 120),
    Check("replicas", "all GPUs with {}", ("mf", "nn"), 120),
    Check("resume", "kill and resume of {}", ("mf",), 150),
    Check("export", "export of {}", ("mf", "nn"), 120),
    Check("speed", "speed of {}", ("mf", "nn"), 120),
)
"""All checks, in order."""
