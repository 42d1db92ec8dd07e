"""Certificates of servers and of their clients."""

import dataclasses
import pathlib
import re
import socket
import ssl

import grpc

from monolith_tf.serving import errors

_ADDRESS = re.compile(r"(?:dns:(?:///)?)?(?P<host>\[[^\]]+\]|[^\[\]:/]+):(?P<port>\d+)")
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_PROBE_SECS = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tls:
    """The PEM files of one end of a connection.

    Attributes:
      ca: Certificates of the CAs that may sign the other end's certificate. A server
        with them accepts only clients with such a certificate; a client needs them.
      cert: This end's certificate, followed by those between it and its CA. A server
        needs one.
      key: Its private key, without a password.
      server_name: The name a client expects in the server's certificate; None takes
        the host of the address.
    """

    ca: str | pathlib.Path | None = None
    cert: str | pathlib.Path | None = None
    key: str | pathlib.Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise errors.ServingError(
                "A certificate and its key must be given together. "
                f"Received: cert={self.cert}, key={self.key}."
            )

    def client_credentials(self) -> grpc.ChannelCredentials:
        """Returns the credentials of a gRPC client.

        Raises:
          ServingError: If there is no CA, or a file is invalid.
        """
        self.client_context()
        return grpc.ssl_channel_credentials(
            _read(self.ca), _read(self.key), _read(self.cert)
        )

    def connect(self, address: str) -> grpc.Channel:
        """Returns a gRPC channel to a server; see `client_credentials`."""
        options = []
        if self.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        return grpc.secure_channel(address, self.client_credentials(), options)

    def client_context(self) -> ssl.SSLContext:
        """Returns the context of a Python client; see `client_credentials`."""
        if self.ca is None:
            raise errors.ServingError(
                "A client needs the certificate of the CA that signed the server's."
            )
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials of a gRPC server.

        Raises:
          ServingError: If there is no certificate, or a file is invalid.
        """
        self.server_context()
        pair = (_read(self.key), _read(self.cert))
        return grpc.ssl_server_credentials([pair], _read(self.ca), self.ca is not None)

    def server_context(self) -> ssl.SSLContext:
        """Returns the context of an HTTP server; see `server_credentials`."""
        if self.cert is None:
            raise errors.ServingError("A server needs a certificate and its key.")
        context = self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        if self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except (OSError, ValueError) as error:
            raise errors.ServingError(
                f"{self.ca} has no certificates in PEM format: {error}."
            ) from None
        try:
            if self.cert is not None and self.key is not None:
                # Without a password here, OpenSSL would prompt at the terminal.
                context.load_cert_chain(self.cert, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise errors.ServingError(
                f"{self.cert} and {self.key} are not a certificate and its private "
                f"key, in PEM format and without a password: {error}."
            ) from None
        return context


def refusal(address: str, tls: Tls | None) -> str | None:
    """Returns why a server and a client cannot agree on a connection, if so.

    In most cases gRPC reports only that the connection was closed.

    Args:
      address: The server's, `host:port`.
      tls: The client's files; None connects without TLS.

    Returns:
      The cause and what to do, as sentences; None if no cause is found.
    """
    match = _ADDRESS.fullmatch(address)
    if not match:
        return None
    host = match["host"].strip("[]")
    name = (tls.server_name if tls else None) or host
    context = ssl.create_default_context() if tls is None else tls.client_context()
    if tls is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    is_tls = False
    try:
        with (
            socket.create_connection((host, int(match["port"])), _PROBE_SECS) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            is_tls = True
            if tls is not None:
                secure.sendall(_HTTP2)
                if secure.recv(1):
                    return None
    except ssl.SSLCertVerificationError as error:
        said = error.verify_message.rstrip(".")
        return (
            f"its certificate is not one for `{name}` signed by a CA in "
            f"{tls and tls.ca}: {said}. Pass the right CA (--tls-ca) or name "
            "(--tls-server-name)."
        )
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            reason = "it does not use TLS. Omit --tls-ca, or give the server a "
            return None if tls is None else reason + "certificate."
        is_tls = is_tls or "ALERT" in (error.reason or "")
    except TimeoutError:
        return None
    except OSError:  # It cannot be reached, or closed the connection.
        pass
    if not is_tls:
        return None
    if tls is None:
        return "it accepts only TLS. Pass the CA of its certificate (--tls-ca)."
    if tls.cert is None:
        return (
            "it requires a client certificate. Pass one and its key (--tls-cert, "
            "--tls-key)."
        )
    return (
        f"it refuses the client certificate in {tls.cert}. Pass one of a CA that the "
        "server trusts."
    )


def _read(path: str | pathlib.Path | None) -> bytes | None:
    return None if path is None else pathlib.Path(path).read_bytes()
