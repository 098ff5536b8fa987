"""The source distribution and the wheel: all packages and data files, and the command runs from the wheel."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cartwheel", "common", "contract", "k8s", "preprocessing", "trainer")
DATA = {".html", ".css", ".js", ".svg", ".yaml", ".typed"}

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def tracked_files() -> list[str]:
    """Files of the checkout that git tracks and that exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


def expected_files() -> set[str]:
    """Modules and data files of all packages."""
    return {
        name for name in tracked_files() if name.partition("/")[0] in PACKAGES and Path(name).suffix in DATA | {".py"}
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tracked files and the wheel that is built from it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_the_wheel_holds_every_module_and_data_file(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected_files()


def test_the_source_distribution_holds_every_module_and_data_file(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert expected_files() <= names


def test_the_command_runs_from_the_wheel(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=300)
    # the pinned requirements of this environment, without its editable install of the clone
    site = Path(
        subprocess.run(
            [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    own = Path(sysconfig.get_paths()["purelib"])
    for entry in own.iterdir():
        if "cartwheel" not in entry.name.lower() and entry.suffix != ".pth" and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*words: str) -> str:
        command = [tmp_path / "venv" / "bin" / "cartwheel", *words]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "usage: cartwheel VERB" in run("--help")
    assert run("synthesize", "--visitors", "200", "--output", "shop").startswith("Wrote a synthetic shop")
    where = "import k8s.rendering; print(k8s.rendering.HERE / 'base')"
    found = subprocess.run([python, "-c", where], cwd=empty, capture_output=True, text=True, check=True).stdout.strip()
    assert (Path(found) / "kustomization.yaml").exists()
    assert Path(found).is_relative_to(tmp_path), "the manifests are those of the wheel"
