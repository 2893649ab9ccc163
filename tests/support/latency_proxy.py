"""A TCP proxy that adds a delay to each direction, and can stall or cut its connections.

The delay is a line's, not a queue's: bytes that arrive together leave together, so a pipeline is
as wide behind the proxy as before it. One thread reads and one writes for each direction; the
writer sleeps until a chunk is due, which is exact to about 0.1 ms.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time

from ports import HOST

CHUNK_BYTES = 1 << 18


class LatencyProxy:
    """Listens on a free loopback port and passes everything on to `target_port`.

    `delay_s` is added to each direction, so a round trip takes twice that. It may be changed at
    any time, for the bytes that come after.
    """

    def __init__(self, target_port: int, delay_s: float = 0.0) -> None:
        """Start to listen."""
        self.target_port = target_port
        self.delay_s = delay_s
        self.connection_count = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._is_refusing = False
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, db: int = 0) -> str:
        """Return the URL of a Redis database behind the proxy."""
        return f"redis://{HOST}:{self.port}/{db}"

    def stall(self) -> None:
        """Hold everything back, with all connections open."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let everything pass again, and accept connections."""
        self._is_refusing = False
        self._flowing.set()

    def cut(self, *, refuse: bool = False) -> None:
        """Close all connections at once; with `refuse` new ones too, until `flow`."""
        self._is_refusing = refuse
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.cut(refuse=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connection_count += 1
            try:
                if self._is_refusing:
                    raise ConnectionRefusedError
                server = socket.create_connection((HOST, self.target_port))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            # From here on a thread may close both at any moment.
            for source, target in ((client, server), (server, client)):
                line: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                threading.Thread(target=self._read, args=(source, line), daemon=True).start()
                threading.Thread(target=self._write, args=(target, line), daemon=True).start()

    def _read(self, source: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            line.put((time.monotonic() + self.delay_s, data))

    def _write(self, target: socket.socket, line: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        """Send each chunk when it is due; an empty one is the end."""
        while True:
            due, data = line.get()
            time.sleep(max(0.0, due - time.monotonic()))
            self._flowing.wait()
            try:
                if not data:
                    raise ConnectionResetError
                target.sendall(data)
            except OSError:
                break
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(target)
        target.close()
