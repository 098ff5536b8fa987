"""Runs commands in forked processes, and checks the promises of every command, however it ends."""

import re
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from os import environ
from pathlib import Path

from tests.planted import SECRET, VARIABLES, files_with_the_secret
from tests.warm_python import start_python

LIMIT_SECONDS = 600
"""Seconds after which a command is considered to hang; the slowest command takes half a minute on a busy machine."""

_PROGRAM = """
import sys, tempfile
from cartwheel.cli import main
from common.signals import exit_process
tempfile.tempdir = None  # read TMPDIR of this process, not that of the server
if sys.argv[1] == "prepare":
    from tests.beam_caches import cache_reflection
    cache_reflection()
if sys.argv[1] == "recommend":
    import trainer.recommend
    trainer.recommend.SHARD_ENTRIES = 100  # several shards
exit_process(main(sys.argv[1:]))
"""
_PREPROCESSING = ("inspect", "prepare", "synthesize")
_REASON = re.compile(r"^(?:\d\d:\d\d:\d\d ERROR [\w.]+|[\w. -]+: error): (.+)", re.MULTILINE)
# the type of an error that no code expected, or words that name neither a file nor a value
_UNCLEAR = re.compile(
    r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b|\[Errno \d+\](?!.*[/'])|'[\w-]+' codec|Expecting |.{0,15}$"
)
_lock = threading.Lock()


class Fault(Exception):  # noqa: N818 (a result of the campaign, not an error in it)
    """A command broke a promise."""


@dataclass(frozen=True)
class Folder:
    """The folder of a case, and the directories in it."""

    root: Path

    @property
    def input(self) -> Path:
        """The directory of the command's input files, which may contain secrets."""
        return self.root / "input"

    @property
    def work(self) -> Path:
        """The directory in which the command writes its output."""
        return self.root / "work"

    @property
    def temporary(self) -> Path:
        """The command's directory of temporary files."""
        return self.root / "tmp"

    @property
    def output(self) -> Path:
        """The output of the command."""
        return self.work / "output"

    def create(self) -> None:
        """Creates the directories."""
        for path in (self.input, self.work, self.temporary):
            path.mkdir(parents=True)

    def litter(self, *, was_killed: bool = False) -> list[str]:
        """Lists the files that a command left next to its output, and the unfinished files in the output.

        Skips Python files that TensorFlow generates, because a killed command leaves them.

        Args:
          was_killed: whether the last command was ended by SIGKILL. If so, skips its owner record and its folder of
            temporary files, which the next command removes.
        """
        found = [path for path in [*self.work.iterdir(), *self.temporary.iterdir()] if path != self.output]
        ignored = ("__autograph_generated_file", *((f".{self.output.name}.owner", "cartwheel-scratch") * was_killed))
        found = [path for path in found if not path.name.startswith(ignored)]
        within = [*self.output.rglob("*.partial*"), *self.output.rglob("_owner.json*")]
        return sorted(str(path.relative_to(self.root)) for path in [*found, *within])


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    status: int
    """Exit status; negative: the number of the signal that killed it."""
    out: str
    err: str


def run(arguments: Sequence[str | Path], folder: Folder) -> Ended:
    """Runs a `cartwheel` command with secrets in its environment."""
    return finish(start(arguments, folder), folder)


def start(arguments: Sequence[str | Path], folder: Folder, program: str = _PROGRAM) -> subprocess.Popen:
    """Starts a `cartwheel` command, or another program of Python, with secrets in its environment."""
    package = "preprocessing" if arguments[0] in _PREPROCESSING else "trainer"
    with _lock:  # the server answers one request at a time
        return start_python(
            ["-c", program, *map(str, arguments)],
            package=package,
            env=environ | VARIABLES | {"TMPDIR": str(folder.temporary)},
            cwd=folder.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )


def finish(process: subprocess.Popen, folder: Folder) -> Ended:
    """Waits for the end of a command, and searches everything that it wrote for the secrets.

    Raises:
      Fault: the command hangs, or a secret is in an output.
    """
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Fault(f"hangs: no end after {LIMIT_SECONDS} s") from None
    (folder.root / "stderr").write_text(err)
    found = [name for name in ("stdout", "stderr") if SECRET in {"stdout": out, "stderr": err}[name]]
    found += [file for path in (folder.work, folder.temporary) for file in files_with_the_secret(path)]
    if found:
        raise Fault(f"a secret is in {', '.join(found)}")
    return Ended(process.returncode, out, err)


def find_reason(ended: Ended) -> str | None:
    """Returns the reason of a refusal; None if the command succeeded.

    Raises:
      Fault: the command crashed, logged a traceback, or gave no clear reason.
    """
    if "Traceback (most recent call last)" in ended.err:
        raise Fault(f"traceback: {ended.err.strip().splitlines()[-1]}")
    if ended.status == 0:
        return None
    reasons = _REASON.findall(ended.err)
    if ended.status not in (1, 2) or not reasons:
        raise Fault(f"status {ended.status} without a reason: {ended.err[-300:]!r}")
    check_reason(reasons[-1])
    return reasons[-1]


def check_reason(words: str, *names: str) -> None:
    """Checks that an error message is more than that of a library, and that it contains one of the names, if given.

    Raises:
      Fault: the message is not clear.
    """
    if _UNCLEAR.match(words):
        raise Fault(f"unclear error message: {words[:300]}")
    if names and not any(name in words for name in names):
        raise Fault(f"the error message names none of {', '.join(names)}: {words[:300]}")
