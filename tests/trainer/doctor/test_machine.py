import logging
import os
import sys

import pytest

from trainer.distributed import gpus
from trainer.doctor import State, machine


def test_this_environment_has_the_versions_that_the_trainer_requires():
    finding = machine.check_versions()
    assert finding.state == State.OK
    assert "tensorflow 2.21" in finding.found
    assert "pytest" not in finding.found  # belongs to an extra that training does not need


def test_a_missing_package_is_reported_with_the_version_to_install(monkeypatch):
    monkeypatch.setattr(machine.metadata, "requires", lambda _: ["no-such-package>=3", "numpy>=99"])
    finding = machine.check_versions()
    assert finding.state == State.FAILED
    assert finding.advice == "install no-such-package>=3, numpy>=99"


def test_a_machine_without_a_gpu_is_fine(monkeypatch):
    monkeypatch.setattr(gpus, "glob", lambda _: [])
    finding = machine.check_gpus()
    assert finding.state == State.OK
    assert "no NVIDIA device" in finding.found


def test_a_hidden_gpu_is_reported_with_the_variable_that_hides_it(monkeypatch):
    monkeypatch.setattr(gpus, "glob", lambda _: ["/dev/nvidia0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert machine.check_gpus().advice == "unset it"


def test_a_missing_tensorflow_fails_and_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    finding = machine.check_gpus()
    assert finding.state == State.FAILED
    assert "TensorFlow cannot be imported: ModuleNotFoundError" in finding.found
    assert "pip install '.[trainer]'" in finding.advice


GIB = 2**30


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Fake kernel files of a machine with 20 GiB of free memory, in a container that uses 3 of at most 8 GiB."""
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(f"MemTotal: {24 * 2**20} kB\nMemAvailable: {20 * 2**20} kB\n")
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\nactive_file 0\ninactive_file {GIB // 2}\n")
    return tmp_path


def test_a_containers_limit_bounds_the_free_memory(kernel):
    # 0.5 of the 3 GiB are cached file pages, which the kernel drops on demand: 8 - (3 - 0.5) = 5.5
    assert machine.check_memory().found == "5.5 GiB free"


def test_little_free_memory_below_a_limit_is_a_warning(kernel):
    (kernel / "memory.current").write_text(f"{7 * GIB}\n")  # 8 - (7 - 0.5) = 1.5
    finding = machine.check_memory()
    assert (finding.found, finding.state) == ("1.5 GiB free", State.WARNING)


def test_without_a_limit_the_free_memory_of_the_machine_is_reported(kernel):
    (kernel / "memory.max").write_text("max\n")
    assert machine.check_memory().found == "20.0 GiB free"


def test_memory_is_unknown_without_meminfo(kernel):
    (kernel / "meminfo").unlink()
    assert machine.check_memory().state == State.UNKNOWN


def test_a_check_that_raises_becomes_a_finding_and_the_others_still_run(monkeypatch, caplog):
    def fail():
        raise RuntimeError("no such luck")

    monkeypatch.setattr(machine, "check_versions", fail)
    with caplog.at_level(logging.DEBUG):
        result = machine.examine([])
    first, *others = result["findings"]
    assert (first["state"], first["found"]) == ("unknown", "cannot be checked: RuntimeError: no such luck")
    assert [finding["check"] for finding in others][:2] == ["GPUs", "memory"]
    assert "Traceback" in caplog.text


def test_each_finding_is_logged_before_the_next_check_starts(monkeypatch, caplog):
    logged = []

    def check():
        logged.append([record.getMessage() for record in caplog.records if record.name == machine.__name__])
        return machine.Finding("GPUs", "none")

    monkeypatch.setattr(machine, "check_gpus", check)
    with caplog.at_level(logging.INFO):
        machine.examine([])
    assert [line.split(": ")[0] for line in logged[0]] == ["ok      versions"]


@pytest.mark.parametrize(
    ("mode", "tunables", "found", "advice"),
    [
        ("always madvise [never]", "", "disabled by the system", "echo madvise > "),
        ("always [madvise] never", "", "not enabled", "export GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
        ("always [madvise] never", "glibc.malloc.hugetlb=1", "enabled (madvise)", ""),
        ("[always] madvise never", "", "enabled (always)", ""),
    ],
)
def test_huge_pages_are_reported_with_the_command_that_enables_them(
    monkeypatch, tmp_path, mode, tunables, found, advice
):
    (tmp_path / "enabled").write_text(f"{mode}\n")
    monkeypatch.setattr(machine, "_HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    finding = machine.check_huge_pages()
    assert (finding.state, finding.found) == (State.OK, found)
    assert advice in finding.advice
    assert bool(advice) == bool(finding.advice)


def test_little_disk_space_is_a_warning_with_advice(monkeypatch, tmp_path):
    usage = os.statvfs(tmp_path).f_frsize  # any small number of bytes
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: type("Usage", (), {"free": usage}))
    finding = machine.check_disk()
    assert finding.state == State.WARNING
    assert "set TMPDIR" in finding.advice


def test_directories_are_reported_as_readable_and_writable(tmp_path):
    (tmp_path / "file").write_text("")
    assert machine.check_uri(str(tmp_path)).found == "readable, 1 file, writable"
    assert machine.check_uri(str(tmp_path / "new" / "run")).found == "does not exist yet, writable"
    below_a_file = machine.check_uri(str(tmp_path / "file" / "run"))
    assert below_a_file.state == State.FAILED
    assert "is a file; choose another directory" in below_a_file.advice


def test_a_read_only_directory_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    finding = machine.check_uri(str(tmp_path))
    assert finding.state == State.WARNING
    assert "is not writable" in finding.advice


def test_an_unsupported_scheme_fails_and_names_the_missing_package():
    finding = machine.check_uri("nonsense://bucket/run")
    assert finding.state == State.FAILED
    assert "nonsense" in finding.advice


@pytest.mark.parametrize(("name", "is_healthy"), [("run", True), ("file/run", False)])
def test_one_failure_makes_the_machine_unhealthy(tmp_path, name, is_healthy):
    (tmp_path / "file").write_text("")
    result = machine.examine([str(tmp_path / name)])
    assert result["is_healthy"] == is_healthy
    assert [finding["check"] for finding in result["findings"]][:3] == ["versions", "GPUs", "memory"]
