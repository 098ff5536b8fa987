"""`python -m preprocessing`."""

from common.signals import exit_process
from preprocessing.cli import main

exit_process(main())
