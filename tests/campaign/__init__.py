"""A campaign of mutated inputs, damaged files and killed commands: `python -m tests.campaign --minutes 30`."""
