"""The checks of GPUs: their order, the lines of their report, and their time limits."""

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
    """A check, made in its own process, so that a device that hangs or crashes does not stop the others."""

    name: str
    """Name of the check, as in `trainer.doctor.__main__`."""
    title: str
    """Name of its lines in the report; `{}` is the preset."""
    presets: tuple[str, ...]
    """Presets that are checked, one line each; '' if the check needs none."""
    seconds: int
    """Time limit of the process. Importing TensorFlow takes a few seconds of it."""

    def line(self, preset: str) -> str:
        """Returns the name of a line of the report."""
        return self.title.format(preset)


DEVICES = Check("devices", "devices", ("",), 60)
"""Whether TensorFlow sees GPUs. Without them, no other check is made."""
PLAN = (
    DEVICES,
    # the first one on a device has more time, because the driver may have to compile kernels
    Check("kernels", "kernels of {}", ("mf", "nn"), 240),
    Check("step", "step of {}", ("notebook-mf", "notebook-nn", "mf", "nn"), 120),
    Check("precision", "precision of {}", ("mf", "nn"), 120),
    Check("replicas", "all GPUs with {}", ("mf", "nn"), 120),
    Check("resume", "kill and resume of {}", ("mf",), 150),
    Check("export", "export of {}", ("mf", "nn"), 120),
    Check("speed", "speed of {}", ("mf", "nn"), 120),
)
"""All checks, in order."""
