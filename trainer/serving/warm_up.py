"""Warm-up requests of an export. A server runs them before it accepts other requests, because first calls are slow.

TensorFlow Serving reads `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog messages.

Shapes: B queries, H entries of a history.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

Inputs = Mapping[str, np.ndarray]
"""The inputs of a request by name."""

_K = 10
_LENGTH_DELIMITED = 2
# field numbers of tensorflow_serving/apis/{prediction_log,predict,model}.proto
_PREDICTION_LOG_PREDICT_LOG = 6
_PREDICT_LOG_REQUEST = 1
_REQUEST_MODEL_SPEC, _REQUEST_INPUTS = 1, 2
_MODEL_SPEC_SIGNATURE_NAME = 3
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def warm_up_requests(items: Sequence[str], event_kinds: Sequence[str], num_items: int) -> dict[str, Inputs]:
    """Returns a request per signature, each for a single visitor or item. Histories contain all `items`."""
    visitor, k = np.array([""], object), np.array([min(_K, num_items)], np.int32)
    history = np.array([list(items)], object)
    query = {"visitor_id": visitor, "history": history, "k": k, "exclude_seen": np.array([True])}
    events = {
        "history_event": np.full(history.shape, event_kinds[0], object),
        "history_age_ms": np.zeros(history.shape, np.int64),
    }
    return {
        "serving_default": query,
        "recommend": query,
        "recommend_events": query | events,
        "score": {"visitor_id": visitor, "item_id": history[0, :1]},
        "similar_items": {"item_id": history[0, :1], "k": k},
    }


def write_warm_up(path: str, requests: Mapping[str, Inputs]) -> None:
    """Writes requests, by signature, to a local TFRecord file."""
    with tf.io.TFRecordWriter(path) as writer:
        for signature, inputs in requests.items():
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: Inputs) -> bytes:
    """Returns a request as a serialised PredictionLog of TensorFlow Serving.

    It is encoded by hand, because tensorflow-serving-api works only with one version of TensorFlow.
    """
    request = _field(_REQUEST_MODEL_SPEC, _field(_MODEL_SPEC_SIGNATURE_NAME, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += _field(_REQUEST_INPUTS, _field(_ENTRY_KEY, name.encode()) + _field(_ENTRY_VALUE, tensor))
    return _field(_PREDICTION_LOG_PREDICT_LOG, _field(_PREDICT_LOG_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of a Protocol Buffers message."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Encodes an integer as a Protocol Buffers varint."""
    head = bytearray()
    while value > 0x7F:
        head.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*head, value])
