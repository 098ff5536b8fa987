"""The source distribution and the wheel contain all packages and data files, and the command runs from the wheel."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEVELOPMENT = {"benchmarks", "tests", "tools"}
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - DEVELOPMENT
"""All top-level packages of the clone, so that a package that setup.py forgets fails a test."""
NOT_SHIPPED = ("k8s/Dockerfile", "k8s/README.md", "k8s/images.sh", "k8s/requirements/", "k8s/serving/request.json")
"""Files of the packages that are used only from a clone."""

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def source_files() -> list[str]:
    """Returns the files of the checkout that git does not ignore, including new ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


def expected_files() -> set[str]:
    """Modules and data files of all packages."""
    files = {name for name in source_files() if name.partition("/")[0] in PACKAGES}
    return {name for name in files if not name.startswith(NOT_SHIPPED)}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is built from it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


@pytest.fixture(scope="module")
def run(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a program of an environment with the wheel, in an empty directory; returns its standard output."""
    (wheel,) = distributions.glob("*.whl")
    environment, empty = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    venv.create(environment, with_pip=True)
    paths = sysconfig.get_paths("venv", {"base": str(environment), "platbase": str(environment)})
    # requirements come from this environment; its editable install of the clone stays out, as nested .pth are not read
    Path(paths["purelib"], "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = os.pathsep.join([paths["scripts"], os.path.dirname(sys.executable), os.environ["PATH"]])
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": programs}

    def run(program: str, *arguments: str) -> str:
        command = [os.path.join(paths["scripts"], program), *arguments]
        done = subprocess.run(
            command, cwd=empty, env=variables, capture_output=True, text=True, check=False, timeout=1200
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # without --ignore-installed, pip would find the clone's installation among the requirements
    run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return run


def test_the_wheel_contains_every_module_and_data_file(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected_files()


def test_the_source_distribution_contains_every_module_and_data_file(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert expected_files() <= names


def test_the_command_runs_from_the_wheel(run: Callable[..., str]) -> None:
    package = run("python", "-c", "import cartwheel; print(cartwheel.__file__)").strip()
    assert not Path(package).is_relative_to(ROOT)
    assert "usage: cartwheel VERB" in run("cartwheel", "--help")
    assert run("cartwheel", "synthesize", "--visitors", "200", "--output", "shop").startswith("Wrote a synthetic shop")


def test_manifests_are_rendered_from_the_wheel(run: Callable[..., str]) -> None:
    flags = ["--events", "gs://shop/events*.csv", "--output", "gs://shop/dataset"]
    assert "kind: Job" in run("cartwheel", "submit", "prepare", *flags, "--dry-run")
