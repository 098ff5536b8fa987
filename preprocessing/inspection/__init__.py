"""Inspects the files of a shop, and proposes how to read them."""

from preprocessing.inspection.inspect import Inspection, as_json, describe, inspect

__all__ = ["Inspection", "as_json", "describe", "inspect"]
