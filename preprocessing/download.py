"""Downloads the real Retailrocket files from Kaggle, with the user's own account."""

import logging
import shutil
from pathlib import Path
from typing import Any

from common import storage

log = logging.getLogger(__name__)

DATASET = "retailrocket/ecommerce-dataset"
FILES = ("events.csv", "item_properties_part1.csv", "item_properties_part2.csv", "category_tree.csv")

_HELP = (
    "The download needs network access to kaggle.com and an account there. Accept the data's terms (CC BY-NC-SA 4.0) "
    f"at https://www.kaggle.com/datasets/{DATASET}, create an API token under Settings, and either save it as "
    "~/.kaggle/kaggle.json or set KAGGLE_USERNAME and KAGGLE_KEY. Without network access, download the archive "
    "elsewhere, unpack it here and pass its files to `prepare`, or use `synthesize` instead."
)


def download(output: str) -> dict[str, Any]:
    """Downloads `FILES` into the local directory `output`: all of them or none.

    Returns the directory and the path of each file.

    Raises:
      FileExistsError: `output` is not empty.
      ModuleNotFoundError: the package kagglehub is not installed.
      ConnectionError: Kaggle cannot be reached, denies access, or lacks a file.
    """
    storage.refuse_existing(output)
    try:
        # imported only here: no other command needs it, and its import looks for credentials
        import kagglehub
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "download needs the package kagglehub; install it with `pip install kagglehub`"
        ) from error
    try:
        source = Path(kagglehub.dataset_download(DATASET))
    except Exception as error:  # kagglehub raises whatever its HTTP client and Kaggle raise
        raise ConnectionError(f"could not download {DATASET} from Kaggle ({_first_line(error)}). {_HELP}") from error
    missing = [name for name in FILES if not (source / name).exists()]
    if missing:
        raise ConnectionError(f"the download of {DATASET} lacks {', '.join(missing)}. {_HELP}")
    with storage.publish_directory(output) as staging:
        for name in FILES:
            shutil.copyfile(source / name, Path(staging) / name)
    return {"output": output, "files": {name: str(Path(output) / name) for name in FILES}}


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
