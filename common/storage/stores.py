"""Selects the store of a URI by its scheme."""

from common.storage.fsspec_store import open_fsspec
from common.storage.local_store import LocalStore
from common.storage.paths import is_local
from common.storage.store_protocol import Store
from common.storage.tensorflow_store import TensorFlowStore, is_served_by_tensorflow
from common.uris import refuse_credentials


def open_store(uri: str) -> Store:
    """Opens the store of a URI. Raises ValueError if its scheme is unknown, or if it may contain a credential."""
    if is_local(uri):
        return LocalStore()
    refuse_credentials(uri)
    if is_served_by_tensorflow(uri):
        return TensorFlowStore()
    return open_fsspec(uri)
