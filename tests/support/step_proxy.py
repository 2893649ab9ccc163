"""Proxies that name what a worker does, and call back before or after one such step.

`ApiStepProxy` stands before the API server: it speaks TLS to both sides, HTTP/1.1 to the worker,
and names each request ("POST jobs", "PATCH jobs/* reported"). `RedisStepProxy` names each command,
script or transaction ("pop", "acknowledge", "store"). The phase "before" comes when the request is
in the proxy's hand alone, "after" when it has been carried out and its answer is. Whatever
`Trap.on_hit` does then, request or answer goes no further.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Literal

from certificates import make_certificates
from ports import HOST

Phase = Literal["before", "after"]
PHASES: tuple[Phase, ...] = ("before", "after")
BODYLESS = (204, 304)


class Trap:
    """What all proxies of a worker share: the steps that were seen, and the one to stop at."""

    def __init__(self) -> None:
        """Set nothing."""
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._target: tuple[str, Phase] | None = None
        self._on_hit: Callable[[], None] | None = None
        self._was_hit = threading.Event()

    def set(self, step: str, phase: Phase, on_hit: Callable[[], None]) -> None:
        """Call `on_hit` in a thread of the proxy when the step comes to the phase, once."""
        with self._lock:
            self._target, self._on_hit = (step, phase), on_hit
            self._was_hit.clear()

    def clear(self) -> None:
        """Take the trap away."""
        with self._lock:
            self._target = self._on_hit = None

    def wait(self, timeout_s: float) -> bool:
        """Return whether it was hit within the time."""
        return self._was_hit.wait(timeout_s)

    def stops(self, step: str, phase: Phase) -> bool:
        """Tell of a step; for the proxies. Returns whether it must go no further."""
        with self._lock:
            if phase == "before":
                self.seen[step] += 1
            if self._target != (step, phase) or self._on_hit is None:
                return False
            on_hit, self._target, self._on_hit = self._on_hit, None, None
            on_hit()
            self._was_hit.set()
            return True


class StepProxy:
    """Listens on a free loopback port and serves each connection in a thread."""

    def __init__(self, target_port: int, trap: Trap) -> None:
        """Start to listen."""
        self.target_port = target_port
        self.trap = trap
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._is_refusing = False
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, refuse: bool = False) -> None:
        """Close all connections; with `refuse` new ones too, until `flow`."""
        self._is_refusing = refuse
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for end in sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Hold every request and answer back, with all connections open."""
        self._may_pass.clear()

    def flow(self) -> None:
        """Let everything pass again."""
        self._is_refusing = False
        self._may_pass.set()

    def close(self) -> None:
        """Close everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._may_pass.set()
        self.cut(refuse=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_refusing:
                client.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve_safely, args=(client,), daemon=True).start()

    def _serve_safely(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError):
            self._serve(client)
        client.close()

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError

    @contextlib.contextmanager
    def _open(self, *ends: socket.socket) -> Iterator[None]:
        """Let `cut` close these sockets while the block runs; afterwards they are closed."""
        with self._lock:
            self._sockets.update(ends)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.difference_update(ends)
            for end in ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _connect(self) -> socket.socket:
        server = socket.create_connection((HOST, self.target_port))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server


# The API server


def name_request(head: bytes, body: bytes) -> str:
    """Return the step's name of an HTTP request: method and resource, and what tells two apart."""
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    where, _, query = path.partition("?")
    resource = re.sub(r"^.*/namespaces/[^/]+/", "", where)
    kind, _, name = resource.partition("/")
    step = f"{method} {kind}"
    if name:
        step += "/*/log" if name.endswith("/log") else "/*"
    if "watch=true" in query:
        step += " watch"
    for mark in ("reported", "owner"):
        if method == "PATCH" and f"petiole.dev/{mark}".encode() in body:
            return f"{step} {mark}"
    return step


