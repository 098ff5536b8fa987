import logging
import os
import sys

import pytest

from trainer import doctor
from trainer.doctor import CheckpointMetadata


def test_this_environment_has_the_versions_that_the_trainer_requires():
    finding = doctor.check_versions()
    assert finding.state == CheckpointMetadata.OK
    assert "tensorflow 2.21" in finding.found
    assert "pytest" not in finding.found  # of an extra that training does without


def test_a_missing_package_is_named_with_the_version_to_install(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["no-such-package>=3", "numpy>=99"])
    finding = doctor.check_versions()
    assert finding.state == CheckpointMetadata.FAILED
    assert finding.todo == "install no-such-package>=3, numpy>=99"


def test_a_machine_without_a_gpu_is_told_so_and_is_well(monkeypatch):
    monkeypatch.setattr(doctor, "glob", lambda _: [])
    finding = doctor.check_gpus()
    assert finding.state == CheckpointMetadata.OK
    assert "no NVIDIA device" in finding.found


def test_a_hidden_gpu_is_told_with_the_variable_that_hides_it(monkeypatch):
    monkeypatch.setattr(doctor, "glob", lambda _: ["/dev/nvidia0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert doctor.check_gpus().todo == "unset it"


def test_a_missing_tensorflow_fails_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    finding = doctor.check_gpus()
    assert finding.state == CheckpointMetadata.FAILED
    assert "TensorFlow cannot be imported: ModuleNotFoundError" in finding.found
    assert "pip install '.[trainer]'" in finding.todo


GIB = 2**30


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Writes the kernel's files as of a machine with 20 GiB free, whose container may have 8 GiB and uses 3."""
    monkeypatch.setattr(doctor, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text(f"MemTotal: {24 * 2**20} kB\nMemAvailable: {20 * 2**20} kB\n")
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{3 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\nactive_file 0\ninactive_file {GIB // 2}\n")
    return tmp_path


def test_memory_is_what_the_containers_limit_leaves(kernel):
    # half a GiB of the 3 are pages of files that make room: 8 - (3 - 0.5) = 5.5
    assert doctor.check_memory().found == "5.5 GiB free"


def test_little_memory_below_a_limit_is_a_warning(kernel):
    (kernel / "memory.current").write_text(f"{7 * GIB}\n")  # 8 - (7 - 0.5) = 1.5
    finding = doctor.check_memory()
    assert (finding.found, finding.state) == ("1.5 GiB free", CheckpointMetadata.WARNING)


def test_memory_without_a_limit_is_the_machines(kernel):
    (kernel / "memory.max").write_text("max\n")
    assert doctor.check_memory().found == "20.0 GiB free"


def test_memory_is_not_known_where_the_kernel_does_not_tell_it(kernel):
    (kernel / "meminfo").unlink()
    assert doctor.check_memory().state == CheckpointMetadata.UNKNOWN


def test_a_check_that_fails_is_a_finding_and_the_others_are_made(monkeypatch, caplog):
    def fail():
        raise RuntimeError("no such luck")

    monkeypatch.setattr(doctor, "check_versions", fail)
    with caplog.at_level(logging.DEBUG):
        result = doctor.examine([])
    first, *others = result["findings"]
    assert (first["state"], first["found"]) == ("unknown", "cannot be looked at: RuntimeError: no such luck")
    assert [finding["what"] for finding in others][:2] == ["GPUs", "memory"]
    assert "Traceback" in caplog.text


def test_each_finding_is_told_before_the_next_check_begins(monkeypatch, caplog):
    told = []

    def check():
        told.append([record.getMessage() for record in caplog.records if record.name == doctor.__name__])
        return doctor.Finding("GPUs", "none")

    monkeypatch.setattr(doctor, "check_gpus", check)
    with caplog.at_level(logging.INFO):
        doctor.examine([])
    assert [line.split(": ")[0] for line in told[0]] == ["ok      versions"]


@pytest.mark.parametrize(
    ("mode", "tunables", "found", "todo"),
    [
        ("always madvise [never]", "", "this system gives none", "echo madvise > "),
        ("always [madvise] never", "", "nobody asks for them", "export GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
        ("always [madvise] never", "glibc.malloc.hugetlb=1", "tables get them (madvise)", ""),
        ("[always] madvise never", "", "tables get them (always)", ""),
    ],
)
def test_huge_pages_are_told_with_what_brings_them(monkeypatch, tmp_path, mode, tunables, found, todo):
    (tmp_path / "enabled").write_text(f"{mode}\n")
    monkeypatch.setattr(doctor, "_HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    finding = doctor.check_huge_pages()
    assert (finding.state, finding.found) == (CheckpointMetadata.OK, found)
    assert todo in finding.todo
    assert bool(todo) == bool(finding.todo)


def test_little_disk_is_a_warning_with_what_to_do(monkeypatch, tmp_path):
    usage = os.statvfs(tmp_path).f_frsize  # any small number of bytes
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": usage}))
    finding = doctor.check_disk()
    assert finding.state == CheckpointMetadata.WARNING
    assert "set TMPDIR" in finding.todo


def test_directories_are_told_by_what_may_be_done_with_them(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.check_uri(str(tmp_path)).found == "1 files can be listed, and it can be written to"
    assert doctor.check_uri(str(tmp_path / "new" / "run")).found == "does not exist yet, and it can be written to"
    below_a_file = doctor.check_uri(str(tmp_path / "file" / "run"))
    assert below_a_file.state == CheckpointMetadata.FAILED
    assert "is a file; choose another directory" in below_a_file.todo


def test_a_directory_that_may_only_be_read_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    finding = doctor.check_uri(str(tmp_path))
    assert finding.state == CheckpointMetadata.WARNING
    assert "may not be written to" in finding.todo


def test_a_scheme_that_nothing_serves_fails_with_what_brings_it():
    finding = doctor.check_uri("nonsense://bucket/run")
    assert finding.state == CheckpointMetadata.FAILED
    assert "nonsense" in finding.todo


@pytest.mark.parametrize(("place", "is_healthy"), [("run", True), ("file/run", False)])
def test_one_failure_makes_the_whole_unhealthy(tmp_path, place, is_healthy):
    (tmp_path / "file").write_text("")
    result = doctor.examine([str(tmp_path / place)])
    assert result["is_healthy"] == is_healthy
    assert [finding["what"] for finding in result["findings"]][:3] == ["versions", "GPUs", "memory"]
