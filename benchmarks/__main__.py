"""Runs the benchmarks in COMMANDS in sequence, each in a separate process."""

import subprocess
import sys
import tempfile

COMMANDS = (
    ("demo", "--record", "--output", "{scratch}/demo"),
    ("first_call", "{scratch}/demo/export"),
    ("notebook", "{scratch}/demo/shop/events.csv"),
    ("synthesize",),
    ("full_size", "{scratch}/full"),
    ("preprocessing", "{scratch}/full/shop"),
    ("statistics", "{scratch}/full/shop"),
    ("input",),
    ("mf_step",),
    ("start",),
    ("top_k",),
    ("evaluation",),
    ("scaling",),
    ("cluster",),
)
"""Name and arguments of each benchmark. All of them need only the clone.

`formats` is run separately. So is `quality`, which needs the Retailrocket data and most of an hour, and the soak test
`tests.integration.soak`, which needs a prepared dataset.
"""


def main() -> int:
    """Runs the benchmarks and prints the names of those that failed."""
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, *arguments in COMMANDS:
            given = [argument.format(scratch=scratch) for argument in arguments]
            print(f"\n# python -m benchmarks.{name}", flush=True)
            if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *given], check=False).returncode:
                failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all done; `python -m tools` updates the tables")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
