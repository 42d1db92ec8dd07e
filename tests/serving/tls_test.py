"""Real certificates, at both ends of gRPC and of REST."""

import contextlib
import json
import socket
import ssl
import threading
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
import trustme
from absl import logging
from cryptography.hazmat.primitives import serialization
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.cli import main
from monolith_tf.cli import progress
from monolith_tf.cli import serve
from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.serving import server as server_lib
from monolith_tf.serving import tls
from monolith_tf.testing import publishing as support


class _Pki:
    """Files of two CAs, and of certificates that they signed.

    `server` and `named` are servers', `client` and `stranger` clients'; the last one is
    signed by the CA `other`, the others by `ca`.
    """

    def __init__(self, folder):
        self.folder = folder
        by = {"ca": trustme.CA(), "other": trustme.CA()}
        for name, authority in by.items():
            authority.cert_pem.write_to_path(folder / f"{name}.pem")
        for name, ca, *names in (
            ("server", "ca", "localhost", "127.0.0.1"),
            ("named", "ca", "models.example"),
            ("client", "ca", "publisher.example"),
            ("stranger", "other", "publisher.example"),
        ):
            made = by[ca].issue_cert(*names)
            made.private_key_pem.write_to_path(folder / f"{name}.key")
            made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")

    def path(self, name):
        return str(self.folder / name)

    def tls(self, ca=None, cert=None, **options):
        return tls.Tls(
            ca=ca and self.path(f"{ca}.pem"),
            cert=cert and self.path(f"{cert}.pem"),
            key=cert and self.path(f"{cert}.key"),
            **options,
        )


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return _Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def secure_server(export_dir, pki):
    """A server that requires client certificates."""
    with server_lib.ModelServer(
        export_dir, port=0, rest_port=0, tls=pki.tls("ca", "server")
    ) as running:
        yield running


def test_a_server_answers_clients_with_a_certificate_alone(
    pki, secure_server, ask, rows
):
    address = f"127.0.0.1:{secure_server.port}"
    with pki.tls("ca", "client").connect(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(ask(**rows), timeout=10).outputs
        np.testing.assert_allclose(tf.make_ndarray(outputs["click"]), [4, 9.5])
    for channel in (
        pki.tls("ca").connect(address),
        pki.tls("ca", "stranger").connect(address),
        grpc.insecure_channel(address),
    ):
        with channel, pytest.raises(grpc.RpcError) as caught:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            stub.Predict(ask(**rows), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_rest_answers_clients_with_a_certificate_alone(pki, secure_server):
    place = f"127.0.0.1:{secure_server.rest_port}/v1/models/default"

    def get(client):
        context = client.client_context()
        with urllib.request.urlopen(
            f"https://{place}", timeout=10, context=context
        ) as answer:
            return json.load(answer)["model_version_status"][0]["state"]

    # A client that connects and stays silent does not block others.
    with socket.create_connection(("127.0.0.1", secure_server.rest_port)):
        assert get(pki.tls("ca", "client")) == "AVAILABLE"
        for client in (pki.tls("ca"), pki.tls("ca", "stranger")):
            with pytest.raises((ssl.SSLError, ConnectionError, urllib.error.URLError)):
                get(client)
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(f"http://{place}", timeout=10)
        assert get(pki.tls("ca", "client")) == "AVAILABLE"


def test_whoever_listens_to_all_is_warned(pki, export_dir, caplog, monkeypatch):
    message = "Anyone who can reach 127.0.0.1 can query the model, and change its rows"
    with server_lib.ModelServer(export_dir, port=0):
        assert message not in caplog.text
    # Tests listen on no other address.
    monkeypatch.setattr(server_lib, "_is_loopback", lambda host: False)
    with server_lib.ModelServer(export_dir, port=0, tls=pki.tls("ca", "server")):
        assert message not in caplog.text
    for half in (None, pki.tls(cert="server")):
        caplog.clear()
        with server_lib.ModelServer(export_dir, port=0, tls=half):
            assert message in caplog.text


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True)),
        *(("localhost", True), ("0.0.0.0", False), ("::", False), ("", False)),
        *(("10.1.2.3", False), ("models.example", False)),
    ],
)
def test_loopback_addresses(host, expected):
    assert server_lib._is_loopback(host) == expected


@pytest.mark.parametrize(
    ("served", "client"),
    [
        ({"cert": "server"}, {"ca": "ca"}),
        ({"cert": "server", "ca": "ca"}, {"ca": "ca", "cert": "client"}),
        ({"cert": "server", "ca": "other"}, {"ca": "ca", "cert": "stranger"}),
        ({"cert": "named"}, {"ca": "ca", "server_name": "models.example"}),
    ],
)
def test_rows_are_published_by_tls(pki, job, served, client):
    job.train([1, 2])
    server = support.UpdateServer(step=0)
    credentials = pki.tls(**served).server_credentials()
    with support.listening(server, credentials) as address:
        done = publishing.publish(job.folder, address, tls=pki.tls(**client))
    assert done.updated == 6
    assert set(server.rows) == set(job.rows([1, 2]))


