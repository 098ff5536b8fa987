"""`prepare` on Prism, Beam's portable runner in Go: the bytes and the messages are those of a run in process."""

import contextlib
import gzip
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam
import pytest

from tests.integration.test_beam_workers import ROOT, arguments, assert_same, end, finish, start
from tests.preprocessing.shop import small_shop
from tests.stores.ports import free_port, wait_for_port
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LIMIT_SECONDS = 600
MODULE = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{apache_beam.__version__}"
CACHE = Path.home() / ".cache" / "cartwheel" / f"prism-{apache_beam.__version__}"

WORKER_PYTHON = """#!{python}
import glob, os, sys, time

sys.path[0] = ""  # the current directory, as with -c
from preprocessing.beam.progress import ProgressCounter

add = ProgressCounter.add

def add_or_hang(self, amount):
    while os.path.exists("{switch}") and glob.glob(open("{switch}").read()):
        with open("{hanging}.partial", "w") as file:
            file.write(str(os.getpid()))
        os.replace(file.name, "{hanging}")
        time.sleep(0.1)
    add(self, amount)

ProgressCounter.add = add_or_hang
exec(sys.argv[2])
"""
"""A `python` for a pool, which starts its workers by this bare name with `-c PROGRAM`.

A worker hangs in its next progress update once a file matches the glob in the file `switch`.
"""


class Pool(NamedTuple):
    """A pool of worker processes; one of them can be made to hang."""

    options: list[str]
    """Beam options that run a job on Prism with these workers."""
    switch: Path
    """File for the glob. No worker hangs while it does not exist."""
    hanging: Path
    """File with the process id of the worker that hangs."""


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
def prism(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Beam options that run a job on Prism."""
    port, folder = free_port(), tmp_path_factory.mktemp("prism")
    command = [str(program), f"-job_port={port}", f"-web_port={free_port()}"]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(folder / "log", "w"))
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        stack.callback(server.wait)
        stack.callback(server.kill)
        wait_for_port(port)
        yield ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"]


@pytest.fixture(scope="module")
def loopback(prism: list[str]) -> list[str]:
    """Beam options that run a job on Prism, with workers in the process that starts the job."""
    return [*prism, "--environment_type=LOOPBACK"]


@contextlib.contextmanager
def start_pool(prism: list[str], option: str, folder: Path) -> Iterator[list[str]]:
    """Starts the worker pool of docs/operations.md whose command has `option`, -m or -c.

    The workers find `python` in `folder`. Yields Beam options that run a job on Prism with these workers.
    """
    port = str(free_port())
    (line,) = re.findall(f"^python {option} .*50000.*$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    command = [sys.executable, *shlex.split(line.replace("50000", port))[1:]]
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    with open(folder / "log", "w") as log:
        # in its own process group, so that its workers can be ended with it
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for_port(int(port))
            yield [*prism, "--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}"]
        finally:
            end(server)


@pytest.fixture(scope="module")
def threads(prism: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Beam options that run a job on Prism, with a pool of threads."""
    with start_pool(prism, "-c", tmp_path_factory.mktemp("threads")) as options:
        yield options


@pytest.fixture(scope="module")
def processes(prism: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    folder = tmp_path_factory.mktemp("processes")
    switch, hanging, python = folder / "switch", folder / "hanging", folder / "python"
    python.write_text(WORKER_PYTHON.format(python=sys.executable, switch=switch, hanging=hanging))
    python.chmod(0o755)
    with start_pool(prism, "-m", folder) as options:
        yield Pool(options, switch, hanging)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the inputs: events.csv, properties.csv, tree.csv, and two logs that `prepare` refuses."""
    folder = tmp_path_factory.mktemp("shop")
    small_shop(folder)
    events = (folder / "events.csv").read_text()
    (folder / "invalid.csv").write_text(events + "bad,row\n" * 50)
    (folder / "cut.csv.gz").write_bytes(gzip.compress(events.encode())[:200])
    return folder


@pytest.fixture(scope="module")
def here(folder: Path) -> str:
    """The dataset, prepared in process."""
    dataset = folder / "here" / "dataset"
    finish(start(arguments(str(folder), str(dataset))))
    return str(dataset)


def start_failing(given: list[str]) -> subprocess.Popen:
    """Starts `prepare`, and keeps its log for `message`."""
    return start_python(["-m", "preprocessing", *given], package="preprocessing", stderr=subprocess.PIPE, text=True)


def message(run: subprocess.Popen) -> str:
    """Waits until a `prepare` has failed, and returns its message of one line."""
    try:
        _, log = run.communicate(timeout=LIMIT_SECONDS)
    finally:
        run.kill()
    assert run.returncode == 1
    (line,) = [line for line in log.splitlines() if " ERROR preprocessing.cli: " in line]
    return line.partition(" ERROR preprocessing.cli: ")[2]


@pytest.mark.parametrize("workers", ["loopback", "threads"])
def test_prism_prepares_the_same_bytes(workers: str, folder: Path, here: str, request: pytest.FixtureRequest) -> None:
    there = folder / workers / "dataset"
    finish(start([*arguments(str(folder), str(there)), *request.getfixturevalue(workers)]))
    assert_same(str(there), here)


@pytest.mark.parametrize(
    ("events", "reason"), [("invalid.csv", "50 of 82 event rows are invalid"), ("cut.csv.gz", "cut.csv.gz")]
)
def test_prism_gives_the_same_message(events: str, reason: str, loopback: list[str], folder: Path) -> None:
    found = message(start_failing([*arguments(str(folder), str(folder / "refused-there"), events), *loopback]))
    assert reason in found
    assert found == message(start_failing(arguments(str(folder), str(folder / "refused-here"), events)))


def test_a_killed_worker_of_a_pool_fails_the_job_and_the_next_run_prepares_the_same_bytes(
    processes: Pool, folder: Path, here: str
) -> None:
    """Prism does not retry. The worker is killed after it has written timelines, before the graph ends."""
    output = folder / "pooled" / "dataset"
    given = [*arguments(str(folder), str(output)), *processes.options]
    processes.switch.write_text(str(output.parent / ".dataset.partial-*" / "intermediate" / "*" / "timelines-*.arrow"))
    run = start_failing(given)
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while not processes.hanging.exists():
            assert run.poll() is None, "it ended before its worker could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(int(processes.hanging.read_text()), signal.SIGKILL)
        found = message(run)
    finally:
        run.kill()
        processes.switch.unlink()
    assert "SDK worker disconnected" in found
    assert list(output.parent.iterdir()) == []
    finish(start(given))
    assert_same(str(output), here)
