"""Stages of the demo: `cartwheel` commands, each with its own log file."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from common.cli import print_text

_SHOWN_LINES = 20
"""Number of lines that are printed from the end of a failed stage's log."""


class Stages:
    """Runs the commands of a demo's stages, and prints the seconds of each."""

    def __init__(self, root: Path) -> None:
        self.root, self.logs = root, root / "logs"
        self.seconds: dict[str, float] = {}
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(self, verb: str, *flags: object, creates: Path, label: str = "") -> None:
        """Runs `cartwheel VERB FLAGS` unless `creates` exists; after a failure, shows the end of the log and exits."""
        name = f"{verb} {label}".strip()
        if creates.exists():
            print_text(f"  {name:22} already done")
            return
        print_text(f"  {name:22}", end="")
        words = [verb, *map(str, flags)]
        log = self.logs / f"{name.replace(' ', '-')}.log"
        begin = time.perf_counter()
        with open(log, "wb") as file:
            done = subprocess.run([sys.executable, "-m", "cartwheel", *words], stdout=file, stderr=file, check=False)
        self.seconds[name] = round(time.perf_counter() - begin, 1)
        print_text(f"{self.seconds[name]:8.1f} s")
        if done.returncode:
            self._exit(words, log)

    def _exit(self, words: list[str], log: Path) -> None:
        lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        sys.exit(
            "\n".join(lines)
            + f"\n\n`{shlex.join(['cartwheel', *words])}` failed. The lines above are the end of {log}; "
            "earlier stages are kept. Run the same command again to continue."
        )
