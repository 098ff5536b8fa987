"""Prepared dataset in; checkpoints, metrics, SavedModel and recommendations out."""
