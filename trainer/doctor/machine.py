"""Checks versions, devices, memory, disk and directories of this machine."""

import importlib.util
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from common import storage
from common.storage.paths import nearest_existing
from trainer.doctor.findings import Finding, State, format_error, is_healthy

log = logging.getLogger(__name__)

_MIN_MEMORY_GIB = 4  # training on a dataset as large as Retailrocket takes less than 3
_MIN_DISK_GIB = 5
_PLUGINS = {"s3": "s3fs", "gs": "gcsfs"}
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_HUGE_PAGES, _TUNABLE = Path("/sys/kernel/mm/transparent_hugepage/enabled"), "glibc.malloc.hugetlb=1"


def examine(uris: Sequence[str]) -> dict[str, Any]:
    """Checks versions, devices, memory, disk, URI schemes and each URI; logs each finding.

    Writes and removes a small file in each object store of `uris`. Returns `is_healthy` (no check failed) and
    `findings` (the fields of each `Finding`).
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
    findings = [_log_finding(_run_check(name, check)) for name, check in checks]
    return {"is_healthy": is_healthy(findings), "findings": [asdict(finding) for finding in findings]}


def _run_check(name: str, check: Callable[[], Finding]) -> Finding:
    """Runs a check; turns an exception into a finding."""
    try:
        return check()
    except Exception as error:
        log.debug("the check of %s failed", name, exc_info=True)
        return Finding(
            name, f"cannot be checked: {format_error(error)}", State.UNKNOWN, "--verbose shows the traceback"
        )


def _log_finding(finding: Finding) -> Finding:
    level = logging.INFO if finding.state == State.OK else logging.WARNING
    advice = finding.advice and f"; {finding.advice}"
    log.log(level, "%-8s%s: %s%s", finding.state, finding.check, finding.found, advice)
    return finding


def check_versions() -> Finding:
    """Checks the versions of Python and of the packages that the trainer requires."""
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
    """Lists the GPUs that TensorFlow sees, or explains why it sees none."""
    try:
        import tensorflow as tf
    except Exception as error:  # a broken installation may raise any error
        log.debug("TensorFlow cannot be imported", exc_info=True)
        advice = "run `pip install '.[trainer]'` in the clone; --verbose shows the traceback"
        return Finding("GPUs", f"TensorFlow cannot be imported: {format_error(error)}", State.FAILED, advice)

    from trainer.distributed.gpus import diagnose_gpus, driver_version, is_old_driver

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        found, advice, has_device = diagnose_gpus()
        if not has_device:
            return Finding("GPUs", found, State.OK, f"training uses the CPU; {advice}")
        return Finding("GPUs", found, State.WARNING, advice)
    version = driver_version()
    found = f"{', '.join(gpu.name for gpu in gpus)}, driver {version or 'of unknown version'}"
    if version is not None and is_old_driver(version):
        advice = "if training fails with `unsupported PTX`, update the driver: it is too old for newer GPUs"
        return Finding("GPUs", found, State.WARNING, advice)
    return Finding("GPUs", found)


def check_huge_pages() -> Finding:
    """Checks whether embedding tables get memory pages of 2 MiB, which speed up training."""
    name = "huge pages"
    if not _HUGE_PAGES.exists():
        return Finding(name, "not supported by this system")
    mode = next(word.strip("[]") for word in _HUGE_PAGES.read_text().split() if word.startswith("["))
    if mode == "always" or (mode == "madvise" and _TUNABLE in os.environ.get("GLIBC_TUNABLES", "")):
        return Finding(name, f"enabled ({mode})")
    if mode == "madvise":
        return Finding(name, "not enabled", State.OK, f"for tables of several GB, export GLIBC_TUNABLES={_TUNABLE}")
    advice = f"for tables of several GB, run as root: echo madvise > {_HUGE_PAGES}"
    return Finding(name, "disabled by the system", State.OK, advice)


def check_memory() -> Finding:
    """Checks the free memory of the machine, or of the container if it has a limit."""
    advice = "close other programs, or lower model.dim"
    if not _MEMINFO.exists():  # not Linux
        return Finding(
            "memory",
            f"unknown; {_MEMINFO} does not exist",
            State.UNKNOWN,
            f"make sure that {_MIN_MEMORY_GIB} GiB are free",
        )
    free = _read_number(_MEMINFO, "MemAvailable:") * 1024
    limit = _CGROUP / "memory.max"
    bound = limit.read_text().strip() if limit.exists() else "max"
    if bound.isdecimal():
        # memory.current includes cached file pages, which the kernel drops when memory is needed
        used = int((_CGROUP / "memory.current").read_text()) - _read_number(_CGROUP / "memory.stat", "inactive_file")
        free = min(free, max(0, int(bound) - used))
    return _compare_free("memory", free, _MIN_MEMORY_GIB, advice)


def _read_number(path: Path, name: str) -> int:
    """Returns the number on the line that starts with `name`, in a file such as /proc/meminfo."""
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.split()[0] == name)


def check_disk() -> Finding:
    """Checks the disk space for temporary files."""
    folder = tempfile.gettempdir()
    advice = "free some space, or set TMPDIR to a larger disk and CARTWHEEL_CACHE_BYTES to the cache's maximum size"
    return _compare_free(f"disk at {folder}", shutil.disk_usage(folder).free, _MIN_DISK_GIB, advice)


def check_scheme(scheme: str, plugin: str) -> Finding:
    """Checks that TensorFlow or an fsspec plugin can open URIs of a scheme.

    Args:
      scheme: such as `s3`.
      plugin: name of the Python package that adds the scheme to fsspec, such as `s3fs`.
    """
    if storage.is_served_by_tensorflow(f"{scheme}://bucket/name"):
        return Finding(f"{scheme}://", "readable and writable through TensorFlow")
    if importlib.util.find_spec(plugin):
        return Finding(f"{scheme}://", f"served by {plugin} {_version(plugin)}")
    return Finding(
        f"{scheme}://",
        "not supported",
        State.WARNING,
        f"run `pip install '.[storage]'` in the clone if you need {scheme}://",
    )


def check_uri(uri: str) -> Finding:
    """Checks that a directory is readable and writable; a missing local directory must be creatable."""
    try:
        count = len(storage.list_files(uri)) if storage.exists(uri) or not storage.is_local(uri) else None
        found = "does not exist yet" if count is None else f"readable, {count} file{'' if count == 1 else 's'}"
    except (OSError, ValueError) as error:
        return Finding(uri, "not readable", State.FAILED, str(error))
    try:
        _check_writable(uri)
    except (OSError, ValueError) as error:
        state = State.FAILED if count is None else State.WARNING
        return Finding(uri, f"{found}, not writable", state, str(error))
    return Finding(uri, f"{found}, writable")


def _check_writable(uri: str) -> None:
    if not storage.is_local(uri):
        storage.check_writable(uri)
        return
    above = nearest_existing(storage.local_path(uri))
    if not os.path.isdir(above):
        raise NotADirectoryError(f"{above} is a file; choose another directory")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{above} is not writable; choose another directory, or change its permissions")


def _compare_free(name: str, free_bytes: int, min_gib: float, advice: str) -> Finding:
    found = f"{free_bytes / 2**30:.1f} GiB free"
    if free_bytes < min_gib * 2**30:
        return Finding(name, found, State.WARNING, f"less than {min_gib} GiB: {advice}")
    return Finding(name, found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