def read_head(stream: BufferedReader) -> bytes:
    """Return an HTTP head with its empty line. Raises EOFError at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = stream.readline()
        if not line:
            raise EOFError
        head += line
    return head


def header(head: bytes, name: str) -> str:
    """Return the value of a header, empty without it."""
    found = re.search(rf"\r\n{name}: *([^\r\n]*)".encode(), head, re.IGNORECASE)
    return found[1].decode() if found else ""


class ApiStepProxy(StepProxy):
    """A StepProxy before an API server; `ca` is its own certificate authority for clients."""

    def __init__(self, target_port: int, trap: Trap, folder: Path, upstream_ca: Path) -> None:
        """Make certificates in `folder` and start to listen."""
        make_certificates(folder)
        self.ca = folder / "ca.crt"
        self._ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ours.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._ours.set_alpn_protocols(["http/1.1"])
        self._theirs = ssl.create_default_context(cafile=str(upstream_ca))
        super().__init__(target_port, trap)

    def _serve(self, client: socket.socket) -> None:
        near = self._ours.wrap_socket(client, server_side=True)
        far = self._theirs.wrap_socket(self._connect(), server_hostname=HOST)
        with self._open(near, far), near.makefile("rb") as asked, far.makefile("rb") as answered:
            while self._pass_one(near, far, asked, answered):
                pass

    def _pass_one(
        self,
        near: ssl.SSLSocket,
        far: ssl.SSLSocket,
        asked: BufferedReader,
        answered: BufferedReader,
    ) -> bool:
        """Carry one request and its answer; False when a trap ended it."""
        head = read_head(asked)
        body = asked.read(int(header(head, "Content-Length") or 0))
        step = name_request(head, body)
        self._may_pass.wait()
        if self.trap.stops(step, "before"):
            return False
        far.sendall(head + body)
        head = read_head(answered)
        self._may_pass.wait()
        if self.trap.stops(step, "after"):
            return False
        near.sendall(head)
        self._pass_body(near, answered, head)
        return True

    def _pass_body(self, near: ssl.SSLSocket, answered: BufferedReader, head: bytes) -> None:
        if int(head.split(b" ", 2)[1]) in BODYLESS:
            return
        if header(head, "Transfer-Encoding") != "chunked":
            near.sendall(answered.read(int(header(head, "Content-Length") or 0)))
            return
        size = -1
        while size != 0:
            line = answered.readline()
            size = int(line, 16)
            piece = line + answered.read(size + 2)
            self._may_pass.wait()
            near.sendall(piece)


# Redis

SCRIPTS = {
    "patience": "pop",
    "is_of_task": "settle tag",
    "LPOS": "publish",
    "RPUSH": "give back",
    "'DEL', KEYS[1]": "unlock",
}
COMMANDS = {"LPUSH": "publish", "SET": "lock", "ZADD": "renew", "ZRANGE": "look for lost messages"}


class Scripts:
    """Names of Lua scripts by a word of their text, and by their digest once they were seen."""

    def __init__(self) -> None:
        """Know none."""
        self._names: dict[str, str] = {}

    def name(self, command: list[bytes]) -> str:
        """Return the name of the script that EVAL or EVALSHA runs."""
        text = command[1].decode()
        if command[0].upper() == b"EVALSHA":
            return self._names.get(text.lower(), "script")
        name = next((name for word, name in SCRIPTS.items() if word in text), "script")
        # Redis itself names scripts by SHA-1.
        self._names[hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()] = name
        return name


def name_unit(unit: list[list[bytes]], scripts: Scripts) -> str:
    """Return the step's name of a command, or of a transaction with its MULTI and EXEC."""
    names = [command[0].upper().decode() for command in unit]
    evaluated = {scripts.name(each) for each in unit if each[0].upper() in (b"EVAL", b"EVALSHA")}
    keys = {command[1] for command in unit if len(command) > 1}
    if evaluated:
        return evaluated.pop()
    if any(key.startswith(b"celery-task-meta-") for key in keys):
        return "store" if "EXEC" in names else "look at stored states"
    if any(key.startswith(b"petiole:jobs:") for key in keys):
        return "acknowledge" if "HSET" in names else "leave outbox" if "HDEL" in names else "outbox"
    return "settle" if "EXEC" in names else COMMANDS.get(names[0], names[0])


def read_value(stream: BufferedReader) -> bytes:
    """Return one RESP value as it came. Raises EOFError at the end of the connection."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    kind, rest = line[:1], line[1:-2]
    if kind in b"$=!" and int(rest) >= 0:
        return line + stream.read(int(rest) + 2)
    if kind in b"*~>%":
        count = max(int(rest), 0) * (2 if kind == b"%" else 1)
        return line + b"".join(read_value(stream) for _ in range(count))
    return line


def words_of(raw: bytes) -> list[bytes]:
    """Return the words of a command, a RESP array of bulk strings."""
    words, position = [], raw.index(b"\r\n") + 2
    while position < len(raw):
        end = raw.index(b"\r\n", position)
        length = int(raw[position + 1 : end])
        words.append(raw[end + 2 : end + 2 + length])
        position = end + 2 + length + 2
    return words


class RedisStepProxy(StepProxy):
    """A StepProxy before a Redis server."""

    def __init__(self, target_port: int, trap: Trap) -> None:
        """Start to listen."""
        self._scripts = Scripts()
        super().__init__(target_port, trap)

    def _serve(self, client: socket.socket) -> None:
        server = self._connect()
        waiting: deque[str] = deque()
        with self._open(client, server), client.makefile("rb") as asked:
            thread = threading.Thread(
                target=self._pass_answers, args=(client, server, waiting), daemon=True
            )
            thread.start()
            while self._pass_unit(server, asked, waiting):
                pass
        thread.join()

    def _pass_unit(self, server: socket.socket, asked: BufferedReader, waiting: deque[str]) -> bool:
        """Carry a command or a whole transaction; False when a trap ended it."""
        raw = read_value(asked)
        unit = [words_of(raw)]
        while unit[0][0].upper() == b"MULTI" and unit[-1][0].upper() != b"EXEC":
            more = read_value(asked)
            raw += more
            unit.append(words_of(more))
        step = name_unit(unit, self._scripts)
        self._may_pass.wait()
        if self.trap.stops(step, "before"):
            return False
        # Of a transaction the last answer counts.
        waiting.extend([""] * (len(unit) - 1) + [step])
        server.sendall(raw)
        return True

    def _pass_answers(
        self, client: socket.socket, server: socket.socket, waiting: deque[str]
    ) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError), server.makefile("rb") as answered:
            while True:
                raw = read_value(answered)
                # What nobody asked for is a message of a subscription.
                step = waiting.popleft() if waiting else ""
                self._may_pass.wait()
                if step and self.trap.stops(step, "after"):
                    break
                client.sendall(raw)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
