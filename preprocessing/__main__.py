"""`python -m preprocessing`."""

from contract.storage import exit_process
from preprocessing.cli import main

exit_process(main())
