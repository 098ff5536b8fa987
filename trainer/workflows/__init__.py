"""Commands built from train and evaluate: models within a budget, a search over settings, a refit on all events."""
