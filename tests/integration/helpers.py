"""What several test files ask Redis for."""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

import redis
from python_env import ensure
from waiting import wait_for

READY = ("SUCCESS", "FAILURE", "REVOKED")
TENANT_HEADER = "petiole_tenant"
SEPARATOR = "\x06\x16"


def interpreter(celery: str) -> str:
    """Return the Python with the `newest` Celery, which runs the tests, or with the `oldest`."""
    return sys.executable if celery == "newest" else str(ensure(celery))


def new_ids(count: int) -> list[str]:
    """Return task ids."""
    return [str(uuid.uuid4()) for _ in range(count)]


def stored(backend: redis.Redis, task_id: str) -> dict[str, Any] | None:
    """Return the stored document of a task, or None."""
    text = backend.get(f"celery-task-meta-{task_id}")
    assert text is None or isinstance(text, bytes)
    return json.loads(text) if text else None


def wait_stored(
    backend: redis.Redis, task_id: str, states: tuple[str, ...] = READY, timeout_s: float = 15.0
) -> dict[str, Any]:
    """Wait until a state of `states` is stored for a task; return its document."""

    def look() -> dict[str, Any] | None:
        document = stored(backend, task_id)
        return document if document and document["status"] in states else None

    what = lambda: f"{states} for {task_id}, stored is {stored(backend, task_id)}"  # noqa: E731
    document = wait_for(look, timeout_s, what)
    assert document
    return document


def wait_published(channel: redis.client.PubSub, state: str, timeout_s: float = 15.0) -> None:
    """Wait until a document with `state` arrives on a channel of results."""

    def look() -> bool:
        message = channel.get_message(ignore_subscribe_messages=True, timeout=0.01)
        return bool(message) and json.loads(message["data"])["status"] == state

    wait_for(look, timeout_s, f"{state} published")


def wait_settled(broker: redis.Redis, timeout_s: float = 10.0) -> None:
    """Wait until nothing is registered as unacknowledged."""

    def is_settled() -> bool:
        return broker.hlen("unacked") == 0 and broker.zcard("unacked_index") == 0

    wait_for(is_settled, timeout_s, lambda: f"unacked: {broker.hgetall('unacked')}")


def count_stored(backend: redis.Redis) -> int:
    """Return how many results there are."""
    size = backend.dbsize()
    assert isinstance(size, int)
    return size
