"""Messages as a Celery client puts them into Redis, made by Celery's and Kombu's own code.

A real client publishes one message, and what lies in the queue is the pattern: `templates` gives
the envelope, `copies` many of it with ids and delivery tags of their own. That is what a client
would have sent, only faster.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import redis
from celery import Celery

Envelope = dict[str, Any]


def template(client: redis.Redis, app: Celery, queue: str, task: str, **options: Any) -> Envelope:
    """Return the envelope that `app` publishes for `task` to `queue`, which stays as it is."""
    aside = f"aside-{uuid.uuid4()}"
    app.send_task(task, queue=aside, **options)
    element = client.rpop(aside)
    assert isinstance(element, bytes)
    client.delete(f"_kombu.binding.{aside}", f"_kombu.binding_permanent.{aside}")
    envelope: Envelope = json.loads(element.replace(aside.encode(), queue.encode()))
    return envelope


def copy(envelope: Envelope, task_id: str, **headers: Any) -> Envelope:
    """Return the envelope of another message: its own task id, delivery tag and `headers`."""
    made: Envelope = json.loads(json.dumps(envelope))
    made["headers"] |= {"id": task_id, "root_id": task_id, **headers}
    made["properties"] |= {"correlation_id": task_id, "delivery_tag": str(uuid.uuid4())}
    return made


def copies(envelope: Envelope, task_ids: Iterable[str]) -> Iterator[bytes]:
    """Yield one list element for each task id; only ids and delivery tags differ."""
    old_id = envelope["headers"]["id"]
    old_tag = envelope["properties"]["delivery_tag"]
    text = json.dumps(envelope)
    assert text.count(old_tag) == 1
    for task_id in task_ids:
        yield text.replace(old_id, task_id).replace(old_tag, str(uuid.uuid4())).encode()


def push(client: redis.Redis, queue: str, elements: Iterable[bytes], batch: int = 1000) -> None:
    """Append list elements to a queue in order, `batch` at a time."""
    waiting: list[bytes] = []
    for element in elements:
        waiting.append(element)
        if len(waiting) == batch:
            client.lpush(queue, *waiting)
            waiting = []
    if waiting:
        client.lpush(queue, *waiting)
