"""`prepare` on Prism, Beam's portable runner in Go: the bytes and the messages are those of a run in process."""

import contextlib
import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apache_beam
import pytest

from tests.integration.test_beam_workers import arguments, assert_same, finish, start
from tests.preprocessing.shop import small_shop
from tests.stores.ports import free_port, wait_for_port
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT_SECONDS = 1800
MODULE = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"
CACHE = Path.home() / ".cache" / "cartwheel" / f"prism-{apache_beam.__version__}"


@pytest.fixture(scope="module")
def program() -> Path:
    """Prism, built once per version of Beam; the build takes minutes."""
    built = CACHE / "prism"
    if built.exists():
        return built
    go = shutil.which("go") or pytest.skip("needs Go to build Prism")
    done = subprocess.run(
        [go, "install", MODULE],
        env=os.environ | {"GOBIN": str(CACHE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    if done.returncode:
        pytest.skip(f"Prism cannot be built here: {done.stderr[-300:]}")
    return built


@pytest.fixture(scope="module")
def options(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Beam options that run a job on Prism, with workers in the process that starts the job."""
    port, folder = free_port(), tmp_path_factory.mktemp("prism")
    command = [str(program), f"-job_port={port}", f"-web_port={free_port()}"]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "log", "w"))
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        stack.callback(server.wait)
        stack.callback(server.kill)
        wait_for_port(port)
        yield ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}", "--environment_type=LOOPBACK"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the inputs: events.csv, properties.csv, tree.csv, and two logs that `prepare` refuses."""
    folder = tmp_path_factory.mktemp("shop")
    small_shop(folder)
    events = (folder / "events.csv").read_text()
    (folder / "invalid.csv").write_text(events + "bad,row\n" * 50)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(events.encode())[:200])
    return folder


def test_prism_prepares_the_same_bytes(options: list[str], folder: Path) -> None:
    here, there = folder / "here" / "dataset", folder / "there" / "dataset"
    finish(start(arguments(str(folder), str(here))))
    finish(start([*arguments(str(folder), str(there)), *options]))
    assert_same(str(there), str(here))


@pytest.mark.parametrize(
    ("events", "reason"), [("invalid.csv", "50 of 82 event rows are invalid"), ("cut.csv.gz", "cut.csv.gz")]
)
def test_prism_gives_the_same_message(events: str, reason: str, options: list[str], folder: Path) -> None:
    def message(more: list[str], name: str) -> str:
        given = ["-m", "preprocessing", *arguments(str(folder), str(folder / name), events), *more]
        run = start_python(given, package="preprocessing", stderr=subprocess.PIPE, text=True)
        _, log = run.communicate(timeout=LIMIT_SECONDS)
        assert run.returncode == 1
        (line,) = [line for line in log.splitlines() if " ERROR preprocessing.cli: " in line]
        return line.partition(" ERROR preprocessing.cli: ")[2]

    found = message(options, "refused-there")
    assert reason in found
    assert found == message([], "refused-here")
