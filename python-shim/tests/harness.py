"""Interpreters, programs and servers for the tests."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "python-shim"
PROGRAMS = SHIM / "tests" / "programs"
TIMEOUT_S = 60


@dataclass(frozen=True)
class Interpreter:
    """A Python with a Celery, for programs that use the package from its source folder."""

    executable: str

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a program: nothing of Petiole's or Celery's but `extra`."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PETIOLE_", "CELERY_", "PYTEST_"))
        }
        path = os.pathsep.join(map(str, (SHIM / "src", PROGRAMS, SHIM / "demo")))
        return {**inherited, "PYTHONPATH": path, **extra}

    def run(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; `extra` is added to its environment."""
        return subprocess.run(
            [self.executable, *arguments],
            env=self.environment(extra),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def start(self, *arguments: str, **extra: str) -> subprocess.Popen[str]:
        """Start a program; the caller ends it.

        A shell starts its background jobs with SIGINT ignored: the program does not inherit that.
        """
        return subprocess.Popen(
            ["env", "--default-signal=INT", self.executable, *arguments],
            env=self.environment(extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def celery_worker(self, app: str, queues: str, **extra: str) -> Iterator[None]:
        """Run a real Celery worker of `app` from its start on until the block ends."""
        command = ["-m", "celery", "-A", app, "worker", "-P", "solo", "-l", "INFO"]
        command += ["-Q", queues, "--without-gossip", "--without-mingle"]
        worker = self.start(*command, **extra)
        try:
            read_until(worker, " ready.")
            yield
        finally:
            worker.terminate()
            worker.communicate(timeout=TIMEOUT_S)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return what `process` printed up to the line with `text` in it."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return "".join(seen)
    raise AssertionError(f"{text!r} never came; the output was:\n{''.join(seen)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Run a redis-server of our own and give its port."""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
    command += ["--dir", str(folder), "--appendonly", "no"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        read_until(server, "Ready to accept connections")
        yield port
    finally:
        server.terminate()
        server.communicate(timeout=TIMEOUT_S)
