"""Turns the standard error of kubectl into a message that quotes the server and says what to do."""

import re
from dataclasses import dataclass
from enum import Enum, auto

_NOTICE = re.compile(r"Warning:|[EWI]\d{4} ")
_START = re.compile(r'Error from server|error:|The \w+ ".*" is invalid|Unable to connect')
_PREFIX = re.compile(r'^(.*"STDIN": |Error from server( \(\w+\))?: |error: )+')

_FLAGS = {
    r"nvidia\.com/gpu": "--gpus",
    r"nvidia\.com/mig": "--gpu-resource",
    r"memory": "--memory",
    r"\bcpu\b": "--cpu",
    r"completions|parallelism": "--nodes",
    r"[Qq]ueue": "--queue",
    r"\bimage\b": "--registry or --tag",
    r"[Jj]ob[Ss]et|[Vv]olume": "--overlay",
}
"""For each pattern: the flags to change if the pattern matches the server's message."""


class Reason(Enum):
    """Errors of kubectl that callers handle."""

    NO_ANSWER = auto()
    """The cluster did not answer; it may answer later."""
    UNKNOWN_KIND = auto()
    """The cluster has no objects of that kind."""
    FORBIDDEN = auto()
    """The user has no right to do this."""
    NO_DRY_RUN = auto()
    """A webhook of the cluster does not support dry runs."""


class KubectlError(Exception):
    """An error of kubectl, with advice for the user."""

    def __init__(self, text: str, reason: Reason | None = None) -> None:
        """Takes the message; `reason` is None if no caller handles the error."""
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class _Refusal:
    """A rule for messages of the server: if `pattern` matches the message, `sentence` replaces it.

    Placeholders of `sentence`: `{words}`, the server's message; `{name}`, the text that the pattern's group matches;
    `{flags}`, the advice of `flags_for`.
    """

    pattern: str
    sentence: str
    reason: Reason | None = None


_REFUSALS = (
    _Refusal(r"does not support dry run", "a webhook does not support dry runs: {words}", Reason.NO_DRY_RUN),
    _Refusal(
        r'failed calling webhook "([^"]+)"',
        "webhook {name} does not answer: {words}; nothing can be submitted until its controller runs",
    ),
    _Refusal(
        r"Unauthorized|must be logged in|exec: executable|getting credentials",
        "the cluster does not accept your credentials: {words}; log in again",
    ),
    _Refusal(r"/containerLogs/", "the node of the pod does not answer: {words}"),
    _Refusal(
        r"Unable to connect|connection refused|no such host|timeout|timed out|TLS handshake|\bEOF\b",
        "the cluster does not answer: {words}; `kubectl config current-context` shows which cluster it is",
        Reason.NO_ANSWER,
    ),
    _Refusal(
        r"cannot \w+ resource",
        "no permission: {words}; ask for the Role `cartwheel-submitter` of k8s/namespace",
        Reason.FORBIDDEN,
    ),
    _Refusal(r"exceeded quota|failed quota", "a quota refuses it: {words}; {flags}, or ask for a larger quota"),
    _Refusal(r'webhook "([^"]+)" denied', "webhook {name} refuses it: {words}; {flags}"),
    _Refusal(r"ValidatingAdmissionPolicy '([^']+)'", "policy {name} refuses it: {words}; {flags}"),
    _Refusal(
        r'no matches for kind "(\w+)"|resource type "(\w+)"',
        "this cluster has no {name}; install its controller, or use another --overlay",
        Reason.UNKNOWN_KIND,
    ),
    _Refusal(r'namespaces "([^"]+)" not found', "there is no namespace {name}; create it, or change --namespace"),
    _Refusal(
        r"is invalid: |is forbidden: |strict decoding error|cannot be handled as|error validating",
        "the cluster refuses it: {words}; {flags}",
    ),
)
"""All kinds of refusals; the first matching pattern applies."""


def explain(stderr: str) -> KubectlError:
    """Turns the standard error of kubectl into one error. Its message has one sentence per kind of refusal."""
    words: dict[_Refusal | None, list[str]] = {}
    for error in _errors(stderr):
        refusal = next((refusal for refusal in _REFUSALS if re.search(refusal.pattern, error)), None)
        known = words.setdefault(refusal, [])
        if (text := _PREFIX.sub("", error)) not in known:
            known.append(text)
    sentences = [_sentence(refusal, ", and ".join(texts)) for refusal, texts in words.items()]
    reasons = [refusal.reason for refusal in words if refusal and refusal.reason]
    return KubectlError("; also, ".join(sentences), reasons[0] if reasons else None)


def _errors(stderr: str) -> list[str]:
    """Splits standard error into errors; drops empty lines and notices."""
    errors: list[str] = []
    for line in (line.strip() for line in stderr.splitlines()):
        if not line or _NOTICE.match(line):
            continue
        if errors and not _START.match(line):
            errors[-1] += f" {line}"
        else:
            errors.append(line)
    return errors or ["kubectl failed without a message"]


def _sentence(refusal: _Refusal | None, words: str) -> str:
    if refusal is None:
        return f"kubectl: {words}"
    found = re.search(refusal.pattern, words)
    name = next((group for group in found.groups() if group), "") if found else ""
    return refusal.sentence.format(words=words.rstrip(". "), name=name, flags=flags_for(words))


def flags_for(words: str) -> str:
    """Returns advice on what to change. `words`: the message with which the server refused an object."""
    flags = [flag for pattern, flag in _FLAGS.items() if re.search(pattern, words)]
    return f"change {', '.join(flags)}" if flags else "change the manifests in k8s/components"
