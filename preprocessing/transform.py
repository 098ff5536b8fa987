"""The TF-Transform preprocessing function, which converts raw ids and features to model inputs.

Training and serving use the same function. It applies the vocabularies from the module `vocabularies`. TF-Transform's
analyzers compute quantile buckets and moments. A gap is the time between consecutive events of a visitor.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public import tfxio

from common import storage
from common.storage.paths import join
from contract.manifest import VocabularyInfo
from contract.schema import Vocabulary

# every feature may be absent: the analysis has only gaps and prices, and an item has no gap
_RAW_FEATURES: Mapping[str, pa.DataType] = {
    "visitor_id": pa.string(),
    "item_id": pa.string(),
    "event": pa.string(),
    "category_path": pa.string(),
    "property_values": pa.string(),
    "price": pa.float32(),
    "gap_seconds": pa.float32(),
}
_VOCABULARY_OF = {
    "visitor_id": Vocabulary.VISITORS,
    "item_id": Vocabulary.ITEMS,
    "category_path": Vocabulary.CATEGORIES,
    "property_values": Vocabulary.PROPERTY_VALUES,
}
_SAVED_MODEL = tft.TFTransformOutput.TRANSFORM_FN_DIR
_OUTPUT_OF = {"visitor_id": "visitor", "item_id": "item"}


@dataclass(frozen=True)
class TransformConfig:
    """Settings of the TF-Transform graph."""

    vocabularies: Mapping[Vocabulary, VocabularyInfo]
    """Size and number of out-of-vocabulary (OOV) buckets of each vocabulary, by name."""
    event_kinds: tuple[str, ...]
    """The event kinds of the dataset. The graph maps each kind to its index."""
    has_prices: bool
    """Whether any item with training events has a price. Otherwise, the price features are constant."""
    has_gaps: bool
    """Whether any visitor has several training events. Otherwise, the gap feature is constant."""
    num_buckets: int
    """Number of quantile buckets of prices, and of gaps."""


def make_preprocessing_fn(
    config: TransformConfig, vocabulary_file: Callable[[Vocabulary], str]
) -> Callable[[dict], dict]:
    """Makes the function that TF-Transform traces to a graph with the vocabularies as assets.

    The function returns these sparse tensors by name:

    - `visitor`, `item`, `event`, `category_path` and `property_values`: int64 indices;
    - `price_bucket` and `gap_bucket`: int64 quantile buckets, from 1; 0 is for missing values;
    - `price_scaled`: float32, log(1 + price), scaled to mean 0 and variance 1.

    Args:
      vocabulary_file: returns the path of a vocabulary file.
    """

    def preprocessing_fn(inputs: dict) -> dict:
        outputs = {
            _OUTPUT_OF.get(name, name): _apply_vocabulary(inputs[name], vocabulary, config, vocabulary_file(vocabulary))
            for name, vocabulary in _VOCABULARY_OF.items()
        }
        outputs["event"] = _map_values(_event_table(config.event_kinds).lookup, inputs["event"])
        outputs["price_bucket"] = _bucket(inputs["price"], config.num_buckets, config.has_prices)
        outputs["price_scaled"] = _scale(inputs["price"], config.has_prices)
        outputs["gap_bucket"] = _bucket(inputs["gap_seconds"], config.num_buckets, config.has_gaps)
        return outputs

    return preprocessing_fn


def tensor_adapter_config() -> tfxio.TensorAdapterConfig:
    """Describes, for TF-Transform, the columns and tensors of a batch from `make_analysis_batch`."""
    representation = schema_pb2.TensorRepresentation
    return tfxio.TensorAdapterConfig(
        arrow_schema=_batch_schema(),
        tensor_representations={
            name: representation(varlen_sparse_tensor=representation.VarLenSparseTensor(column_name=name))
            for name in _RAW_FEATURES
        },
    )


def make_analysis_batch(gaps: np.ndarray, prices: np.ndarray) -> pa.RecordBatch:
    """Makes the only batch that TF-Transform analyses: one row with all gaps and prices.

    With several batches, rounding would make the catalogue depend on the number of threads.

    Args:
      gaps: seconds between consecutive events of a visitor, float32.
      prices: prices of the items, float32.
    """
    columns = {"gap_seconds": gaps, "price": prices}
    return _make_batch({name: _list_of_all(values) for name, values in columns.items()}, 1)


def _list_of_all(values: np.ndarray) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def _make_batch(columns: Mapping[str, pa.Array], num_rows: int) -> pa.RecordBatch:
    """Makes a batch of `num_rows` rows with all features of the graph.

    `columns` are the lists of some features, by name. All other features get empty lists.
    """
    arrays = []
    for field in _batch_schema():
        lists = columns.get(field.name)
        arrays.append(lists.cast(field.type) if lists is not None else _empty_lists(num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=_batch_schema())


def wrap_in_lists(column: pa.Array) -> pa.Array:
    """Returns a column of lists with one value each. A null becomes an empty list."""
    offsets = np.r_[0, np.cumsum(column.is_valid().to_numpy(zero_copy_only=False))]
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), column.drop_null())


def transform_catalogue(model: tf.Module, items: pa.Table) -> dict[str, pa.Array]:
    """Applies the saved graph to the columns category_path, property_values and price of items.

    Returns the columns category_path, property_values, price_bucket and price_scaled.
    """
    raw = {
        "category_path": items["category_path"].combine_chunks(),
        "property_values": items["property_values"].combine_chunks(),
        "price": wrap_in_lists(items["price"].combine_chunks()),
    }
    batch = _make_batch(raw, len(items))
    outputs = model.transform_fn({name: _sparse(batch[name]) for name in _RAW_FEATURES})
    return {
        "category_path": _lists(outputs["category_path"], len(items)),
        "property_values": _lists(outputs["property_values"], len(items)),
        "price_bucket": pa.array(_first_values(outputs["price_bucket"], len(items)), pa.int64()),
        "price_scaled": pa.array(_first_values(outputs["price_scaled"], len(items)), pa.float32()),
    }


def load_transform(directory: str) -> tf.Module:
    """Loads the TF-Transform graph that is saved in `directory`.

    The graph's method `transform_fn` takes and returns sparse tensors by name.
    """
    with tempfile.TemporaryDirectory() as copy:  # TensorFlow cannot open files of every store
        for name in storage.list_files(join(directory, _SAVED_MODEL)):
            storage.write_bytes(join(copy, name), storage.read_bytes(join(directory, _SAVED_MODEL, name)))
        return tf.saved_model.load(copy)


def asset_path(vocabulary: Vocabulary) -> str:
    """Returns the path of a vocabulary file in the transform directory."""
    return f"{_SAVED_MODEL}/assets/{vocabulary}.txt"


def _batch_schema() -> pa.Schema:
    return pa.schema([(name, pa.large_list(kind)) for name, kind in _RAW_FEATURES.items()])


def _empty_lists(num_rows: int, kind: pa.DataType) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array(np.zeros(num_rows + 1), pa.int64()), pa.array([], kind.value_type))


def _apply_vocabulary(
    ids: tf.SparseTensor, vocabulary: Vocabulary, config: TransformConfig, path: str
) -> tf.SparseTensor:
    """Replaces ids by vocabulary indices. The graph saves the vocabulary file at `path` as an asset.

    `tft.apply_vocabulary` would only save files that TF-Transform wrote itself.
    """
    info = config.vocabularies[vocabulary]
    if info.size == 0:  # TensorFlow does not read an empty vocabulary file
        return _map_values(lambda values: tf.strings.to_hash_bucket_fast(values, info.oov_buckets), ids)
    index = tf.lookup.TextFileIndex

    def make_table() -> tf.lookup.StaticVocabularyTable:
        lines = tf.lookup.TextFileInitializer(path, tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER)
        return tf.lookup.StaticVocabularyTable(lines, info.oov_buckets)

    return _map_values(tft.make_and_track_object(make_table, name=vocabulary).lookup, ids)


def _event_table(kinds: tuple[str, ...]) -> tf.lookup.StaticHashTable:
    def make_table() -> tf.lookup.StaticHashTable:
        indices = tf.range(len(kinds), dtype=tf.int64)
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(kinds), indices), -1)

    return tft.make_and_track_object(make_table, name="event_kinds")


def _map_values(function: Callable[[tf.Tensor], tf.Tensor], sparse: tf.SparseTensor) -> tf.SparseTensor:
    return tf.SparseTensor(sparse.indices, function(sparse.values), sparse.dense_shape)


def _bucket(values: tf.SparseTensor, num_buckets: int, has_values: bool) -> tf.SparseTensor:
    if not has_values:
        return _map_values(lambda absent: tf.ones_like(absent, tf.int64), values)
    return _map_values(lambda buckets: buckets + 1, tft.bucketize(values, num_buckets))


def _scale(values: tf.SparseTensor, has_values: bool) -> tf.SparseTensor:
    if not has_values:
        return _map_values(tf.zeros_like, values)
    return tft.scale_to_z_score(_map_values(tf.math.log1p, values))


def _sparse(lists: pa.Array) -> tf.SparseTensor:
    values = lists.flatten()
    dtype = tf.string if pa.types.is_string(values.type) else tf.float32
    flat = tf.constant(values.to_numpy(zero_copy_only=False).tolist(), dtype)
    return tf.RaggedTensor.from_row_splits(flat, lists.offsets.to_numpy()).to_sparse()


def _lists(sparse: tf.SparseTensor, num_rows: int) -> pa.Array:
    counts = np.bincount(sparse.indices.numpy()[:, 0], minlength=num_rows)
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(counts)], pa.int32()), pa.array(sparse.values.numpy()))


def _first_values(sparse: tf.SparseTensor, num_rows: int) -> np.ndarray:
    """Returns the only value of each row, [num_rows]; 0 for rows without a value."""
    values = np.zeros(num_rows, sparse.values.dtype.as_numpy_dtype)
    values[sparse.indices.numpy()[:, 0]] = sparse.values.numpy()
    return values
