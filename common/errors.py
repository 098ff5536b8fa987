"""The error that callers handle when a dataset cannot be used."""


class ContractError(ValueError):
    """The directory is not a dataset, or it is damaged or of another version."""
