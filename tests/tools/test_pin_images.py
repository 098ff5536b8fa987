"""All images of others are pinned by digest in one go, or none is."""

import os
from pathlib import Path

import pytest

from tools import pin_images
from tools.pin_images import image_files, pin, read_images

DIGEST = "sha256:" + "a" * 64
SKOPEO = f"""#!/bin/sh
for image; do :; done
case $image in
  *missing*) echo "manifest unknown" >&2; exit 1;;
  *) echo {DIGEST};;
esac
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an image in each kind of file, and a skopeo that knows all images but `missing`."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "skopeo").write_text(SKOPEO)
    (tmp_path / "bin" / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "k8s" / "flink").mkdir(parents=True)
    (tmp_path / "k8s" / "Dockerfile").write_text("ARG PYTHON_IMAGE=registry.example/python:3.11\nFROM $PYTHON_IMAGE\n")
    (tmp_path / "k8s" / "flink" / "job.yaml").write_text(
        f"  - image: flink:1.20@sha256:{'b' * 64}\n    image: cartwheel/trainer:latest\n"
    )
    return tmp_path


def test_every_image_of_others_gets_the_digest_of_its_registry(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert pin_images.main(project) == 0
    assert (project / "k8s" / "Dockerfile").read_text() == (
        f"ARG PYTHON_IMAGE=registry.example/python:3.11@{DIGEST}\nFROM $PYTHON_IMAGE\n"
    )
    assert (project / "k8s" / "flink" / "job.yaml").read_text() == (
        f"  - image: flink:1.20@{DIGEST}\n    image: cartwheel/trainer:latest\n"
    )
    assert capsys.readouterr().out == f"registry.example/python:3.11@{DIGEST}\nflink:1.20@{DIGEST}\n"


def test_an_image_without_a_digest_is_named_and_nothing_changes(project: Path, capsys: pytest.CaptureFixture) -> None:
    (project / "k8s" / "server.yaml").write_text("image: missing:1\n")
    before = {path: path.read_text() for path in image_files(project)}
    assert pin_images.main(project) == 1
    assert capsys.readouterr().err == "no digest of missing:1: manifest unknown; nothing was changed\n"
    assert {path: path.read_text() for path in image_files(project)} == before


def test_without_skopeo_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    assert pin_images.main() == 1
    assert capsys.readouterr().err == "skopeo is not installed; install the package skopeo and run this again\n"


def test_it_finds_every_image_of_this_project() -> None:
    found = {image for path in image_files() for image in read_images(path.read_text())}
    assert {image.split(":")[0].split("/")[-1] for image in found} == {
        "python",
        "flink",
        "beam_flink1.20_job_server",
        "aws-cli",
        "serving",
    }
    for path in image_files():  # an image that the pattern does not know would never be pinned
        others = [line for line in path.read_text().splitlines() if "image: " in line and "cartwheel" not in line]
        assert len(read_images(path.read_text())) == len(others) + ("Dockerfile" in path.name)
    assert pin("image: flink:1.20\n", {}) == "image: flink:1.20\n"
