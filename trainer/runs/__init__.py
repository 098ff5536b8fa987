"""Reads and writes the files of a run directory: the record, checkpoints and metrics."""
