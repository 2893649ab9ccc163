"""What a user does with app.control, printed as one JSON object.

Runs under Celery 5.2.7 and later, as a program of its own; TEST_APP configures it (see app.py), and
its argument is the name of a node. It pings, revokes a task that waits and ends one that runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from app import app
from celery.exceptions import TaskRevokedError

TIMEOUT_S = 20


def reason_of(result: Any) -> str:
    """Return why a task was revoked, as its client sees it."""
    try:
        return f"returned {result.get(timeout=TIMEOUT_S)}"
    except TaskRevokedError as error:
        return str(error)


def inspect_ping(*arguments: str) -> dict[str, Any]:
    """Run `celery inspect ping` and return its exit code and what it printed."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "app",
        "--no-color",
        "inspect",
        "--timeout",
        "4",
    ]
    done = subprocess.run(
        [*command, "--json", "ping", *arguments], capture_output=True, text=True, check=False
    )
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def main() -> None:
    """Use remote control in the usual ways and print what came back."""
    node = sys.argv[1]
    sleep, add = app.tasks["petiole.sample.sleep"], app.tasks["petiole.sample.add"]
    control = app.control
    answers: dict[str, Any] = {
        "ping": control.ping(timeout=5, limit=1),
        "inspect": inspect_ping(),
        "destination": control.ping(destination=[node], timeout=5, limit=1),
        "pattern": control.broadcast(
            "ping", reply=True, timeout=5, limit=1, pattern="w*@*", matcher="glob"
        ),
        "elsewhere": control.ping(destination=["nobody@nowhere"], timeout=0.5),
        "unknown": control.broadcast("nosuch", reply=True, timeout=5, limit=1),
    }
    later = add.apply_async((1, 2), countdown=3600)
    answers["revoke"] = control.revoke(later.id, reply=True, timeout=5, limit=1)
    answers["later"] = reason_of(later)
    running = sleep.delay(600)
    while running.state != "STARTED":
        running.backend.client.ping()
    answers["terminate"] = control.revoke(
        running.id, terminate=True, signal="SIGTERM", reply=True, timeout=5, limit=1
    )
    answers["running"] = reason_of(running)
    answers["again"] = control.revoke(running.id, terminate=True, reply=True, timeout=5, limit=1)
    answers["ids"] = {"later": later.id, "running": running.id}
    answers["sum"] = add.delay(1, 2).get(timeout=TIMEOUT_S)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
