"""`python -m trainer`."""

from common.signals import run_command
from trainer.cli import main

run_command(main)
