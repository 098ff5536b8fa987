"""Measures the wall-clock and CPU seconds of every command's `--help`, and whether the text fits a screen.

Records the fastest of three starts. If all three are too slow, starts the command again, because other programs
may have used the cores.
"""

import sys

from benchmarks.harness import report, run_command

LEAST_STARTS, MOST_STARTS = 3, 20
MOST_SECONDS = 1.0
SCREEN_LINES, SCREEN_COLUMNS = 50, 100
COMMANDS = {
    "preprocessing": ("inspect", "prepare", "report", "synthesize", "download"),
    "k8s.submit": ("prepare", "train", "tune", "evaluate-export", "pipeline", "status", "logs", "cancel"),
    "trainer": ("train", "tune", "evaluate", "export", "recommend", "report", "demo", "doctor"),
}


def main() -> int:
    """Measures `--help` of all commands; returns 1 if a help text is slow or longer than a screen."""
    commands = [[package, *command] for package, names in COMMANDS.items() for command in ([], *([n] for n in names))]
    figures = {" ".join(command): measure(command) for command in commands}
    slow = [name for name, figure in figures.items() if figure["seconds"] >= MOST_SECONDS]
    long = [name for name, figure in figures.items() if figure["lines"] > SCREEN_LINES]
    report("start", {"commands": figures, "slow": slow, "longer_than_a_screen": long})
    return 1 if slow or long else 0


def measure(command: list[str]) -> dict[str, float]:
    """Runs a command's `--help` several times. Returns the lowest seconds and CPU seconds, and the number of lines."""
    arguments = ["env", f"COLUMNS={SCREEN_COLUMNS}", sys.executable, "-m", *command, "--help"]
    timings = [run_command(arguments) for _ in range(LEAST_STARTS)]
    while min(timing.seconds for timing in timings) >= MOST_SECONDS and len(timings) < MOST_STARTS:
        timings.append(run_command(arguments))
    return {
        "seconds": round(min(timing.seconds for timing in timings), 3),
        "cpu_seconds": round(min(timing.cpu_seconds for timing in timings), 3),
        "lines": len(timings[0].stdout.splitlines()),
    }


if __name__ == "__main__":
    sys.exit(main())
