"""The demo: from an event log to recommendations, one command per stage."""
