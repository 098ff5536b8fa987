"""`python -m cartwheel`, the same as `cartwheel`."""

from cartwheel.cli import main
from common.signals import run_command


def run() -> None:
    """Runs the command line and exits; the entry point of the console script."""
    run_command(main)


if __name__ == "__main__":
    run()
