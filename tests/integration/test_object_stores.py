"""Runs all commands in a bucket: prepare, train, SIGKILL, resume, evaluate, export, recommend, load.

Every process has planted credentials in its environment and logs at the lowest level.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.integration.processes import END_SECONDS, SMALL, slow_from
from tests.preprocessing.shop import START_MS
from tests.stores.servers import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, ObjectStore, start_store
from tests.trainer.dataset_builder import checkerboard
from tests.warm_python import start_python
from trainer.runs import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SETTINGS = [*SMALL, "epochs=8", "checkpoint_every_steps=4"]
PLANTED = [ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, "planted-private-key"]


@dataclass
class Shell:
    """Runs commands in separate processes and keeps their output."""

    folder: Path
    environment: dict[str, str]
    said: str = ""

    def start(self, program: str, *arguments: str, code: Sequence[str] = ()) -> subprocess.Popen:
        """Starts a program. Runs `python -m PROGRAM` or, if `code` is given, Python with the arguments `code`."""
        (self.folder / "scratch").mkdir(exist_ok=True)
        key = self.folder / "key.json"
        key.write_text(json.dumps({"private_key": PLANTED[-1]}))
        planted = {"GOOGLE_APPLICATION_CREDENTIALS": str(key), "TMPDIR": str(self.folder / "scratch")}
        return start_python(
            [*(code or ("-m", program)), *arguments, "--verbose"],
            package=program,
            env=os.environ | self.environment | planted,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen, status: int = 0) -> str:
        """Waits for a command and returns its standard output."""
        printed, logged = process.communicate(timeout=END_SECONDS)
        self.said += printed + logged
        assert process.returncode == status, logged[-5000:]
        return printed

    def kill_at(self, process: subprocess.Popen, text: str) -> None:
        """Sends SIGKILL as soon as a line with `text` is logged."""
        assert process.stderr is not None
        for line in process.stderr:
            self.said += line
            if text in line:
                process.send_signal(signal.SIGKILL)
                self.finish(process, -signal.SIGKILL)
                return
        raise AssertionError(self.said[-5000:])


def events_csv() -> bytes:
    """Returns the checkerboard as an event log.

    Training starts at START_MS, validation one second later, and the test window another second later.
    """
    splits = checkerboard()
    rows = [row for name in ("train", "validation", "test") for row in splits[name]]
    rows.sort(key=lambda row: row.timestamp_ms)
    lines = [f"{START_MS + row.timestamp_ms},{row.visitor},{row.kind},{row.item}," for row in rows]
    return "\n".join(["timestamp,visitorid,event,itemid,transactionid", *lines, ""]).encode()


def prepare(shell: Shell, base: str) -> None:
    cuts = ["--validation-from", str(START_MS + 1_000), "--test-from", str(START_MS + 2_000)]
    command = shell.start(
        "preprocessing", "prepare", "--events", f"{base}/events.csv", *cuts, "--output", f"{base}/data"
    )
    shell.finish(command)


def train(shell: Shell, base: str, workdir: str, code: Sequence[str] = ()) -> subprocess.Popen:
    data = ["--data", f"{base}/data", "--workdir", workdir]
    return shell.start("trainer", "train", "--preset", "mf", *data, "--set", *SETTINGS, code=code)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset, run, export and recommendations on the local disk, undisturbed."""
    folder = tmp_path_factory.mktemp("local")
    shell = Shell(folder, {})
    (folder / "events.csv").write_bytes(events_csv())
    prepare(shell, str(folder))
    shell.finish(train(shell, str(folder), str(folder / "run")))
    run = ["--workdir", str(folder / "run"), "--output"]
    export = shell.start("trainer", "export", *run, str(folder / "export"))
    shell.finish(shell.start("trainer", "recommend", *run, str(folder / "lists"), "--k", "3"))
    shell.finish(export)
    return folder


@dataclass
class BucketRun:
    """A bucket after all commands have run, and their results."""

    store: ObjectStore
    shell: Shell
    killed_at: list[str]
    """Names of the run's objects after the SIGKILL."""
    printed: dict[str, str]
    """Results by command."""


