import os

import pytest

from trainer import doctor
from trainer.doctor import State


def test_this_environment_has_the_versions_that_the_trainer_requires():
    finding = doctor.check_versions()
    assert finding.state == State.OK
    assert "tensorflow 2.21" in finding.found
    assert "pytest" not in finding.found  # of an extra that training does without


def test_a_missing_package_is_named_with_the_version_to_install(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["no-such-package>=3", "numpy>=99"])
    finding = doctor.check_versions()
    assert finding.state == State.FAILED
    assert finding.todo == "install no-such-package>=3, numpy>=99"


def test_a_machine_without_a_gpu_is_told_so_and_is_well(monkeypatch):
    monkeypatch.setattr(doctor, "glob", lambda _: [])
    finding = doctor.check_gpus()
    assert finding.state == State.OK
    assert "no NVIDIA device" in finding.found


def test_a_hidden_gpu_is_told_with_the_variable_that_hides_it(monkeypatch):
    monkeypatch.setattr(doctor, "glob", lambda _: ["/dev/nvidia0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert doctor.check_gpus().todo == "unset it"


def test_little_disk_is_a_warning_with_what_to_do(monkeypatch, tmp_path):
    usage = os.statvfs(tmp_path).f_frsize  # any small number of bytes
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: type("Usage", (), {"free": usage}))
    finding = doctor.check_disk()
    assert finding.state == State.WARNING
    assert "set TMPDIR" in finding.todo


def test_directories_are_told_by_what_may_be_done_with_them(tmp_path):
    (tmp_path / "file").write_text("")
    assert doctor.check_uri(str(tmp_path)).found == "1 files can be listed, and it can be written to"
    assert doctor.check_uri(str(tmp_path / "new" / "run")).found == "does not exist yet, and it can be written to"
    below_a_file = doctor.check_uri(str(tmp_path / "file" / "run"))
    assert below_a_file.state == State.FAILED
    assert "is a file; choose another directory" in below_a_file.todo


def test_a_directory_that_may_only_be_read_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    finding = doctor.check_uri(str(tmp_path))
    assert finding.state == State.WARNING
    assert "may not be written to" in finding.todo


def test_a_scheme_that_nothing_serves_fails_with_what_brings_it():
    finding = doctor.check_uri("nonsense://bucket/run")
    assert finding.state == State.FAILED
    assert "nonsense" in finding.todo


@pytest.mark.parametrize(("place", "is_healthy"), [("run", True), ("file/run", False)])
def test_one_failure_makes_the_whole_unhealthy(tmp_path, place, is_healthy):
    (tmp_path / "file").write_text("")
    result = doctor.examine([str(tmp_path / place)])
    assert result["is_healthy"] == is_healthy
    assert [finding["what"] for finding in result["findings"]][:3] == ["versions", "GPUs", "memory"]
