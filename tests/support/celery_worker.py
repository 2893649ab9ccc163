"""Celery's own worker, for comparison and as a neighbour on the same database."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from petiole_worker import START_TIMEOUT_S, TENANT, TOP
from program import Program, clean_environment

APP_FOLDER = TOP / "tests" / "integration"


def app_environment(
    settings: Mapping[str, object],
    task_options: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, str]:
    """Return what makes tests/integration/app.py an app with these settings and task options."""
    text = json.dumps({"settings": dict(settings), "tasks": dict(task_options or {})})
    return clean_environment({"TEST_APP": text, "PYTHONPATH": str(APP_FOLDER)})


class CeleryWorker(Program):
    """`celery worker` with the sample tasks in Python (tests/integration/app.py).

    Takes what PetioleWorker takes; settings that are not Celery's are left out. `python` is the
    interpreter, by default the one that runs the tests.
    """

    kind = "celery"
    OWN_SETTINGS = ("kubernetes_", "native_", "local_", "tenant_", "run_dir", "plugins", "worker_l")

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "c1",
        settings: Mapping[str, object] | None = None,
        task_options: Mapping[str, Mapping[str, object]] | None = None,
        queues: Sequence[str] = (),
        arguments: Sequence[str] = (),
        pool: str = "prefork",
        concurrency: int = 1,
        python: str = sys.executable,
        log_level: str = "INFO",
    ) -> None:
        """Start the worker; see wait_ready."""
        folder.mkdir(parents=True, exist_ok=True)
        self.node_name = f"{name}@test"
        own = {
            key: value
            for key, value in (settings or {}).items()
            if not key.startswith(self.OWN_SETTINGS)
        }
        command = [python, "-m", "celery", "-A", "app", "worker", "-n", self.node_name]
        command += ["-Q", ",".join(queues or (TENANT,)), "-l", log_level]
        command += ["-P", pool, "-c", str(concurrency), "--without-gossip", "--without-mingle"]
        super().__init__(
            [*command, *arguments],
            folder / f"{name}.log",
            app_environment(own, task_options),
            cwd=folder,
        )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> CeleryWorker:
        """Wait until it consumes; return the worker."""
        self.wait_log(r"\S+ ready\.", timeout_s)
        return self
