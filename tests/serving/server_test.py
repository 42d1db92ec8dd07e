"""gRPC on loopback, and version changes under load."""

import math
import re
import shutil
import socket
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from google.protobuf import json_format
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2

from monolith_tf.serving import errors
from monolith_tf.serving import server as server_lib
from monolith_tf.testing.examples import example

_TIMEOUT = 10


def _add_version(saved, export_dir, number):
    """Publishes a version as an export does, by one rename."""
    shutil.copytree(saved / str(number), export_dir / f".tmp-{number}")
    (export_dir / f".tmp-{number}").rename(export_dir / str(number))


def _wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=_TIMEOUT)
    return caught.value.code(), caught.value.details()


def test_predict_by_grpc(stub, ask, rows):
    response = stub.Predict(ask(**rows), timeout=_TIMEOUT)
    np.testing.assert_allclose(tf.make_ndarray(response.outputs["click"]), [4, 9.5])
    assert response.model_spec.name == "default"
    assert response.model_spec.version.value == 1


def test_an_output_may_be_left_out(stub, ask):
    request = ask("text", ["upper"], words=np.array([b"a"], object))
    response = stub.Predict(request, timeout=_TIMEOUT)
    assert list(response.outputs) == ["upper"]
    assert tf.make_ndarray(response.outputs["upper"]).tolist() == [b"A"]


def test_classify_by_grpc(stub):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "default"
    request.model_spec.signature_name = "classify"
    request.input.example_list.examples.extend(
        [example({"user": 1}), example({"user": 2})]
    )
    result = stub.Classify(request, timeout=_TIMEOUT).result
    found = [[(c.label, c.score) for c in r.classes] for r in result.classifications]
    assert found == [[("no", -1), ("yes", 1)], [("no", -2), ("yes", 2)]]


def test_regress_by_grpc_with_a_context(stub):
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "default"
    request.model_spec.signature_name = "regress"
    examples = request.input.example_list_with_context
    examples.context.CopyFrom(example({"user": 7}))
    examples.examples.extend([example({"item": 1}), example({"item": 2})])
    result = stub.Regress(request, timeout=_TIMEOUT).result
    assert [row.value for row in result.regressions] == [7, 7]


def test_metadata_by_grpc(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "default"
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request, timeout=_TIMEOUT)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {
        *("serving_default", "classify", "regress", "text")
    }
    assert response.model_spec.version.value == 1
    request.metadata_field.append("weights")
    assert _refusal(stub.GetModelMetadata, request) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "`metadata_field` must be `signature_def`. "
        "Received: metadata_field=['signature_def', 'weights'].",
    )


def test_status_by_grpc(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "default"
        response = stub.GetModelStatus(request, timeout=_TIMEOUT)
        assert json_format.MessageToDict(response) == {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": {}}
            ]
        }
        request.model_spec.name = "other"
        code, _ = _refusal(stub.GetModelStatus, request)
        assert code is grpc.StatusCode.NOT_FOUND


def test_bad_requests_by_grpc_leave_the_server_up(stub, ask, rows):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    lacking = {name: value for name, value in rows.items() if name != "user"}
    cases = [
        (
            ask(**lacking),
            invalid,
            "The request lacks `user` of the signature's inputs. It takes: `history`, "
            "`history_length`, `price`, `user`.",
        ),
        (
            ask(**lacking, usr=rows["user"]),
            invalid,
            "The request lacks `user` and has `usr`, which is none of the signature's "
            "inputs. It takes: `history`, `history_length`, `price`, `user`.",
        ),
        (
            ask(**rows | {"user": rows["price"]}),
            invalid,
            "`user` must be of the type int64. Received: float32.",
        ),
        (
            ask(**rows | {"history": rows["user"]}),
            invalid,
            "`history` must have the shape [?, ?], where ? is any size. Received: [2].",
        ),
        (
            ask("serve", **rows),
            grpc.StatusCode.FAILED_PRECONDITION,
            "The model has no signature `serve`. It has: `classify`, `regress`, "
            "`serving_default`, `text`.",
        ),
        (
            ask("", ["clicks"], **rows),
            invalid,
            "The signature has no output `clicks`. It has: `click`.",
        ),
    ]
    for request, code, text in cases:
        assert _refusal(stub.Predict, request) == (code, text)
    request = ask(**rows)
    request.model_spec.name = "other"
    assert _refusal(stub.Predict, request) == (
        grpc.StatusCode.NOT_FOUND,
        "There is no model `other` here. This server has `default`.",
    )
    request = ask(**rows)
    request.model_spec.version.value = 4
    assert _refusal(stub.Predict, request) == (
        grpc.StatusCode.NOT_FOUND,
        "Version 4 is not served; version 1 is.",
    )
    request.model_spec.version_label = "stable"
    assert _refusal(stub.Predict, request) == (
        invalid,
        "Version labels are not supported. Received: 'stable'.",
    )
    request = ask(**rows)
    request.inputs["user"].tensor_content = b"abc"
    code, text = _refusal(stub.Predict, request)
    assert code is invalid
    assert text.startswith("`user` is not a valid tensor: ")
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "default"
    assert _refusal(stub.Classify, request) == (
        invalid,
        "The signature `serving_default` does not classify: it takes ['history', "
        "'history_length', 'price', 'user'] and returns ['click'].",
    )
    request.model_spec.signature_name = "classify"
    assert _refusal(stub.Classify, request) == (
        invalid,
        "The request has no examples.",
    )
    request.input.example_list.examples.append(example({"item": 1}))
    code, text = _refusal(stub.Classify, request)
    assert code is invalid
    assert "Feature: user (data type: int64) is required" in text
    assert "\n" not in text
    stub.Predict(ask(**rows), timeout=_TIMEOUT)


