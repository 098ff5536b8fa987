"""Trains models on a prepared dataset; writes checkpoints, metrics, SavedModels and recommendations."""
