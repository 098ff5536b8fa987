"""Checks the settings of a training step before submission, such as a batch size that all replicas share evenly."""

from collections.abc import Sequence

from common.settings import apply_settings
from k8s.rendering import Placement
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig

_SPOT_SETTING = "checkpoint_every_steps"
_SPOT_STEPS = 1000


def training_settings(preset: str, settings: Sequence[str], placement: Placement) -> tuple[RunConfig, list[str]]:
    """Returns the config of a training run, and the settings that turn the preset into this config.

    `placement` adds settings: `gpus` if there are GPUs, `checkpoint_every_steps` for the overlay `spot`. The batch size
    of a preset is rounded up to a multiple of the number of replicas.

    Args:
      preset: name of a preset in `PRESETS`.
      settings: `KEY=VALUE` settings from the user.
      placement: the overlays, and the number of GPUs and machines.

    Raises:
      ValueError: a setting is unknown, invalid or in conflict with `placement`; or the user's batch size is not
        divisible by the number of replicas.
    """
    chosen = list(settings)
    names = {setting.partition("=")[0] for setting in chosen}
    if "spot" in placement.overlays and _SPOT_SETTING not in names:
        chosen.append(f"{_SPOT_SETTING}={_SPOT_STEPS}")
    if placement.gpus:
        if names & {"gpus", "devices"}:
            raise ValueError(
                f"--gpus {placement.gpus} already sets the number of GPUs; remove `gpus=…` and `devices=…` from --set"
            )
        chosen.append(f"gpus={placement.gpus}")
    config = apply_settings(PRESETS[preset], chosen)
    if config.solver == "sgd" and config.input.batch_size_per_replica is not None:
        return config, chosen
    replicas = max(1, placement.gpus) * placement.nodes
    batch = config.input.batch_size
    above = -(-batch // replicas) * replicas
    if above != batch:
        if "input.batch_size" in names:
            nearest = " or ".join(str(size) for size in (above - replicas, above) if size)
            raise ValueError(f"input.batch_size={batch} is not divisible by {replicas} replicas; use {nearest}")
        chosen.append(f"input.batch_size={above}")
    return apply_settings(config, chosen), chosen
