"""A Petiole worker under test, configured by a settings file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from ports import HOST, free_port
from program import Program, clean_environment
from waiting import wait_for

TOP = Path(__file__).resolve().parents[2]
TENANT = "tenant-a"
START_TIMEOUT_S = 30.0


def petiole_binary() -> Path:
    """Return the program under test: PETIOLE_BINARY, else build/petiole."""
    return Path(os.environ.get("PETIOLE_BINARY", TOP / "build" / "petiole")).resolve()


def sample_plugin() -> Path:
    """Return the sample plugin, which is beside the program."""
    return petiole_binary().with_name("petiole_sample.so")


def run_petiole(
    *arguments: str, environment: Mapping[str, str] | None = None, timeout_s: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end and return what it printed and its exit code."""
    return subprocess.run(
        [str(petiole_binary()), *arguments],
        env=clean_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class PetioleWorker(Program):
    """`petiole worker` with the sample plugin, for the tenant `tenant-a` unless settings say else.

    `settings` are Celery's and Petiole's, in lower case; `task_options` maps task names or globs to
    options of theirs, before the row `petiole.sample.*`. `folder` gets the settings file, the log
    and the probe socket.
    """

    kind = "petiole"

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "w1",
        settings: Mapping[str, object] | None = None,
        task_options: Mapping[str, Mapping[str, object]] | None = None,
        queues: Sequence[str] = (),
        arguments: Sequence[str] = (),
        global_arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log_level: str = "INFO",
    ) -> None:
        """Start the worker; see wait_ready."""
        folder.mkdir(parents=True, exist_ok=True)
        self.node_name = f"{name}@test"
        self.http_port = free_port()
        self.settings: dict[str, object] = {
            "kubernetes_namespace": TENANT,
            "worker_http_address": f"{HOST}:{self.http_port}",
            "run_dir": str(folder),
            "plugins": [str(sample_plugin())],
            "tasks": {
                **{key: {"executor": "native", **row} for key, row in (task_options or {}).items()},
                "petiole.sample.*": {"executor": "native"},
            },
            **(settings or {}),
        }
        self.config_path = folder / f"{name}.json"
        self.config_path.write_text(json.dumps(self.settings, indent=1))
        command = [str(petiole_binary()), "--config", str(self.config_path), *global_arguments]
        command += ["worker", "-n", self.node_name, "-l", log_level]
        command += ["-Q", ",".join(queues)] if queues else []
        super().__init__(
            [*command, *arguments],
            folder / f"{name}.log",
            clean_environment(environment),
            cwd=folder,
        )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> PetioleWorker:
        """Wait until it consumes; return the worker.

        That is when its log says so, as Celery's does at INFO, or else its HTTP server.
        """
        wait_for(self._is_ready, timeout_s, lambda: f"ready:\n{self.log()}")
        return self

    def _is_ready(self) -> bool:
        assert self.is_running(), f"ended with {self.process.returncode}:\n{self.log()}"
        if self.log_count(r"\S+ ready\."):
            return True
        if self.settings["worker_http_address"] != f"{HOST}:{self.http_port}":
            return False
        try:
            return self.get("/readyz")[0] == 200
        except urllib.error.URLError:
            return False

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a page of its HTTP server."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.http_port}{path}") as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, family: str, /, **labels: str) -> float:
        """Return the sum of the series of `family` that have these labels; 0 without any."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            own = dict(re.findall(r'(\w+)="([^"]*)"', series))
            if series.partition("{")[0] == family and labels.items() <= own.items():
                total += float(value)
        return total
