"""The report of a run and the summaries of the commands."""
