"""Bad requests: the server returns the reason, and continues."""

import http.client
import json
import re
import socket
import urllib.parse

import grpc
import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2

from monolith_tf.serving import json_values
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import server as server_lib
from monolith_tf.serving import tensors

_PREDICT = "/v1/models/default:predict"
_LIMIT = 100_000


@pytest.fixture(scope="module")
def shared(saved):
    """A server shared by all tests here, so no test may leave it broken."""
    with server_lib.ModelServer(
        saved, port=0, rest_port=0, max_body_bytes=_LIMIT
    ) as running:
        yield running
        assert _send(running, {"signature_name": "text", "inputs": ["a"]})[0] == 200


@pytest.fixture
def stub(shared):
    with grpc.insecure_channel(f"127.0.0.1:{shared.port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _send(server, body, path=_PREDICT, method="POST", **headers):
    """Returns status and JSON."""
    if not isinstance(body, bytes | str):
        body = json.dumps(body)
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _text(value):
    return {"signature_name": "text", "inputs": value}


def _row(**values):
    row = {"user": 1, "price": 0.5, "history": [1], "history_length": 1}
    return {"instances": [row | values]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"instances":' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        (_text(json.loads("[" * 40 + '"a"' + "]" * 40)), "`words` must have the shape"),
        (_row(user=json.loads("[" * 40 + "1.5" + "]" * 40)), "Received: 1.5"),
        (_text(json.loads("[" * 300 + '"a"' + "]" * 300)), "`words` must be|too deep"),
        (_row(user=json.loads("[" * 300 + "1" + "]" * 300)), "`user` must be|too deep"),
        (r'{"signature_name": "text", "inputs": ["\ud800"]}', "not valid Unicode"),
        (r'{"\udfff": 1}', "not valid Unicode"),
        (
            b'{"signature_name": "text", "inputs": ["\xed\xa0\x80"]}',
            "not valid Unicode",
        ),
        (b'{"inputs": "\xff"}', "not valid Unicode"),
        ('{"inputs": 1'.encode("utf-16"), "not valid Unicode"),
        (_row(user=2**63), "`user` must be of the type int64, which cannot hold"),
        (_row(user=-(2**63) - 1), r"Received: -9223372036854775809"),
        (_row(user=10**400), "an integer of many digits"),
        ('{"inputs": ' + "9" * 5000 + "}", "not JSON"),
        (_row(price=2**24), "of the type float32, which cannot hold"),
        (_row(price=1e39), "of the type float32, which cannot hold"),
        (
            json.dumps(_row(price=0.5)).replace("0.5", "1e400"),
            "^The request has a number beyond 64 bits: 1e400",
        ),
        (json.dumps(_row(price=0.5)).replace("0.5", "-1e400"), "beyond 64 bits: -1e4"),
        (_row(price=10**400), "of the type float32, which cannot hold"),
        (_row(price=True), "`price` must be of the type float32. Received: True."),
        (_row(user="NaN"), "`user` must be of the type int64. Received: 'NaN'."),
        ('{"instances": [{"user": NaN}]}', "`user` must be of the type int64"),
        (_row(price=float("nan")), "`price` is NaN in row 0, .* treats as missing"),
        (
            {
                "inputs": {"user": [1, 2, 3], "price": [0.5, 1.5, float("nan")]}
                | {"history": [[1]] * 3, "history_length": [1] * 3}
            },
            "`price` is NaN in row 2",
        ),
        (
            {
                "signature_name": "regress",
                "examples": [{"user": 1}, {"user": 2, "price": [0.5, float("nan")]}],
            },
            "`price` is NaN in example 1, .* or omit the feature",
        ),
        (
            {
                "signature_name": "regress",
                "examples": [{"user": 1}],
                "context": {"price": float("nan")},
            },
            "`price` is NaN in the context",
        ),
        (_row(**{"x" * 5000: 1}), "The request lacks|The request has `xxx"),
        ({"signature_name": "regress", "examples": [{"user": 2**63}]}, "int64, which"),
        ({"signature_name": "regress", "examples": [{"a": 10**400}]}, "int64, which"),
        ({"signature_name": "regress", "examples": [{"a": [10**400, 0.5]}]}, "float32"),
        ({"signature_name": "regress", "examples": [{"a": [[1]]}]}, "type string"),
        (
            {
                "signature_name": "regress",
                "examples": [{}] * 9000,
                "context": {"a": "x" * 20_000},
            },
            "The context of 20,0.. bytes is too long for 9,000 examples",
        ),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(shared, body, message):
    path = _PREDICT
    if isinstance(body, dict) and "examples" in body:
        path = path.replace("predict", "regress")
    status, answer = _send(shared, body, path)
    assert status == 400
    assert len(answer["error"]) < 2100
    assert list(answer) == ["error"]
    assert re.search(message, answer["error"])


def test_numbers_at_the_end_of_their_range_are_taken(shared):
    body = _row(user=2**63 - 1, price=2**24 - 1, history=[-(2**63)], history_length=0)
    assert _send(shared, body)[0] == 200
    assert _send(shared, _row(price=3.4e38))[0] == 200
    # A surrogate pair is a character.
    status, answer = _send(
        shared, r'{"signature_name": "text", "inputs": ["\ud83d\ude00"]}'
    )
    assert (status, answer["outputs"]["upper"]) == (200, ["\U0001f600"])


def test_long_bodies_are_refused(shared):
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        body = json.dumps(_text(["a" * 2 * _LIMIT])).encode()
        if headers:
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        status, answer = _send(shared, body, **headers)
        assert (status, answer["error"]) == (
            413,
            "A request may have 100,000 bytes. Send fewer rows at once, or use gRPC.",
        )
    assert _send(shared, _text(["a" * (_LIMIT - 100)]))[0] == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
        (b"POST %s HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n99\r\n{", b"400"),
        (b"POST %s HTTP/1.1\r\nContent-Length: 99\r\n\r\n{", b"400"),
        (b"POST %s HTTP/1.1\r\nContent-Length: -5\r\n\r\n{}", b"400"),
        (b"POST %s HTTP/1.1\r\nContent-Length: x\r\n\r\n{}", b"400"),
        (b"POST http://[::1%s HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST %s HTTP/1.1\r\nHost: \xff[\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /%s HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"POST /%%ff%%00%s HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"404"),
        (b"BREW %s HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"405"),
        (b"\x16\x03\x01%s\r\n\r\n", b"400"),
    ],
)
def test_damaged_http_is_refused(shared, request_bytes, status):
    address = ("127.0.0.1", shared.rest_port)
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request_bytes % _PREDICT.encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert status in answer.split(b"\r\n")[0]


def test_versions_of_any_length_are_looked_for(shared):
    for version, status in (
        ("3", 200),
        ("0" * 30 + "3", 200),
        ("9" * 19, 404),
        ("3" + "0" * 5000, 404),
        ("-1", 404),
    ):
        path = f"/v1/models/default/versions/{version}"
        assert _send(shared, b"", path, "GET")[0] == status


_NAMES = st.sampled_from(
    [
        *("signature_name", "instances", "inputs", "examples", "context", "b64"),
        *("user", "price", "history", "history_length", "words"),
    ]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=9)
    | st.sampled_from(["text", "classify", "regress", "/w=="])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_NAMES | st.text(max_size=3), inner, max_size=5)
    ),
    max_leaves=12,
)
_BODIES = (
    st.binary(max_size=60)
    | _VALUES.map(json.dumps)
    | st.fixed_dictionaries(
        {"signature_name": st.sampled_from(["text", "regress", "classify", ""])},
        optional={"instances": _VALUES, "inputs": _VALUES, "examples": _VALUES},
    ).map(json.dumps)
    | st.fixed_dictionaries(
        {name: _VALUES for name in ("user", "price", "history", "history_length")}
    ).map(lambda row: json.dumps({"instances": [row, row]}))
)
_PATHS = (
    st.sampled_from(["predict", "classify", "regress"]).map(
        lambda verb: f"/v1/models/default:{verb}"
    )
    | st.sampled_from(["/", "/v1/models/default", "/v1/models/default/metadata"])
    | st.text("/:%0aé~v1models", max_size=30).map(
        lambda text: "/" + urllib.parse.quote(text, safe="/:%~")
    )
)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(_BODIES, _PATHS, st.sampled_from(["POST", "POST", "GET", "PUT"]))
@hypothesis.example('{"inputs": {"user": [1]}}', "/v1/models/default:predict", "POST")
def test_whatever_is_sent_is_answered(shared, body, path, method):
    status, answer = _send(shared, body, path, method)
    assert status in {200, 400, 404, 405, 413}, answer
    assert isinstance(answer, dict)


