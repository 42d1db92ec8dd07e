"""Starts model servers, each in its own process."""

import contextlib
import dataclasses
import json
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import certificates
import grpc
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc

KINDS = ("plain", "batching", "tls")
NAME = "default"
MAX_BATCH_SIZE = 16
_BATCHING = f"""\
max_batch_size {{ value: {MAX_BATCH_SIZE} }}
batch_timeout_micros {{ value: 20000 }}
num_batch_threads {{ value: 2 }}
pad_variable_length_inputs: true
"""
_START_SECS = 180.0
_STOP_SECS = 30.0
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
_END = get_model_status_pb2.ModelVersionStatus.END


@dataclasses.dataclass(kw_only=True)
class Server:
    """A started server.

    Attributes:
      address: The gRPC address, `host:port`.
      rest_port: The REST port.
      tls: Files to connect with TLS, or None to connect without.
    """

    address: str
    rest_port: int
    tls: certificates.Files | None
    _process: subprocess.Popen[bytes]
    _log: pathlib.Path

    @property
    def has_rest(self) -> bool:
        """Whether to query it by REST; `--ssl_config_file` is only for gRPC."""
        return self.tls is None

    def channel(self) -> grpc.Channel:
        """Connects."""
        if self.tls is None:
            return grpc.insecure_channel(self.address)
        credentials = grpc.ssl_channel_credentials(
            self.tls.ca.read_bytes(),
            self.tls.client_key.read_bytes(),
            self.tls.client_cert.read_bytes(),
        )
        return grpc.secure_channel(self.address, credentials)

    def wait_until_available(self) -> None:
        """Waits until the model answers requests.

        Raises:
          RuntimeError: If the server exits, or does not load the model.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = NAME
        end, why = time.monotonic() + _START_SECS, "it does not answer"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise RuntimeError(
                    f"The server exited with code {code}.\n{self.tail()}"
                )
            with self.channel() as channel:
                stub = model_service_pb2_grpc.ModelServiceStub(channel)
                try:
                    answer = stub.GetModelStatus(request, timeout=5)
                except grpc.RpcError as error:
                    why = str(error.details())
                    time.sleep(0.5)
                    continue
            states = {version.state for version in answer.model_version_status}
            if _AVAILABLE in states:
                return
            if states == {_END}:
                raise RuntimeError(
                    f"The server does not load the model:\n{self.tail()}"
                )
            time.sleep(0.5)
        raise RuntimeError(
            f"The server is not ready after {_START_SECS:g} s: {why}\n{self.tail()}"
        )

    def tail(self) -> str:
        """Returns the last lines of its output."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-25:])


@contextlib.contextmanager
def start(
    kind: str,
    binary: str | None,
    export_dir: pathlib.Path,
    files: certificates.Files,
    log: pathlib.Path,
) -> Iterator[Server]:
    """Starts a server, and stops it at the end.

    Args:
      kind: One of `KINDS`.
      binary: The program; None takes `monolith-tf serve`.
      export_dir: A folder of versions.
      files: Certificates.
      log: File for its output.
    """
    port, rest_port = _free_ports(2)
    if binary is None:
        command = _stand_in(kind, export_dir, files, port, rest_port)
    else:
        command = _model_server(kind, binary, export_dir, files, port, rest_port)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Server(
            address=f"127.0.0.1:{port}",
            rest_port=rest_port,
            tls=files if kind == "tls" else None,
            _process=process,
            _log=log,
        )
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stand_in(
    kind: str,
    export_dir: pathlib.Path,
    files: certificates.Files,
    port: int,
    rest_port: int,
) -> list[str]:
    command = [sys.executable, "-m", "monolith_tf", "serve", str(export_dir)]
    command += ["--port", str(port), "--rest-port", str(rest_port), "--name", NAME]
    if kind == "tls":
        command += ["--tls-ca", str(files.ca), "--tls-cert", str(files.server_cert)]
        command += ["--tls-key", str(files.server_key)]
    return command


def _model_server(
    kind: str,
    binary: str,
    export_dir: pathlib.Path,
    files: certificates.Files,
    port: int,
    rest_port: int,
) -> list[str]:
    command = [binary, f"--port={port}", f"--rest_api_port={rest_port}"]
    command += [f"--model_name={NAME}", f"--model_base_path={export_dir.resolve()}"]
    folder = files.ca.parent
    if kind == "batching":
        path = folder / "batching.txt"
        path.write_text(_BATCHING)
        command += ["--enable_batching=true", f"--batching_parameters_file={path}"]
    elif kind == "tls":
        path = folder / "ssl.txt"
        # A JSON string is also a string in protocol buffers' text format.
        fields = {
            "server_key": json.dumps(files.server_key.read_text()),
            "server_cert": json.dumps(files.server_cert.read_text()),
            "custom_ca": json.dumps(files.ca.read_text()),
            "client_verify": "true",
        }
        path.write_text("".join(f"{key}: {text}\n" for key, text in fields.items()))
        command.append(f"--ssl_config_file={path}")
    return command


def _free_ports(count: int) -> list[int]:
    """Returns ports that are free now."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(listener.getsockname()[1])
        return found
