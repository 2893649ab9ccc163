"""What the tests of the pool of Python processes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.result import AsyncResult
from petiole_worker import PetioleWorker

PetioleStarter = Callable[..., PetioleWorker]


def run(send: Callable[..., AsyncResult], name: str, *args: Any, **options: Any) -> Any:
    """Send a task and return its result."""
    return send(name, *args, **options).get(timeout=20)
