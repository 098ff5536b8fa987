"""The histories of visitors, and the best items of the whole catalogue for each visitor."""
