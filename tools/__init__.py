"""Generators of the documentation (site, reference pages, result tables, pictures) and of the bill of materials."""
