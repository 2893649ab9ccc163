"""What a task in a container sends and stores: it becomes frames of the task's report.

A container has no credentials of the broker or of the result backend. Celery's own code runs there
all the same, with stand-ins for the two that collect what it would have sent; the worker carries it
out when the task has ended, before it stores the task's own result. So `.delay()` in a body,
callbacks, the next link of a chain, errbacks, a retry and `self.replace()` reach the broker then.

A frame is an object with one of these members:

| publish    | {"queue": NAME, "message": MESSAGE}, where MESSAGE is what Kombu's virtual       |
|            | transports put into a queue: body (base64), content-type, content-encoding,      |
|            | headers, properties                                                              |
| store      | {"task_id": ID, "state": STATE, "document": TEXT}: what is to be stored for a    |
|            | task that hangs together with this one: the rest of the chain of one that failed |
| join_chord | {"task_id": ID, "group": ID, "state": STATE}: a member of a chord has ended      |

and, when Celery made it because the task failed, "after_failure": true: the worker leaves these out
when it tries the task again by its own settings.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty
from typing import Any, Callable, NoReturn

from celery import states
from celery._state import task_join_will_block
from celery.backends.base import DisabledBackend
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.transport import virtual

from petiole import _progress, _report, _tracing
from petiole.exceptions import CanvasUnsupported

logger = logging.getLogger(__name__)
Frame = dict[str, Any]


@dataclass
class Outbox:
    """Collects the frames of one task, from whichever thread, and how Celery said that it ended.

    Attributes:
        task_id: The task's id.
        teller: Takes the states that the task tells of itself before its end.
        frames: In the order in which they were sent.
        document: What Celery would have stored last of the end, None while it has stored nothing.
        is_failing: Whether what is sent now follows from a failure.
        owner: The thread whose frames count; None: those of every thread.
    """

    task_id: str
    teller: _progress.Teller = field(default_factory=_progress.Teller)
    frames: list[Frame] = field(default_factory=list)
    document: Any = None
    is_failing: bool = False
    owner: int | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)  # handlers of signals send, too

    def claim(self) -> None:
        """Take no more frames from other threads: what the body still sends is too late."""
        with self._lock:
            self.owner = threading.get_ident()

    def add(self, kind: str, content: Frame) -> None:
        """Append a frame."""
        frame: Frame = {kind: content}
        with self._lock:
            if self.owner not in {None, threading.get_ident()}:
                return
            if self.is_failing:
                frame["after_failure"] = True
            self.frames.append(frame)

    def end(self, document: Any) -> None:
        """Take what Celery stores of the end, or a handler of the app once that is stored.

        SUCCESS stays (`celery/backends/base.py: KeyValueStoreBackend._store_result`).
        """
        if self.document is None or self.document["status"] != states.SUCCESS:
            self.document = document

    def held(self, result: Any) -> str | None:
        """Return the id of a task that is to be sent, and that `result` needs; None without one."""
        ids = self.task_ids()
        return next((each.id for each in _needed(result) if each.id in ids), None)

    def task_ids(self) -> set[str | None]:
        """Return the ids of the tasks that are to be sent."""
        return {frame["publish"]["message"]["headers"].get("id") for frame in self.published()}

    def published(self) -> list[Frame]:
        """Return the frames of messages that are there by now."""
        return [frame for frame in self.taken() if "publish" in frame]

    def taken(self) -> list[Frame]:
        """Return the frames that are there by now."""
        with self._lock:
            return list(self.frames)


def _needed(result: Any) -> Iterator[Any]:
    """Give a result, or those of a set of them, and what comes before it in a chain."""
    members = getattr(result, "results", None)
    if members is None:
        yield result
    for member in members or ():
        yield from _needed(member)
    if getattr(result, "parent", None) is not None:
        yield from _needed(result.parent)


def connect(app: Any, outbox: Outbox) -> None:
    """Put the stand-ins for broker and result backend into `app`."""
    broker = type("Transport", (_Transport,), {"outbox": outbox, "events": app.conf.event_exchange})

    def connection(*_arguments: Any, **_options: Any) -> Connection:
        return Connection(transport=broker)

    app.connection = app.connection_for_write = app.connection_for_read = connection
    app.amqp._producer_pool = None
    app._pool = None
    make = app._get_backend
    app._get_backend = lambda: _Backend(app, outbox, make)
    vars(app._local).pop("backend", None)
    app._backend_cache = None


class _Channel(virtual.Channel):
    """Routes messages as Kombu does, by what the app itself declares, into frames."""

    supports_fanout = True

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **options: Any) -> Any:
        """Send a message, unless it is an event: a container's worker tells those."""
        if exchange == self.connection.events:
            return None
        publish: Callable[..., Any] = super().basic_publish
        return publish(message, exchange, routing_key, **options)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> Any:
        look_up: Callable[..., Any] = super()._lookup
        queues = look_up(exchange, routing_key, default)
        if not queues:
            raise OperationalError(
                f"the app declares no queue for exchange {exchange!r} and key {routing_key!r}"
            )
        return queues

    def _put(self, queue: str, message: Any, **_options: Any) -> None:
        self.connection.outbox.add("publish", {"queue": queue, "message": message})

    def _put_fanout(self, exchange: str, *_arguments: Any, **_options: Any) -> NoReturn:
        raise OperationalError(
            f"exchange {exchange!r} is a broadcast, which cannot be sent from a container"
        )

    def _queue_bind(self, *_arguments: Any) -> None:
        pass

    def _size(self, _queue: str) -> int:
        return 0

    def _purge(self, _queue: str) -> int:
        return 0

    def _get(self, _queue: str, timeout: float | None = None) -> NoReturn:
        raise Empty


