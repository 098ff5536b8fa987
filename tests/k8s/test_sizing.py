"""The formulas of memory and disk, their examples in docs/operations.md, and the manifests that follow from them."""

import pytest

from common.settings import apply_settings
from k8s.rendering import TMP_GIB
from k8s.sizing import (
    ModelSize,
    evaluate_memory,
    evaluate_tmp,
    gpu_memory,
    prepare_memory,
    shared_memory,
    train_memory,
    train_tmp,
    whole,
)
from k8s.step_sizes import VocabularySizes, largest_config, model_size, parse_vocabulary
from tests.k8s.rendering import K8S, ROOT, Object, containers_of, pod_spec, yaml
from tests.k8s.scenarios import TRAIN, Cluster
from trainer.config.presets import PRESETS
from trainer.config.search import parse_search

VISITORS, ITEMS = 10_000_000, 1_000_000
FLAG = ["--vocabulary", "10M,1M"]
MF = ModelSize(table_rows=ITEMS, ranked_rows=VISITORS + ITEMS, dim=128)
TABLE = ModelSize(table_rows=VISITORS + ITEMS, ranked_rows=VISITORS + ITEMS, dim=128)
"""The size of `mf`, and with `model.history_length=0`."""


def size_of(preset: str, *settings: str) -> ModelSize | None:
    config = largest_config(PRESETS[preset], parse_search(settings, PRESETS[preset]) if settings else [])
    return model_size(config, VocabularySizes(VISITORS, ITEMS))


def documented() -> dict[str, list[str]]:
    """Returns both examples of each row in the table of docs/operations.md."""
    _, _, section = (ROOT / "docs" / "operations.md").read_text().partition("### Sizing\n")
    rows = [line.strip("| ").split(" | ") for line in section.partition("\n### ")[0].splitlines() if line[:1] == "|"]
    return {name: examples for name, _, *examples in rows[2:]}


def test_the_formulas_equal_numbers_worked_by_hand() -> None:
    # tables: 1 M × 129 × 4 × 2 bytes; vectors: 11 M × 129 × 4 bytes
    assert (MF.tables, MF.vectors) == pytest.approx((0.9611, 5.2862), abs=1e-4)
    # 0.05 × 0.9611 + 0.9611 + 5.2862 + 4; with one GPU 2 instead of 0.9611
    assert train_memory(MF, gpus=0, nodes=1) == pytest.approx(10.2954, abs=1e-3)
    assert train_memory(MF, gpus=1, nodes=1) == pytest.approx(11.3343, abs=1e-3)
    # four GPUs on each of two machines: 0.05 × 10.5724 / 2 + 2 × 4 + 5.2862 + 4
    assert train_memory(TABLE, gpus=4, nodes=2) == pytest.approx(17.5505, abs=1e-3)
    assert train_tmp(MF, cache=4) == pytest.approx(5.2862 + 0.9611, abs=1e-3)
    assert (whole(10.2954), whole(10.0)) == (11, 10)


def test_the_examples_of_the_operations_page_equal_the_formulas() -> None:
    def row(first: float, second: float, digits: int = 1) -> list[str]:
        return [f"{first:.{digits}f}", f"{second:.{digits}f}"]

    sizes = (MF, TABLE)
    one, four = ([f"{gpu_memory(size, replicas=replicas):.1f}" for size in sizes] for replicas in (1, 4))
    with_gpu = (f"{train_memory(size, gpus=1, nodes=1):.1f} with one" for size in sizes)
    prepare = prepare_memory(VISITORS, ITEMS)
    found = documented()
    found.pop("`prepare`: `/tmp` or the volume")  # follows from the CSV files
    assert found == {
        "`prepare`: memory": row(prepare, prepare),
        "tables": row(MF.tables, TABLE.tables),
        "vectors": row(MF.vectors, TABLE.vectors),
        "`train`: memory of a GPU": [f"{one[0]} with one, {four[0]} with four", f"{one[1]}, {four[1]}"],
        "`train`: memory of a machine without GPUs": row(*(train_memory(size, gpus=0, nodes=1) for size in sizes)),
        "`train`: memory of a machine with GPUs": list(with_gpu),
        "`/dev/shm`": [str(shared_memory(1))] * 2,
        "`train`: `/tmp` with a bucket": row(*map(train_tmp, sizes), digits=0),
        "workdir": [f"{3 * MF.tables:.1f}", f"{3 * TABLE.tables:.0f}"],
        "`evaluate-export`: memory": row(*map(evaluate_memory, sizes)),
        "`evaluate-export`: `/tmp` with a bucket": row(*map(evaluate_tmp, sizes), digits=0),
    }


def test_the_size_of_a_model_follows_from_its_config() -> None:
    assert size_of("mf") == MF
    assert size_of("nn") == ModelSize(table_rows=ITEMS, ranked_rows=ITEMS, dim=128)
    # a search: the largest table of its trials
    assert size_of("mf", "model.history_length=12,0", "optimizer.learning_rate=0.1,0.2") == TABLE
    assert size_of("nn", "model.dim=32..256") == ModelSize(table_rows=ITEMS, ranked_rows=ITEMS, dim=256)
    adam = ModelSize(table_rows=VISITORS + ITEMS, ranked_rows=VISITORS + ITEMS, dim=5, arrays_per_table=3)
    assert size_of("notebook-mf") == size_of("notebook-nn") == adam
    towers = apply_settings(PRESETS["nn"], ["model.visitor_min_events=5"])
    assert model_size(towers, VocabularySizes(VISITORS, ITEMS)) == TABLE
    # computed from counts
    assert [size_of(preset) for preset in ("walk", "session_knn", "ease")] == [None] * 3


