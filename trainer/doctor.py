"""What this machine has for training, and what to do about what it lacks: the doctor job."""

import importlib.util
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from glob import glob
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from common import storage

log = logging.getLogger(__name__)

_LEAST_MEMORY_GIB = 4  # the full-size shop takes less than 3 to train
_LEAST_DISK_GIB = 5
_PLUGINS = {"s3": "s3fs", "gs": "gcsfs"}
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_HUGE_PAGES, _TUNABLE = Path("/sys/kernel/mm/transparent_hugepage/enabled"), "glibc.malloc.hugetlb=1"


class State(StrEnum):
    """OK; WARNING: some jobs cannot do something; UNKNOWN: it cannot be looked at here; FAILED: a job will fail."""

    OK = "ok"
    WARNING = "warning"
    UNKNOWN = "unknown"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do; `todo` is '' where all is well."""

    what: str
    found: str
    state: State = State.OK
    todo: str = ""


def examine(uris: Sequence[str]) -> dict[str, Any]:
    """Looks at versions, devices, memory, disk, schemes, and at each URI; each finding is logged as it comes.

    Args:
      uris: what is to be read from or written to. In a store a small file is written there, and removed.

    Returns:
      `is_healthy`: nothing failed; `findings`: what, found, state, todo of each.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("versions", check_versions),
        ("GPUs", check_gpus),
        ("memory", check_memory),
        ("huge pages", check_huge_pages),
        ("disk", check_disk),
        *((f"{scheme}://", partial(check_scheme, scheme, plugin)) for scheme, plugin in _PLUGINS.items()),
        *((uri, partial(check_uri, uri)) for uri in uris),
    ]
    findings = [_tell(_look(what, check)) for what, check in checks]
    is_healthy = all(finding.state != State.FAILED for finding in findings)
    return {"is_healthy": is_healthy, "findings": [asdict(finding) for finding in findings]}


