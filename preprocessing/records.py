"""Encodes records as JSON by the types of their fields. Decoding creates values of these types only and runs no code.

A type is bool, int, float, str, an enumeration of strings, an array, a record (a dataclass), or a collection of other
types: tuple, list, frozenset, dict or Counter.
"""

import base64
import enum
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

_COLLECTIONS = (tuple, list, frozenset)


def encode_record(value: Any, kind: Any) -> bytes:
    """Encodes a value of type `kind` as JSON. NumPy integers become Python integers."""
    return json.dumps(_to_json(value, kind), allow_nan=False).encode()


def decode_record(content: bytes, kind: Any) -> Any:
    """Decodes a value of type `kind`.

    Raises:
      ValueError: the content is not an encoded value of this type.
    """
    try:
        return _from_json(json.loads(content), kind)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an encoded {kind.__name__}: {error}") from error


def _to_json(value: Any, kind: Any) -> Any:
    origin = get_origin(kind)
    if _is_record(kind):
        return {name: _to_json(getattr(value, name), hint) for name, hint in get_type_hints(kind).items()}
    if kind is np.ndarray:
        return _array_to_json(np.asarray(value))
    if origin in (dict, Counter):
        key, entry = _types_of_entries(kind)
        return [[_to_json(name, key), _to_json(part, entry)] for name, part in value.items()]
    if origin in _COLLECTIONS:
        parts = list(value)
        return [_to_json(part, hint) for part, hint in zip(parts, _types_of_parts(kind, parts), strict=True)]
    return int(value) if kind is int else value


def _from_json(plain: Any, kind: Any) -> Any:
    origin = get_origin(kind)
    if _is_record(kind):
        hints = get_type_hints(kind)
        if _checked(plain, dict).keys() != hints.keys():
            raise ValueError(f"{kind.__name__} has the fields {', '.join(hints)}, got {', '.join(plain)}")
        return kind(**{name: _from_json(part, hints[name]) for name, part in plain.items()})
    if kind is np.ndarray:
        return _array_from_json(*_checked(plain, list))
    if origin in (dict, Counter):
        key, entry = _types_of_entries(kind)
        return origin({_from_json(name, key): _from_json(part, entry) for name, part in _checked(plain, list)})
    if origin in _COLLECTIONS:
        parts = zip(_checked(plain, list), _types_of_parts(kind, plain), strict=True)
        return origin(_from_json(part, hint) for part, hint in parts)
    return kind(plain) if isinstance(kind, enum.EnumType) else _checked(plain, kind)


def _is_record(kind: Any) -> bool:
    return is_dataclass(kind)


def _array_to_json(array: np.ndarray) -> list[Any]:
    # arrays of objects have Python integers of any size, which a list keeps exactly
    is_of_objects = array.dtype == object
    data = array.ravel().tolist() if is_of_objects else base64.b64encode(array.tobytes()).decode()
    return [array.dtype.str, array.shape, data]


def _array_from_json(dtype: str, shape: list[int], data: Any) -> np.ndarray:
    values = np.array(_checked(data, list), object) if dtype == "|O" else np.frombuffer(base64.b64decode(data), dtype)
    return values.reshape(shape).copy()  # an array from a buffer cannot be changed


def _types_of_entries(kind: Any) -> tuple[Any, Any]:
    key, *entry = get_args(kind)
    return key, entry[0] if entry else int


def _types_of_parts(kind: Any, parts: Iterable[Any]) -> list[Any]:
    """Returns the declared type of each of `parts`, the elements of a collection of type `kind`.

    In `tuple[A, B]`, each element has its own type; in other collections, all have the same one.
    """
    hints = get_args(kind)
    is_uniform = get_origin(kind) is not tuple or hints[-1] is ...
    return [hints[0] for _ in parts] if is_uniform else list(hints)


def _checked(plain: Any, kind: type) -> Any:
    if type(plain) is not kind:
        raise ValueError(f"{plain!r:.80} is not of type {kind.__name__}")
    return plain
