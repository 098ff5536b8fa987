"""`python -m trainer`."""

from common.signals import exit_process
from trainer.cli import main

exit_process(main())
