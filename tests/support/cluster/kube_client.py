"""A small client of the Kubernetes API for tests, with nothing but the standard library.

One KubeClient may be used by many threads. Objects are plain dictionaries as the API sends them.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

Json = dict[str, Any]

_MERGE_PATCH = "application/merge-patch+json"
_RETRY_SECONDS = 0.2
_TRANSIENT_STATUS = (408, 429, 500, 502, 503, 504)
# What a dead, dying or starting API server looks like from here.
TRANSIENT_ERRORS = (OSError, http.client.HTTPException)


class ApiError(RuntimeError):
    """The API server answered with a status of 400 or more."""

    def __init__(self, status: int, body: str) -> None:
        """BODY is the answer's text, most often a Status object."""
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.body = body

    @property
    def reason(self) -> str:
        """The ``reason`` of the answer's Status object, or an empty text when there is none."""
        try:
            answer = json.loads(self.body)
        except ValueError:
            return ""
        return str(answer.get("reason", "")) if isinstance(answer, dict) else ""


class Watch:
    """An open watch: iterate over its events, from any thread call close() to end it.

    The iteration ends when the server ends the watch or dies; a server that says the version is
    gone sends an event of type ERROR first.
    """

    def __init__(
        self, connection: http.client.HTTPSConnection, path: str, headers: dict[str, str]
    ) -> None:
        """Send the request on CONNECTION, which this object closes. Raises as KubeClient.raw()."""
        self._connection = connection
        connection.request("GET", path, headers=headers)
        # Kept apart, because http.client forgets the socket once the answer has begun.
        self._socket = connection.sock
        self._response = connection.getresponse()
        if self._response.status >= http.client.BAD_REQUEST:
            body = self._response.read().decode(errors="replace")
            connection.close()
            raise ApiError(self._response.status, body)

    def __enter__(self) -> Watch:
        """Return itself: it is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the watch and its connection."""
        self.close()
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Json]:
        """Yield the events, {"type", "object"}, as they come."""
        try:
            for line in self._response:
                yield json.loads(line)
        except (*TRANSIENT_ERRORS, ValueError):
            return

    def close(self) -> None:
        """End the iteration, whichever thread is in it; may be called again."""
        with suppress(OSError):  # It is closed already.
            self._socket.shutdown(socket.SHUT_RDWR)


