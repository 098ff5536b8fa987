"""Generators of the documentation: the site, reference pages, result tables, pictures."""
