"""A model server for development, with TF Serving's interfaces."""

import errno
import ipaddress
import math
import pathlib
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Sequence
from concurrent import futures
from typing import Any
from wsgiref.types import WSGIApplication

import grpc
from absl import logging
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc
from werkzeug import serving as werkzeug_serving

from monolith_tf.serving import errors
from monolith_tf.serving import grpc_service
from monolith_tf.serving import rest
from monolith_tf.serving import tls as tls_lib
from monolith_tf.serving import versions as versions_lib
from monolith_tf.serving import warmup

_GRACE_SECS = 10
_STOP_POLL_SECS = 0.1
_IDLE_SECS = 60  # After which a silent connection is closed.
_ANY_SIZE = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class ModelServer:
    """Answers gRPC and REST requests from the highest version in a folder.

    It has no batching: use it to try client code, not in production. If the model takes
    updates, anyone who can reach the port can write; with a CA in `tls` only clients
    with a certificate can.

    Attributes:
      port: The gRPC port.
      rest_port: The HTTP port, or None.
      versions: The model it serves.

    Example::

        with ModelServer("runs/a/export", port=8500) as server:
            server.wait()
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        port: int,
        rest_port: int | None = None,
        host: str = "127.0.0.1",
        name: str = "default",
        poll_secs: float = 1.0,
        threads: int = 16,
        tls: tls_lib.Tls | None = None,
        max_body_bytes: int = rest.MAX_BODY_BYTES,
    ) -> None:
        """Loads the highest version and starts to answer.

        Args:
          directory: The folder that contains one for each version.
          port: For gRPC; 0 takes a free one.
          rest_port: For HTTP; 0 takes a free one, None disables HTTP.
          host: The address to listen on; the default accepts only requests from this
            machine.
          name: The model's name in requests.
          poll_secs: Seconds between checks for a new version.
          threads: Maximum number of concurrent gRPC requests.
          tls: The server's certificate and, to require client certificates, the CA of
            these; None listens without TLS.
          max_body_bytes: Limit of an HTTP request.

        Raises:
          ServingError: If no version loads, a port is taken, or a file of `tls` is
            invalid.
          ValueError: If a port or a time is out of range.
        """
        for key, given in (("port", port), ("rest_port", rest_port or 0)):
            if not 0 <= given <= 65535:
                raise ValueError(
                    f"`{key}` must be from 0 to 65535. Received: {key}={given}."
                )
        if not 0.0 < poll_secs < math.inf:
            raise ValueError(
                "`poll_secs` must be finite and above 0. "
                f"Received: poll_secs={poll_secs}."
            )
        _check_listening(host, [port] if rest_port is None else [port, rest_port])
        credentials = None if tls is None else tls.server_credentials()
        context = None if tls is None else tls.server_context()
        self.versions = versions_lib.Versions(pathlib.Path(directory), warmup.replay)
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(threads, "grpc"),
            options=[*_ANY_SIZE, ("grpc.so_reuseport", 0)],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            grpc_service.PredictionService(name, self.versions), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            grpc_service.ModelService(name, self.versions), self._grpc
        )
        self._http: Any = None
        self.rest_port: int | None = None
        try:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self.port = (
                self._grpc.add_insecure_port(address)
                if credentials is None
                else self._grpc.add_secure_port(address, credentials)
            )
            if rest_port is not None:
                application = rest.RestService(
                    name, self.versions, max_body_bytes=max_body_bytes
                )
                self._http = _http_server(host, rest_port, application, context)
                self.rest_port = self._http.port
        except (RuntimeError, OSError) as error:
            self.versions.close()
            raise errors.ServingError(
                f"Cannot listen at {host}: {error}. Choose another port."
            ) from error
        if not _is_loopback(host) and (tls is None or tls.ca is None):
            logging.warning(
                "Anyone who can reach %s can query the model, and change its rows if "
                "it takes updates: no client certificate is required (--tls-ca).",
                host,
            )
        self._grpc.start()
        if self._http is not None:
            threading.Thread(
                target=self._http.serve_forever,
                args=[_STOP_POLL_SECS],
                name="http",
                daemon=True,
            ).start()
        self.versions.watch(poll_secs)

    def wait(self) -> None:
        """Returns when the server is closed by another thread, or interrupted."""
        self._grpc.wait_for_termination()

    def close(self) -> None:
        """Finishes the requests in progress, and stops."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self._grpc.stop(_GRACE_SECS).wait()
        self.versions.close()

    def __enter__(self) -> "ModelServer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _check_listening(host: str, ports: Sequence[int]) -> None:
    """Raises an error for an unusable address before the model is loaded."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise errors.ServingError(
            f"Cannot listen at {host}: {error}. Choose another address."
        ) from error
    for port in ports:
        try:
            socket.create_server((host, port), family=_family(host)).close()
        except OSError as error:
            hint = "Choose another port."
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                hint = "Choose another address."
            raise errors.ServingError(
                f"Cannot listen at {host}, port {port}: {error}. {hint}"
            ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(werkzeug_serving.WSGIRequestHandler):
    """Handles a connection without a log line per request."""

    timeout = _IDLE_SECS

    def run_wsgi(self) -> None:
        """See base class, which fails for a URL that cannot be parsed."""
        try:
            urllib.parse.urlsplit(self.path)
        except ValueError as error:
            self.send_error(400, f"The URL cannot be parsed: {error}")
            return
        super().run_wsgi()

    def log(self, type: str, message: str, *args: object) -> None:
        """See base class."""
        logging.vlog(1, message, *args)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """See base class."""


def _http_server(
    host: str, port: int, application: WSGIApplication, context: ssl.SSLContext | None
) -> Any:
    # With a port, Werkzeug would exit the process if the port is taken.
    with socket.create_server((host, port), family=_family(host)) as listening:
        server = werkzeug_serving.make_server(
            host,
            port,
            application,
            threaded=True,
            request_handler=_Handler,
            fd=listening.fileno(),
        )
    if context is not None:
        # Werkzeug would do the TLS handshake in the thread that accepts connections,
        # where a silent client blocks all others.
        server.ssl_context = context
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    return server
