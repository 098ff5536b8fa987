"""The warm-up requests of an export, read as a server reads them: by the descriptors of its messages."""

import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.export import export_model
from trainer.serving import layout

# name, number and type of the fields, from the .proto files of TensorFlow Serving
MESSAGES = {
    "ModelSpec": [("signature_name", 3, None)],
    "Entry": [("key", 1, None), ("value", 2, ".tensorflow.TensorProto")],
    "PredictRequest": [("model_spec", 1, ".serving.ModelSpec"), ("inputs", 2, ".serving.Entry")],
    "PredictLog": [("request", 1, ".serving.PredictRequest")],
    "PredictionLog": [("predict_log", 6, ".serving.PredictLog")],
}


def prediction_log_class():
    file = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", package="serving", dependency=["tensorflow/core/framework/tensor.proto"], syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, of in fields:
            kind = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE if of else 9  # 9: string
            label = 3 if field == "inputs" else 1  # 3: repeated
            message.field.add(name=field, number=number, type=kind, type_name=of, label=label)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.PredictionLog"))


def test_the_warm_up_requests_of_an_export_call_every_signature(tmp_path):
    items = [f"item-{index}" for index in range(12)]
    dataset = build_dataset(
        str(tmp_path / "dataset"), train=[("anna", "item-0"), ("bob", "item-1")], visitors=["anna", "bob"], items=items
    )
    export = str(tmp_path / "export")
    export_model(DotModel(np.ones((2, 2)), np.ones((12, 2)), np.arange(12)), dataset, export, name="dot")
    signatures = tf.saved_model.load(export).signatures
    prediction_log, answers = prediction_log_class(), {}
    for record in tf.data.TFRecordDataset(f"{export}/{layout.WARM_UP}").as_numpy_iterator():
        request = prediction_log.FromString(record).predict_log.request
        inputs = {entry.key: tf.constant(tf.make_ndarray(entry.value)) for entry in request.inputs}
        answers[request.model_spec.signature_name] = signatures[request.model_spec.signature_name](**inputs)
    assert sorted(answers) == sorted(signatures)
    # the list of an unknown visitor with the history item-0, item-1
    assert answers["recommend"]["item_id"].numpy().tolist() == [[f"item-{i}".encode() for i in range(11, 1, -1)]]
    assert answers["similar_items"]["item_id"].shape == (1, 10)
