"""Converts configs, which are frozen dataclasses, to JSON and back, and applies settings of the form `key=value`.

A field has one of these types:
  - a simple type: bool, int, float, str, a string enumeration or a Literal;
  - a simple type or None;
  - a tuple with elements of one simple type;
  - another config;
  - a union of configs. Each of them has a field `kind`, and the value of `kind` selects the config.
"""

import dataclasses
import difflib
import enum
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


class SettingError(ValueError):
    """The value of a setting is invalid."""

    def __init__(self, setting: str, problem: str) -> None:
        """Takes the setting's name within its config, such as `dim`, and the rest of the message.

        `from_json` completes the name: `model.dim`.
        """
        super().__init__(setting, problem)
        self.setting, self.problem = setting, problem

    def __str__(self) -> str:
        return f"{self.setting} {self.problem}"


def check(is_met: bool, setting: str, value: object, rule: str) -> None:
    """Raises SettingError "SETTING must be RULE, got VALUE" unless `is_met`."""
    if not is_met:
        raise SettingError(setting, f"must be {rule}, got {value}")


def to_json(config: Any) -> dict[str, Any]:
    """Converts a config to JSON values for `from_json`."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))
    return plain


def from_json(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Builds a config of class `kind` from JSON values. Absent keys take their defaults.

    Raises:
      ValueError: a key is unknown, a key without a default is absent, or a value has the wrong type or is out of range.
    """
    config: Config = _decode(kind, values, "")
    return config


def apply_settings(config: Config, settings: Sequence[str]) -> Config:
    """Returns a copy of a config with changed settings, such as `model.dim=32` or `devices=none`.

    For a repeated key, the last setting applies.

    Raises ValueError if a setting is not KEY=VALUE, its key is unknown, or its value is invalid.
    """
    values = to_json(config)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"a setting must have the form KEY=VALUE, got `{setting}`")
        *parents, name = key.split(".")
        hint, target = _type_hint(config, key), values
        for parent in parents:
            target = target[parent]
        target[name] = _parse(hint, text, key)
    return from_json(type(config), values)


def type_of(config: Any, key: str) -> type:
    """Returns the type of a setting: bool, int, float, tuple, or str for text and enumerations.

    For a setting that may also be None, returns the type of its other values.

    Raises:
      ValueError: the key is unknown.
    """
    hint = _type_hint(config, key)
    if type(None) in get_args(hint):
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple:
        return tuple
    return hint if hint in (bool, int, float) else str


def settings_of(config: Any) -> dict[str, Any]:
    """Returns the JSON value of every setting in `config`, by its key such as `model.dim`."""
    flat = _flatten(to_json(config))
    return {key: flat.get(key) for key in _keys(config, "")}


def differences(old: Any, new: Any) -> list[str]:
    """Describes each setting that differs between two configs, as `KEY: OLD, now NEW`.

    For a setting that a config does not have, the value is `absent`.
    """
    flat_old, flat_new = _flatten(to_json(old)), _flatten(to_json(new))
    keys = [*flat_old, *(key for key in flat_new if key not in flat_old)]
    return [
        f"{key}: {_show(flat_old, key)}, now {_show(flat_new, key)}"
        for key in keys
        if _show(flat_old, key) != _show(flat_new, key)
    ]


def _type_hint(config: Any, key: str) -> Any:
    known = _keys(config, "")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        groups = ", ".join(dict.fromkeys(f"{name.partition('.')[0]}.…" if "." in name else name for name in known))
        hint = f"did you mean `{near[0]}`?" if near else f"docs/settings.md lists all settings: {groups}"
        raise ValueError(f"unknown setting `{key}`; {hint}")
    *parents, name = key.split(".")
    owner = config
    for parent in parents:
        owner = getattr(owner, parent)
    return get_type_hints(type(owner))[name]


def _keys(config: Any, prefix: str) -> list[str]:
    """Lists the names of a config's settings, each with `prefix` in front.

    Omits the field `kind` if only one value is allowed.
    """
    keys = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            keys += _keys(value, f"{prefix}{field.name}.")
        elif field.name != "kind" or len(_kinds(type(config))) > 1:
            keys.append(prefix + field.name)
    return keys


def _kinds(config: type) -> tuple[str, ...]:
    """Returns the values that the field `kind` of a dataclass allows."""
    return get_args(get_type_hints(config)["kind"])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _show(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key], allow_nan=False) if key in flat else "absent"


def _parse(hint: Any, text: str, key: str) -> Any:
    """Parses text to a JSON value of the type `hint`; raises ValueError for an invalid number."""
    if get_origin(hint) is tuple:
        return [_parse(get_args(hint)[0], part, key) for part in text.split(",")]
    if type(None) in get_args(hint):
        return None if text.lower() == "none" else _parse(get_args(hint)[0], text, key)
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"{key} must be {_describe(hint)}, got {text}") from None
    return text


def _decode(hint: Any, value: Any, key: str) -> Any:
    """Converts a JSON value to the type `hint`; raises ValueError, which names `key`."""
    options = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return _decode_union(options, value, key)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, value, key)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_decode(options[0], part, key) for part in value)
    if get_origin(hint) is Literal and value in options:
        return value
    if hint is float and type(value) in (int, float):
        return _finite(value, key)
    if isinstance(hint, enum.EnumMeta) and value in list(hint):
        return hint(value)
    if hint is int and type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{key} must be a whole number of at most 64 bits, got {value}")
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{key} must be {_describe(hint)}, got {value}")


def _finite(value: float, key: str) -> float:
    """Raises ValueError for NaN and infinity, which JSON does not have."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{key} must be a finite number, got {number}")
    return number


def _decode_union(options: tuple[Any, ...], value: Any, key: str) -> Any:
    if type(None) in options:
        return None if value is None else _decode(options[0], value, key)
    by_kind = {kind: option for option in options for kind in _kinds(option)}
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in by_kind:
        raise ValueError(f"{key}.kind must be one of {', '.join(by_kind)}, got {kind}")
    return _decode(by_kind[kind], value, key)


def _decode_dataclass(hint: Any, value: Any, key: str) -> Any:
    hints = get_type_hints(hint)
    prefix = f"{key}." if key else ""
    if not isinstance(value, Mapping):
        raise ValueError(f"{key or 'the config'} must be an object with keys and values, got {value}")
    unknown = [prefix + name for name in value if name not in hints]
    if unknown:
        known = ", ".join(prefix + name for name in hints)
        raise ValueError(f"unknown keys: {', '.join(unknown)}; correct or remove them; the known keys are {known}")
    required = [field.name for field in dataclasses.fields(hint) if _is_required(field)]
    missing = [prefix + name for name in required if name not in value]
    if missing:
        raise ValueError(f"{key or 'the config'} lacks keys: {', '.join(missing)}; add them")
    decoded = {name: _decode(hints[name], part, prefix + name) for name, part in value.items()}
    try:
        return hint(**decoded)
    except SettingError as error:
        raise SettingError(prefix + error.setting, error.problem) from error
    except ValueError as error:  # about several settings of the group
        raise ValueError(f"{prefix.removesuffix('.')}: {error}" if prefix else str(error)) from error


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if isinstance(hint, enum.EnumMeta):
        return f"one of {', '.join(hint)}"
    if get_origin(hint) is tuple:
        return "numbers separated by commas"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[hint]
