"""An HTTPS proxy before the API server that reads, records and may change what passes.

It speaks HTTP/1.1 and has an authority of its own, so a worker behind it needs a kubeconfig of its
own (`bound_token.write_kubeconfig`). Bearer tokens pass through; the API server judges them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cluster import Cluster
from pki import issue, make_authority
from ports import HOST

Json = dict[str, Any]
WATCH_TIMEOUT_S = 700.0
PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")


@dataclass(frozen=True)
class Asked:
    """One request as the API server got it; `at_s` is of the monotonic clock."""

    at_s: float
    method: str
    path: str
    authorization: str

    @property
    def is_watch(self) -> bool:
        """Return whether it is a stream of changes."""
        return "watch=true" in self.path

    @property
    def resource(self) -> str:
        """Return what it is about, as "jobs"."""
        match = re.search(r"/namespaces/[^/]+/(\w+)", self.path)
        return match[1] if match else ""


class ApiProxy:
    """Listens on a free loopback port and passes requests on to the API server of `cluster`.

    Members that a test may set at any time:
    `alter_path`: gets a request's path with its query, returns the one to ask for instead.
    `alter_object`: gets each object and each event of an answer, and changes it in place.
    `before`: is called with each request before it goes on.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Start to listen; `folder` gets keys and certificates."""
        self.alter_path: Callable[[str], str] = lambda path: path
        self.alter_object: Callable[[Json], None] | None = None
        self.before: Callable[[Asked], None] = lambda asked: None
        self._upstream = (HOST, int(cluster.url.rpartition(":")[2]))
        self._upstream_tls = ssl.create_default_context(cafile=str(cluster.ca))
        self._folder = folder
        self._authorities = 0
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._refused: list[tuple[Asked, Any]] = []
        self._sockets: set[socket.socket] = set()
        self.renew_authority()
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self.url = f"https://{HOST}:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def renew_authority(self) -> Path:
        """Present a certificate of a new authority from now on, and return that one's."""
        self._authorities += 1
        folder = self._folder / f"authority-{self._authorities}"
        make_authority(folder)
        issue(folder, "server", "/CN=api-proxy", f"serverAuth\nsubjectAltName=IP:{HOST}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self.tls = context
        self.ca = folder / "ca.crt"
        return self.ca

    def cut(self) -> None:
        """Cut all connections; new ones are welcome."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close everything."""
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    def asked(self, resource: str = "") -> list[Asked]:
        """Return the requests until now, in order: all, or those about a resource."""
        with self._lock:
            return [each for each in self._asked if resource in ("", each.resource)]

    def refused(self, code: int, resource: str = "") -> list[Asked]:
        """Return the requests that the API server answered, or ended, with an error's code: all,
        or those about a resource.
        """
        with self._lock:
            found = [asked for asked, each in self._refused if each == code]
        return [asked for asked in found if resource in ("", asked.resource)]

    def record(self, asked: Asked) -> None:
        """Keep a request; for the handlers."""
        self.before(asked)
        with self._lock:
            self._asked.append(asked)

    def changed(self, asked: Asked, text: bytes) -> bytes:
        """Return what the client gets instead of an answer or event; for the handlers."""
        try:
            whole = json.loads(text)
        except ValueError:
            return text
        status = whole.get("object", whole)
        if status and status.get("kind") == "Status" and "code" in status:
            with self._lock:
                self._refused.append((asked, status["code"]))
        if self.alter_object is None:
            return text
        for item in whole.get("items") or [whole]:
            self.alter_object(item)
        return json.dumps(whole).encode()

    def welcome(self, client: socket.socket) -> None:
        """Keep a connection for `cut`; for the server."""
        with self._lock:
            self._sockets.add(client)

    def connect(self) -> http.client.HTTPSConnection:
        """Return a new connection to the API server; for the handlers."""
        return http.client.HTTPSConnection(
            *self._upstream, context=self._upstream_tls, timeout=WATCH_TIMEOUT_S
        )


class _Server(ThreadingHTTPServer):
    """The listening side; one thread for each connection."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: ApiProxy) -> None:
        self.proxy = proxy
        super().__init__((HOST, 0), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept one; its thread shakes hands."""
        client, address = self.socket.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self.proxy.tls.wrap_socket(
            client, server_side=True, do_handshake_on_connect=False
        )
        self.proxy.welcome(wrapped)
        return wrapped, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: connections end in every way here."""


class _Handler(BaseHTTPRequestHandler):
    """One connection of the client, with one of its own to the API server."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def handle(self) -> None:
        """Serve one request after another."""
        self._upstream = self.server.proxy.connect()
        with contextlib.closing(self._upstream), contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log."""

    def _pass_on(self) -> None:
        proxy = self.server.proxy
        path = proxy.alter_path(self.path)
        token = self.headers.get("Authorization", "")
        asked = Asked(time.monotonic(), self.command, path, token)
        proxy.record(asked)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        try:
            self._upstream.request(self.command, path, body or None, headers)
            answer = self._upstream.getresponse()
        except (OSError, http.client.HTTPException):
            self._upstream.close()
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name in ("Content-Type", "Retry-After"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        if asked.is_watch and answer.status == http.HTTPStatus.OK:
            self._stream(asked, answer)
        else:
            text = proxy.changed(asked, answer.read())
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def _stream(self, asked: Asked, answer: http.client.HTTPResponse) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in answer:
            text = self.server.proxy.changed(asked, line).rstrip(b"\n") + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on
