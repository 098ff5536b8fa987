"""Paths and URIs: the only module that joins them."""


def join(base: str, *names: str) -> str:
    """`base/name/…` for a local path or a URI."""
    return "/".join([base.rstrip("/") or "/", *names])


def shard_name(stem: str, index: int, count: int, suffix: str) -> str:
    """`stem-00003-of-00016suffix`, the naming that TensorFlow and Beam tools expect."""
    return f"{stem}-{index:05d}-of-{count:05d}{suffix}"
