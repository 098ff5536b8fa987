"""Logging to the terminal: the job's own lines and the relevant lines of libraries."""

import glob
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.progress import LogHandler
from common.streams import open_missing_streams


def start_log(*, verbose: bool) -> None:
    """Starts logging to standard error, above progress bars. Debug messages are logged only if `verbose`."""
    open_missing_streams()
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        handlers=[LogHandler()],
    )


_NOISE = re.compile(
    r"oneDNN|cpu_feature_guard|rebuild TensorFlow with|absl::InitializeLog|computation_placer"
    r"|Unable to register cu\w+ factory|Could not find cuda drivers|TF-TRT Warning|cudart|^\s*$"
)
_NO_DEVICE = re.compile(r"cuInit|cuda_diagnostics|CUDA error: Failed call")


def import_tensorflow(*, verbose: bool) -> None:
    """Imports TensorFlow without its notices about CPU features and absent GPUs.

    Does nothing if `verbose`. TensorFlow writes these notices to file descriptor 2, so no log level hides them.
    """
    if verbose or "tensorflow" in sys.modules:
        return
    # TensorFlow reads the variable once, when it is imported
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    has_gpu = bool(glob.glob("/dev/nvidia[0-9]*"))
    with _captured_stderr(lambda line: bool(_NOISE.search(line)) or (not has_gpu and bool(_NO_DEVICE.search(line)))):
        import tensorflow as tf
        from absl import logging as absl_logging

        tf.config.list_physical_devices()  # the GPU driver is looked up now, not within the job
        absl_logging.set_verbosity(absl_logging.ERROR)


@contextmanager
def _captured_stderr(is_noise: Callable[[str], bool]) -> Iterator[None]:
    """Drops lines for which `is_noise` is true from file descriptor 2; drops none if the context raises an error."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        has_failed = True
        try:
            yield
            has_failed = False
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            captured.seek(0)
            for line in captured.read().decode(errors="replace").splitlines():
                if has_failed or not is_noise(line):
                    sys.stderr.write(f"{line}\n")
