"""Builds a prepared dataset from an event log and, optionally, data about the items."""
