"""The checks of `doctor --gpu`, on logical CPUs and with made-up results."""

import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from trainer.data.dataset import open_dataset
from trainer.distributed import gpus
from trainer.doctor import __main__ as program
from trainer.doctor import placement, runs, speed, steps
from trainer.doctor.bench import Bench, Steps
from trainer.doctor.devices import check_devices
from trainer.doctor.findings import Result, State
from trainer.doctor.plan import Kind
from trainer.doctor.shop import EVENTS, write_shop


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    write_shop(f"{folder}/dataset", visitors=100, items=50)
    return Bench(Kind.CPU, str(folder))


def test_the_shop_is_a_dataset_in_order_of_frequency(bench: Bench, tmp_path: Path) -> None:
    dataset = bench.dataset
    assert (dataset.num_visitors, dataset.num_items) == (100, 50)
    splits = dataset.manifest.splits
    assert [splits[split].target_rows for split in Split] == [100 * (EVENTS - 2), 100, 100]
    counts = dataset.item_counts
    assert counts.sum() == 100 * (EVENTS - 2)
    assert (np.diff(counts) <= 0).all()
    write_shop(f"{tmp_path}/again", visitors=100, items=50)
    assert open_dataset(f"{tmp_path}/again").checksum == dataset.checksum


def test_an_exception_becomes_a_failed_line_and_the_next_preset_is_checked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: Bench, preset: str) -> Result:
        if preset == "mf":
            raise tf.errors.InternalError(None, None, "no kernel image")
        return Result("fine")

    monkeypatch.setattr(program, "CHECKS", {"kernels": check})
    first, second = program.run_check("kernels", bench)
    assert (first.check, first.state, first.found) == ("kernels of mf", State.FAILED, "InternalError: no kernel image")
    assert (second.check, second.state, second.found) == ("kernels of nn", State.OK, "fine")


# devices


def test_a_machine_without_a_gpu_fails_with_the_reason_and_the_command_of_a_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "glob", lambda _: [])
    result = check_devices(Bench(Kind.GPU, str(tmp_path)), "")
    assert (result.state, result.found) == (State.FAILED, "no GPU: no NVIDIA device")
    assert "`cartwheel doctor --gpu --devices cpu`" in result.advice
    assert check_devices(Bench(Kind.CPU, str(tmp_path)), "").state == State.SKIPPED


