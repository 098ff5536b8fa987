"""Tests that published outputs are complete although a bucket fails, and that the same command resumes."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from common.settings import apply_settings
from preprocessing.beam.job import parse_beam_options
from preprocessing.config import PrepareConfig
from preprocessing.pipeline import prepare
from tests.integration.processes import SMALL
from tests.preprocessing.shop import small_shop
from tests.stores.faulty_proxy import Fault, FaultyProxy, Plan, every, for_a_while, from_the_first, start_proxy
from tests.stores.servers import SECRET_KEY, SESSION_TOKEN, ObjectStore, start_store
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer.config.presets import PRESETS
from trainer.export import export
from trainer.recommend import recommend
from trainer.runs import checkpoint
from trainer.train import train

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG = apply_settings(
    PRESETS["mf"],
    [*SMALL, "epochs=4", "checkpoint_every_steps=4"],
)
LONG_PATIENCE = ("CARTWHEEL_STORAGE_PATIENCE_SECONDS", "900")
SHORT_PATIENCE = ("CARTWHEEL_STORAGE_PATIENCE_SECONDS", "1")
"""Environment variable that makes storage give up after a second. Tests set it only during a fault.

Otherwise, a slow request on a busy machine would fail instead of being retried.
"""
OUTAGE_REQUESTS = 40
"""Number of failed requests in an outage: more than a client sends before it raises an error."""
FAULTS = [Fault.INTERNAL_ERROR, Fault.RESET, Fault.CUT_REQUEST, Fault.LOST_ANSWER, Fault.OVERLOADED, Fault.CUT_ANSWER]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a run on the local disk."""
    folder = tmp_path_factory.mktemp("local")
    build_dataset(str(folder / "data"), **checkerboard(), num_shards=3, block_rows=20)
    train(CONFIG, data=str(folder / "data"), workdir=str(folder / "run"))
    return folder


@pytest.fixture(scope="module")
def store(local: Path) -> Iterator[ObjectStore]:
    """A bucket with the same dataset and run, and the small shop."""
    with start_store("s3") as running:
        for path in [path for path in local.rglob("*") if path.is_file()]:
            running.write(str(path.relative_to(local)), path.read_bytes())
        shop = local / "shop"
        shop.mkdir()
        for path in map(Path, small_shop(shop).values()):
            running.write(f"shop/{path.name}", path.read_bytes())
        yield running


