"""Tensors as JSON, in the row and column forms of TF Serving's REST interface."""

import base64
import binascii
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from monolith_tf.export import examples
from monolith_tf.features.columns import DType
from monolith_tf.serving import errors
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

_BYTES_SUFFIX = "_bytes"
_BASE64 = "b64"
_KINDS = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}
"""Kind of a type -> kinds of numbers accepted for it."""


def read_inputs(
    body: JsonMapping, signature: meta_graph_pb2.SignatureDef
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the inputs of a `:predict` request, and whether it lists rows.

    Args:
      body: The request: either `instances`, a list of rows, or `inputs`, whole tensors.
      signature: The signature, with the type of each input.

    Raises:
      RequestError: If it has neither form, or a value is not of its input's type.
    """
    by_row = "instances" in body
    if by_row == ("inputs" in body):
        raise errors.bad_request(
            "The request must have either `instances`, a list of rows, or `inputs`, "
            f"whole tensors. Received: {', '.join(f'`{key}`' for key in body)}."
        )
    if by_row:
        values = _columns(body["instances"], signature)
    elif isinstance(body["inputs"], dict) and set(body["inputs"]) != {_BASE64}:
        values = body["inputs"]
    else:
        values = {_only_input(signature): body["inputs"]}
    arrays = {
        name: _array(name, value, tf.as_dtype(signature.inputs[name].dtype))
        if name in signature.inputs
        else np.array(0)  # The model raises the error for an unknown input.
        for name, value in values.items()
    }
    return arrays, by_row


def write_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> JsonDict:
    """Returns the answer to a `:predict` request.

    Args:
      outputs: Output -> value.
      by_row: Whether the request listed rows.

    Raises:
      RequestError: If rows are requested, and the outputs have no common batch size.
    """
    values = {name: _plain(name, value) for name, value in outputs.items()}
    if not by_row:
        return {"outputs": _alone(values)}
    sizes = {value.shape[0] if value.ndim else None for value in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise errors.bad_request(
            "The outputs of this signature have no common batch size. Send `inputs` "
            "instead of `instances`."
        )
    rows = [
        _alone(dict(zip(values, row, strict=True)))
        for row in zip(*values.values(), strict=True)
    ]
    return {"predictions": rows}


def read_example(values: object) -> tf.train.Example:
    """Returns an example: feature -> a value, or a list of values of one type.

    Raises:
      RequestError: If a value has a type that no feature can have.
    """
    if not isinstance(values, dict):
        raise errors.bad_request(
            f"An example must be an object, feature -> value. Received: {values!r}."
        )
    features: dict[str, tuple[DType, list[object]]] = {}
    for name, value in values.items():
        entries = value if isinstance(value, list) else [value]
        types = {type(entry) for entry in entries}
        if types <= {int, float}:
            dtype: DType = "float32" if float in types else "int64"
            if entries:
                entries = _array(name, entries, tf.as_dtype(dtype)).tolist()
            features[name] = dtype, entries
        else:
            features[name] = "string", [_bytes(name, entry) for entry in entries]
    return examples.example(features)


def _columns(
    rows: object, signature: meta_graph_pb2.SignatureDef
) -> dict[str, list[object]]:
    if not isinstance(rows, list) or not rows:
        raise errors.bad_request("`instances` must be a list of at least one row.")
    if not isinstance(rows[0], dict) or set(rows[0]) == {_BASE64}:
        return {_only_input(signature): rows}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(rows[0]):
            raise errors.bad_request(
                f"All of `instances` must name the same inputs; row {number} does not "
                "name those of row 0."
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _only_input(signature: meta_graph_pb2.SignatureDef) -> str:
    if len(signature.inputs) != 1:
        raise errors.bad_request(
            "The signature has several inputs; name them. "
            f"It takes: {', '.join(f'`{name}`' for name in sorted(signature.inputs))}."
        )
    return next(iter(signature.inputs))


def _array(name: str, value: object, dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        array = np.array(_texts(name, value), object)
        if any(isinstance(entry, list) for entry in array.ravel()):
            raise _uneven(name)
        return array
    wanted = np.dtype(dtype.as_numpy_dtype)
    if wanted.kind not in _KINDS:
        raise errors.bad_request(
            f"`{name}` is of the type {dtype.name}, which JSON does not have. Use gRPC."
        )
    try:
        array = np.array(value)
    except ValueError:
        raise _uneven(name) from None
    if array.dtype == object:
        if not all(type(entry) in (int, float) for entry in array.ravel()):
            raise _uneven(name)
        # NumPy makes objects of integers beyond 64 bits.
        raise _out_of_range(name, dtype, max(array.ravel(), key=abs))
    if array.size and array.dtype.kind not in _KINDS[wanted.kind]:
        raise errors.bad_request(
            f"`{name}` must be of the type {dtype.name}. "
            f"Received: {array.ravel()[0].item()!r}."
        )
    _check_range(name, array, dtype)
    return array.astype(wanted)


def _check_range(name: str, array: np.ndarray, dtype: tf.DType) -> None:
    """Checks that a cast changes no integer, and makes no finite number infinite."""
    if dtype == tf.bool or not array.size:
        return
    least, most = np.array([dtype.min, dtype.max]).tolist()
    if dtype.is_floating and array.dtype.kind in "iu":
        most = 2 ** (np.finfo(dtype.as_numpy_dtype).nmant + 1) - 1
        least = -most
    values = array[np.isfinite(array)]
    for value in (values.max(), values.min()) if values.size else ():
        if not least <= value.item() <= most:
            raise _out_of_range(name, dtype, value.item())


def _out_of_range(name: str, dtype: tf.DType, value: float) -> errors.RequestError:
    is_long = isinstance(value, int) and value.bit_length() > 200
    digits = "an integer of many digits" if is_long else repr(value)
    return errors.bad_request(
        f"`{name}` must be of the type {dtype.name}, which cannot hold this number "
        f"exactly. Received: {digits}."
    )


def _uneven(name: str) -> errors.RequestError:
    return errors.bad_request(
        f"The rows of `{name}` must be numbers or strings, or lists of one length. Pad "
        "shorter lists, and send the valid length of each in the input for lengths."
    )


def _texts(name: str, value: object) -> object:
    if isinstance(value, list):
        return [_texts(name, entry) for entry in value]
    return _bytes(name, value)


def _bytes(name: str, value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {_BASE64}:
        try:
            return base64.b64decode(value[_BASE64], validate=True)
        except (binascii.Error, TypeError):
            raise errors.bad_request(f"`{name}` is not base64.") from None
    raise errors.bad_request(
        f"`{name}` must be of the type string. Received: {value!r}."
    )


def _plain(name: str, value: np.ndarray) -> object:
    if value.dtype != object:
        return value.tolist()
    is_text = not name.endswith(_BYTES_SUFFIX)

    def plain(entry: list | bytes) -> object:
        if isinstance(entry, list):
            return [plain(part) for part in entry]
        if is_text:
            return entry.decode(errors="replace")
        return {_BASE64: base64.b64encode(entry).decode()}

    return plain(value.tolist())


def _alone(values: dict[str, object]) -> object:
    return next(iter(values.values())) if len(values) == 1 else values
