"""Joins the parts of paths and URIs, and names shards."""


def join(base: str, *names: str) -> str:
    """Appends names to a local path or URI."""
    return "/".join([base.rstrip("/") or "/", *names])


def shard_name(stem: str, index: int, count: int, suffix: str) -> str:
    """Returns `stem-00003-of-00016suffix`, the naming that TensorFlow and Beam tools expect."""
    return f"{stem}-{index:05d}-of-{count:05d}{suffix}"
