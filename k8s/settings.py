"""The settings of a training step, checked before anything starts: a batch that its GPUs can share, among others."""

from collections.abc import Sequence

from common.settings import apply_settings
from k8s.rendering import Placement
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig

_SPOT_SETTING = "checkpoint_every_steps"
_SPOT_STEPS = 1000


def training_settings(preset: str, settings: Sequence[str], placement: Placement) -> tuple[RunConfig, list[str]]:
    """The config of a run, and the settings that make it of the preset.

    The batch is the whole run's, so that more GPUs train the same model: each takes its share. A preset's batch that
    does not divide is raised to the next that does.

    Machines that may be taken away save within an epoch.

    Raises:
      ValueError: no such setting, a bad value, or a batch that was asked for and does not divide.
    """
    chosen = list(settings)
    names = {setting.partition("=")[0] for setting in chosen}
    if "spot" in placement.overlays and _SPOT_SETTING not in names:
        chosen.append(f"{_SPOT_SETTING}={_SPOT_STEPS}")
    config = apply_settings(PRESETS[preset], chosen)
    replicas = max(1, placement.gpus) * placement.nodes
    batch = config.input.batch_size
    above = -(-batch // replicas) * replicas
    if above != batch:
        if "input.batch_size" in names:
            raise ValueError(f"batch {batch} does not divide among {replicas} replicas; use {above}")
        chosen.append(f"input.batch_size={above}")
    return apply_settings(config, chosen), chosen
