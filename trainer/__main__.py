"""`python -m trainer`."""

from common.storage import exit_process
from trainer.cli import main

exit_process(main())