class KubeClient:
    """Requests to one API server as one user."""

    def __init__(
        self,
        url: str,
        ca: Path,
        certificate: tuple[Path, Path] | None = None,
        token: str | None = None,
    ) -> None:
        """URL is ``https://host:port``; CERTIFICATE is the client's certificate and key."""
        self.url = url
        parts = urllib.parse.urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or 443
        self._context = ssl.create_default_context(cafile=str(ca))
        if certificate:
            self._context.load_cert_chain(*map(str, certificate))
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._idle: list[http.client.HTTPSConnection] = []
        self._lock = threading.Lock()

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's object; PATCH is a merge patch.

        Raises ApiError, or one of TRANSIENT_ERRORS.
        """
        status, text = self.raw(method, path, body)
        if status >= http.client.BAD_REQUEST:
            raise ApiError(status, text)
        answer: Json = json.loads(text)
        return answer

    def raw(self, method: str, path: str, body: Json | None = None) -> tuple[int, str]:
        """Return status and text of the answer, whatever they are. Raises TRANSIENT_ERRORS."""
        payload = None if body is None else json.dumps(body)
        content_type = _MERGE_PATCH if method == "PATCH" else "application/json"
        headers = self._headers | {"Content-Type": content_type}
        while True:
            connection = self._take()
            is_reused = connection.sock is not None
            try:
                connection.request(method, path, payload, headers)
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
            except TRANSIENT_ERRORS:
                # The other idle connections lead to the same server, which may be gone.
                connection.close()
                self.close()
                if is_reused:
                    continue
                raise
            with self._lock:
                self._idle.append(connection)
            return response.status, text

    def patient(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        seconds: float = 60.0,
        stop: threading.Event | None = None,
    ) -> Json:
        """As request(), but a server that is away or overloaded is asked again.

        For SECONDS, or until STOP is set: then the last error is raised.
        """
        deadline = time.monotonic() + seconds
        stop = stop or threading.Event()
        while True:
            try:
                return self.request(method, path, body)
            except (ApiError, *TRANSIENT_ERRORS) as error:
                is_final = isinstance(error, ApiError) and error.status not in _TRANSIENT_STATUS
                if is_final or time.monotonic() > deadline or stop.wait(_RETRY_SECONDS):
                    raise

    def watch(self, path: str, version: str, seconds: float = 300.0, query: str = "") -> Watch:
        """Watch the collection at PATH from resourceVersion VERSION, for at most SECONDS."""
        path = (
            f"{path}?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
            f"&timeoutSeconds={max(1, round(seconds))}{'&' + query if query else ''}"
        )
        connection = self._connect(timeout_seconds=seconds + 15)
        try:
            connection.connect()
            return Watch(connection, path, self._headers)
        except BaseException:
            connection.close()
            raise

    def wait(
        self, path: str, until: Callable[[Json | None], bool], seconds: float = 30.0
    ) -> Json | None:
        """Return the object at PATH as soon as UNTIL says yes to it (None: it does not exist).

        The server may be restarted meanwhile. Raises TimeoutError with the object's last state.
        """
        collection, _, name = path.rpartition("/")
        query = f"fieldSelector=metadata.name={name}"
        deadline = time.monotonic() + seconds
        seen: Json | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                found = self.request("GET", f"{collection}?{query}")
                seen = found["items"][0] if found["items"] else None
                if until(seen):
                    return seen
                version = found["metadata"]["resourceVersion"]
                with self.watch(collection, version, left, query) as watch:
                    for event in watch:
                        if event["type"] in ("BOOKMARK", "ERROR"):
                            continue
                        seen = None if event["type"] == "DELETED" else event["object"]
                        if until(seen):
                            return seen
            except TRANSIENT_ERRORS:
                time.sleep(_RETRY_SECONDS)
            except ApiError as error:
                if error.status not in _TRANSIENT_STATUS:
                    raise
                time.sleep(_RETRY_SECONDS)
        raise TimeoutError(f"{path} after {seconds:g} s: {json.dumps(seen)}")

    def _connect(self, timeout_seconds: float = 30.0) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self.host, self.port, context=self._context, timeout=timeout_seconds
        )

    def _take(self) -> http.client.HTTPSConnection:
        with self._lock:
            return self._idle.pop() if self._idle else self._connect()

    def close(self) -> None:
        """Close the idle connections; the client may be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def client_of_kubeconfig(kubeconfig: Path, kubectl: str = "kubectl") -> KubeClient:
    """Return a client for the current context of KUBECONFIG (certificates, token, tokenFile).

    Raises ValueError when the file names another kind of credential, and
    subprocess.CalledProcessError when kubectl cannot read it.
    """
    answer = subprocess.run(
        [kubectl, "config", "view", "--raw", "--minify", "--flatten", "-o", "json"],
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        check=True,
    )
    config = json.loads(answer.stdout)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    token = user.get("token")
    if "tokenFile" in user:
        token = Path(user["tokenFile"]).read_text().strip()
    has_certificate = "client-certificate-data" in user
    if not (token or has_certificate) or "certificate-authority-data" not in cluster:
        raise ValueError(f"{kubeconfig}: only certificates and tokens with a CA are supported")
    with tempfile.TemporaryDirectory() as folder:
        ca = _decoded(Path(folder), "ca.crt", cluster["certificate-authority-data"])
        pair = None
        if has_certificate:
            pair = (
                _decoded(Path(folder), "client.crt", user["client-certificate-data"]),
                _decoded(Path(folder), "client.key", user["client-key-data"]),
            )
        return KubeClient(cluster["server"], ca, pair, token)


def _decoded(folder: Path, name: str, data: str) -> Path:
    path = folder / name
    path.write_bytes(b64decode(data))
    return path
