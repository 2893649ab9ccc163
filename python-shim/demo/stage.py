"""What runs on this machine for the demo: Redis, the control plane, and the workers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import free_port

from control_plane import ControlPlane
from places import Place
from programs import DemoError, Memory, Program, Programs

HERE = Path(__file__).resolve().parent
TENANTS = ("tenant-admin", "tenant-user")
# Celery's Deployment that Petiole takes the place of has these very arguments.
WORKER = ("-A", "app.tasks", "worker", "--loglevel=info")
START_S = 60.0
INHERITED = ("HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Stage:
    """What everything on this machine needs to know."""

    folder: Path
    python: Path
    programs: Programs
    redis_port: int

    @property
    def pythonpath(self) -> str:
        """Return where the package `petiole` and the app are."""
        return os.pathsep.join(map(str, (HERE.parent / "src", HERE)))

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of a program: nothing that configures it but `extra`."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        path = os.pathsep.join((str(self.python.parent), os.environ.get("PATH", os.defpath)))
        return {**inherited, "PATH": path, "PYTHONPATH": self.pythonpath, **extra}

    def celery_environment(self, **extra: str) -> dict[str, str]:
        """Return the same with the addresses of broker and backend."""
        url = f"redis://127.0.0.1:{self.redis_port}"
        return self.environment(
            CELERY_BROKER_URL=f"{url}/0", CELERY_RESULT_BACKEND=f"{url}/1", **extra
        )

    def start(
        self, name: str, command: Sequence[str | Path], env: dict[str, str], ready: str
    ) -> Program:
        """Start a program, and wait until it prints `ready`."""
        program = self.programs.start(name, command, env, self.folder)
        self.programs.wait_for_line(program, ready, START_S)
        return program

    def redis(self, database: int, *command: str) -> str:
        """Return what redis-cli prints for a command."""
        whole = ["redis-cli", "-p", str(self.redis_port), "-n", str(database), *command]
        # S603 warns of programs that somebody else names.
        answer = subprocess.run(whole, check=True, capture_output=True, text=True)  # noqa: S603
        return answer.stdout.strip()


def start_redis(stage: Stage) -> None:
    """Start the redis-server, which keeps nothing on disk."""
    program = shutil.which("redis-server")
    if not program:
        raise DemoError("redis-server is missing: apt-get install redis-server")
    command = [program, "--bind", "127.0.0.1", "--port", str(stage.redis_port), "--save", ""]
    command += ["--appendonly", "no", "--dir", str(stage.folder)]
    stage.start("redis-server", command, stage.environment(), "Ready to accept connections")


def start_control_plane(stage: Stage) -> ControlPlane:
    """Start the API."""
    port = free_port()
    command = [str(stage.python), "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1"]
    env = stage.celery_environment(JWT_SECRET=secrets.token_hex(32))
    stage.start("control plane", [*command, "--port", str(port)], env, "Uvicorn running on")
    return ControlPlane(f"http://127.0.0.1:{port}")


class Workers:
    """A Petiole for each tenant."""

    def __init__(self, stage: Stage, petiole: Path, place: Place) -> None:
        """None of them runs yet."""
        self._stage = stage
        self._petiole = petiole
        self._place = place
        self._running: dict[str, Program] = {}

    def start(self, tenant: str) -> Program:
        """Start the worker of a tenant, and wait until it is ready."""
        env = self._stage.celery_environment(
            PETIOLE_RUN_DIR=str(self._stage.folder / f"run-{tenant}"),
            PETIOLE_WORKER_HTTP_ADDRESS=f"127.0.0.1:{free_port()}",
            PETIOLE_PYTHON=str(self._stage.python),
            **self._place.worker_environment(tenant),
        )
        command = [str(self._petiole), *WORKER, "-n", f"{tenant}@%h"]
        self._running[tenant] = self._stage.start(f"petiole {tenant}", command, env, " ready.")
        return self._running[tenant]

    def of(self, tenant: str) -> Program:
        """Return the worker of a tenant."""
        return self._running[tenant]

    def kill(self, tenant: str) -> None:
        """Kill the worker of a tenant, as when its node loses its power."""
        self._stage.programs.kill(self._running.pop(tenant))

    def memories(self) -> dict[str, Memory]:
        """Return what each of them holds, by its name."""
        return {program.name: program.memory() for program in self._running.values()}

    def stop(self) -> None:
        """Stop all of them."""
        while self._running:
            self._stage.programs.stop(self._running.popitem()[1])


@contextmanager
def petiole_workers(stage: Stage, petiole: Path, place: Place) -> Iterator[Workers]:
    """Run a Petiole for each tenant while the block runs."""
    workers = Workers(stage, petiole, place)
    try:
        for tenant in TENANTS:
            workers.start(tenant)
        yield workers
    finally:
        workers.stop()
