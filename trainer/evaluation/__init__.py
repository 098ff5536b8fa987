"""Evaluation cases, metrics, baselines and comparisons."""
