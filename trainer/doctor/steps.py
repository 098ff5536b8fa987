"""Compares training steps: a GPU with the CPU, faster modes with float32, all GPUs with one."""

import numpy as np

from trainer.distributed.precision import full_float32
from trainer.doctor.bench import Bench, Steps, make_config, train_steps
from trainer.doctor.findings import Result, State
from trainer.doctor.plan import Kind

LOSS_TOLERANCE = 1e-4
"""Largest relative difference between the loss of a step on a GPU and on a CPU, both in float32."""
UPDATE_TOLERANCE = 1e-3
"""Largest norm of the difference between the updates of an array on a GPU and on the CPU, relative to the CPU's.

XLA on a CPU, which adds in another order, differs by 4e-6. Dense weights are compared together, because Adam enlarges
the rounding errors of weights with small gradients."""
REPLICAS_TOLERANCE = 1e-3
"""Largest relative difference between the losses of several GPUs and of one, because sums have another order."""
MODES = {
    "TensorFloat-32": ((), 1e-2),
    "bfloat16": (("mixed_precision=true",), 2e-2),
    "XLA": (("jit_compile=true",), 1e-2),
}
"""Settings of each faster mode, and the largest relative difference of its losses to those in float32."""
_STEPS = 5
"""Steps of the checks of precision and of replicas."""
_WRONG_DEVICE = (
    "train on the CPU (CUDA_VISIBLE_DEVICES=-1) until this is fixed: look for damaged memory with "
    "`nvidia-smi -q -d ECC,ROW_REMAPPER`, use the TensorFlow of constraints.txt, and report the figures as a bug"
)
_WRONG_REPLICAS = (
    "train on one GPU (gpus=1) until this is fixed: run `nvidia-smi topo -m`, try NCCL_P2P_DISABLE=1, and report the "
    "figures as a bug"
)


def check_step(bench: Bench, preset: str) -> Result:
    """Trains one step on the GPU and on the CPU; losses and updates of all arrays must agree."""
    config = make_config(preset)
    with full_float32():
        found = train_steps(bench, config, bench.accelerator, 1)
        expected = train_steps(bench, config, bench.reference, 1)
    return judge_step(found, expected)


def judge_step(found: Steps, expected: Steps) -> Result:
    """Returns a failed result if the losses or updates differ by more than `LOSS_TOLERANCE` or `UPDATE_TOLERANCE`."""
    loss = relative_difference(found.losses, expected.losses)
    updates = {name: _distance(found.updates[name], update) for name, update in expected.updates.items()}
    worst = max(updates, key=updates.__getitem__)
    rows = int(np.any(expected.updates[worst], axis=-1).sum())
    text = (
        f"loss {found.losses[0]:.6f}, {expected.losses[0]:.6f} on the CPU; the updates of {len(updates)} arrays differ "
        f"by at most {updates[worst]:.1e} of their norm (in {worst}, where {rows} rows changed)"
    )
    if loss <= LOSS_TOLERANCE and updates[worst] <= UPDATE_TOLERANCE:
        return Result(text)
    limits = f"allowed: {LOSS_TOLERANCE:.0e} of the loss and {UPDATE_TOLERANCE:.0e} of the norm"
    return Result(f"{text}; {limits}", State.FAILED, _WRONG_DEVICE)


def check_precision(bench: Bench, preset: str) -> Result:
    """Trains a few steps in float32, TensorFloat-32, bfloat16 and with XLA; all losses must be close."""
    replicas = bench.accelerator
    with full_float32():
        expected = train_steps(bench, make_config(preset), replicas, _STEPS).losses
    losses = {
        name: train_steps(bench, make_config(preset, *settings), replicas, _STEPS).losses
        for name, (settings, _) in MODES.items()
    }
    result = judge_precision(losses, expected)
    if bench.kind == Kind.CPU:
        return Result(f"{result.found}; CPUs have no TensorFloat-32", result.state, result.advice)
    return result


def judge_precision(losses: dict[str, np.ndarray], expected: np.ndarray) -> Result:
    """Returns a failed result if the losses of a mode are not finite, or differ too much from those in float32."""
    differences = {name: relative_difference(values, expected) for name, values in losses.items()}
    text = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    found = f"loss {expected[-1]:.6f} after {len(expected)} steps; relative differences: {text}"
    wrong = [name for name, difference in differences.items() if not difference <= MODES[name][1]]
    if not wrong:
        return Result(found)
    allowed = ", ".join(f"{MODES[name][1]:.0e} with {name}" for name in wrong)
    advice = "do not set mixed_precision or jit_compile on this machine; use the TensorFlow of constraints.txt"
    return Result(f"{found}; allowed: {allowed}", State.FAILED, advice)


def check_replicas(bench: Bench, preset: str) -> Result:
    """Trains the same batches on one device and on all of them; the losses must agree."""
    if bench.count == 1:
        return Result("there is only one GPU", State.SKIPPED)
    config = make_config(preset)
    batch = -(-config.input.batch_size // bench.count) * bench.count
    config = make_config(preset, f"input.batch_size={batch}")
    with full_float32():
        found = train_steps(bench, config, bench.replicas(bench.count), _STEPS).losses
        expected = train_steps(bench, config, bench.replicas(1), _STEPS).losses
    return judge_replicas(found, expected, bench.count)


def judge_replicas(found: np.ndarray, expected: np.ndarray, count: int) -> Result:
    """Returns a failed result if losses on `count` devices and on one differ by more than `REPLICAS_TOLERANCE`."""
    difference = relative_difference(found, expected)
    text = f"losses on {count} devices and on one differ by at most {difference:.1e} in {len(expected)} steps"
    if difference <= REPLICAS_TOLERANCE:
        return Result(text)
    return Result(f"{text}; allowed: {REPLICAS_TOLERANCE:.0e}", State.FAILED, _WRONG_REPLICAS)


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest relative difference; infinity if a value is not finite."""
    if not _are_finite(found, expected):
        return float("inf")
    return float(np.max(np.abs(found - expected) / np.abs(expected)))


def _are_finite(*arrays: np.ndarray) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the norm of the difference relative to the norm of `expected`; infinity if a value is not finite."""
    if not _are_finite(found, expected):
        return float("inf")
    norm = float(np.linalg.norm(expected))
    distance = float(np.linalg.norm(found - expected))
    return distance / norm if norm else distance
