"""Dataset statistics."""
