"""Submits the steps of a run to a cluster and follows them: `python k8s/submit.py --help`. Needs only kubectl."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # run as a file, so that a clone needs no set-up: imports start at its root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from k8s.cli import main

    sys.exit(main())
