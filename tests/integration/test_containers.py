"""The images of the real Dockerfile: from an event log to a model, hardened as pods are, stopped as pods are."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.containers import COMMIT, Images, open_images
from tests.preprocessing.shop import START_MS
from tests.trainer.dataset_builder import checkerboard

pytestmark = pytest.mark.integration

SETTINGS = ["--set", "input.batch_size=64", "model.dim=8", "steps_per_call=2", "epochs=40", "checkpoint_every_steps=4"]
WRITE = "import os, pathlib; print(os.getuid()); pathlib.Path('/opt/cartwheel/new').touch()"