def _look(what: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds; one that cannot be made is a finding, too: the doctor is called where things are broken."""
    try:
        return check()
    except Exception as error:
        log.debug("the check of %s failed", what, exc_info=True)
        return Finding(what, f"cannot be looked at: {_reason(error)}", State.UNKNOWN, "--verbose shows where it failed")


def _tell(finding: Finding) -> Finding:
    tell = log.info if finding.state == State.OK else log.warning
    tell("%-8s%s: %s%s", finding.state, finding.what, finding.found, finding.todo and f"; {finding.todo}")
    return finding


def check_versions() -> Finding:
    """Python and the packages that the trainer requires."""
    wrong, found = [], [f"Python {platform.python_version()}", f"cartwheel {metadata.version('cartwheel')}"]
    for requirement in map(Requirement, metadata.requires("cartwheel") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": "trainer"}):
            continue
        version = _version(requirement.name)
        found.append(f"{requirement.name} {version or 'missing'}")
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name}{requirement.specifier}")
    if wrong:
        return Finding("versions", ", ".join(found), State.FAILED, f"install {', '.join(dict.fromkeys(wrong))}")
    return Finding("versions", ", ".join(dict.fromkeys(found)))


def check_gpus() -> Finding:
    """What TensorFlow sees of GPUs, or why it sees none; without one it trains on the processor."""
    try:
        import tensorflow as tf
    except Exception as error:  # a broken installation raises what it likes
        log.debug("TensorFlow cannot be imported", exc_info=True)
        todo = "`pip install '.[trainer]'` in the clone; --verbose shows where it failed"
        return Finding("GPUs", f"TensorFlow cannot be imported: {_reason(error)}", State.FAILED, todo)

    seen = tf.config.list_physical_devices("GPU")
    if seen:
        return Finding("GPUs", ", ".join(gpu.name for gpu in seen))
    if not glob("/dev/nvidia[0-9]*"):
        todo = "training uses the processor; in a container, pass the device on (docker run --gpus all) if there is one"
        return Finding("GPUs", "this machine shows no NVIDIA device", State.OK, todo)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("GPUs", "CUDA_VISIBLE_DEVICES hides them", State.WARNING, "unset it")
    if not tf.test.is_built_with_cuda():
        return Finding("GPUs", "this TensorFlow is built without CUDA", State.WARNING, "install tensorflow[and-cuda]")
    todo = "`pip install '.[gpu]'` in the clone brings the CUDA libraries; nvidia-smi tells whether the driver works"
    return Finding("GPUs", "there is a device, but TensorFlow cannot open it", State.WARNING, todo)


def check_huge_pages() -> Finding:
    """Whether tables get pages of 2 MiB: with those of 4 KiB a step on large tables takes longer."""
    what = "huge pages"
    if not _HUGE_PAGES.exists():
        return Finding(what, "not known to this system")
    mode = next(word.strip("[]") for word in _HUGE_PAGES.read_text().split() if word.startswith("["))
    if mode == "always" or (mode == "madvise" and _TUNABLE in os.environ.get("GLIBC_TUNABLES", "")):
        return Finding(what, f"tables get them ({mode})")
    if mode == "madvise":
        return Finding(what, "nobody asks for them", State.OK, f"export GLIBC_TUNABLES={_TUNABLE} for tables of GB")
    return Finding(what, "this system gives none", State.OK, f"for tables of GB let it: echo madvise > {_HUGE_PAGES}")


def check_memory() -> Finding:
    """Memory that is free, or that the container's limit leaves."""
    todo = "end other programs, or train with fewer dimensions (model.dim)"
    if not _MEMINFO.exists():  # not Linux
        return Finding(
            "memory",
            f"not known, for there is no {_MEMINFO}",
            State.UNKNOWN,
            f"see that {_LEAST_MEMORY_GIB} GiB are free",
        )
    free = _figure(_MEMINFO, "MemAvailable:") * 1024
    limit = _CGROUP / "memory.max"
    bound = limit.read_text().strip() if limit.exists() else "max"
    if bound.isdecimal():
        # what was read from files stays in memory while there is room, and counts as used
        used = int((_CGROUP / "memory.current").read_text()) - _figure(_CGROUP / "memory.stat", "inactive_file")
        free = min(free, max(0, int(bound) - used))
    return _enough("memory", free, _LEAST_MEMORY_GIB, todo)


def _figure(path: Path, name: str) -> int:
    """The number in the line of a file of the kernel that begins with `name`."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[0] == name)


def check_disk() -> Finding:
    """Space for temporary files, among them copies of what lies in a store."""
    folder = tempfile.gettempdir()
    todo = "free some, or set TMPDIR to a larger disk and CARTWHEEL_CACHE_BYTES to what it may hold"
    return _enough(f"disk at {folder}", shutil.disk_usage(folder).free, _LEAST_DISK_GIB, todo)


def check_scheme(scheme: str, plugin: str) -> Finding:
    """What serves URIs of a scheme."""
    if storage.is_served_by_tensorflow(f"{scheme}://bucket/name"):
        return Finding(f"{scheme}://", "served by TensorFlow")
    if importlib.util.find_spec(plugin):
        return Finding(f"{scheme}://", f"served by {plugin} {_version(plugin)}")
    return Finding(
        f"{scheme}://",
        "served by nothing",
        State.WARNING,
        f"`pip install '.[storage]'` in the clone if {scheme}:// is needed",
    )


def check_uri(uri: str) -> Finding:
    """Whether a directory can be read, and written to."""
    try:
        count = len(storage.list_files(uri)) if storage.exists(uri) or not storage.is_local(uri) else None
        found = "does not exist yet" if count is None else f"{count} files can be listed"
    except (OSError, ValueError) as error:
        return Finding(uri, "cannot be read", State.FAILED, str(error))
    try:
        _check_writable(uri)
    except (OSError, ValueError) as error:
        state = State.FAILED if count is None else State.WARNING
        return Finding(uri, f"{found}, and it cannot be written to", state, str(error))
    return Finding(uri, f"{found}, and it can be written to")


def _check_writable(uri: str) -> None:
    if not storage.is_local(uri):
        storage.check_writable(uri)
        return
    above = storage.local_path(uri)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise NotADirectoryError(f"{above} is a file; choose another directory")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{above} may not be written to; choose another directory, or change its permissions")


def _enough(what: str, free_bytes: int, least_gib: float, todo: str) -> Finding:
    found = f"{free_bytes / 2**30:.1f} GiB free"
    if free_bytes < least_gib * 2**30:
        return Finding(what, found, State.WARNING, f"less than {least_gib} GiB: {todo}")
    return Finding(what, found)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