def _tensor(dtype, *shape, **values):
    made = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


_UNKNOWN = tensor_pb2.TensorProto(dtype=9, int64_val=[1])
_UNKNOWN.tensor_shape.unknown_rank = True


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_tensor(0, 1), "type int64. Received: an unknown type, 0."),
        (_tensor(99, 1), "type int64. Received: an unknown type, 99."),
        (_tensor(20, 1), "type int64. Received: resource."),
        (_tensor(21, 1), "type int64. Received: variant."),
        (_tensor(109, 1), "type int64. Received: int64_ref."),
        (_tensor(9, 2**40, int64_val=[1]), "is too large for its message: its shape"),
        (_tensor(9, 2**62, 2**62, 0), "is too large for its message: its shape"),
        (_tensor(9, 0, 2**40), "is too large for its message: its shape"),
        (
            _tensor(9, 2**40, *[1] * 7, int64_val=[1]),
            "its shape [1099511627776, 1, 1, 1, 1, 1, 1, 1] takes more than 67,108,864 "
            "bytes.",
        ),
        (
            _tensor(9, *[2**62] * 200, int64_val=[1]),
            f"its shape [{f'{2**62}, ' * 8}'...'] takes more than 67,108,864 bytes.",
        ),
        (
            _tensor(9, -1, tensor_content=b"\0" * 16),
            "sizes of at least 0. Received: [-1]",
        ),
        (
            _tensor(9, -(2**63), int64_val=[1]),
            "must have a shape of sizes of at least 0.",
        ),
        (_UNKNOWN, "sizes of at least 0. Received: a shape of unknown rank"),
        (_tensor(9, 3, tensor_content=b"\0" * 16), "`user` is not a valid tensor: "),
        (_tensor(9, 1, int64_val=[1, 2]), "`user` is not a valid tensor: "),
        (_tensor(9, *[1] * 100, int64_val=[1]), "`user` is not a valid tensor: "),
    ],
)
def test_bad_tensors_are_refused(stub, ask, rows, tensor, message):
    request = ask(**rows)
    request.inputs["user"].CopyFrom(tensor)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in caught.value.details()


