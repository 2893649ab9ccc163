"""Runs tasks by `python -m petiole.run` and reads what they leave."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import Interpreter

ID = "11111111-1111-4111-8111-111111111111"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    code: int
    report: dict[str, Any]
    text: bytes
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Runner:
    """Runs tasks by `python -m petiole.run` in a folder of its own."""

    python: Interpreter
    folder: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PETIOLE_APP": "runner_app"})

    @property
    def result_file(self) -> Path:
        return self.folder / "result.json"

    def variables(self, **extra: str) -> dict[str, str]:
        files = {
            "PETIOLE_TASK_FILE": str(self.folder / "task.json"),
            "PETIOLE_RESULT_FILE": str(self.result_file),
        }
        return {**files, **self.environ, **extra}

    def write(self, name: str, *args: Any, **changes: Any) -> None:
        """Write the task file; `headers` are added, other `changes` replace keys."""
        kwargs, embed = changes.pop("kwargs", {}), changes.pop("embed", None)
        headers = {"task": name, "id": ID, "retries": 0, **changes.pop("headers", {})}
        document = {
            "v": 1,
            "headers": headers,
            "properties": {
                "correlation_id": ID,
                "priority": 4,
                "delivery_info": {"exchange": "", "routing_key": "tenant-a"},
            },
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "body": base64.b64encode(json.dumps([args, kwargs, embed]).encode()).decode(),
            "body_encoding": "base64",
            **changes,
        }
        (self.folder / "task.json").write_text(json.dumps(document))

    def run(self, **extra: str) -> Outcome:
        done = self.python.run("-m", "petiole.run", **self.variables(**extra))
        text = self.result_file.read_bytes() if self.result_file.exists() else b""
        assert len(text) <= 4096
        report = json.loads(text) if text else {}
        return Outcome(done.returncode, report, text, done.stdout, done.stderr)

    def task(self, name: str, *args: Any, **changes: Any) -> Outcome:
        self.write(name, *args, **changes)
        return self.run()


def sent(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the headers of the messages in the frames of a report, the body's parts with them."""
    found = []
    for frame in report["frames"]:
        message = frame["publish"]["message"]
        args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
        parts = {"args": args, "kwargs": kwargs, "embed": embed, "queue": frame["publish"]["queue"]}
        found.append({**message["headers"], **parts, "properties": message["properties"]})
    return found


def eta_s(header: str) -> float:
    """Return in how many seconds an ETA is."""
    return (datetime.fromisoformat(header) - datetime.now(timezone.utc)).total_seconds()


def signature(name: str, *args: Any, **options: Any) -> dict[str, Any]:
    """Return a signature as it stands in a message."""
    return {
        "task": f"runner_app.{name}",
        "args": list(args),
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": False,
    }


def moved(outcome: Outcome) -> Any:
    """Return the payload that stands at the end of stdout."""
    return json.loads(payload_of(outcome))


def payload_of(outcome: Outcome) -> bytes:
    """Return the payload at the end of stdout, checked as a reader checks it."""
    printed = outcome.stdout.splitlines()
    lines = [line for line in printed if line.startswith("::petiole-result ")]
    chunks = []
    for number, line in enumerate(lines, 1):
        assert len(line) <= 4095
        _, position, chunk = line.split()
        assert position == f"{number}/{len(lines)}"
        chunks.append(base64.b64decode(chunk, validate=True))
    payload = b"".join(chunks)
    assert outcome.report["bytes"] == len(payload)
    assert outcome.report["sha256"] == hashlib.sha256(payload).hexdigest()
    return payload