@pytest.fixture(scope="module", params=["s3", "gs"])
def bucket_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketRun]:
    with start_store(request.param) as store:
        shell, base = Shell(tmp_path_factory.mktemp(request.param), store.environment()), store.bucket
        store.write("events.csv", events_csv())
        prepare(shell, base)
        shell.kill_at(train(shell, base, f"{base}/run", code=slow_from(20)), "epoch 3:")
        killed_at = store.list_files("run/")
        shell.finish(train(shell, base, f"{base}/run"))
        run = ["--workdir", f"{base}/run"]
        jobs = {
            "evaluate": shell.start("trainer", "evaluate", *run, "--json"),
            "export": shell.start("trainer", "export", *run, "--output", f"{base}/export/1"),
            "recommend": shell.start("trainer", "recommend", *run, "--output", f"{base}/lists", "--k", "3"),
        }
        mistaken = train(shell, base, f"{request.param}://mistaken/run")
        careless = train(shell, base, f"{request.param}://{ACCESS_KEY}:{SECRET_KEY}@shop/run")
        printed = {name: shell.finish(job) for name, job in jobs.items()}
        shell.finish(mistaken, status=1)
        shell.finish(careless, status=2)
        yield BucketRun(store, shell, killed_at, printed)


def test_prepare_publishes_the_same_files_as_on_a_disk(bucket_run: BucketRun, local: Path) -> None:
    here, there = (local / "data" / "manifest.json").read_bytes(), bucket_run.store.read("data/manifest.json")
    files, expected = json.loads(there)["files"], json.loads(here)["files"]
    # TensorFlow serialises the same SavedModel differently each time
    same = [name for name in expected if "saved_model.pb" not in name and "fingerprint.pb" not in name]
    assert {name: files[name] for name in same} == {name: expected[name] for name in same}
    on_disk = [path for path in (local / "data").rglob("*") if path.is_file()]
    assert bucket_run.store.list_files("data/") == sorted(str(path.relative_to(local / "data")) for path in on_disk)


def test_a_killed_run_resumes_to_the_tables_of_one_on_a_disk(
    bucket_run: BucketRun, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(name.endswith("state.json") for name in bucket_run.killed_at), "it was killed after a checkpoint"
    assert "resuming from the checkpoint" in bucket_run.shell.said
    for name, value in bucket_run.store.environment().items():
        monkeypatch.setenv(name, value)
    found, expected = (
        checkpoint.read_weights(run, "last") for run in (f"{bucket_run.store.bucket}/run", str(local / "run"))
    )
    for name, table in expected.tables.items():
        np.testing.assert_array_equal(found.tables[name], table, err_msg=name)


def test_recommendations_and_evaluation_equal_those_on_a_disk(bucket_run: BucketRun, local: Path) -> None:
    on_disk = {path.name: path.read_bytes() for path in (local / "lists").iterdir()}
    assert bucket_run.store.list_files("lists/") == sorted(on_disk)
    del on_disk["recommendations.json"]  # contains its own paths
    assert {name: bucket_run.store.read(f"lists/{name}") for name in on_disk} == on_disk
    assert json.loads(bucket_run.store.read("run/evaluation-test.json")) == json.loads(bucket_run.printed["evaluate"])


def test_the_exported_model_answers_like_one_on_a_disk(bucket_run: BucketRun, local: Path, tmp_path: Path) -> None:
    for name in bucket_run.store.list_files("export/1/"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bucket_run.store.read(f"export/1/{name}"))
    found, expected = (
        tf.saved_model.load(str(folder)).signatures["recommend"](
            visitor_id=tf.constant(["v0", "v1", "stranger"]),
            history=tf.constant([["i0", "i2"], ["i1", ""], ["i3", "i5"]]),
            k=tf.constant([4]),
            exclude_seen=tf.constant([True]),
        )
        for folder in (tmp_path, local / "export")
    )
    np.testing.assert_array_equal(found["item_id"], expected["item_id"])
    np.testing.assert_array_equal(found["score"], expected["score"])


def test_nothing_unfinished_is_left(bucket_run: BucketRun) -> None:
    assert not [name for name in bucket_run.store.list_files() if "_unfinished" in name or ".writable" in name]
    assert not [name for name in os.listdir(bucket_run.shell.folder / "scratch") if "cartwheel" in name]


def test_planted_credentials_are_in_no_log_and_no_file(bucket_run: BucketRun) -> None:
    assert re.search("mistaken.* does not exist", bucket_run.shell.said)
    assert "may contain a credential" in bucket_run.shell.said
    contents = {name: bucket_run.store.read(name) for name in bucket_run.store.list_files()}
    assert {"run/run.json", "data/manifest.json", "export/1/saved_model.pb"} <= set(contents)
    for secret in PLANTED:
        assert secret not in bucket_run.shell.said
        assert [name for name, content in contents.items() if secret.encode() in content] == []
