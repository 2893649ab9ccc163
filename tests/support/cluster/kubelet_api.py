"""The one request that the API server sends to the node for ``kubectl logs`` and pods/log."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from container_log import ContainerLog

_LOG_PATH_PARTS = 4

# Namespace, pod, container, and whether the run before the last one is meant.
FindLog = Callable[[str, str, str, bool], ContainerLog | None]


class LogServer:
    """Serves GET /containerLogs/NAMESPACE/POD/CONTAINER over TLS on a free port of 127.0.0.1.

    It knows ``follow previous timestamps tailLines sinceSeconds sinceTime limitBytes``.
    """

    def __init__(self, find_log: FindLog, certificate: Path, key: Path) -> None:
        """FIND_LOG is called on the threads of the requests."""

        class Handler(_Handler):
            find = staticmethod(find_log)

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        # The handshake is left to the request's thread, so that no client can stop the others.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End serving; requests that follow a log end with the program at the latest."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    find: FindLog

    def do_GET(self) -> None:
        """Answer one request."""
        parts = urlsplit(self.path)
        words = parts.path.strip("/").split("/")
        query = dict(parse_qsl(parts.query))
        log = None
        if len(words) == _LOG_PATH_PARTS and words[0] == "containerLogs":
            log = self.find(words[1], words[2], words[3], query.get("previous") == "true")
        if log is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for text in _selected(log, query):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True  # The reader has seen enough.

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: requests are no news."""


def _selected(log: ContainerLog, query: Mapping[str, str]) -> Iterable[bytes]:
    since = None
    if "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"])
    if "sinceSeconds" in query:
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
    timestamps = query.get("timestamps") == "true"
    texts: Iterable[bytes] = log.read(query.get("follow") == "true", since, timestamps)
    if "tailLines" in query:
        have = sum(1 for _ in log.read(False, since))
        texts = islice(texts, max(0, have - int(query["tailLines"])), None)
    if "limitBytes" in query:
        texts = _limited(texts, int(query["limitBytes"]))
    return (text for text in texts if text)


def _limited(texts: Iterable[bytes], size: int) -> Iterable[bytes]:
    for text in texts:
        yield text[:size]
        size -= len(text)
        if size <= 0:
            return
