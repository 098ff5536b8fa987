"""One module per benchmark; `python -m benchmarks` runs all of them, `python -m benchmarks.NAME` runs one."""
