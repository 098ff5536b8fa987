"""Runs the images of the real Dockerfile, hardened like pods, from an event log in a bucket to a model.

They handle SIGTERM as on a preempted machine.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tensorflow as tf

from tests.integration.containers import COMMIT, Images, open_images
from tests.preprocessing.shop import START_MS
from tests.stores.servers import ObjectStore, start_store
from tests.trainer.dataset_builder import checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.container, pytest.mark.slow]

SETTINGS = [
    "input.batch_size=64",
    "model.dim=8",
    "steps_per_execution=2",
    "epochs=40",
    "checkpoint_every_steps=4",
    "patience=none",
]
NAME = f"cartwheel-test-{os.getpid()}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    with open_images(tmp_path_factory.mktemp("base") / "root") as opened:
        yield opened


@pytest.fixture(scope="module")
def preprocessing(images: Images) -> str:
    return images.build("preprocessing")


@pytest.fixture(scope="module")
def trainer(images: Images) -> str:
    return images.build("trainer")


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with start_store("s3") as running:
        yield running


def events_csv() -> bytes:
    """Returns the checkerboard as an event log.

    Training starts at START_MS, validation one second later, and the test window another second later.
    """
    splits = checkerboard()
    rows = sorted(
        (row for name in ("train", "validation", "test") for row in splits[name]), key=lambda row: row.timestamp_ms
    )
    lines = [f"{START_MS + row.timestamp_ms},{row.visitor},{row.kind},{row.item}," for row in rows]
    return "\n".join(["timestamp,visitorid,event,itemid,transactionid", *lines, ""]).encode()


@pytest.mark.parametrize("target", ["preprocessing", "trainer"])
def test_an_image_has_labels_and_runs_unprivileged_on_read_only_files(
    target: str, images: Images, request: pytest.FixtureRequest
) -> None:
    image = request.getfixturevalue(target)
    assert images.inspect(image, '{{index .Labels "org.opencontainers.image.revision"}}') == COMMIT
    assert images.inspect(image, "{{json .Config.Entrypoint}}") == f'["python","-m","{target}"]'
    assert images.run(image, "--version").strip().endswith(f"+g{COMMIT}")
    write = "import os, pathlib; print(os.getuid()); pathlib.Path('/opt/cartwheel/new').write_text('')"
    python = images.start(image, "-c", write, options=("--entrypoint=python",))
    output, log = python.communicate(timeout=1800)
    assert (output, "Read-only file system" in log) == ("10001\n", True)


def test_an_image_contains_the_packages_and_nothing_else_of_the_clone(images: Images, trainer: str) -> None:
    code = (
        "import pathlib, contract; print(*sorted(p.name for p in pathlib.Path(contract.__file__).parents[1].glob('*')))"
    )
    found = set(images.run(trainer, "-c", code, options=("--entrypoint=python",)).split())
    assert {"contract", "preprocessing", "trainer"} <= found
    assert not {"tests", "benchmarks", "k8s", "docs", ".git", "data"} & found


def test_the_image_enables_huge_pages_if_the_system_supports_them(images: Images, trainer: str) -> None:
    findings = json.loads(images.run(trainer, "doctor", "--json"))["findings"]
    (found,) = [finding["found"] for finding in findings if finding["check"] == "huge pages"]
    assert found != "not enabled"


def test_an_event_log_in_a_bucket_becomes_a_model_despite_a_stop(
    images: Images, preprocessing: str, trainer: str, store: ObjectStore, tmp_path: Path
) -> None:
    pods = replace(images, environment=store.environment())
    dataset, run, model = (f"{store.bucket}/{name}" for name in ("dataset", "run", "models/cartwheel/1"))
    store.write("events.csv", events_csv())
    cuts = ["--validation-from", str(START_MS + 1_000), "--test-from", str(START_MS + 2_000)]
    pods.run(preprocessing, "prepare", "--events", f"{store.bucket}/events.csv", "--output", dataset, *cuts)

    train = ["train", "--preset", "mf", "--data", dataset, "--workdir", run, "--set", *SETTINGS]
    process = pods.start(trainer, *train, options=(f"--name={NAME}",))
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "epoch 3:" in line:
            break
    pods.stop(NAME)
    _, log = process.communicate(timeout=1800)
    assert process.returncode == 75, "".join(seen) + log
    result = json.loads(pods.run(trainer, *train, "--json"))
    assert (result["workdir"], result["epochs"]) == (run, 40)
    first = json.loads(store.read("run/metrics.jsonl").splitlines()[0])
    assert first["step"] < result["steps"]  # steps before the stop are kept

    pods.run(trainer, "evaluate", "--workdir", run)
    pods.run(trainer, "export", "--workdir", run, "--output", model)
    for name in store.list_files("models/cartwheel/1/"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(f"models/cartwheel/1/{name}"))
    recommend = tf.saved_model.load(str(tmp_path)).signatures["recommend"]
    visitor = checkerboard()["train"][0].visitor
    answer = recommend(
        visitor_id=tf.constant([visitor]),
        history=tf.constant([[""]]),
        k=tf.constant([3]),
        exclude_seen=tf.constant([False]),
    )
    assert answer["item_id"].shape == (1, 3)
