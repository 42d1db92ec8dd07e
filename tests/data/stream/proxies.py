"""A TCP proxy whose connections can be cut."""

import contextlib
import socket
import threading


class Proxy:
    """Forwards connections to a port of this machine.

    Attributes:
      address: Where it listens.
      port: Port to which it forwards.
      is_down: Whether it refuses to forward.
      cuts: Connections that were cut.
    """

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.port = None
        self.is_down = False
        self.cuts = 0
        self._open = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def before(self, port):
        """Forwards to a port; returns where this proxy listens."""
        self.port = port
        return self.address

    def cut(self):
        """Closes all connections."""
        with self._lock:
            some, self._open = self._open, set()
        for one in some:
            self._end(one)
        self.cuts += len(some) // 2

    def set_down(self, is_down):
        self.is_down = is_down
        if is_down:
            self.cut()

    def close(self):
        self._end(self._listener)
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                if self.is_down:
                    inner.close()
                    continue
                try:
                    outer = socket.create_connection(("127.0.0.1", self.port))
                except OSError:
                    inner.close()
                    continue
                with self._lock:
                    self._open |= {inner, outer}
                for pair in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            self._end(one)
            with self._lock:
                self._open.discard(one)

    def _end(self, one):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


@contextlib.contextmanager
def running():
    proxy = Proxy()
    try:
        yield proxy
    finally:
        proxy.close()