def test_numbers_of_visitors_and_items_may_have_units() -> None:
    assert parse_vocabulary("10M,1m") == parse_vocabulary("10000000,1000k") == (VISITORS, ITEMS)
    assert parse_vocabulary("1.5B,0.5k") == (1_500_000_000, 500)


def submitted(cluster: Cluster, *arguments: str) -> dict[str, tuple[set[str], str, str]]:
    """Returns the memory, `/dev/shm` and `/tmp` of each Job of a dry run."""
    status, manifests, errors = cluster.submit(*arguments, "--dry-run")
    assert status == 0, errors
    jobs: list[Object] = [value for value in yaml.safe_load_all(manifests) if value and value["kind"] == "Job"]
    found = {}
    for job in jobs:
        limits = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in pod_spec(job)["volumes"]}
        memory = {
            container["resources"][kind]["memory"]
            for container in containers_of(job)
            for kind in ("requests", "limits")
        }
        found[job["metadata"]["name"]] = (memory, limits["shared-memory"], limits["tmp"])
    return found


PIPELINE = ["pipeline", "--events", "gs://shop/e.csv", *TRAIN[1:], "--output", "gs://shop/model"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*TRAIN, "--gpus", "0"], {"train": ({"8Gi"}, "1Gi", "50Gi")}),
        ([*TRAIN, *FLAG, "--gpus", "0"], {"train": ({"11Gi"}, "1Gi", "50Gi")}),
        ([*TRAIN, *FLAG], {"train": ({"12Gi"}, "1Gi", "50Gi")}),
        # 17.6 is below 8 per GPU
        ([*TRAIN, *FLAG, "--gpus", "4", "--set", "model.history_length=0"], {"train": ({"32Gi"}, "4Gi", "50Gi")}),
        ([*TRAIN, *FLAG, "--gpus", "0", "--memory", "9Gi"], {"train": ({"9Gi"}, "1Gi", "50Gi")}),
        # 100 M visitors with a table of 257 columns: 193.4 of tables, half of it in vectors;
        # 1.05 × 193.4 + 96.7 + 4 and, in the cache and for a checkpoint, 96.7 + 193.4
        (
            [*TRAIN, "--vocabulary", "100M,1M", "--gpus", "0", "--set", "model.history_length=0", "model.dim=256"],
            {"train": ({"304Gi"}, "1Gi", "291Gi")},
        ),
        # 5.5, 11.3 and 9.3
        (
            [*PIPELINE, *FLAG],
            {
                "prepare": ({"8Gi"}, "1Gi", "50Gi"),
                "train": ({"12Gi"}, "1Gi", "50Gi"),
                "evaluate-export": ({"10Gi"}, "1Gi", "50Gi"),
            },
        ),
        # 2 + 30 + 0.5; 101 M vectors of 129 columns take 48.5: 0.05 × 0.96 + 48.5 + 4 + 2, 48.5 + 0.96; 48.5 + 4
        (
            [*PIPELINE, "--vocabulary", "100M,1M"],
            {
                "prepare": ({"33Gi"}, "1Gi", "50Gi"),
                "train": ({"55Gi"}, "1Gi", "50Gi"),
                "evaluate-export": ({"53Gi"}, "1Gi", "98Gi"),
            },
        ),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_a_dry_run_has_the_sizes_of_the_formulas(
    arguments: list[str], expected: dict[str, tuple[set[str], str, str]], cluster: Cluster
) -> None:
    assert submitted(cluster, *arguments) == expected


def test_a_search_gets_the_size_of_its_largest_trial_and_a_volume_needs_no_tmp(cluster: Cluster) -> None:
    arguments = ["tune", *TRAIN[1:3], "--data", "/data/dataset", "--workdir", "/data/tune"]
    sizes = submitted(cluster, *arguments, "--vocabulary", "100M,1M", "--search", "model.dim=64,256")
    # 1 M × 257 × 8 bytes of tables, 1.91; 101 M × 257 × 4 bytes of vectors, 96.7: 1.05 × 1.91 + 96.7 + 4
    assert sizes == {"tune": ({"103Gi"}, "1Gi", "50Gi")}


def test_the_cache_of_training_is_part_of_its_tmp(cluster: Cluster) -> None:
    # 64 of cache + 0.96 of tables
    sizes = submitted(cluster, *TRAIN, *FLAG, "--env", f"CARTWHEEL_CACHE_BYTES={64 * 2**30}")
    assert sizes == {"train": ({"12Gi"}, "1Gi", "65Gi")}


def test_the_limit_of_tmp_in_the_base_is_the_least() -> None:
    volumes = pod_spec(yaml.safe_load((K8S / "base" / "every-job.yaml").read_text()))["volumes"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_GIB}Gi"}} in volumes
