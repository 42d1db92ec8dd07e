import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from monolith_tf.serving import errors
from monolith_tf.serving import json_values


def _signature(**inputs):
    signature = meta_graph_pb2.SignatureDef()
    for name, dtype in inputs.items():
        signature.inputs[name].dtype = dtype.as_datatype_enum
    return signature


_TWO = _signature(user=tf.int64, price=tf.float32)
_TEXT = _signature(words=tf.string)
_FLAG = _signature(flag=tf.bool)
_NONE = _signature()


@pytest.mark.parametrize(
    ("body", "signature", "expected", "dtype"),
    [
        ({"instances": [{"user": 1, "price": 2}]}, _TWO, [1], np.int64),
        ({"inputs": {"user": [[1], [2]], "price": 2}}, _TWO, [[1], [2]], np.int64),
        ({"instances": ["a", {"b64": "/w=="}]}, _TEXT, [b"a", b"\xff"], object),
        ({"instances": [{"b64": "/w=="}, "é"]}, _TEXT, [b"\xff", b"\xc3\xa9"], object),
        ({"inputs": [["a"], ["b"]]}, _TEXT, [[b"a"], [b"b"]], object),
        ({"inputs": {"b64": "/w=="}}, _TEXT, b"\xff", object),
        ({"instances": [True, False]}, _FLAG, [True, False], np.bool_),
        ({"inputs": {"user": [], "price": []}}, _TWO, [], np.int64),
    ],
)
def test_values_get_the_type_of_their_input(body, signature, expected, dtype):
    arrays, by_row = json_values.read_inputs(body, signature)
    first = arrays[next(iter(signature.inputs)) if signature is not _TWO else "user"]
    assert first.tolist() == expected
    assert first.dtype == dtype
    assert by_row == ("instances" in body)
    if signature is _TWO:
        assert arrays["price"].dtype == np.float32


@pytest.mark.parametrize(
    ("body", "signature", "text"),
    [
        (
            {"instances": [1], "inputs": [1]},
            _TWO,
            r"either `instances`, a list of rows, or `inputs`, whole tensors\. "
            r"Received: `instances`, `inputs`\.",
        ),
        ({}, _TWO, r"must have either `instances`"),
        ({"instances": []}, _TWO, r"`instances` must be a list of at least one row\."),
        (
            {"instances": [1]},
            _TWO,
            r"has several inputs; name them\. It takes: `price`, `user`\.",
        ),
        ({"instances": [1]}, _NONE, r"name them\. It takes: \."),
        (
            {"instances": [{"user": 1, "price": 1}, {"user": 1}]},
            _TWO,
            r"must name the same inputs; row 1 does not name those of row 0\.",
        ),
        (
            {"inputs": {"user": [1.5], "price": [1]}},
            _TWO,
            r"`user` must be of the type int64\. Received: 1\.5\.",
        ),
        (
            {"inputs": {"user": ["a"], "price": [1]}},
            _TWO,
            r"`user` must be of the type int64\. Received: 'a'\.",
        ),
        (
            {"inputs": {"user": [True], "price": [1]}},
            _TWO,
            r"`user` must be of the type int64\. Received: True\.",
        ),
        (
            {"inputs": {"user": [[1], [1, 2]], "price": [1]}},
            _TWO,
            r"The rows of `user` must be numbers or strings, or lists of one length\.",
        ),
        (
            {"inputs": {"user": [None], "price": [1]}},
            _TWO,
            r"The rows of `user` must be numbers",
        ),
        ({"inputs": [["a"], []]}, _TEXT, r"The rows of `words` must be numbers"),
        (
            {"instances": [1]},
            _TEXT,
            r"`words` must be of the type string\. Received: 1\.",
        ),
        ({"instances": [{"b64": "!"}]}, _TEXT, r"`words` is not base64\."),
        ({"instances": [0.5]}, _FLAG, r"of the type bool\. Received: 0\.5\."),
    ],
)
def test_what_is_wrong_with_a_request_is_reported(body, signature, text):
    with pytest.raises(errors.RequestError, match=text):
        json_values.read_inputs(body, signature)


def test_outputs_by_row_and_whole():
    one = {"click": np.array([0.5, 1.0])}
    two = one | {"emb": np.array([[1, 2], [3, 4]])}
    write = json_values.write_outputs
    assert write(one, True) == {"predictions": [0.5, 1.0]}
    assert write(one, False) == {"outputs": [0.5, 1.0]}
    assert write(two, True) == {
        "predictions": [{"click": 0.5, "emb": [1, 2]}, {"click": 1.0, "emb": [3, 4]}]
    }
    assert write(two, False) == {
        "outputs": {"click": [0.5, 1.0], "emb": [[1, 2], [3, 4]]}
    }


def test_strings_are_text_unless_their_name_says_bytes():
    texts = np.array([[b"a"], [b"\xff"]], object)
    assert json_values.write_outputs({"t": texts}, True) == {
        "predictions": [["a"], ["\ufffd"]]
    }
    assert json_values.write_outputs({"t_bytes": texts}, False) == {
        "outputs": [[{"b64": "YQ=="}], [{"b64": "/w=="}]]
    }


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": np.zeros([2]), "b": np.zeros([3])},
        {"a": np.zeros([])},
        {"a": np.zeros([2]), "b": np.zeros([])},
    ],
)
def test_outputs_without_a_batch_size_cannot_be_listed_by_row(outputs):
    with pytest.raises(
        errors.RequestError, match=r"have no common batch size\. Send `inputs`"
    ):
        json_values.write_outputs(outputs, True)


def test_examples_take_the_type_of_their_values():
    example = json_values.read_example(
        {"i": 1, "f": [1, 0.5], "s": ["a", {"b64": "/w=="}], "none": []}
    )
    found = example.features.feature
    assert found["i"].int64_list.value == [1]
    assert found["f"].float_list.value == [1.0, 0.5]
    assert found["s"].bytes_list.value == [b"a", b"\xff"]
    assert found["none"].WhichOneof("kind") == "int64_list"


@pytest.mark.parametrize(
    ("example", "text"),
    [
        (3, r"An example must be an object, feature -> value\. Received: 3\."),
        ({"a": [1, "b"]}, r"`a` must be of the type string\. Received: 1\."),
        ({"a": None}, r"`a` must be of the type string\. Received: None\."),
    ],
)
def test_what_is_no_example_is_reported(example, text):
    with pytest.raises(errors.RequestError, match=text):
        json_values.read_example(example)