@pytest.mark.parametrize(
    ("served", "client", "message"),
    [
        (
            {"cert": "server"},
            {"ca": "other"},
            r"its certificate is not one for `127\.0\.0\.1` signed by a CA in "
            r"\S+other\.pem: .*Pass the right CA \(--tls-ca\)",
        ),
        (
            {"cert": "named"},
            {"ca": "ca"},
            r"its certificate is not one for `127\.0\.0\.1`.* name \(--tls-server-name",
        ),
        (
            {"cert": "server", "ca": "ca"},
            {"ca": "ca"},
            r"it requires a client certificate\. Pass one and its key \(--tls-cert",
        ),
        (
            {"cert": "server", "ca": "ca"},
            {"ca": "ca", "cert": "stranger"},
            r"it refuses the client certificate in \S+stranger\.pem\. Pass one of a ",
        ),
        (
            {"cert": "server"},
            None,
            r"it accepts only TLS\. Pass the CA of its certificate \(--tls",
        ),
        (None, {"ca": "ca"}, r"it does not use TLS\. Omit --tls-ca, or give the "),
    ],
)
def test_ends_that_do_not_trust_each_other_are_reported_why(
    pki, job, served, client, message
):
    job.train([1])
    server = support.UpdateServer(step=0)
    credentials = served and pki.tls(**served).server_credentials()
    with (
        support.listening(server, credentials) as address,
        pytest.raises(
            errors.ServingError, match=rf"^Cannot publish to {address}: {message}"
        ) as caught,
    ):
        # At once, not after `patience_secs`.
        publishing.publish(
            job.folder, address, tls=client and pki.tls(**client), patience_secs=3600
        )
    assert ".." not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ({"ca": "ca"}, "it requires a client certificate"),
        ({"ca": "ca", "cert": "stranger"}, "it refuses the client certificate"),
    ],
)
def test_a_server_that_refuses_within_the_handshake_is_understood(pki, client, message):
    context = pki.tls("ca", "server").server_context()
    # With TLS 1.3 a client learns of it only later.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    done = threading.Event()

    def answer():
        with context.wrap_socket(
            listening.accept()[0], server_side=True, do_handshake_on_connect=False
        ) as connection:
            with contextlib.suppress(ssl.SSLError):
                connection.do_handshake()
            done.wait(20)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        reason = tls.refusal(address, pki.tls(**client))
        done.set()
        thread.join()
    assert reason.startswith(message)


def test_files_that_cannot_be_used_are_reported(pki, tmp_path):
    key = serialization.load_pem_private_key(
        (pki.folder / "server.key").read_bytes(), None
    )
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    (tmp_path / "text.pem").write_text("no certificate")
    cert, right_key = pki.path("server.pem"), pki.path("server.key")
    for ca in (tmp_path / "none.pem", tmp_path / "text.pem"):
        with pytest.raises(
            errors.ServingError, match=f"{ca} has no certificates in PEM format: "
        ):
            tls.Tls(ca=ca).client_credentials()
    for key in (pki.path("client.key"), tmp_path / "none.key", locked):
        with pytest.raises(
            errors.ServingError,
            match=f"{cert} and {key} are not a certificate and its private key, in PEM",
        ):
            tls.Tls(cert=cert, key=key).server_credentials()
    with pytest.raises(errors.ServingError, match="must be given together"):
        tls.Tls(cert=cert)
    with pytest.raises(errors.ServingError, match="A server needs a certificate"):
        tls.Tls(ca=pki.path("ca.pem")).server_credentials()
    with pytest.raises(errors.ServingError, match="A client needs the certificate of"):
        tls.Tls(cert=cert, key=right_key).client_credentials()


@pytest.fixture
def call(monkeypatch):
    """Runs a sub-command, without its log."""
    monkeypatch.setattr(progress, "attach_log", lambda view, *, verbose=False: None)
    verbosity = logging.get_verbosity()

    def run(*arguments):
        words = ["monolith-tf", *map(str, arguments), "--verbose"]
        return main.main(main.parse(words))

    yield run
    logging.set_verbosity(verbosity)


def test_publish_by_the_command_line(call, pki, job, capsys):
    job.train([1])
    server = support.UpdateServer(step=0)
    credentials = pki.tls("ca", "server").server_credentials()
    ca = ["--tls-ca", pki.path("ca.pem")]
    pair = ["--tls-cert", pki.path("client.pem"), "--tls-key", pki.path("client.key")]
    with support.listening(server, credentials) as address:
        publish = ["publish", job.folder, "--to", address]
        assert call(*publish, *ca) == 1
        assert f"error: Cannot publish to {address}" in capsys.readouterr().err
        assert not server.rows
        assert call(*publish, *ca, *pair) == 0
    assert set(server.rows) == set(job.rows([1]))


def test_serve_by_the_command_line(call, pki, export_dir, capsys, monkeypatch):
    ca = ["--tls-ca", pki.path("ca.pem")]
    pair = ["--tls-cert", pki.path("server.pem"), "--tls-key", pki.path("server.key")]
    said = []

    def visit():
        said.append(capsys.readouterr().out)
        client = pki.tls("ca", "client").client_context()
        address = said[0].split("REST ")[1].split(":predict")[0]
        with urllib.request.urlopen(address, timeout=10, context=client) as answer:
            said.append(json.load(answer)["model_version_status"][0]["version"])

    monkeypatch.setattr(serve, "_wait_for_signal", visit)
    ports = ["--port", 0, "--rest-port", 0]
    assert call("serve", export_dir, *ports, *ca, *pair) == 0
    assert "REST https://127.0.0.1:" in said[0]
    assert said[1] == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "x", "--tls-ca", "ca.pem"], "--tls-ca needs --tls-cert and"),
        (["serve", "x", "--tls-cert", "c.pem"], "--tls-cert and --tls-key must be"),
        (["publish", "x", "--to", "y:1", "--tls-key", "k"], "--tls-cert and --tls-key"),
        (["publish", "x", "--to", "y:1", "--tls-server-name", "n"], "Give --tls-ca"),
        (["serve", "x", "--tls-cert", "gs://b/c.pem"], "`--tls-cert` must be a path"),
    ],
)
def test_wrong_use_is_reported(call, capsys, arguments, message):
    assert call(*arguments) == 2
    assert message in capsys.readouterr().err
