"""Commands that train several runs: `--preset auto`, the search over settings, and the refit on all events."""
