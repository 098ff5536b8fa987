"""Operations on files, local or in an object store. Directories are published whole or not at all.

The scheme of a URI selects the store. A plain path or `file://` is on the local disk. TensorFlow's file systems open
gs:// and, with tensorflow-io, s3://. An fsspec plugin (`s3fs`, `gcsfs` of the `storage` extra) opens all other URIs.
Network operations are retried within the limits of `limits.py`, and transfers are verified by SHA-256.
"""

from common.errors import InUseError, OwnershipError, OwnershipLostError
from common.storage.cache import process_cache
from common.storage.disk_space import explain_full_disk
from common.storage.files import (
    exists,
    find_files,
    is_intact,
    list_files,
    local_copy,
    open_binary,
    read_bytes,
    remove,
    sha256,
    size,
    upload,
    upload_all,
    write_bytes,
)
from common.storage.local_store import remove_partial
from common.storage.ownership import (
    check_ownership,
    own_directory,
    own_output,
    stop_if_lost,
    try_to_check_ownership,
)
from common.storage.paths import OWNER, is_local, local_path
from common.storage.publication import (
    CLAIM,
    check_writable,
    publish_directory,
    record_publication,
    refuse_existing,
    was_published,
)
from common.storage.scratch import hold_temporary_files, make_scratch, remove_scratch, scratch_folder
from common.storage.tensorflow_store import is_served_by_tensorflow

__all__ = [
    "CLAIM",
    "OWNER",
    "InUseError",
    "OwnershipError",
    "OwnershipLostError",
    "check_ownership",
    "check_writable",
    "exists",
    "explain_full_disk",
    "find_files",
    "hold_temporary_files",
    "is_intact",
    "is_local",
    "is_served_by_tensorflow",
    "list_files",
    "local_copy",
    "local_path",
    "make_scratch",
    "open_binary",
    "own_directory",
    "own_output",
    "process_cache",
    "publish_directory",
    "read_bytes",
    "record_publication",
    "refuse_existing",
    "remove",
    "remove_partial",
    "remove_scratch",
    "scratch_folder",
    "sha256",
    "size",
    "stop_if_lost",
    "try_to_check_ownership",
    "upload",
    "upload_all",
    "was_published",
    "write_bytes",
]
