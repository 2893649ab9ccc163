"""A redis-server of one's own on a free loopback port."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import redis
from ports import HOST, free_port, is_listening
from program import Program, clean_environment
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import wait_for

START_TIMEOUT_S = 20.0


class Monitor:
    """What MONITOR shows, while the `with` block of RedisServer.monitor runs."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.lines: list[str] = []

    def commands(self) -> list[str]:
        """Return the command lines so far, those inside of scripts left out."""
        return [line for line in list(self.lines) if " lua]" not in line]


class RedisServer:
    """One redis-server with its own folder; nothing of it reaches the disk unless `appendonly`.

    `options` are further lines of redis.conf as (name, value), `tls` the folder of a certificate
    (see certificates.py): then `port` speaks TLS alone.
    """

    def __init__(
        self,
        folder: Path,
        *,
        appendonly: bool = False,
        options: tuple[tuple[str, str], ...] = (),
        tls: Path | None = None,
    ) -> None:
        """Start the server and wait until it answers."""
        self.folder = folder
        self.port = free_port()
        self.appendonly = appendonly
        self.options = options
        self.tls = tls
        self.socket_path = folder / "redis.sock"
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start it (again), with what an append-only file has kept."""
        self.program = Program(
            ["redis-server", str(self._write_config())],
            self.folder / "redis.log",
            clean_environment(),
        )
        try:
            wait_for(self._is_up, START_TIMEOUT_S, lambda: f"redis-server: {self.program.log()}")
        except BaseException:
            self.program.kill()
            raise

    def _write_config(self) -> Path:
        plain, secure = ("0", str(self.port)) if self.tls else (str(self.port), "0")
        lines = [
            ("bind", HOST),
            ("port", plain),
            ("tls-port", secure),
            ("unixsocket", str(self.socket_path)),
            ("dir", str(self.folder)),
            ("save", '""'),
            ("appendonly", "yes" if self.appendonly else "no"),
            ("appendfsync", "always" if self.appendonly else "no"),
            *self.options,
        ]
        if self.tls:
            lines += [
                ("tls-cert-file", str(self.tls / "server.crt")),
                ("tls-key-file", str(self.tls / "server.key")),
                ("tls-ca-cert-file", str(self.tls / "ca.crt")),
                ("tls-auth-clients", "no"),
            ]
        path = self.folder / "redis.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in lines))
        return path

    def _is_up(self) -> bool:
        assert self.program.is_running(), self.program.log()
        if not is_listening(self.port):
            return False
        try:
            # A server that wants a password has answered: that is not to be tried again.
            with contextlib.closing(self.client(retry=Retry(NoBackoff(), 0))) as client:
                return bool(client.ping())
        except redis.BusyLoadingError:
            return False
        except (redis.AuthenticationError, redis.ResponseError):
            return True  # it wants a password

    def client(self, db: int = 0, **options: object) -> redis.Redis:
        """Return a new client of database `db`; the caller closes it. Replies are bytes."""
        if self.tls:
            options |= {"ssl": True, "ssl_ca_certs": str(self.tls / "ca.crt")}
        return redis.Redis(host=HOST, port=self.port, db=db, **options)  # type: ignore[arg-type]

    def url(self, db: int = 0, user: str = "", password: str = "") -> str:
        """Return the URL of database `db`."""
        authority = f"{user}:{password}@" if password else ""
        return f"{'rediss' if self.tls else 'redis'}://{authority}{HOST}:{self.port}/{db}"

    def freeze(self) -> None:
        """Make it stop answering, with all connections left open (SIGSTOP)."""
        self.program.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.program.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it at once."""
        self.program.kill()

    def stop(self) -> None:
        """End it."""
        self.program.stop()

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    @contextlib.contextmanager
    def monitor(self) -> Iterator[Monitor]:
        """Collect every command that the server executes while the block runs."""
        seen = Monitor()
        with self._connect() as connection:
            connection.sendall(b"MONITOR\r\n")
            stream = connection.makefile("r", errors="replace", newline="\r\n")
            assert stream.readline().startswith("+OK")
            reader = threading.Thread(target=lambda: seen.lines.extend(stream), daemon=True)
            reader.start()
            try:
                yield seen
            finally:
                connection.shutdown(socket.SHUT_RDWR)
                reader.join()
                stream.close()

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((HOST, self.port))
        if not self.tls:
            return plain
        context = ssl.create_default_context(cafile=str(self.tls / "ca.crt"))
        return context.wrap_socket(plain, server_hostname=HOST)

    def worker_connections(self, db: int = 0) -> list[dict[str, str]]:
        """Return the rows of CLIENT LIST but for the one that asks."""
        with contextlib.closing(self.client(db)) as client:
            own = client.client_id()
            return [row for row in client.client_list() if row["id"] != str(own)]
