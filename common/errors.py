"""The error that callers of the contract handle."""


class ContractError(ValueError):
    """A directory is not what the contract says: not a dataset, damaged, or of another version."""
