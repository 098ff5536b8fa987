"""`prepare` on workers of their own: Beam's job service, a pool of worker processes, the project installed as a wheel.

The workers run in an environment that has the wheel and not this folder; they share nothing with the program that
starts the job but the files. And what must hold wherever it runs: memory, uneven data, kills.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from common import storage
from common.storage.paths import join
from contract.manifest import read_manifest, verify_files
from contract.schema import Split
from contract.timelines import parse_block
from preprocessing import pipeline
from preprocessing.config import PrepareConfig, SplitConfig
from tests.preprocessing.shop import DAY_MS, HEADER, START_MS, small_shop
from tests.stores.ports import free_port, wait_for_port
from tests.stores.servers import ObjectStore, start_store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 600
MIB = 1 << 20
SETTINGS = {"partition_bytes": MIB, "block_rows": 256}
NUM_ITEMS = 5000
HOUR_MS = 3_600_000
NUM_GRAPHS = 6  # that have workers of their own; TF-Transform's is fitted where the job was started


@dataclass
class Workers:
    """A job service and a pool of workers; `peaks` has the most memory that each worker process took, in MiB."""

    job_port: int
    pool_port: int
    peaks: dict[int, float] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Beam's options that send a job here."""
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{self.job_port}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{self.pool_port}",
        ]


class Made(NamedTuple):
    """A dataset that workers made, and the most that one of them took, in MiB."""

    dataset: str
    peak: float


@pytest.fixture(scope="module")
def worker_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this project's wheel, and of the other packages those that are installed here."""
    folder = tmp_path_factory.mktemp("workers")
    source = folder / "source"
    for package in ("contract", "preprocessing", "trainer"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL, timeout=LIMIT_SECONDS)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment)}))
    (wheel,) = folder.glob("cartwheel-*.whl")
    shutil.unpack_archive(wheel, site, "zip")  # all that installing a wheel without programs is
    # a path file adds the folder alone: not what the path files in it would add, this project's own sources
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with start_store("s3") as running:
        yield running


