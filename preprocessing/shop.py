"""Reads and writes shop.toml, which names the files of a shop and their columns.

The keys of shop.toml are the settings in `PrepareConfig`.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from common import storage
from common.settings import from_json
from common.storage.paths import join
from common.text import decode_text
from preprocessing.config import EventColumns, PrepareConfig

_PATHS = ("events", "item_properties", "category_tree")


def read_shop(path: str) -> dict[str, Any]:
    """Reads the settings of a shop.toml as JSON values, with paths relative to its directory.

    Raises:
      ValueError: the file does not exist or is not valid TOML, or a setting is a text although it must be a list.
    """
    try:
        values = tomllib.loads(decode_text(storage.read_bytes(path), path))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; `cartwheel inspect FILES --write {path}` writes one") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}; correct the file") from error
    folder = path.rpartition("/")[0]
    for name in _PATHS:
        if isinstance(values.get(name), str):
            values[name] = _resolve(folder, values[name])
    table = values.get("item_table", {})
    if isinstance(table, dict) and isinstance(table.get("files"), str):
        values["item_table"] = table | {"files": _resolve(folder, table["files"])}
    kinds = values.get("kinds")
    if isinstance(kinds, dict) and isinstance(kinds.get("words"), dict):
        values["kinds"] = kinds | {"words": [f"{word}={kind}" for word, kind in kinds["words"].items()]}
    lists = {"where": values, "category": values.get("item_table"), "names": kinds, "weights": kinds, "dropped": kinds}
    for name, owner in lists.items():
        _check_list(path, owner, name)
    return values


def make_config(shop: str | None, given: Mapping[str, Any]) -> PrepareConfig:
    """Returns the settings of a shop.toml, overridden by the settings in `given` that are not None.

    Raises:
      ValueError: a setting is unknown or invalid, or no events are given.
    """
    values = read_shop(shop) if shop else {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            if not isinstance(values.get(name, {}), Mapping):
                raise ValueError(f"{shop} must have a section [{name}], got {name} = {values[name]!r}")
            values[name] = values.get(name, {}) | {key: part for key, part in value.items() if part is not None}
        elif value is not None:
            values[name] = value
    if "events" not in values:
        raise ValueError("give the event log: --events GLOB, or --shop shop.toml with `events`")
    _check_columns(shop, values)
    return from_json(PrepareConfig, values)


def relative_to(path: str, config: PrepareConfig) -> PrepareConfig:
    """Makes file paths relative to the folder of the shop.toml at `path`.

    The paths in `config` are relative to the current folder. URIs and absolute paths do not change.
    """
    folder = os.path.dirname(path)

    def move(name: str) -> str:
        is_relative = name and "://" not in name + path and not os.path.isabs(name)
        return os.path.relpath(name, folder or ".") if is_relative else name

    table = config.item_table
    if table.files:
        table = replace(table, files=move(table.files))
    return replace(config, events=move(config.events), item_table=table)


def format_shop(config: PrepareConfig) -> str:
    """Formats settings as the text of a shop.toml.

    Omits settings that have their default value, except the columns of an event log.
    """
    table = config.item_table
    words = {word: kind for word, _, kind in (entry.rpartition("=") for entry in config.kinds.words)}
    sections = [
        _section("", {"events": config.events, "where": config.where}),
        _section("columns", vars(config.columns) if config.events else {}),
        _section("time", _changed(config.time)),
        _section("events_format", _changed(config.events_format)),
        _section("kinds", {name: value for name, value in _changed(config.kinds).items() if name != "words"}),
        _section("kinds.words", {_quote(word): kind for word, kind in words.items()}),
        _section("item_table", {name: value for name, value in _changed(table).items() if name != "format"}),
        _section("item_table.format", _changed(table.format)),
    ]
    return "\n".join(filter(None, sections))


def _section(name: str, values: Mapping[str, Any]) -> str:
    """Formats a section of TOML without empty values; '' if all are empty."""
    lines = [f"{key} = {_format(value)}" for key, value in values.items() if value not in (None, "", ())]
    return "".join(f"{line}\n" for line in ([f"[{name}]"] if name and lines else []) + lines)


def _changed(config: Any) -> dict[str, Any]:
    """Returns the fields of a config that differ from their defaults."""
    default = type(config)()
    return {name: value for name, value in vars(config).items() if value != getattr(default, name)}


def _resolve(folder: str, path: str) -> str:
    return path if not folder or "://" in path or path.startswith("/") else join(folder, path)


def _check_columns(shop: str | None, values: Mapping[str, Any]) -> None:
    """Raises ValueError if columns, such as the visitor, are at the top level of a shop.toml."""
    sections = {entry.name for entry in fields(PrepareConfig)}
    columns = [entry.name for entry in fields(EventColumns)]
    # `time` is also a section
    found = [name for name in columns if name in values and (name not in sections or isinstance(values[name], str))]
    if found:
        raise ValueError(
            f"{shop}: {', '.join(found)} must be in the section [columns]; write a line [columns] above {found[0]}"
        )


def _check_list(path: str, owner: Any, name: str) -> None:
    if isinstance(owner, dict) and isinstance(owner.get(name), str):
        text = _quote(owner[name])
        raise ValueError(f"{path}: {name} must be a list, got {text}; write {name} = [{text}]")


def _format(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_format, value))}]"
    return _quote(value) if isinstance(value, str) else str(value)


def _quote(text: str) -> str:
    # a JSON string is a basic string of TOML
    return json.dumps(text, ensure_ascii=False, allow_nan=False)
