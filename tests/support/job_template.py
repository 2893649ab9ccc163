"""Job templates for tests: pods that run a shell script or a task, and a gate to hold them at."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
RUNNER = ("python", "-m", "petiole.run")
SMALL = {"cpu": "10m", "memory": "16Mi"}


def report(result: Any, /, **changes: Any) -> str:
    """Return the report of a task that returned `result`, as the runner writes it.

    `changes` replace members of it, as one who tampers would.
    """
    text = json.dumps(result)
    digest = hashlib.sha256(text.encode()).hexdigest()
    whole = {"v": 1, "state": "SUCCESS", "result": result, "traceback": None}
    return json.dumps({**whole, "bytes": len(text), "sha256": digest, **changes})


def report_script(text: str) -> str:
    """Return shell commands that leave `text` as the container's termination message."""
    assert "'" not in text
    return f"printf %s '{text.replace('%', '%%')}' > /dev/termination-log"


def write_template(
    folder: Path,
    name: str,
    *,
    script: str = "",
    command: Sequence[str] = RUNNER,
    app: str = "pod_tasks",
    env: Mapping[str, str] | None = None,
    requests: Mapping[str, str] | None = None,
    container: Json | None = None,
    pod: Json | None = None,
    job: Json | None = None,
) -> str:
    """Write a Job template and return its path.

    It runs `script` with sh, or else `command`, by default the runner with the app pod_tasks.
    `container`, `pod` and `job` are further members of these parts.
    """
    main = {
        "name": "main",
        "image": "test:1",
        "command": ["sh", "-c", script] if script else list(command),
        "env": [{"name": "PETIOLE_APP", "value": app}],
        "resources": {"requests": dict(requests or SMALL)},
        **(container or {}),
    }
    main["env"] += [{"name": key, "value": value} for key, value in (env or {}).items()]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [main],
        **(pod or {}),
    }
    path = folder / f"{name}.yaml"
    whole = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "spec": {"template": {"spec": spec}, **(job or {})},
    }
    path.write_text(json.dumps(whole, indent=1))
    return str(path)


class PodGate:
    """A gate that pods wait at: `script` blocks until `open` is called. Closed at first."""

    def __init__(self, folder: Path, name: str = "gate") -> None:
        """Close it."""
        self._path = folder / name
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def script(self) -> str:
        """Return a shell command that waits for the gate."""
        return f"flock -s {self._path} true"

    def open(self) -> None:
        """Let all pods pass, now and later."""
        self._file.close()
