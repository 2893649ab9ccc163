"""An independent witness of the results that are published: every message, per task."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from typing import Any

import redis
from waiting import wait_for

HEAD = "celery-task-meta-"
READY_STATES = ("SUCCESS", "FAILURE", "REVOKED")
RETRY_S = 0.02


class PublicationWatch:
    """Subscribes to the channels of all results on a Redis server, from its start to `stop`."""

    def __init__(self, client: redis.Redis) -> None:
        """Begin; `client` is borrowed until `stop`."""
        self._client = client
        self._seen: dict[str, list[dict[str, Any]]] = {}
        self._ready_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._pubsub = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(**{f"{HEAD}*": self._see})
        self._thread = self._pubsub.run_in_thread(
            sleep_time=0.05, daemon=True, exception_handler=pause
        )
        self.wait_subscribed()

    def wait_subscribed(self) -> None:
        """Wait until it hears what is published, at the beginning or after the server was away."""

        def is_heard() -> bool:
            with contextlib.suppress(redis.ConnectionError):
                return bool(self._client.publish(f"{HEAD}first", "{}"))
            return False

        wait_for(is_heard, 20, "the subscription")

    def stop(self) -> None:
        """End it."""
        self._thread.stop()
        self._thread.join()
        self._pubsub.close()

    def documents(self, task_id: str) -> list[dict[str, Any]]:
        """Return what was published for the task, in order."""
        with self._lock:
            return list(self._seen.get(task_id, []))

    def results(self, task_id: str) -> list[str]:
        """Return the final states that were published for the task, in order."""
        return [each["status"] for each in self.documents(task_id) if is_ready(each)]

    def tasks(self) -> set[str]:
        """Return the ids of the tasks with a published final state."""
        with self._lock:
            return {task_id for task_id, seen in self._seen.items() if any(map(is_ready, seen))}

    def ready_s(self, task_id: str) -> float:
        """Return when the first final state of the task was heard, in seconds of monotonic()."""
        with self._lock:
            return self._ready_s[task_id]

    def sync(self) -> None:
        """Return when everything that was published until now has been seen."""
        marker = f"marker-{uuid.uuid4()}"
        self._client.publish(HEAD + marker, "{}")
        wait_for(lambda: self.documents(marker), what="the marker of the subscriber")

    def _see(self, message: dict[str, Any]) -> None:
        task_id = message["channel"].decode().removeprefix(HEAD)
        document = json.loads(message["data"])
        with self._lock:
            self._seen.setdefault(task_id, []).append(document)
            if is_ready(document):
                self._ready_s.setdefault(task_id, time.monotonic())


def pause(_error: BaseException, _pubsub: object, _thread: object) -> None:
    """Wait a moment before the next try to reach a server that is away."""
    threading.Event().wait(RETRY_S)


def is_ready(document: dict[str, Any]) -> bool:
    """Return whether a document is of a state that does not change any more."""
    return document.get("status") in READY_STATES