def test_the_last_value_is_repeated_within_bounds(stub, ask, rows):
    request = ask(**rows)
    request.inputs["user"].CopyFrom(_tensor(9, 2, int64_val=[1]))
    outputs = stub.Predict(request, timeout=20).outputs
    np.testing.assert_allclose(tf.make_ndarray(outputs["click"]), [6, 10.5])
    info = ask(**rows).inputs["user"]
    for count, fits in ((2**23, True), (2**23 + 1, False)):
        if fits:
            assert len(tensors.read("user", _tensor(9, count, int64_val=[1]), info))
        else:
            with pytest.raises(ValueError, match="too large for its message"):
                tensors.read("user", _tensor(9, count, int64_val=[1]), info)
    # A tensor sent in full may have any size.
    full = tf.make_tensor_proto(np.zeros([2**23 + 1], np.int64))
    assert len(tensors.read("user", full, info)) == 2**23 + 1


def test_values_in_the_smallest_of_messages_are_sent_in_full(ask, rows, monkeypatch):
    monkeypatch.setattr(tensors, "MAX_EXPANDED_BYTES", 1000)
    info = ask(**rows).inputs["user"]
    small = _tensor(9, 4000, int64_val=[5] * 4000)
    assert small.ByteSize() < 4020  # A byte each.
    assert tensors.read("user", small, info).tolist() == [5] * 4000


def test_nan_is_no_value(stub, ask, rows):
    rows["price"] = np.array([0.5, np.nan], np.float32)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(ask(**rows), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "`price` is NaN in row 1" in caught.value.details()
    # Training accepts infinity, which a clip may bound.
    rows["price"] = np.array([0.5, np.inf], np.float32)
    outputs = stub.Predict(ask(**rows), timeout=20).outputs
    assert np.isinf(tf.make_ndarray(outputs["click"])).tolist() == [False, True]


def test_an_output_asked_for_twice_is_refused(stub, ask):
    request = ask("text", ["upper", "raw_bytes", "upper"], words=["a"])
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "An output must be requested once." in caught.value.details()


def test_long_reasons_reach_the_client_cut(stub, ask, rows):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(ask(**rows | {"é" * 50_000: rows["user"]}), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("The request has `éé")
    assert caught.value.details().endswith(" ...")


def test_a_context_is_not_repeated_beyond_measure(stub):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "default"
    request.model_spec.signature_name = "regress"
    examples = request.input.example_list_with_context
    value = tf.train.BytesList(value=[b"x" * 1_000_000])
    examples.context.features.feature["a"].bytes_list.CopyFrom(value)
    examples.examples.extend([tf.train.Example()] * 100)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Regress(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is too long for 100 examples" in caught.value.details()


def test_scalars_that_are_strings_are_answered(tmp_path):
    class Scalar(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string, name="word")])
        def upper(self, word):
            return {"upper": tf.strings.upper(word)}

    module = Scalar()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=module.upper)
    model = model_lib.Model(tmp_path / "1")
    found = model.run("", {"word": np.array(b"a", object)})
    assert json_values.write_outputs(found, False) == {"outputs": "A"}
    model.close()
