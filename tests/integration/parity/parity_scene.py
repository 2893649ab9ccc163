"""What a scenario has at hand: the app, ways to send, and a view of what comes back.

Runs under Celery 5.2.7 and newer and Python 3.9 and newer, as part of `parity_client.py`.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable
from typing import Any

import redis
from celery import VERSION
from parity_record import CHANNEL, describe

TIMEOUT_S = float(os.environ.get("PARITY_TIMEOUT_S", "90"))
OPEN, STRICT = "open", "strict"
HEAD = "celery-task-meta-"
READY_STATES = ("SUCCESS", "FAILURE", "REVOKED")
NAMESPACE = uuid.UUID("5c1dd3d0-3a5c-4a0c-9c0e-0d6a5b5a1f00")
SCENARIOS: dict[str, Callable[[Scene], Any]] = {}


def scenario(function: Callable[[Scene], Any]) -> Callable[[Scene], Any]:
    """Enter a function: its name is the feature's, what it returns is compared."""
    SCENARIOS[function.__name__] = function
    return function


class Watch:
    """Everything that is published: results (as any client hears them) and the app's notes."""

    def __init__(self, client: redis.Redis) -> None:
        """Subscribe; `client` is borrowed until `stop`."""
        self.documents: dict[str, list[str]] = {}
        self._notes: dict[str, list[str]] = {}
        self._changed = threading.Condition()
        self._pubsub = client.pubsub()
        self._pubsub.psubscribe(f"{HEAD}*", f"{CHANNEL}*")
        self._is_over = False
        for _ in range(2):
            self._pubsub.get_message(timeout=TIMEOUT_S)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._is_over = True
        self._thread.join()
        self._pubsub.close()

    def _listen(self) -> None:
        while not self._is_over:
            message = self._pubsub.get_message(timeout=0.1)
            if message and message["type"] == "pmessage":
                self._see(message["channel"].decode(), message["data"])

    def _see(self, channel: str, data: bytes) -> None:
        with self._changed:
            if channel.startswith(HEAD):
                text = data.decode("utf-8", "backslashreplace")
                self.documents.setdefault(channel[len(HEAD) :], []).append(text)
            else:
                self._notes.setdefault(channel[len(CHANNEL) :], []).append(data.decode())
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until `condition` holds, looking again at every publication."""
        with self._changed:
            if not self._changed.wait_for(condition, TIMEOUT_S):
                raise TimeoutError(what)

    def states(self, task_id: str) -> list[str]:
        """Return the states that were published for a task, in order."""
        heads = ('{"status": "', '{"state": "')
        return [
            text[len(head) :].split('"')[0]
            for text in self.documents.get(task_id, ())
            for head in heads
            if text.startswith(head)
        ]

    def notes(self, task_id: str, kind: str) -> int:
        """Return how often the app noted `kind` of a task."""
        return self._notes.get(task_id, []).count(kind)


class Scene:
    """One run of one scenario."""

    def __init__(self, name: str, app: Any, watch: Watch, broker: redis.Redis) -> None:
        """Begin; the scenarios of a run share all but the name."""
        self.name = name
        self.app = app
        self.ids: dict[str, str] = {}
        self.watch = watch
        self.broker = broker
        self.is_newest = VERSION >= (5, 7)
        self.is_once = "PARITY_ONCE" in os.environ  # no end of a task is told twice

    def new_id(self, label: str) -> str:
        """Return the id of the task called `label`: the same in every run."""
        label = next(
            each
            for each in (label, *(f"{label} {number}" for number in range(2, 99)))
            if each not in self.ids
        )
        self.ids[label] = str(uuid.uuid5(NAMESPACE, f"{self.name}/{label}"))
        return self.ids[label]

    def sign(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return the signature of a task of the app, to the worker `open`."""
        return self.app.tasks[f"parity_app.{name}"].s(*args, **kwargs).set(queue=OPEN)

    def immutable(self, name: str, *args: Any) -> Any:
        """Return the same, without the result of what was before it."""
        return self.sign(name, *args).set(immutable=True)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        """Send a task by its name, to the worker `open` unless `queue` says else."""
        options = {"queue": OPEN, **options}
        options.setdefault("task_id", self.new_id(options.pop("label", name)))
        kwargs = options.pop("kwargs", None)
        full = name if options.pop("is_full", False) else f"parity_app.{name}"
        return self.app.send_task(full, args, kwargs, **options)

    def apply(self, canvas: Any, label: str, **options: Any) -> Any:
        """Send a canvas; the id of its result is the one called `label`."""
        result = canvas.apply_async(task_id=self.new_id(label), **options)
        self.enter(result.parent, f"{label} parent")
        return result

    def enter(self, result: Any, label: str) -> None:
        """Note the ids of a result, of its members, and of what was before it."""
        if result is None or result.id in self.ids.values():
            return
        self.ids[label] = result.id
        for number, member in enumerate(getattr(result, "results", ())):
            self.enter(member, f"{label} {number}")
        self.enter(result.parent, f"{label} parent")

    def ended(self, result: Any, count: int = 1) -> None:
        """Wait until an end of the task was published, or as many as `count`."""
        self.watch.wait(
            lambda: sum(state in READY_STATES for state in self.watch.states(result.id)) >= count,
            f"the end of {result.id}, which was {self.watch.states(result.id)}",
        )

    def told(self, result: Any, state: str) -> None:
        """Wait until a state of the task was published."""
        self.watch.wait(
            lambda: state in self.watch.states(result.id),
            f"{state} of {result.id}, which was {self.watch.states(result.id)}",
        )

    def noted(self, result: Any, kind: str, count: int = 1) -> None:
        """Wait until the app has noted `kind` of the task, `count` times."""
        self.watch.wait(
            lambda: self.watch.notes(result.id, kind) >= count, f"{kind} of {result.id}"
        )

    def seen(self, result: Any, count: int = 1) -> dict[str, Any]:
        """Return what a client sees of a task, when it has ended `count` times."""
        self.ended(result, count)
        seen: dict[str, Any] = {"get": self._get(result), "state": result.state}
        seen["info"] = describe(result.info)
        seen["traceback"] = result.traceback
        seen["has_date"] = result.date_done is not None
        for field in ("name", "args", "kwargs", "worker", "retries", "queue"):
            seen[field] = describe(getattr(result, field))
        seen["children"] = describe(result.children and [each.id for each in result.children])
        return seen

    def _get(self, result: Any) -> Any:
        try:
            return {"returned": describe(result.get(timeout=TIMEOUT_S))}
        except BaseException as error:  # also what only the client makes of it
            cause = describe(error.__cause__)
            bases = [each.__name__ for each in type(error).__mro__]
            with contextlib.suppress(Exception):
                return {"raised": describe(error), "text": str(error), "bases": bases}
            return {"raised": describe(error), "bases": bases, "cause": cause}

    def run(self, name: str, *args: Any, **options: Any) -> dict[str, Any]:
        """Send a task and return what the client sees of it."""
        return self.seen(self.send(name, *args, **options))
