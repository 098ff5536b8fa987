"""The source distribution and the wheel: all packages and data files, and the command runs from the wheel."""

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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tracked files and the wheel that is built from it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    names = b"\0".join(name for name in tracked if (ROOT / name.decode()).is_file())
    copy = subprocess.run(["tar", "--null", "-cT", "-"], cwd=ROOT, input=names, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x"], cwd=source, input=copy, check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def expected_files() -> set[str]:
    """Modules and data files of all packages."""
    found = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if "__pycache__" not in path.parts}
    return {str(path.relative_to(ROOT)) for path in found if path.suffix in DATA | {".py"}}


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
