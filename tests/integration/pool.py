"""What the tests of the pool of Python processes share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

from celery.result import AsyncResult
from petiole_worker import PetioleWorker

PetioleStarter = Callable[..., PetioleWorker]


def descendants(pid: int) -> list[int]:
    """Return the ids of the processes below `pid` that have not ended."""
    listing = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        child, parent, state = line.split()
        if not state.startswith("Z"):
            children.setdefault(int(parent), []).append(int(child))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def run(send: Callable[..., AsyncResult], name: str, *args: Any, **options: Any) -> Any:
    """Send a task and return its result."""
    return send(name, *args, **options).get(timeout=20)
