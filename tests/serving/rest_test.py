"""REST on loopback."""

import http.client
import json
import urllib.error
import urllib.request

import pytest
from werkzeug import test as werkzeug_test

from monolith_tf.serving import model as model_lib
from monolith_tf.serving import rest as rest_lib
from monolith_tf.serving import versions


def test_predict_by_rest(rest):
    first = {"user": 1, "price": 0, "history": [3, 0], "history_length": 1}
    second = {"user": 2, "price": 0.5, "history": [3, 4], "history_length": 2}
    assert rest("default:predict", {"instances": [first, second]}) == (
        200,
        {"predictions": [4.0, 9.5]},
    )
    whole = {name: [first[name], second[name]] for name in first}
    assert rest("default/versions/1:predict", {"inputs": whole}) == (
        200,
        {"outputs": [4.0, 9.5]},
    )


def test_classify_and_regress_by_rest(rest):
    body = {"signature_name": "classify", "examples": [{"user": 1}, {"user": [2]}]}
    assert rest("default:classify", body) == (
        200,
        {"results": [[["no", -1.0], ["yes", 1.0]], [["no", -2.0], ["yes", 2.0]]]},
    )
    body = {"signature_name": "regress", "context": {"user": 4}, "examples": [{}]}
    assert rest("default:regress", body) == (200, {"results": [4.0]})


def test_status_and_metadata_by_rest(rest):
    fine = {"error_code": "OK", "error_message": ""}
    entry = {"version": "1", "state": "AVAILABLE", "status": fine}
    for path in ("default", "default/versions/1"):
        assert rest(path) == (200, {"model_version_status": [entry]})
    status, answer = rest("default/metadata")
    assert status == 200
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["regress"]["inputs"]["inputs"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (
            "other:predict",
            {},
            404,
            "There is no model `other` here. This server has `default`.",
        ),
        ("default/versions/9", None, 404, "Version 9 is not served; version 1 is."),
        (
            "default:predict",
            [],
            400,
            "The request must be a JSON object.",
        ),
        (
            "default:predict",
            {"instances": [{"user": 1}]},
            400,
            "The request lacks `history`, `history_length`, `price` of the signature's "
            "inputs. It takes: `history`, `history_length`, `price`, `user`.",
        ),
        (
            "default:predict",
            {"signature_name": "x", "instances": [1]},
            400,
            "The model has no signature `x`. It has: `classify`, `regress`, "
            "`serving_default`, `text`.",
        ),
        (
            "default:predict",
            {"signature_name": 1, "instances": [1]},
            400,
            "`signature_name` must be a string. Received: 1.",
        ),
        (
            "default:regress",
            {"examples": []},
            400,
            "`examples` must be a list of at least one example.",
        ),
    ],
)
def test_bad_requests_by_rest(rest, path, body, status, text):
    assert rest(path, body) == (status, {"error": text})


def test_what_is_no_json_is_refused(rest, server):
    address = f"http://127.0.0.1:{server.rest_port}/v1/models/default:predict"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(address, b"{", timeout=10)
    with caught.value as error:
        assert error.code == 400
        assert b"The request is not JSON: " in error.read()


def test_a_body_may_have_64_mib_unless_the_server_says_otherwise(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=10)
    # Refused because of its header; the body is not sent.
    headers = {"Content-Length": str((64 << 20) + 2)}
    connection.request("POST", "/v1/models/default:predict", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 413
    assert "A request may have 67,108,864 bytes." in json.load(answer)["error"]
    connection.close()


def test_what_fails_within_is_reported_and_logged(rest, monkeypatch, caplog):
    def fail(*arguments):
        raise KeyError("lost")

    body = {"signature_name": "text", "inputs": ["a"]}
    with monkeypatch.context() as patch:
        patch.setattr(model_lib.Model, "run", fail)
        assert rest("default:predict", body) == (500, {"error": "KeyError: 'lost'"})
    assert "A request failed." in caplog.text
    assert "in fail" in caplog.text
    assert rest("default:predict", body)[0] == 200


@pytest.mark.parametrize(
    ("server", "origin", "status"),
    [
        # Accepted here; the error is that there is no such signature.
        ("10.1.2.3", "http://10.1.2.3:8501", 400),
        ("2001:db8::1", "http://[2001:db8::1]:8501", 400),
        ("2001:db8::1", "http://[::1]:8501", 400),
        ("10.1.2.3", "http://[10.1.2.3]:8501", 403),
        ("10.1.2.3", "http://10.1.2.4:8501", 403),
        ("2001:db8::1", "http://[2001:db8::2]:8501", 403),
    ],
)
def test_pages_of_the_servers_own_address_may_write(export_dir, server, origin, status):
    model = versions.Versions(export_dir)
    answer = werkzeug_test.Client(rest_lib.RestService("default", model)).post(
        "/v1/models/default:predict",
        json={"signature_name": "update_embeddings", "inputs": {}},
        headers={"Origin": origin},
        environ_overrides={"SERVER_NAME": server, "SERVER_PORT": "8501"},
    )
    model.close()
    assert answer.status_code == status, answer.json
