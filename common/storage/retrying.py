"""Retries failing store operations. Errors that remain are raised with advice for the user."""

import errno
import logging
import random
import time
from collections.abc import Callable
from enum import StrEnum, auto
from typing import Any, TypeVar

from common.storage.limits import read_limits

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 10.0


class Kind(StrEnum):
    """Reasons why a store operation fails."""

    NOT_FOUND = auto()
    """No such object."""
    NO_BUCKET = auto()
    NO_CREDENTIALS = auto()
    ACCESS_DENIED = auto()
    """The credentials do not allow the operation."""
    TRANSIENT = auto()
    """A failure of the network or the store; the same operation may succeed later."""
    OTHER = auto()


_ADVICE = {
    Kind.NO_BUCKET: "the bucket does not exist; create it or correct its name",
    Kind.NO_CREDENTIALS: (
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or GOOGLE_APPLICATION_CREDENTIALS, "
        "or give the service account a role"
    ),
    Kind.ACCESS_DENIED: "access is denied; check the credentials and that they allow list, read, write and delete",
}

# the libraries are optional, and each has its own error classes, so errors are recognised by name
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "ProfileNotFound",
}
_DENIED_NAMES = {"PermissionDeniedError", "UnauthenticatedError", "UnauthorizedSSOTokenError"}
_TRANSIENT_NAMES = {
    *("ChecksumError", "RefreshError", "TransportError", "IncompleteRead", "FSTimeoutError"),
    # raised by TensorFlow's file systems when the network fails
    *("AbortedError", "DeadlineExceededError", "InternalError", "ResourceExhaustedError", "UnavailableError"),
    *("UnknownError", "DataLossError", "CancelledError"),
}
_TRANSIENT_MODULES = {"aiohttp", "botocore", "aiobotocore", "requests", "urllib3"}
_TRANSIENT_CODES = {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}
_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT = 429, 408


def call_with_retries(action: Callable[[], Result], doing: str, uri: str, patience: float | None = None) -> Result:
    """Returns the result of `action`; retries with growing pauses after transient errors.

    Args:
      action: the operation.
      doing: a verb for the log and for errors, such as `reading`.
      uri: URI of the file, for the log and for errors.
      patience: how long to retry, in seconds; None: the limit in `limits.py`.

    Raises:
      FileNotFoundError: there is no such object.
      PermissionError: credentials are missing or insufficient.
      OSError: the bucket does not exist, or the store rejects the request or does not answer in time.
    """
    start, pause = time.monotonic(), _FIRST_PAUSE_SECONDS
    patience = read_limits().patience_seconds if patience is None else patience
    while True:
        try:
            result = action()
        except Exception as error:
            kind = kind_of(error)
            waited = time.monotonic() - start
            if kind == Kind.TRANSIENT and waited < patience:
                # warn once, and again when the pauses have grown to the longest
                level = logging.WARNING if pause in (_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS) else logging.DEBUG
                log.log(
                    level, "%s %s: %s; retrying for up to %.0f s", doing, uri, _format_error(error), patience - waited
                )
                # jitter: workers that lost the store together should not return together
                time.sleep(min(pause * random.uniform(0.5, 1.0), patience - waited))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            if kind == Kind.OTHER and type(error).__module__ == "builtins" and not isinstance(error, OSError):
                raise  # a bug, which advice about the store would hide
            raise _explain(error, kind, doing, uri, waited) from error
        if pause > _FIRST_PAUSE_SECONDS:
            log.info("%s %s: succeeded after %.1f s", doing, uri, time.monotonic() - start)
        return result


def kind_of(error: BaseException) -> Kind:
    """Classifies an error of fsspec, of one of its plugins, or of TensorFlow."""
    name, module = type(error).__name__, type(error).__module__.partition(".")[0]
    status, code = _status(error)
    if code == "NoSuchBucket":
        return Kind.NO_BUCKET
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return Kind.NOT_FOUND
    if name in _NO_CREDENTIALS:
        return Kind.NO_CREDENTIALS
    is_denied = isinstance(error, PermissionError) or name in _DENIED_NAMES or status in (401, 403)
    if is_denied or str(error).startswith("Forbidden"):  # gcsfs reports 403 only in the text
        return Kind.ACCESS_DENIED
    is_overloaded = status in (_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT) or (status or 0) >= 500
    if is_overloaded or code in _TRANSIENT_CODES or name in _TRANSIENT_NAMES or isinstance(error, ConnectionError):
        return Kind.TRANSIENT
    if isinstance(error, TimeoutError) or (module in _TRANSIENT_MODULES and name != "ParamValidationError"):
        return Kind.TRANSIENT
    return Kind.OTHER


def http_status(error: BaseException) -> int | None:
    """Returns the HTTP status that an error contains, or None."""
    return _status(error)[0]


def _status(error: BaseException) -> tuple[int | None, str | None]:
    """Returns an error's HTTP status and the store's error code, each None if it is missing."""
    response: Any = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    code = str(getattr(error, "code", None))
    return (int(code) if code.isdigit() else None), None


def _explain(error: Exception, kind: Kind, doing: str, uri: str, waited: float) -> OSError:
    what = f"{doing} {uri}"
    if kind == Kind.NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, "there is no such file", uri)
    if kind == Kind.TRANSIENT:
        advice = "check the network and the endpoint, then run the same command again to resume"
        return OSError(f"{what} failed for {waited:.0f} s: {_format_error(error)}; {advice}")
    message = f"{what} failed: {_ADVICE.get(kind, 'the store rejected the request')} ({_format_error(error)})"
    return PermissionError(message) if kind in (Kind.NO_CREDENTIALS, Kind.ACCESS_DENIED) else OSError(message)


def _format_error(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