@pytest.fixture(scope="module")
def workers(worker_python: Path, store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("servers")
    started = Workers(free_port(), free_port())
    # the pool starts its workers by the bare name `python`
    path = f"{worker_python.parent}{os.pathsep}{os.environ['PATH']}"
    # of memory that is let go the allocators keep some, one time more and another less: it would blur what is held
    allocators = {"MALLOC_MMAP_THRESHOLD_": "131072", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    environment = os.environ | store.environment() | allocators | {"PATH": path}
    modules = {
        "apache_beam.runners.portability.local_job_service_main": f"--port={started.job_port}",
        "apache_beam.runners.worker.worker_pool_main": f"--service_port={started.pool_port}",
    }
    with contextlib.ExitStack() as stack:
        servers = []
        for module, port in modules.items():
            log = stack.enter_context(open(folder / f"{module}.log", "w"))
            command = [str(worker_python), "-m", module, port]
            # in a group of its own: what it starts ends with it
            servers.append(
                subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
            stack.callback(_end, servers[-1])
        for port in (started.job_port, started.pool_port):
            wait_for_port(port)
        is_over = threading.Event()
        watching = threading.Thread(target=_watch, args=(servers[-1].pid, started.peaks, is_over))
        watching.start()
        stack.callback(watching.join)
        stack.callback(is_over.set)
        yield started


def _end(server: subprocess.Popen) -> None:
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _watch(pool: int, peaks: dict[int, float], is_over: threading.Event) -> None:
    """Keeps the peaks of the pool's worker processes while they run."""
    while not is_over.wait(0.05):
        # a process has its children by the thread that started them
        for children in Path(f"/proc/{pool}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # one that has just ended
                for worker in children.read_text().split():
                    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker}/status").read_text())
                    if found:
                        peaks[int(worker)] = int(found[1]) / 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the inputs lie: events.csv, tenfold.csv, properties.csv, tree.csv."""
    folder = tmp_path_factory.mktemp("shop")
    small_shop(folder)
    for name, visitors in (("events.csv", 20_000), ("tenfold.csv", 200_000)):
        write_log(folder / name, visitors)
    return folder


def write_log(path: Path, visitors: int, *more: str) -> None:
    """Five events of each visitor in 30 days, about 100 bytes each: a long id compresses to half of it at best.

    To the hour: of a million distinct times, from which cuts are chosen, a worker may hold some 100 MiB, but no more.
    """
    generator = np.random.default_rng(visitors)
    ids = [generator.bytes(32).hex() for _ in range(visitors)]
    rows = visitors * 5
    times = START_MS + np.sort(generator.integers(0, 30 * DAY_MS, rows)) // HOUR_MS * HOUR_MS
    columns = zip(times, generator.integers(0, visitors, rows), generator.integers(0, NUM_ITEMS, rows), strict=True)
    lines = [f"{when},{ids[visitor]},view,item-{item}," for when, visitor, item in columns]
    path.write_text("\n".join([HEADER, *lines, *more]) + "\n")


def arguments(base: str, output: str, events: str = "events.csv") -> list[str]:
    """Of the command that makes a dataset of a shop in a folder or bucket."""
    inputs = ["--events", join(base, events), "--item-properties", join(base, "properties.csv")]
    inputs += ["--category-tree", join(base, "tree.csv"), "--output", output]
    return ["prepare", *inputs, "--set", *(f"{name}={value}" for name, value in SETTINGS.items())]


def start(given: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "preprocessing", *given]
    return subprocess.Popen(command, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL)


def finish(process: subprocess.Popen) -> None:
    try:
        assert process.wait(LIMIT_SECONDS) == 0
    finally:
        process.kill()


def make(workers: Workers, folder: Path, name: str, events: str) -> Made:
    workers.peaks.clear()
    dataset = str(folder / name / "dataset")
    finish(start([*arguments(str(folder), dataset, events), *workers.options()]))
    assert len(workers.peaks) == NUM_GRAPHS, "a worker process for each graph"
    return Made(dataset, max(workers.peaks.values()))


def make_here(folder: Path, output: Path) -> str:
    """The dataset of events.csv, made in this process."""
    shop = {"events": "events", "item_properties": "properties", "category_tree": "tree"}
    inputs = {name: str(folder / f"{file}.csv") for name, file in shop.items()}
    pipeline.prepare(PrepareConfig(**inputs, **SETTINGS), str(output))
    return str(output)


@pytest.fixture(scope="module")
def here(folder: Path) -> str:
    return make_here(folder, folder / "here" / "dataset")


@pytest.fixture(scope="module")
def elsewhere(workers: Workers, folder: Path) -> Made:
    return make(workers, folder, "elsewhere", "events.csv")


@pytest.fixture(scope="module")
def tenfold(workers: Workers, folder: Path) -> Made:
    return make(workers, folder, "tenfold", "tenfold.csv")


def contents(dataset: str) -> dict[str, str]:
    """SHA-256 by name, but of the SavedModel, which TensorFlow never writes twice the same, and what tells of it."""
    written_anew = ("manifest.json", "report.html", "saved_model.pb", "fingerprint.pb")
    names = [name for name in storage.list_files(dataset) if not name.endswith(written_anew)]
    return {name: storage.sha256(join(dataset, name)) for name in names}


def assert_same(dataset: str, expected: str) -> None:
    verify_files(read_manifest(dataset), dataset)
    assert contents(dataset) == contents(expected)


def test_workers_have_the_wheel_and_not_this_folder(worker_python: Path, tmp_path: Path) -> None:
    command = [str(worker_python), "-c", "import preprocessing.beam.stages as stages; print(stages.__file__)"]
    found = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT_SECONDS)
    assert Path(found.stdout.strip()).is_relative_to(worker_python.parents[1])


def test_workers_elsewhere_make_the_same_bytes(elsewhere: Made, here: str) -> None:
    assert len(read_manifest(here).splits[Split.TRAIN].files) == 10  # 9.04 MiB
    assert_same(elsewhere.dataset, here)
    assert os.listdir(os.path.dirname(elsewhere.dataset)) == ["dataset"]


def test_ten_times_the_data_takes_a_worker_no_more_memory(elsewhere: Made, tenfold: Made, folder: Path) -> None:
    """Partitions of the same size, ten times as many: the peak may grow by a quarter of what the input does."""
    sizes = [os.path.getsize(folder / name) / MIB for name in ("events.csv", "tenfold.csv")]
    assert len(read_manifest(tenfold.dataset).splits[Split.TRAIN].files) == np.ceil(sizes[1])
    assert tenfold.peak - elsewhere.peak < (sizes[1] - sizes[0]) / 4


def test_workers_elsewhere_make_the_same_bytes_in_an_object_store(
    workers: Workers, store: ObjectStore, folder: Path, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs and output lie in a bucket, where a job that was killed has left something."""
    for name in ("events.csv", "properties.csv", "tree.csv"):
        store.write(name, (folder / name).read_bytes())
    for name in ("_unfinished", "intermediate/0/timelines-00000.arrow", "timelines/train-00000-of-00001.tfrecord"):
        store.write(f"data/{name}", b"of the killed one")
    finish(start([*arguments(store.bucket, f"{store.bucket}/data"), *workers.options()], store.environment()))
    for name, value in store.environment().items():
        monkeypatch.setenv(name, value)
    assert_same(f"{store.bucket}/data", here)
    assert store.list_files("data/") == sorted([*storage.list_files(here), "report.html"])


def test_a_visitor_and_an_item_with_half_of_all_events_break_nothing(tmp_path: Path) -> None:
    hot = [f"{START_MS + 200 * n},hot,view,item-{n % NUM_ITEMS}," for n in range(120_000)]
    asked_for = [f"{START_MS + n},visitor-{n},view,hot," for n in range(140_000)]
    events = tmp_path / "events.csv"
    events.write_text("\n".join([HEADER, *hot, *asked_for]) + "\n")
    dataset = str(tmp_path / "dataset")
    config = PrepareConfig(
        events=str(events), split=SplitConfig(method="none"), max_events_per_day=1_000_000, **SETTINGS
    )
    pipeline.prepare(config, dataset)
    train = read_manifest(dataset).splits[Split.TRAIN]
    assert (train.rows, train.target_rows, train.visitors) == (260_000, 260_000, 140_001)
    records = tf.data.TFRecordDataset([join(dataset, name) for name in train.files])
    blocks = [{name: column.numpy() for name, column in parse_block(record).items()} for record in records]
    assert sum(np.sum(block["item"] == 0) for block in blocks) == 140_000, "the most frequent item has index 0"
    (whole,) = [block for block in blocks if 0 in block["visitor"]]  # and the most frequent visitor
    timeline = whole["visitor"] == 0
    assert whole["position"][timeline].tolist() == [*range(120_000)]
    assert whole["timestamp_ms"][timeline].tolist() == [START_MS + 200 * n for n in range(120_000)]


@pytest.mark.parametrize("graph", ["timelines-*.arrow", "items-*.arrow"])
def test_a_run_killed_in_a_graph_is_begun_anew_to_the_same_bytes(
    graph: str, folder: Path, here: str, tmp_path: Path
) -> None:
    """Killed while events are read, and while shards are written beside the catalogue."""
    output = tmp_path / "dataset"
    run = start(arguments(str(folder), str(output)))
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while not list(tmp_path.glob(f".dataset.partial-*/intermediate/*/{graph}")):
            assert run.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        run.kill()
    assert run.wait(LIMIT_SECONDS) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".dataset.partial-")
    assert_same(make_here(folder, output), here)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