def test_no_request_is_lost_when_versions_change(
    saved, export_dir, server, stub, ask, rows
):
    request = ask(**rows)
    done = threading.Event()
    found = []
    failed = []

    def load():
        while not done.is_set():
            try:
                response = stub.Predict(request, timeout=_TIMEOUT)
            except grpc.RpcError as error:
                failed.append(error)
                return
            click = tf.make_ndarray(response.outputs["click"])[0]
            found.append((response.model_spec.version.value, click))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in (2, 3):
            _add_version(saved, export_dir, number)
            _wait_until(lambda number=number: found and found[-1][0] == number)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert {version for version, _ in found} == {1, 2, 3}
    # Scale times user 1, plus 3 of the history; each version has its own scale.
    assert all(click == version + 3 for version, click in found)
    assert server.versions.version == 3


def test_a_version_in_use_lives_on_until_it_is_done(saved, export_dir, server, rows):
    with server.versions.use() as first:
        _add_version(saved, export_dir, 2)
        _wait_until(lambda: server.versions.version == 2)
        np.testing.assert_allclose(first.run("", rows)["click"], [4, 9.5])
    with pytest.raises(RuntimeError, match="closed Session"):
        first.run("", rows)


def test_a_truncated_version_leaves_the_old_one_up(
    saved, export_dir, server, stub, ask, rows, caplog
):
    bad = export_dir / "2"
    shutil.copytree(saved / "2", bad)
    data = bad / "variables" / "variables.data-00000-of-00001"
    whole = data.read_bytes()
    # The server may see the folder before this test damages it, so make a third.
    shutil.copytree(bad, export_dir / ".tmp")
    (export_dir / ".tmp" / data.relative_to(bad)).write_bytes(whole[:-1])
    (export_dir / ".tmp").rename(export_dir / "5")
    _wait_until(lambda: "Cannot load" in caplog.text)
    assert stub.Predict(ask(**rows), timeout=_TIMEOUT).model_spec.version.value < 5
    # Once its files are complete it is loaded.
    (export_dir / "5" / data.relative_to(bad)).write_bytes(whole)
    _wait_until(lambda: server.versions.version == 5)


def test_going_back_is_removing_a_version(saved, export_dir, server):
    _add_version(saved, export_dir, 2)
    _wait_until(lambda: server.versions.version == 2)
    shutil.rmtree(export_dir / "2")
    _wait_until(lambda: server.versions.version == 1)
    shutil.rmtree(export_dir / "1")
    time.sleep(0.2)
    assert server.versions.version == 1


def test_a_port_in_use_is_reported(export_dir, server):
    for ports in ({"port": server.port}, {"port": 0, "rest_port": server.rest_port}):
        with pytest.raises(
            errors.ServingError,
            match=r"^Cannot listen at 127\.0\.0\.1, port \d+: .*another port",
        ):
            server_lib.ModelServer(export_dir, **ports)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours_is_reported_before_a_model_is_loaded(
    tmp_path, host
):
    # There is no model either, which would be the next error.
    with pytest.raises(
        errors.ServingError, match=rf"^Cannot listen at {host}.*another address\.$"
    ):
        server_lib.ModelServer(tmp_path, port=0, host=host)


def test_a_version_without_a_model_is_passed_over(saved, export_dir, caplog):
    (export_dir / "888").mkdir()
    with server_lib.ModelServer(export_dir, port=0, poll_secs=0.02) as server:
        assert server.versions.version == 1
        for _ in range(3):
            server.versions.refresh()
        message = f"{export_dir}/888 is skipped: it has no saved_model.pb."
        assert caplog.text.count(message) == 1
        shutil.copytree(saved / "2", export_dir / ".tmp")
        shutil.rmtree(export_dir / "888")
        (export_dir / ".tmp").rename(export_dir / "888")
        _wait_until(lambda: server.versions.version == 888)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 99999}, "`port` must be from 0 to 65535. Received: port=99999"),
        (
            {"port": 0, "rest_port": -1},
            "`rest_port` must be from 0 to 65535. Received: rest_port=-1",
        ),
        (
            {"port": 0, "poll_secs": math.nan},
            "`poll_secs` must be finite and above 0. Received: poll_secs=nan",
        ),
    ],
)
def test_numbers_that_no_server_takes(tmp_path, given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        server_lib.ModelServer(tmp_path, **given)


def test_an_ipv6_address_to_listen_at(export_dir):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("This machine has no IPv6.")
    with server_lib.ModelServer(export_dir, port=0, rest_port=0, host="::1") as server:
        assert server.port > 0
        assert server.rest_port > 0


@pytest.fixture
def verbosity():
    """Sets absl's verbosity, and restores it."""
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


@pytest.mark.parametrize(
    ("level", "logged"), [(logging.INFO, False), (logging.DEBUG, True)]
)
def test_what_http_clients_do_is_logged_to_debug(
    server, caplog, verbosity, level, logged
):
    verbosity(level)
    address = ("127.0.0.1", server.rest_port)
    with socket.create_connection(address, timeout=_TIMEOUT) as connection:
        connection.sendall(b"what\r\n\r\n")
        assert b"Bad request syntax" in connection.makefile("rb").read()
    assert ("Bad request syntax ('what')" in caplog.text) == logged
