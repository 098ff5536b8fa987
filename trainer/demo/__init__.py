"""A small local page on which exported models are tried side by side: `python -m trainer demo`."""
