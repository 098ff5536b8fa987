"""Ranking the whole catalogue: top-k, metrics, baselines."""
