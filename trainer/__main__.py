"""`python -m trainer`."""

from contract.storage import exit_process
from trainer.cli import main

exit_process(main())
