"""The Beam pipelines and their stages."""
