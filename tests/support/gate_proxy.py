"""A TCP proxy with a gate for each direction, so that a test stops a program between two steps.

Bytes that meet a closed gate are held until it opens again, or are lost with `drop`, as those of a
program whose machine is gone. TLS passes through.
"""

from __future__ import annotations

import contextlib
import socket
import threading

from ports import HOST
from waiting import wait_for

CHUNK_BYTES = 1 << 18


class Gate:
    """One direction; open at first."""

    def __init__(self) -> None:
        """Open it."""
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._lock = threading.Lock()
        self._held = 0

    def close(self) -> None:
        """Hold back what comes from now on."""
        self._may_pass.clear()

    def open(self) -> None:
        """Let everything pass."""
        self._may_pass.set()

    def wait_held(self, timeout_s: float = 15.0) -> None:
        """Wait until something stands before the closed gate."""
        wait_for(lambda: self._held > 0, timeout_s, "something is held by the proxy")

    def pass_through(self) -> None:
        """Return when the gate is open; called by the proxy with bytes in its hand."""
        if self._may_pass.is_set():
            return
        self._count(1)
        self._may_pass.wait()
        self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            self._held += step


class GateProxy:
    """Listens on a free loopback port and passes everything on to `target_port`."""

    def __init__(self, target_port: int) -> None:
        """Start to listen."""
        self.target_port = target_port
        self.requests = Gate()
        self.answers = Gate()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._muted: set[socket.socket] = set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Cut all connections, lose what is held, and open both gates for later ones."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.requests.open()
        self.answers.open()

    def mute(self) -> None:
        """Lose what comes from now on over the connections that exist, and close none of them.

        Each end still acknowledges it, as a balancer does whose server has gone.
        """
        with self._lock:
            self._muted |= self._sockets

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self.target_port))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            # From here on a pump may close both at any moment.
            for source, target, gate in (
                (client, server, self.requests),
                (server, client, self.answers),
            ):
                threading.Thread(
                    target=self._pump, args=(source, target, gate), daemon=True
                ).start()

    def _pump(self, source: socket.socket, target: socket.socket, gate: Gate) -> None:
        """Carry one direction; its end closes the other side's."""
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                gate.pass_through()
                if source not in self._muted:
                    target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets.discard(target)
            self._muted.discard(target)
        target.close()