class _Transport(virtual.Transport):
    Channel = _Channel
    driver_type = driver_name = "petiole"
    outbox: Outbox
    events: str


class _Backend(_tracing.LeadingBackend):
    """Stands before the app's own backend, which the container may or may not reach."""

    persistent = False  # whether a redelivered task has succeeded already, the worker knows

    def __init__(self, app: Any, outbox: Outbox, make: Callable[[], Any]) -> None:
        super().__init__(app, outbox, make, _Encoder)
        self._outbox = outbox

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Listen for nothing: what is being sent leaves when the task has ended."""

    def add_pending_result(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        """Listen for a result that may be waited for: groups do it when they are sent."""
        if task_join_will_block() or self._outbox.held(result) is not None:
            return result
        return self.behind().add_pending_result(result, *args, **kwargs)

    def get_task_meta(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        """Return what is stored for a task: nothing for one that has not even left."""
        if task_id in self._outbox.task_ids():
            return {"status": states.PENDING, "result": None}
        return self.behind().get_task_meta(task_id, *args, **kwargs)

    def wait_for_pending(self, result: Any, **options: Any) -> Any:
        """Wait for a result.

        Raises:
            CanvasUnsupported: It is of a task that is sent when this one has ended.
        """
        self._refuse_to_wait(result)
        self.behind().add_pending_result(result)
        return self.behind().wait_for_pending(result, **options)

    def iter_native(self, result: Any, **options: Any) -> Any:
        """Wait for the results of a set, as `wait_for_pending`."""
        self._refuse_to_wait(result)
        for each in result.results:
            self.behind().add_pending_result(each)
        return self.behind().iter_native(result, **options)

    def _refuse_to_wait(self, result: Any) -> None:
        task_id = self._outbox.held(result)
        if task_id is not None:
            raise CanvasUnsupported(
                f"task {task_id} leaves this container when the task that sends it has ended: "
                "its result cannot be waited for here",
                {"category": "CanvasUnsupported"},
            )

    def ensure_chords_allowed(self) -> NoReturn:
        """Refuse to begin a chord.

        Raises:
            CanvasUnsupported: Always.
        """
        raise CanvasUnsupported(
            "a chord cannot be begun in a container: counting its members needs the result backend",
            {"category": "CanvasUnsupported"},
        )

    def apply_chord(self, *_arguments: Any, **_options: Any) -> NoReturn:
        """Refuse as `ensure_chords_allowed`."""
        self.ensure_chords_allowed()


class _Encoder(_tracing.Encoder):
    """Takes what Celery stores: of the task itself, and of what hangs together with it."""

    def __init__(self, app: Any, outbox: Outbox, behind: Callable[[], Any]) -> None:
        super().__init__(app, outbox, behind, serializer="json")
        self._petiole_outbox = outbox

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **options: Any,
    ) -> Any:
        if not task_id:
            raise ValueError(f"task_id must not be empty. Got {task_id} instead.")
        outbox = self._petiole_outbox
        is_own, is_ending = task_id == outbox.task_id, self._petiole_ending == outbox.task_id
        if not is_own and not is_ending:
            return self._store_of_another(task_id, result, state, traceback, request, **options)
        if not is_ending and outbox.document is None:
            outbox.teller.tell(state, result)
            return result
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = task_id
        text = _report.encode_json(meta)
        if is_own:
            outbox.end(json.loads(text))  # as it is now: handlers may change the result
        else:
            outbox.add("store", {"task_id": task_id, "state": state, "document": text})
        return result

    def _store_of_another(self, task_id: str, result: Any, *args: Any, **options: Any) -> Any:
        """Store a state of a task that this one does not end, as the app itself would."""
        behind = self._petiole_behind()
        if isinstance(behind, DisabledBackend):
            logger.warning(
                "a state of task %s is not stored: the app has no result backend", task_id
            )
            return result
        return behind.store_result(task_id, result, *args, **options)

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        outbox = self._petiole_outbox
        was_failing = outbox.is_failing
        outbox.is_failing = was_failing or task_id == outbox.task_id
        try:
            return super().mark_as_failure(task_id, *args, **kwargs)
        finally:
            outbox.is_failing = was_failing

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return False: the backend behind tries again itself, and nothing else connects."""
        return False

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        """Return that nothing is known of `task_id`: a container has no connection to ask.

        Celery 5.7 asks before it fails a member of a chord, further along the chain of this task,
        whether that has failed already (`celery/backends/base.py: Backend._fail_chain`).
        """
        return {"status": states.PENDING, "result": None}

    def on_chord_part_return(self, request: Any, state: str, result: Any, **_: Any) -> None:
        self._petiole_outbox.add(
            "join_chord", {"task_id": request.id, "group": request.group, "state": state}
        )
