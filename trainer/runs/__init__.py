"""Contents of a run directory: the record, checkpoints, metrics."""
