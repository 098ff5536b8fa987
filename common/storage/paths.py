"""Paths and URIs: joins their parts, recognises local ones, names shards and ownership files."""

import os

OWNER = "_owner.json"
"""Name of an ownership record, and prefix of the names of the other ownership files; see `ownership.py`."""


def join(base: str, *names: str) -> str:
    """Appends names to a local path or URI."""
    return "/".join([base.rstrip("/") or "/", *names])


def shard_name(stem: str, index: int, count: int, suffix: str) -> str:
    """Returns `stem-00003-of-00016suffix`, the naming that TensorFlow and Beam tools expect."""
    return f"{stem}-{index:05d}-of-{count:05d}{suffix}"


def is_local(uri: str) -> bool:
    """Returns True for a plain path or a `file://` URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """Returns the absolute path of a local URI. Raises ValueError if the URI is not local."""
    if not is_local(uri):
        raise ValueError(f"{uri} is not a local path; copy it to a local directory first")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def nearest_existing(path: str) -> str:
    """Returns a local path, or its nearest parent that exists. A broken link exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def is_owner_file(name: str) -> bool:
    """Returns True if a relative path is an ownership file; see `ownership.py`."""
    return name.rpartition("/")[2].startswith(OWNER)
