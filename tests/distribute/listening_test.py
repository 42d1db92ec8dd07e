import socket
import sys

import pytest

from monolith_tf.distribute import listening

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="packet filters are Linux's"
)


@pytest.fixture(name="server")
def _server():
    """A server like TensorFlow's, which listens on all addresses."""
    with socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
    ) as server:
        yield server


def _answers(host, server):
    try:
        address = host, server.getsockname()[1]
        with socket.create_connection(address, timeout=0.3):
            return True
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("host", "hears", "deaf"),
    [
        ("127.0.0.1", "127.0.0.1", ("127.0.0.2", "::1")),
        ("127.0.0.2", "127.0.0.2", ("127.0.0.1", "::1")),
        ("[::1]", "::1", ("127.0.0.1",)),
    ],
)
def test_a_server_hears_its_own_address_only(server, host, hears, deaf):
    assert all(_answers(other, server) for other in (hears, *deaf))
    assert listening.only_on(f"{host}:{server.getsockname()[1]}")
    assert _answers(hears, server)
    assert not any(_answers(other, server) for other in deaf)


def test_data_passes_the_filter(server):
    port = server.getsockname()[1]
    listening.only_on(f"127.0.0.1:{port}")
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: accepted.recv(1 << 16), b""))
    assert received == b"x" * 100_000


@pytest.mark.parametrize("host", ["192.0.2.77", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_warned_of(server, host, caplog):
    port = server.getsockname()[1]
    assert not listening.only_on(f"{host}:{port}")
    assert f"{host} is not an address of this machine" in caplog.text
    assert f"protect port {port} by a firewall" in caplog.text
    assert _answers("127.0.0.1", server)
