"""The Data page of the report, one file per section, drawn from the dataset's `statistics.json`."""
