"""Answers the requests of TF Serving's `PredictionService` from a model."""

import math
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import input_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import regression_pb2

from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import tensors

ExamplesRequest: TypeAlias = (
    classification_pb2.ClassificationRequest | regression_pb2.RegressionRequest
)
Request: TypeAlias = (
    predict_pb2.PredictRequest
    | ExamplesRequest
    | get_model_metadata_pb2.GetModelMetadataRequest
)
Response: TypeAlias = (
    predict_pb2.PredictResponse
    | classification_pb2.ClassificationResponse
    | regression_pb2.RegressionResponse
    | get_model_metadata_pb2.GetModelMetadataResponse
)

_INPUTS = tf.compat.v1.saved_model.signature_constants.CLASSIFY_INPUTS
_CLASSES = tf.compat.v1.saved_model.signature_constants.CLASSIFY_OUTPUT_CLASSES
_SCORES = tf.compat.v1.saved_model.signature_constants.CLASSIFY_OUTPUT_SCORES
_VALUES = tf.compat.v1.saved_model.signature_constants.REGRESS_OUTPUTS


def predict(
    model: model_lib.Model, request: predict_pb2.PredictRequest
) -> predict_pb2.PredictResponse:
    """Answers named tensors with named tensors.

    Raises:
      RequestError: If the request does not match the model.
    """
    key = request.model_spec.signature_name
    wanted = model.signature(key).inputs
    inputs = {
        name: tensors.read(name, value, wanted[name])
        if name in wanted
        else np.array(0)  # The model raises the error for an unknown input.
        for name, value in request.inputs.items()
    }
    outputs = model.run(key, inputs, request.output_filter)
    response = predict_pb2.PredictResponse()
    _describe(model, request, response)
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response


def classify(
    model: model_lib.Model, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Answers examples with classes and their scores.

    Raises:
      RequestError: If the signature does not classify, or the examples do not match it.
    """
    outputs = _run_on_examples(model, request, {_CLASSES, _SCORES}, "classify")
    response = classification_pb2.ClassificationResponse()
    _describe(model, request, response)
    rows, columns = next(iter(outputs.values())).shape
    for row in range(rows):
        found = response.result.classifications.add()
        for column in range(columns):
            entry = found.classes.add()
            if _CLASSES in outputs:
                entry.label = outputs[_CLASSES][row, column].decode()
            if _SCORES in outputs:
                entry.score = outputs[_SCORES][row, column]
    return response


def regress(
    model: model_lib.Model, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Answers examples with one number each.

    Raises:
      RequestError: If the signature does not regress, or the examples do not match it.
    """
    outputs = _run_on_examples(model, request, {_VALUES}, "regress")
    response = regression_pb2.RegressionResponse()
    _describe(model, request, response)
    for value in outputs[_VALUES].ravel().tolist():
        response.result.regressions.add(value=value)
    return response


def metadata(
    model: model_lib.Model, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns a model's signatures.

    Raises:
      RequestError: If something else is requested.
    """
    if list(request.metadata_field) != ["signature_def"]:
        raise errors.bad_request(
            "`metadata_field` must be `signature_def`. "
            f"Received: metadata_field={list(request.metadata_field)}."
        )
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    _describe(model, request, response)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for key, signature in model.signatures.items():
        signatures.signature_def[key].CopyFrom(signature)
    response.metadata["signature_def"].Pack(signatures)
    return response


def _describe(model: model_lib.Model, request: Request, response: Response) -> None:
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = model.version
    response.model_spec.signature_name = request.model_spec.signature_name


def _run_on_examples(
    model: model_lib.Model, request: ExamplesRequest, outputs: set[str], what: str
) -> dict[str, np.ndarray]:
    key = request.model_spec.signature_name
    signature = model.signature(key)
    if set(signature.inputs) != {_INPUTS} or not set(signature.outputs) <= outputs:
        raise errors.bad_request(
            f"The signature `{key or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY}`"
            f" does not {what}: it takes {sorted(signature.inputs)} and returns "
            f"{sorted(signature.outputs)}."
        )
    examples = _serialized(request.input)
    if not examples:
        raise errors.bad_request("The request has no examples.")
    return model.run(key, {_INPUTS: np.array(examples, object)})


def _serialized(request_input: input_pb2.Input) -> list[bytes]:
    """Returns the examples of a request, each with the shared context."""
    context = b""
    if request_input.WhichOneof("kind") == "example_list_with_context":
        examples = request_input.example_list_with_context.examples
        shared = request_input.example_list_with_context.context
        _check_numbers(shared, "the context")
        context = shared.SerializeToString()
    else:
        examples = request_input.example_list.examples
    size = len(context) * len(examples)
    if size > max(tensors.MAX_EXPANDED_BYTES, request_input.ByteSize()):
        raise errors.bad_request(
            f"The context of {len(context):,} bytes is too long for {len(examples):,} "
            f"examples; together they may take {tensors.MAX_EXPANDED_BYTES:,} bytes."
        )
    for row, example in enumerate(examples):
        _check_numbers(example, f"example {row}")
    # Two concatenated messages parse as one with the fields of both.
    return [context + example.SerializeToString() for example in examples]


def _check_numbers(example: example_pb2.Example, where: str) -> None:
    """Raises RequestError if a feature is NaN."""
    for name, feature in example.features.feature.items():
        if any(map(math.isnan, feature.float_list.value)):
            raise errors.bad_request(
                f"`{name}` is NaN in {where}, which training treats as missing. Send "
                "a number, or omit the feature."
            )
