"""Trying again while a store does not answer, and errors that say what to do."""

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
    """What a store's error means for the one who called."""

    NOT_FOUND = auto()
    """No such object."""
    NO_BUCKET = auto()
    NO_CREDENTIALS = auto()
    ACCESS_DENIED = auto()
    """The credentials do not allow it."""
    TRANSIENT = auto()
    """The network or the store: the same may work later."""
    OTHER = auto()


_ADVICE = {
    Kind.NO_BUCKET: "the bucket does not exist; make it, or correct its name",
    Kind.NO_CREDENTIALS: (
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or GOOGLE_APPLICATION_CREDENTIALS, "
        "or give the service account a role"
    ),
    Kind.ACCESS_DENIED: "access is denied; check the credentials and that they allow list, read, write and delete",
}

# the libraries are plugins that may not be installed, and each has errors of its own: they are told apart by name
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "ProfileNotFound",
}
_REFUSED_NAMES = {"PermissionDeniedError", "UnauthenticatedError", "UnauthorizedSSOTokenError"}
_PASSING_NAMES = {
    *("ChecksumError", "RefreshError", "TransportError", "IncompleteRead", "FSTimeoutError"),
    # what TensorFlow's file systems make of a network that fails
    *("AbortedError", "DeadlineExceededError", "InternalError", "ResourceExhaustedError", "UnavailableError"),
    *("UnknownError", "DataLossError", "CancelledError"),
}
_PASSING_MODULES = {"aiohttp", "botocore", "aiobotocore", "requests", "urllib3"}
_PASSING_CODES = {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "XAmzContentSHA256Mismatch"}
_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT = 429, 408


def call_with_retries(action: Callable[[], Result], doing: str, uri: str) -> Result:
    """What `action` returns, tried again with growing pauses while the store or the network fails.

    Args:
      doing: the action in a word, for the log and for errors: `reading`.

    Raises:
      FileNotFoundError: there is no such object.
      PermissionError: there are no credentials, or they do not suffice.
      OSError: the bucket does not exist, the store refuses the request, or did not answer in all the time given.
    """
    began, pause, patience = time.monotonic(), _FIRST_PAUSE_SECONDS, read_limits().patience_seconds
    while True:
        try:
            result = action()
        except Exception as error:
            kind = kind_of(error)
            waited = time.monotonic() - began
            if kind == Kind.TRANSIENT and waited < patience:
                # once, and again when the pauses have grown long
                level = logging.WARNING if pause in (_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS) else logging.DEBUG
                log.log(level, "%s %s: %s; trying again for up to %.0f s", doing, uri, _tell(error), patience - waited)
                # jitter: workers that lost the store together do not come back together
                time.sleep(min(pause * random.uniform(0.5, 1.0), patience - waited))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            if kind == Kind.OTHER and type(error).__module__ == "builtins" and not isinstance(error, OSError):
                raise  # a mistake of the program, which no advice on the store should hide
            raise _explained(error, kind, doing, uri, waited) from error
        if pause > _FIRST_PAUSE_SECONDS:
            log.info("%s %s: done after %.1f s", doing, uri, time.monotonic() - began)
        return result


def kind_of(error: BaseException) -> Kind:
    """What an error of fsspec, of one of its plugins, or of TensorFlow means."""
    name, module = type(error).__name__, type(error).__module__.partition(".")[0]
    status, code = _status(error)
    if code == "NoSuchBucket":
        return Kind.NO_BUCKET
    if isinstance(error, FileNotFoundError) or name == "NotFoundError":
        return Kind.NOT_FOUND
    if name in _NO_CREDENTIALS:
        return Kind.NO_CREDENTIALS
    is_refused = isinstance(error, PermissionError) or name in _REFUSED_NAMES or status in (401, 403)
    if is_refused or str(error).startswith("Forbidden"):  # gcsfs tells 403 only so
        return Kind.ACCESS_DENIED
    is_overloaded = status in (_TOO_MANY_REQUESTS, _REQUEST_TIMEOUT) or (status or 0) >= 500
    if is_overloaded or code in _PASSING_CODES or name in _PASSING_NAMES or isinstance(error, ConnectionError):
        return Kind.TRANSIENT
    if isinstance(error, TimeoutError) or (module in _PASSING_MODULES and name != "ParamValidationError"):
        return Kind.TRANSIENT
    return Kind.OTHER


def _status(error: BaseException) -> tuple[int | None, str | None]:
    """HTTP status and the store's own code, where an error carries them."""
    response: Any = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status, response.get("Error", {}).get("Code")
    code = str(getattr(error, "code", None))
    return (int(code) if code.isdigit() else None), None


def _explained(error: Exception, kind: Kind, doing: str, uri: str, waited: float) -> OSError:
    what = f"{doing} {uri}"
    if kind == Kind.NOT_FOUND:
        return FileNotFoundError(errno.ENOENT, "there is no such file", uri)
    if kind == Kind.TRANSIENT:
        advice = "check the network and the endpoint; started again, the same command goes on"
        return OSError(f"{what} failed for {waited:.0f} s: {_tell(error)}; {advice}")
    told = f"{what} failed: {_ADVICE.get(kind, 'the store refuses it')} ({_tell(error)})"
    return PermissionError(told) if kind in (Kind.NO_CREDENTIALS, Kind.ACCESS_DENIED) else OSError(told)


def _tell(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
