"""Runs tasks through Celery's own tracing, with the worker in place of the result backend.

Everything that Celery does around a task's body stays Celery's: signals, custom Task classes,
retries, callbacks, log lines, the form of what is stored. Only the last step differs: what Celery
would write into a Redis backend goes to a `Store`, already encoded, and the worker writes it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Callable, Protocol

from celery import signals, states
from celery._state import task_join_will_block
from celery.app.trace import task_has_custom
from celery.backends.base import KeyValueStoreBackend
from celery.exceptions import NotRegistered, Reject
from kombu.compression import decompress
from kombu.serialization import loads, prepare_accept_content
from kombu.utils import json

from petiole import _app

_REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket", "socket"})
_ENDS = frozenset({states.SUCCESS, states.RETRY, states.IGNORED, states.REJECTED})


class Store(Protocol):
    """Where documents go that Celery would write into its backend."""

    def store(self, task_id: str, state: str, document: bytes, is_end: bool) -> None:
        """Take what is to be stored for `task_id`.

        Args:
            task_id: The task's id.
            state: The status that the document has.
            document: The encoded document, as it stands in the backend.
            is_end: Whether Celery's tracing says it of how the task ended; else the task itself
                said it, or it is of another task.
        """


@dataclass(frozen=True)
class Ending:
    """How a traced task ended.

    Attributes:
        state: SUCCESS, FAILURE, RETRY, IGNORED or REJECTED. Beside these a process of the pool has
            LOST, of a task that ends the process, and of what follows from an end (ENDING) the
            state that was stored for it, or nothing.
        error: What was raised, None after success.
        is_told: Whether Celery has done all that follows; else the worker reports `error`.
        runtime_s: How long it took.
        retval: What the body returned; when Celery has told of an error, its ExceptionInfo.
    """

    state: str
    error: BaseException | None
    is_told: bool
    runtime_s: float
    retval: Any = None


def load_app(
    name: str, include: tuple[str, ...] = (), overrides: Mapping[str, Any] | None = None
) -> Any:
    """Return the Celery app called `name` (as `celery -A` takes it), with all of its tasks.

    Args:
        name: As `celery -A` takes it.
        include: More modules to import.
        overrides: What wins over the app's settings: the object of src/worker/settings_python.h.

    Raises:
        Exception: Whatever importing it raises.
    """
    overrides = overrides or {}
    app = _app.load(name, include, overrides.get("settings"))
    for task_name, task in app.tasks.items():
        for pattern, options in overrides.get("tasks", ()):
            if fnmatchcase(task_name, pattern):
                vars(task).update(options)
                break
    return app


def lead_stores_to(app: Any, store: Store) -> None:
    """Make the result backend of `app` hand its documents to `store`, if it is Celery's for Redis.

    The `backend_cls` of an app's own class goes before the setting, and is left alone. What is not
    stored, such as looking at results and counting a chord's members, is that backend's as before;
    it is made, and its client library imported, when something needs it.
    """
    make = app._get_backend
    url = app.conf.result_backend
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    is_celerys = app.backend_cls is None and scheme not in app.loader.override_backends
    if is_celerys and scheme in _REDIS_SCHEMES:
        app._get_backend = lambda: LeadingBackend(app, store, make)
        vars(app._local).pop("backend", None)
        app._backend_cache = None


class LeadingBackend:
    """Stands before a Redis backend: what that would store goes to a Store, all else to itself."""

    persistent = True

    def __init__(
        self,
        app: Any,
        store: Any,
        make: Callable[[], Any],
        encoder_type: Callable[[Any, Any, Callable[[], Any]], Encoder] | None = None,
    ) -> None:
        """Remember how the backend behind is made.

        Args:
            app: The app.
            store: What the encoder hands its documents to.
            make: Makes the backend behind.
            encoder_type: Makes the documents; Encoder without it.
        """
        self._make = make
        self._behind: Any = None
        self.thread_safe = bool(app.conf.get("result_backend_thread_safe"))
        encoder = (encoder_type or Encoder)(app, store, self.behind)
        self.store_result = encoder.store_result
        self.mark_as_started = encoder.mark_as_started
        self.mark_as_done = encoder.mark_as_done
        self.mark_as_failure = encoder.mark_as_failure
        self.mark_as_retry = encoder.mark_as_retry
        self.mark_as_revoked = encoder.mark_as_revoked

    def behind(self) -> Any:
        """Return the backend that has a connection."""
        if self._behind is None:
            self._behind = self._make()
        return self._behind

    def process_cleanup(self) -> None:
        """Do what a Redis backend does after each task: nothing."""

    def on_task_call(self, producer: Any, task_id: str) -> Any:
        """Listen for the result of a task that is being sent, unless no task may wait for one."""
        if not task_join_will_block():
            self.behind().on_task_call(producer, task_id)

    def remove_pending_result(self, result: Any) -> Any:
        """Forget a result that goes; without a backend behind it was never waited for.

        Comes from a result's `__del__`, at any time: also while the backend is being imported.
        """
        if self._behind is None:
            return result
        return self._behind.remove_pending_result(result)

    def __getattr__(self, name: str) -> Any:
        """Return what the backend behind has."""
        return getattr(self.behind(), name)


class Encoder(KeyValueStoreBackend):  # type: ignore[misc]
    """Makes the documents that a backend would store, as Celery's base class does."""

    supports_failure_expires = True  # the worker stores them: what has no effect there, it says

    def __init__(
        self, app: Any, store: Any, behind: Callable[[], Any], serializer: str | None = None
    ) -> None:
        """Remember who takes the documents, and the backend that has a connection.

        Args:
            app: The app.
            store: A Store.
            behind: Gives the backend behind.
            serializer: In place of the app's `result_serializer`.
        """
        super().__init__(app, serializer=serializer)
        self._petiole_store = store
        self._petiole_behind = behind
        self._petiole_ending: str | None = None

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **options: Any,
    ) -> Any:
        if getattr(request, "chord", None):
            # The count of the chord's members is the backend's own, and so is what goes with it.
            backend = self._petiole_behind()
            return backend._store_result(task_id, result, state, traceback, request, **options)
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = task_id
        document = self.encode(meta)
        if isinstance(document, str):
            document = document.encode()
        self._petiole_store.store(task_id, state, document, task_id == self._petiole_ending)
        return result

    def on_chord_part_return(self, *args: Any, **kwargs: Any) -> Any:
        request = args[0] if args else kwargs.get("request")
        if getattr(request, "chord", None):
            return self._petiole_behind().on_chord_part_return(*args, **kwargs)
        return None

    def prepare_compression(self, compression: str | None) -> None:
        """Compress nothing: `result_compression` has no effect here."""

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Return whether to try again, as `result_backend_always_retry` says, after `exc`."""
        return bool(self._petiole_behind().exception_safe_to_retry(exc))

    def get(self, key: Any) -> Any:
        return self._petiole_behind().get(key)

    def mark_as_done(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        self._petiole_ending = task_id
        try:
            return super().mark_as_done(task_id, *args, **kwargs)
        finally:
            self._petiole_ending = None

    def mark_as_failure(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        self._petiole_ending = task_id
        try:
            return super().mark_as_failure(task_id, *args, **kwargs)
        finally:
            self._petiole_ending = None

    def mark_as_revoked(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        self._petiole_ending = task_id
        try:
            return super().mark_as_revoked(task_id, *args, **kwargs)
        finally:
            self._petiole_ending = None

    def mark_as_retry(self, task_id: str, *args: Any, **kwargs: Any) -> Any:
        self._petiole_ending = task_id
        try:
            return super().mark_as_retry(task_id, *args, **kwargs)
        finally:
            self._petiole_ending = None


def has_handlers_of_success(app: Any, name: str) -> bool:
    """Return whether code of the app runs between the success of a task and its end."""
    task = app.tasks.get(name)
    return bool(
        signals.task_success.receivers
        or signals.task_postrun.receivers
        or task_has_custom(task, "on_success")
        or task_has_custom(task, "after_return")
    )


def unpack(body: bytes, request: dict[str, Any]) -> bytes:
    """Return the decompressed body, and take out of the request what says that it is not.

    Raises:
        Exception: It is broken, or this Python cannot decompress it.
    """
    method = request.pop("petiole_compression", None)
    unpacked: bytes = decompress(body, method) if method else body
    return unpacked


@functools.lru_cache(maxsize=16)
def _only(content_type: str) -> frozenset[str]:
    return frozenset(prepare_accept_content([content_type]))


def decode(body: bytes, content_type: str, content_encoding: str) -> tuple[Any, Any, Any]:
    """Return args, kwargs and embed of a body whose content type the worker has accepted.

    Raises:
        DecodeError: It is not what its content type says.
        ValueError: It is not a sequence of three.
    """
    args, kwargs, embed = loads(body, content_type, content_encoding, accept=_only(content_type))
    return args, kwargs, embed


def try_decode(
    body: bytes, content_type: str, content_encoding: str, request: dict[str, Any]
) -> tuple[Any, Any, Any]:
    """Return what `unpack` and `decode` return, and nothing of a body that cannot be read."""
    try:
        return decode(unpack(body, request), content_type, content_encoding)
    except Exception:
        return (), {}, None


def full_request(request: Mapping[str, Any], body: tuple[Any, Any, Any]) -> dict[str, Any]:
    """Return what becomes `task.request` (celery/app/trace.py: fast_trace_task)."""
    args, kwargs, embed = body
    return {**request, "args": args, "kwargs": kwargs, "is_eager": False, **(embed or {})}


def run(
    app: Any, name: str, task_id: str, request: Mapping[str, Any], body: tuple[Any, Any, Any]
) -> Ending:
    """Run one task as a process of Celery's pool does (celery/app/trace.py: fast_trace_task).

    Args:
        app: The app, whose tasks have been given their tracers.
        name: The task's name.
        task_id: Its id.
        request: The fields of the message and of the worker: becomes `task.request`.
        body: args, kwargs and embed.

    Raises:
        BaseException: What no tracing catches, such as SystemExit.
    """
    begun = time.monotonic()
    args, kwargs, _ = body
    try:
        task = app.tasks[name]
    except KeyError:
        return Ending(states.FAILURE, NotRegistered(name), False, 0.0)
    try:
        retval, info, runtime_s, _ = task.__trace__(
            task_id, args, kwargs, full_request(request, body)
        )
    except Reject as error:
        return Ending(states.REJECTED, error, False, time.monotonic() - begun)
    except Exception as error:
        return Ending(states.FAILURE, error, False, time.monotonic() - begun)
    if runtime_s is None:
        runtime_s = time.monotonic() - begun
    if info is None:
        return Ending(states.SUCCESS, None, True, runtime_s, retval)
    state = info.state if info.state in _ENDS else states.FAILURE
    return Ending(state, info.retval, state != states.REJECTED, runtime_s, retval)


def parse_request(text: bytes) -> dict[str, Any]:
    """Return the request that the worker wrote, read as Kombu reads a message's headers.

    Raises:
        ValueError: It is no JSON object.
        Exception: Kombu cannot decode a value in it.
    """
    request = json.loads(text)
    if not isinstance(request, dict):
        raise ValueError("the request is not an object")
    return request