@pytest.fixture
def proxy(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[FaultyProxy]:
    """Starts the proxy between jobs and bucket; afterwards, no log may contain a credential."""
    caplog.set_level(logging.DEBUG)
    with start_proxy(store.port) as running:
        for name, value in store.environment(running.port).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(*LONG_PATIENCE)
        yield running
        running.plan = lambda _: None
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert SECRET_KEY not in caplog.text
    assert SESSION_TOKEN not in caplog.text


def assert_tables_of(workdir: str, local: Path) -> None:
    found, expected = (checkpoint.read_weights(run, "last").tables for run in (workdir, str(local / "run")))
    for name, table in expected.items():
        np.testing.assert_array_equal(found[name], table, err_msg=name)


def assert_checkpoints_are_whole(store: ObjectStore, run: str) -> list[str]:
    """Verifies every complete checkpoint and returns their names."""
    names = store.list_files(f"{run}/checkpoints/")
    marked = [name.partition("/")[0] for name in names if name.endswith("/state.json")]
    for step in marked:
        files = json.loads(store.read(f"{run}/checkpoints/{step}/state.json"))["files"]
        for name, sha256 in files.items():
            assert hashlib.sha256(store.read(f"{run}/checkpoints/{step}/{name}")).hexdigest() == sha256
    return marked


def test_training_with_failing_requests_reaches_the_same_tables(
    store: ObjectStore, proxy: FaultyProxy, local: Path
) -> None:
    proxy.plan = every(6, FAULTS)
    train(CONFIG, data=f"{store.bucket}/data", workdir=f"{store.bucket}/disturbed")
    proxy.plan = lambda _: None
    assert_tables_of(f"{store.bucket}/disturbed", local)


def test_training_waits_during_a_network_outage(store: ObjectStore, proxy: FaultyProxy, local: Path) -> None:
    proxy.plan = for_a_while(
        OUTAGE_REQUESTS, lambda request: request.is_write and request.is_about("step-000000008"), Fault.RESET
    )
    train(CONFIG, data=f"{store.bucket}/data", workdir=f"{store.bucket}/paused")
    assert_tables_of(f"{store.bucket}/paused", local)


def test_a_run_that_failed_to_upload_a_checkpoint_resumes_from_the_previous_one(
    store: ObjectStore, proxy: FaultyProxy, local: Path
) -> None:
    proxy.plan = from_the_first(
        lambda request: request.is_write and request.is_about("step-000000008/dense"), Fault.FORBIDDEN
    )
    with pytest.raises(OSError, match="access is denied"):
        train(CONFIG, data=f"{store.bucket}/data", workdir=f"{store.bucket}/failed")
    assert assert_checkpoints_are_whole(store, "failed")[-1] < "step-000000008"

    proxy.plan = lambda _: None
    train(CONFIG, data=f"{store.bucket}/data", workdir=f"{store.bucket}/failed")
    assert assert_checkpoints_are_whole(store, "failed")
    assert_tables_of(f"{store.bucket}/failed", local)


def run_prepare(bucket: str, output: str) -> None:
    shop = {"events": "events.csv", "item_properties": "properties.csv", "category_tree": "tree.csv"}
    config = PrepareConfig(**{name: f"{bucket}/shop/{file}" for name, file in shop.items()})
    prepare(config, f"{bucket}/{output}", parse_beam_options([]))


def run_export(bucket: str, output: str) -> None:
    export(workdir=f"{bucket}/run", output=f"{bucket}/{output}", data=f"{bucket}/data")


def run_recommend(bucket: str, output: str) -> None:
    recommend(workdir=f"{bucket}/run", output=f"{bucket}/{output}", data=f"{bucket}/data", k=3)


@pytest.mark.parametrize(
    ("job", "first", "marker", "fault"),
    [
        (run_prepare, "timelines/", "manifest.json", Fault.INTERNAL_ERROR),
        (run_export, "variables/", "saved_model.pb", Fault.CUT_REQUEST),
        (run_recommend, "recommendations-", "recommendations.json", Fault.RESET),
        (run_recommend, "recommendations.json", "recommendations.json", Fault.FORBIDDEN),
    ],
)
def test_a_failed_upload_publishes_nothing_and_the_same_command_succeeds_later(
    store: ObjectStore,
    proxy: FaultyProxy,
    job: Callable[[str, str], None],
    first: str,
    marker: str,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = f"{job.__name__}-{fault}"
    monkeypatch.setenv(*SHORT_PATIENCE)
    proxy.plan = from_the_first(lambda request: request.is_write and request.is_about(f"{output}/{first}"), fault)
    with pytest.raises(OSError, match=rf"{store.bucket}/{output}/.* failed"):
        job(store.bucket, output)
    assert marker not in store.list_files(f"{output}/")

    monkeypatch.setenv(*LONG_PATIENCE)
    proxy.plan = lambda _: None
    job(store.bucket, output)
    assert marker in store.list_files(f"{output}/")
    assert "_unfinished" not in store.list_files(f"{output}/")


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (every(1, [Fault.WRONG_KEY]), "access is denied; check the credentials"),
        (lambda request: Fault.FORBIDDEN if request.is_write else None, "allow list, read, write and delete"),
    ],
    ids=["wrong", "may only read"],
)
def test_insufficient_credentials_end_training_before_its_first_step(
    store: ObjectStore, proxy: FaultyProxy, plan: Plan, told: str
) -> None:
    proxy.plan = plan
    with pytest.raises(PermissionError, match=told):
        train(CONFIG, data=f"{store.bucket}/data", workdir=f"{store.bucket}/refused")
    assert store.list_files("refused/") == []
