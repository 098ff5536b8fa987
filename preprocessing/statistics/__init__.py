"""Computes the statistics of a dataset, for `statistics.json`."""
