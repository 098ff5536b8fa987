"""Ranks the whole catalogue: the histories of visitors, and the best items for them."""
