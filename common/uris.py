"""Refuses URIs that may contain credentials: those with a user part, a query or a fragment."""

import argparse
import re
from collections.abc import Iterable, Iterator
from urllib.parse import SplitResult, urlsplit

_URI = re.compile(r"[A-Za-z][\w+.-]*://.*", re.DOTALL)
# fsspec chains URIs, as in simplecache::s3://bucket/file; elsewhere, two colons may be part of a password
_CHAIN = re.compile(r"::(?=(?:[A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://)")
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")
"""Schemes of URIs of object stores."""
_DATABASE_FLAG = "storage"  # its URL may name a user


def refuse_credentials(uri: str) -> None:
    """Raises ValueError if a URI may contain a credential. The message does not repeat the URI."""
    for link in _CHAIN.split(uri):
        scheme = link.partition("://")[0]
        if "://" not in link or scheme == "file":
            continue
        parts = _split(link)
        extras = parts.query + parts.fragment
        is_store = scheme in OBJECT_STORES
        # a secret with slashes moves the bucket into the path; a colon may also precede a port
        has_password = ":" in parts.netloc and (is_store or not parts.netloc.partition(":")[2].isdigit())
        # in an object store, "?" may be part of a glob, and "#" part of a name
        if has_password or "@" in parts.netloc or ("=" in extras if is_store else extras):
            raise ValueError(
                f"a {scheme}:// URI has a user part, a query or a fragment, which may contain a credential, and URIs "
                "are logged and recorded; remove these parts, and set credentials in the environment"
            )


def refuse_credentials_in_arguments(given: argparse.Namespace, others: Iterable[str] = ()) -> None:
    """Refuses arguments if a URI in them may contain a credential. Call it before printing arguments.

    Args:
      given: parsed arguments. Only `storage`, the URL of a database, may contain a user name.
      others: arguments that the parser did not parse, such as options of Beam.

    Raises:
      ValueError: see `refuse_credentials`; the message names the argument.
    """
    for name, value in [*vars(given).items(), ("arguments", list(others))]:
        for uri in _find_uris(value):
            try:
                (_refuse_password if name == _DATABASE_FLAG else refuse_credentials)(uri)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _refuse_password(database: str) -> None:
    parts = _split(database)
    if parts.password is not None or parts.query:
        raise ValueError(
            f"a {parts.scheme}:// URL has a password or a query string (`?…`), which may contain a credential; "
            "remove it, and set the password in the environment variable of the database driver, such as PGPASSWORD "
            "for PostgreSQL"
        )


def _split(uri: str) -> SplitResult:
    """Splits a URI. Error messages do not contain the URI, unlike those of `urlsplit`."""
    try:
        return urlsplit(uri)
    except ValueError:
        scheme = uri.partition("://")[0]
        raise ValueError(f"a {scheme}:// URI has an invalid host; check its brackets and special characters") from None


def _find_uris(value: object) -> Iterator[str]:
    """Yields the URIs in a text or a list of texts; other values have none."""
    if isinstance(value, str) and (found := _URI.search(value)):
        yield value[_chain_start(value, found.start()) :]
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _find_uris(part)


def _chain_start(text: str, start: int) -> int:
    """Returns the position where a chained URI begins; `start` is the position of one of its schemes.

    In `--events=simplecache::s3://bucket`, with `start` at `s3`, it is the position of `simplecache`.
    """
    return text.rfind("=", 0, start) + 1
