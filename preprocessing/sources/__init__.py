"""Readers of the input files."""
