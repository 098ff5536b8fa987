"""Fixtures of the tests of blends."""

import pytest

from tests.trainer.evaluation.blend_cases import one_event, random_cases
from trainer.data.trend import ItemEvents
from trainer.evaluation.cases import Cases


@pytest.fixture
def cases() -> Cases:
    return random_cases()


@pytest.fixture
def events() -> ItemEvents:
    return one_event()
