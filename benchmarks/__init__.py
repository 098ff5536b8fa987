"""Benchmarks, one per module. `python -m benchmarks.NAME` runs one of them, `python -m benchmarks` most of them."""
