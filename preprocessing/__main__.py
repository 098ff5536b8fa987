"""`python -m preprocessing`."""

from common.signals import run_command
from preprocessing.cli import main

run_command(main)
