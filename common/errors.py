"""Defines the error that callers handle if a dataset cannot be used."""


class ContractError(ValueError):
    """The directory is not a dataset, or the dataset is damaged or has an unsupported version."""
