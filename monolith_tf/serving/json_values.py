"""Tensors as JSON, in the row and column forms of TF Serving's REST interface."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.serving import errors

_BYTES_SUFFIX = "_bytes"
_BASE64 = "b64"


def read_inputs(
    body: Mapping[str, Any], signature: Any
) -> tuple[dict[str, np.ndarray], bool]:
    """Returns the inputs of a `:predict` request, and whether it lists rows.

    Args:
      body: The request: either `instances`, a list of rows, or `inputs`, whole tensors.
      signature: Says of which type each input is.

    Raises:
      RequestError: If it is of neither form, or a value is not of its input's type.
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
        else np.array(0)  # The model says that there is no such input.
        for name, value in values.items()
    }
    return arrays, by_row


def write_outputs(outputs: Mapping[str, np.ndarray], by_row: bool) -> dict[str, Any]:
    """Returns the answer to a `:predict` request.

    Args:
      outputs: Output -> value.
      by_row: Whether the request listed rows.

    Raises:
      RequestError: If rows are asked for, and the outputs have no common batch size.
    """
    values = {name: _plain(name, value) for name, value in outputs.items()}
    if not by_row:
        return {"outputs": _alone(values)}
    sizes = {value.shape[0] if value.ndim else None for value in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise errors.bad_request(
            "The outputs of this signature have no common batch size. Ask with "
            "`inputs` in place of `instances`."
        )
    rows = [
        _alone(dict(zip(values, row, strict=True)))
        for row in zip(*values.values(), strict=True)
    ]
    return {"predictions": rows}


def read_example(values: Any) -> tf.train.Example:
    """Returns an example: feature -> a value, or a list of values of one type.

    Raises:
      RequestError: If a value is of no feature's type.
    """
    if not isinstance(values, dict):
        raise errors.bad_request(
            f"An example must be an object, feature -> value. Received: {values!r}."
        )
    features = {}
    for name, value in values.items():
        entries = value if isinstance(value, list) else [value]
        types = {type(entry) for entry in entries}
        if types <= {int}:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=entries))
        elif types <= {int, float}:
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=entries))
        else:
            texts = [_bytes(name, entry) for entry in entries]
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        features[name] = feature
    return tf.train.Example(features=tf.train.Features(feature=features))


def _columns(rows: Any, signature: Any) -> dict[str, list[Any]]:
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


def _only_input(signature: Any) -> str:
    if len(signature.inputs) != 1:
        raise errors.bad_request(
            "The signature has several inputs; name them. "
            f"It takes: {', '.join(f'`{name}`' for name in sorted(signature.inputs))}."
        )
    return next(iter(signature.inputs))


def _array(name: str, value: Any, dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        value = _texts(name, value)
    try:
        array = np.array(value, object if dtype == tf.string else None)
    except ValueError:
        array = np.array(value, object)
    if dtype == tf.string:
        if any(isinstance(entry, list) for entry in array.flat):
            raise _uneven(name)
        return array
    if array.dtype == object:
        raise _uneven(name)
    kinds = {"i": "iu", "u": "iu", "f": "iuf", "b": "b"}
    wanted = dtype.as_numpy_dtype
    if array.size and array.dtype.kind not in kinds[np.dtype(wanted).kind]:
        raise errors.bad_request(
            f"`{name}` must be of the type {dtype.name}. "
            f"Received: {array.flat[0].item()!r}."
        )
    return array.astype(wanted)


def _uneven(name: str) -> errors.RequestError:
    return errors.bad_request(
        f"The rows of `{name}` must be numbers or strings, or lists of one length. Pad "
        "shorter lists, and say in the input with the lengths how much of each counts."
    )


def _texts(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(name, entry) for entry in value]
    return _bytes(name, value)


def _bytes(name: str, value: Any) -> bytes:
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


def _plain(name: str, value: np.ndarray) -> Any:
    if value.dtype != object:
        return value.tolist()
    is_text = not name.endswith(_BYTES_SUFFIX)

    def plain(entry: Any) -> Any:
        if isinstance(entry, list):
            return [plain(part) for part in entry]
        if is_text:
            return entry.decode(errors="replace")
        return {_BASE64: base64.b64encode(entry).decode()}

    return plain(value.tolist())


def _alone(values: dict[str, Any]) -> Any:
    return next(iter(values.values())) if len(values) == 1 else values
