"""Certificates for both ends of a connection, created with `openssl`."""

import dataclasses
import pathlib
import subprocess

_TIMEOUT_SECS = 60


@dataclasses.dataclass(frozen=True)
class Files:
    """PEM files; `ca` signed both certificates."""

    ca: pathlib.Path
    server_cert: pathlib.Path
    server_key: pathlib.Path
    client_cert: pathlib.Path
    client_key: pathlib.Path


def make(folder: pathlib.Path) -> Files:
    """Creates a CA, a certificate for a server on 127.0.0.1 and one for a client."""
    folder.mkdir()
    _openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key "
        "-out ca.pem -addext basicConstraints=critical,CA:TRUE "
        "-addext keyUsage=critical,keyCertSign",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        _openssl(
            folder,
            f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key "
            f"-out {name}.csr",
        )
        _openssl(
            folder,
            f"x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key "
            f"-CAcreateserial -extfile names -out {name}.pem",
        )
    names = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")
    return Files(*(folder / name for name in names))


def _openssl(folder: pathlib.Path, arguments: str) -> None:
    done = subprocess.run(
        ["openssl", *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"openssl {arguments.split()[0]}: {done.stderr}")
