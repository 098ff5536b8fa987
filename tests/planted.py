"""Plants a secret in the environment of a command, and searches for it in everything that the command wrote."""

from pathlib import Path

SECRET = "PLANTEDsecret"
_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_KEY",
    "KAGGLE_KEY",
    "PGPASSWORD",
)
VARIABLES = {name: f"{SECRET}{number}" for number, name in enumerate(_NAMES)}
"""Environment variables for credentials. Their values contain the secret."""


def files_with_the_secret(root: Path | str) -> list[str]:
    """Returns the names of the files below a directory that contain the secret."""
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]
