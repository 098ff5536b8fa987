"""No setting and no JSON file contains NaN or infinity."""

import ast
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.settings import apply_settings, from_json, settings_of, to_json, type_of
from preprocessing.config import PrepareConfig
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig

ROOT = Path(__file__).parents[2]
PRODUCT = ("cartwheel", "common", "contract", "k8s", "preprocessing", "trainer")
NO_FILES = ("preprocessing/sources", "trainer/distributed")
"""Packages that call `json.dumps` only for the text of an input value or of an environment variable."""
CONFIGS = {"prepare": PrepareConfig(events="a.csv")} | PRESETS
NUMBERS = [
    (name, key) for name, config in CONFIGS.items() for key in settings_of(config) if type_of(config, key) in (float,)
]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e999", "Infinity"])
@pytest.mark.parametrize(("name", "key"), NUMBERS, ids="-".join)
def test_no_setting_accepts_a_number_that_is_not_finite(name, key, text):
    with pytest.raises(ValueError, match=f"{key} must be a finite number, got"):
        apply_settings(CONFIGS[name], [f"{key}={text}"])


def test_infinity_in_a_list_and_a_huge_integer_are_refused():
    with pytest.raises(ValueError, match=r"loss\.event_weights must be a finite number, got inf"):
        apply_settings(PRESETS["mf"], ["loss.event_weights=1,1,inf"])
    with pytest.raises(ValueError, match="max_loss_growth must be a finite number, got inf"):
        from_json(RunConfig, to_json(PRESETS["mf"]) | {"max_loss_growth": 10**400})


@settings(deadline=None)
@given(st.sampled_from(NUMBERS), st.floats())
def test_a_setting_is_refused_or_survives_json(setting, value):
    name, key = setting
    try:
        config = apply_settings(CONFIGS[name], [f"{key}={value!r}"])
    except ValueError:
        return
    assert math.isfinite(value)
    assert from_json(type(config), json.loads(json.dumps(to_json(config), allow_nan=False))) == config


SETTINGS = [(name, key) for name, config in CONFIGS.items() for key in settings_of(config)]
VALUES = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["true", "none", "", "view,like", "0.5,2", "2020-01-01", "utf-16"]),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SETTINGS), VALUES)
def test_any_text_is_refused_or_gives_a_setting_that_survives_json(setting, text):
    name, key = setting
    try:
        config = apply_settings(CONFIGS[name], [f"{key}={text}"])
    except ValueError:
        return
    assert from_json(type(config), json.loads(json.dumps(to_json(config), allow_nan=False))) == config


def test_all_json_is_written_without_nan_and_infinity():
    found = []
    for path in (path for package in PRODUCT for path in (ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            is_dump = isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump")
            if is_dump and not name.startswith(NO_FILES):
                is_strict = any(
                    keyword.arg == "allow_nan" and ast.unparse(keyword.value) == "False" for keyword in node.keywords
                )
                found += [] if is_strict else [f"{name}:{node.lineno}"]
    assert not found, "write JSON with allow_nan=False"
