"""A TCP proxy on loopback whose connections a test can cut."""

import contextlib
import socket
import threading


class TcpProxy(contextlib.AbstractContextManager["TcpProxy"]):
    """Forwards connections to a port of this machine, until the context ends.

    Attributes:
      address: Its `host:port`.
      target: Where connections go, `host:port`; set it before the first connection.
      is_open: Whether it accepts connections; others are cut at once.
    """

    def __init__(self, target: str = "") -> None:
        self.target = target
        self.is_open = True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._server.getsockname())
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cuts all connections; returns how many there were."""
        with self._lock:
            cut, self._open = self._open, set()
        for one in cut:
            _close(one)
        return len(cut) // 2

    def __exit__(self, *error: object) -> None:
        _close(self._server)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # The context has ended.
                return
            try:
                host, _, port = self.target.rpartition(":")
                if not self.is_open:
                    raise ConnectionRefusedError
                target = socket.create_connection((host, int(port)), 10)
            except OSError:
                _close(client)
                continue
            with self._lock:
                self._open |= {client, target}
            for source, sink in ((client, target), (target, client)):
                threading.Thread(
                    target=self._forward, args=[source, sink], daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for one in (source, sink):
            with self._lock:
                self._open.discard(one)
            _close(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
