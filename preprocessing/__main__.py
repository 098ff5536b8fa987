"""`python -m preprocessing`."""

from common.storage import exit_process
from preprocessing.cli import main

exit_process(main())
