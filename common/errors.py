"""The error that callers handle when a dataset cannot be used."""


class ContractError(ValueError):
    """The directory is not a dataset, or the dataset is damaged or has an unsupported version."""
