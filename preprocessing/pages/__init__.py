"""The Data page of the report, a section a file; every number is one of the dataset's `statistics.json`."""
