"""What a run directory holds: the record, checkpoints, metrics."""