def test_the_first_check_writes_the_dataset_of_all(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def write(root: str, *, visitors: int, items: int) -> None:
        written.append(f"{root} {visitors} {items}")
        shutil.copytree(bench.data, root, dirs_exist_ok=True)

    monkeypatch.setattr("trainer.doctor.bench.write_shop", write)
    (tmp_path / "dataset").mkdir()  # of a check that was killed while it wrote
    for _ in range(2):
        assert Bench(Kind.CPU, str(tmp_path)).dataset.num_items == 50
    assert written == [f"{tmp_path}/dataset 1000 500"]


# kernels


def test_all_operations_of_a_step_are_on_its_device(bench: Bench) -> None:
    result = placement.check_kernels(bench, "mf")
    assert result.state == State.OK
    assert int(result.found.split()[0]) > 200
    assert "operations on CPU:" in result.found


def test_a_recording_has_no_graphs_of_an_earlier_one(bench: Bench) -> None:
    placement.check_kernels(bench, "mf")
    steps.check_step(bench, "notebook-mf")
    negative, two = tf.function(tf.negative), tf.constant(2)
    graphs = placement.record_graphs(lambda: negative(two))
    assert {node.op for graph in graphs for node in graph.post_optimization_graph.node} == {"_Arg", "Neg", "_Retval"}


def test_an_operation_on_another_device_is_named() -> None:
    @tf.function(autograph=False)
    def step(ids: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:1"):
            doubled = tf.add(ids, ids, name="doubled")
        with tf.device("CPU:0"):
            return tf.unique(doubled, name="distinct").y

    nodes = placement.record_nodes(lambda: step(tf.constant([1, 1, 2])))
    result = placement.judge_placement(nodes, "CPU:1")
    assert result.state == State.FAILED
    assert "operations are not on CPU:1: Unique (distinct, on CPU:0)" in result.found


def test_a_missing_graph_does_not_pass() -> None:
    assert placement.judge_placement([], "GPU:0").state == State.FAILED


# steps


def test_a_step_equals_that_of_another_device(bench: Bench) -> None:
    result = steps.check_step(bench, "notebook-mf")
    assert result.state == State.OK
    assert "at most 0.0e+00 of their norm" in result.found


def changed(loss: float = 2.0, update: float = 1.0) -> Steps:
    """One step with the loss 2 and an update of three ones, unless changed."""
    rows = np.zeros((4, 3), np.float32)
    rows[2] = [update, 1, 1]
    return Steps(np.array([loss], np.float32), {"item.values": rows, "dense weights": np.zeros((2, 1))})


@pytest.mark.parametrize(
    ("found", "state", "text"),
    [
        (changed(), State.OK, "at most 0.0e+00 of their norm (in item.values, where 1 rows changed)"),
        (changed(loss=2.0001), State.OK, "loss 2.000100, 2.000000 on the CPU"),  # 5e-5
        (changed(loss=2.001), State.FAILED, "allowed: 1e-04 of the loss"),  # 5e-4
        (changed(update=1.1), State.FAILED, "5.8e-02 of their norm"),  # 0.1 / √3
        (changed(loss=float("nan")), State.FAILED, "loss nan"),
        (changed(update=float("nan")), State.FAILED, "at most inf"),
    ],
)
def test_a_wrong_loss_or_update_fails_with_the_figures(found: Steps, state: State, text: str) -> None:
    result = steps.judge_step(found, changed())
    assert result.state == state
    assert text in result.found
    assert bool(result.advice) == (state == State.FAILED)


def test_the_cpu_must_have_finite_results_too() -> None:
    assert steps.judge_step(changed(), changed(loss=float("nan"))).state == State.FAILED
    # the second array, because a comparison with NaN is never true
    found, expected = changed(), changed()
    expected.updates["dense weights"][1] = np.nan
    result = steps.judge_step(found, expected)
    assert result.state == State.FAILED
    assert "at most inf of their norm (in dense weights" in result.found


def test_a_mode_with_distant_or_infinite_losses_fails_with_its_name() -> None:
    expected = np.array([4.0, 2.0])
    losses = {"TensorFloat-32": expected, "bfloat16": expected * 1.01, "XLA": expected}
    assert steps.judge_precision(losses, expected).state == State.OK
    result = steps.judge_precision(losses | {"bfloat16": expected * 1.03}, expected)
    assert result.state == State.FAILED
    assert result.found.endswith("; allowed: 2e-02 with bfloat16")
    result = steps.judge_precision(losses | {"XLA": np.array([4.0, np.inf])}, expected)
    assert result.state == State.FAILED
    assert result.found.endswith("; allowed: 1e-02 with XLA")


def test_two_devices_train_as_one(bench: Bench) -> None:
    result = steps.check_replicas(bench, "notebook-mf")
    assert result.state == State.OK
    assert result.found.startswith("losses on 2 devices and on one differ by at most ")


def test_one_gpu_is_not_compared_with_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.__dict__, "count", 1)
    assert steps.check_replicas(bench, "mf") == ("there is only one GPU", State.SKIPPED, "")


def test_devices_that_train_differently_fail() -> None:
    result = steps.judge_replicas(np.array([4.0, 2.1]), np.array([4.0, 2.0]), 8)
    assert result.state == State.FAILED
    assert "losses on 8 devices and on one differ by at most 5.0e-02 in 2 steps" in result.found


# runs


@pytest.mark.parametrize(
    ("found", "resumed", "text"),
    [
        ({10: 3.0, 20: 2.0}, 10, None),
        ({10: 3.0, 20: 2.002}, 10, None),  # 1e-3
        ({10: 3.0, 20: 2.02}, 10, "losses differ by at most 1.0e-02; allowed: 2e-03"),
        ({10: 3.0, 20: math.nan}, 10, "losses differ by at most inf; allowed: 2e-03"),
        ({10: 3.0, 20: 2.0}, 0, "killed after step 10, but continued from step 0"),
        ({20: 2.0}, 10, "the resumed run has 1 losses, the uninterrupted one 2"),
    ],
)
def test_a_resumed_run_must_resume_and_equal_the_uninterrupted_one(
    found: dict[int, float], resumed: int, text: str | None
) -> None:
    result = runs.judge_resume(found, {10: 3.0, 20: 2.0}, resumed, killed=10)
    assert result.state == (State.OK if text is None else State.FAILED)
    assert text is None or text in result.found


def test_an_uninterrupted_run_without_a_finite_loss_does_not_pass() -> None:
    losses = {10: 3.0, 20: math.nan}
    result = runs.judge_resume(losses, losses, resumed=10, killed=10)
    assert result.state == State.FAILED
    assert "losses differ by at most inf" in result.found


def start(code: str, workdir: Path) -> subprocess.Popen[bytes]:
    with open(f"{workdir}.log", "wb") as log:
        return subprocess.Popen([sys.executable, "-S", "-c", code], stdout=log, stderr=log)


def test_a_run_is_killed_after_its_first_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints" / "step-000000010"
    code = f"import os, signal; os.makedirs({str(folder)!r}); open({str(folder / 'state.json')!r}, 'w'); signal.pause()"
    assert runs._kill_after_checkpoint(start(code, tmp_path / "run"), str(tmp_path / "run")) == 10


def test_a_run_that_ends_before_it_is_killed_is_noticed(tmp_path: Path) -> None:
    process = start("", tmp_path / "run")
    process.wait()
    assert runs._kill_after_checkpoint(process, str(tmp_path / "run")) is None
    process = start("import sys; print('first'); sys.exit('no memory')", tmp_path / "run")
    process.wait()
    with pytest.raises(RuntimeError, match=r"`train` exited with status 1: .*no memory"):
        runs._kill_after_checkpoint(process, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("item", "score", "state", "text"),
    [
        ([[1, 2]], [[3.0, 2.0]], State.OK, "2 of 2 recommended items are the same"),
        ([[1, 3]], [[3.0, 2.0]], State.OK, "1 of 2 recommended items are the same"),  # 2 and 3 have equal scores
        ([[1, 0]], [[3.0, 1.0]], State.FAILED, "1 of 2"),
        ([[1, 2]], [[3.0, 2.1]], State.FAILED, "scores differ by at most 3.3e-02; allowed: 1e-03"),
    ],
)
def test_an_export_may_swap_equal_items_only(item: Any, score: Any, state: State, text: str) -> None:
    result = runs.judge_export(np.array([[1.0, 3.0, 2.0, 2.0]]), np.array(item), np.array(score))
    assert result.state == state
    assert text in result.found


# speed


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program `nvidia-smi` on PATH; the fixture's value sets what it prints."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def write(text: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/arguments\nprintf '{text}'\n")
        path.chmod(0o755)

    return write


def test_utilisation_and_memory_are_read_from_nvidia_smi(
    nvidia_smi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert speed.read_utilisation() is None
    nvidia_smi("87, 5120\\n0, 3\\n")
    found = speed.read_utilisation()
    assert found is not None
    assert found.tolist() == [[87, 5120], [0, 3]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    speed.read_utilisation()
    query = "--query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits --id=2,3\n"
    assert (tmp_path / "arguments").read_text() == query
    nvidia_smi("[N/A], 3\\n")
    assert speed.read_utilisation() is None


def test_samples_are_taken_until_the_context_ends(nvidia_smi: Any) -> None:
    nvidia_smi("50, 100\\n")
    with speed.sampling() as samples:
        pass
    assert samples
    assert all(sample.tolist() == [[50, 100]] for sample in samples)
    with speed.sampling(is_active=False) as samples:
        pass
    assert samples == []


@pytest.mark.parametrize(
    ("samples", "state", "text", "advice"),
    [
        ([], State.SKIPPED, "GPU utilisation is unknown", ""),
        ([[[90, 500], [80, 400]], [[100, 600], [90, 900]]], State.OK, "95%, 85%; at most 900 MiB", ""),
        ([[[10, 500], [20, 400]]], State.OK, "10%, 20%", "raise input.batch_size_per_replica"),
        ([[[90, 500], [0, 400]]], State.FAILED, "1 of 2 GPUs were idle", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_speed_is_reported_and_an_idle_gpu_fails(samples: list[Any], state: State, text: str, advice: str) -> None:
    result = speed.judge_speed(12_345.6, 8_192, [np.array(sample) for sample in samples], 2)
    assert result.state == state
    assert result.found.startswith("12,346 examples/s with 2 devices and batches of 8,192 rows; ")
    assert text in result.found
    assert advice in result.advice
    assert bool(advice) == bool(result.advice)
