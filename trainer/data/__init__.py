"""Reads a prepared dataset as training batches or as an interaction matrix."""
