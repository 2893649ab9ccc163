"""What to run for a message: a Celery task's body, or a plain function.

A Celery task's body runs as `celery/app/trace.py: trace_task` runs it, with the request in place,
but nothing around it: no signals, no result, no callbacks. Those are the worker's.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Callable

from celery import Task
from celery._state import _task_stack
from celery.app.trace import task_has_custom
from celery.exceptions import InvalidTaskError, NotRegistered

from petiole import _app, _message, _progress

LIMIT_S_MAX = 100_000_000


@dataclass(frozen=True)
class RetryRequest:
    """What a body asked for by `self.retry()`; None means as in the message."""

    countdown: float | None = None
    eta: datetime | str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Recorder:
    """Takes the place of publishing and storing for one task: remembers the last of each."""

    retry: RetryRequest | None = None
    teller: _progress.Teller = field(default_factory=_progress.Teller)


@dataclass(frozen=True)
class Body:
    """Something to run, with its limits in seconds."""

    call: Callable[[], Any]
    soft_limit_s: float | None
    hard_limit_s: float | None
    recorder: Recorder = field(default_factory=Recorder)


@dataclass(frozen=True)
class _Resend:
    """Stands in for the signature that `Task.retry` makes and sends."""

    recorder: Recorder
    request: RetryRequest
    args: Any
    kwargs: Any

    def apply_async(self) -> None:
        """Remember the retry instead of publishing it."""
        self.recorder.retry = self.request


def prepare(environ: Mapping[str, str]) -> Body:
    """Read the message that `environ` names and find what to run for it.

    Raises:
        Exception: The task cannot be run, and any error of importing its module; each is a failure
            of the task.
    """
    path = environ.get("PETIOLE_TASK_FILE")
    if not path:
        raise InvalidTaskError("PETIOLE_TASK_FILE is not set")
    message = _message.read(Path(path))
    app = _load_app(environ.get("PETIOLE_APP") or environ.get("CELERY_APP"))
    if app is not None:
        function = _registered(app, message.task)
    else:
        function = _imported(environ.get("PETIOLE_FUNCTION"), message.task)
        if isinstance(function, Task):
            app = function.app
            function = _registered(app, function.name)
    call = _message.decode(message, _accepted(environ.get("PETIOLE_ACCEPT_CONTENT"), app))
    hard_s, soft_s = _limits(message, environ)
    if app is None:
        return Body(lambda: function(*call.args, **call.kwargs), soft_s, hard_s)
    recorder = Recorder()
    return Body(
        lambda: _call_task(function, message, call, recorder),
        soft_s or function.soft_time_limit,
        hard_s or function.time_limit,
        recorder,
    )


def _load_app(name: str | None) -> Any:
    """Return the Celery app called `name` with all of its tasks, None when there is no name."""
    return _app.load(name) if name else None


def _registered(app: Any, name: str) -> Any:
    """Return the task `name` of `app`."""
    app.finalize()
    if name not in app.tasks:
        raise NotRegistered(name)
    return app.tasks[name]


def _imported(target: str | None, task_name: str) -> Any:
    """Return the function `module:function`, or that of a task's name `module.function`."""
    module, _, attribute = (target or task_name).rpartition(":" if target else ".")
    if not module or not attribute:
        if target:
            raise InvalidTaskError(f"PETIOLE_FUNCTION is not module:function: {target}")
        raise NotRegistered(task_name)
    function: Any = importlib.import_module(module)
    for name in attribute.split("."):
        function = getattr(function, name)
    if not callable(function):
        raise InvalidTaskError(f"{target or task_name} is not a function")
    return function


def _accepted(setting: str | None, app: Any) -> Collection[str]:
    """Return the serializers that a message may use."""
    if setting:
        return [name.strip() for name in setting.split(",") if name.strip()]
    return list(app.conf.accept_content) if app is not None else ["json"]


def _limits(
    message: _message.Message, environ: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """Return the hard and soft limits in seconds: the message's, else those of the worker's."""
    limits = message.headers.get("timelimit") or (None, None)
    try:
        hard, soft = limits
    except (TypeError, ValueError):
        raise InvalidTaskError(f"timelimit is not [hard, soft]: {limits!r:.100}") from None
    return (
        _seconds(hard) or _told_seconds(environ, "PETIOLE_TIME_LIMIT"),
        _seconds(soft) or _told_seconds(environ, "PETIOLE_SOFT_TIME_LIMIT"),
    )


def _told_seconds(environ: Mapping[str, str], name: str) -> float | None:
    """Return the limit that the worker's settings have for the task."""
    text = environ.get(name)
    try:
        return _seconds(float(text)) if text else None
    except ValueError:
        raise InvalidTaskError(f"{name} is not a number of seconds: {text!r:.100}") from None


def _seconds(limit: Any) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0:
        raise InvalidTaskError(f"a time limit is not a number of seconds: {limit!r:.100}")
    return min(limit, LIMIT_S_MAX)


def _call_task(
    task: Any, message: _message.Message, call: _message.Call, recorder: Recorder
) -> Any:
    """Call the body of a Celery task with its request in place."""
    # Celery's own Task.__call__ would push an empty request over the one of the message.
    body = task if task_has_custom(task, "__call__") else task.run
    request = _request(message, call)
    with _current_request(task, request), _recorded_retries(task, recorder), _told(task, recorder):
        return body(*call.args, **call.kwargs)


def _request(message: _message.Message, call: _message.Call) -> dict[str, Any]:
    """Return the fields of `task.request`, as a worker makes them of a message."""
    properties = message.properties
    delivery = properties.get("delivery_info") or {}
    headers = message.headers
    return {
        **headers,
        **call.embed,
        "args": call.args,
        "kwargs": call.kwargs,
        "properties": properties,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "hostname": f"petiole@{socket.gethostname()}",
        "delivery_info": {
            "exchange": delivery.get("exchange", ""),
            "routing_key": delivery.get("routing_key", ""),
            "priority": properties.get("priority"),
            "redelivered": bool(headers.get("redelivered") or delivery.get("redelivered")),
        },
        "retries": headers.get("retries") or 0,
        "is_eager": False,
        "called_directly": False,
    }


@contextmanager
def _current_request(task: Any, request: Mapping[str, Any]) -> Iterator[None]:
    """Make `task` Celery's current task and `request` its request."""
    _task_stack.push(task)
    task.push_request(**request)
    try:
        yield
    finally:
        task.pop_request()
        _task_stack.pop()


@contextmanager
def _recorded_retries(task: Any, recorder: Recorder) -> Iterator[None]:
    """Let `task.retry()` record what it would publish: there is no broker here."""

    def signature_from_request(
        request: Any = None, args: Any = None, kwargs: Any = None, **options: Any
    ) -> _Resend:
        changed = RetryRequest(
            countdown=options.pop("countdown", None),
            eta=options.pop("eta", None),
            args=None if args is None else list(args),
            kwargs=None if kwargs is None else dict(kwargs),
            options={
                # Celery adds these two by itself, and the worker knows them.
                key: value
                for key, value in options.items()
                if key not in {"retries", "ignore_result"}
            },
        )
        request = task.request if request is None else request
        return _Resend(
            recorder,
            changed,
            request.args if args is None else args,
            request.kwargs if kwargs is None else kwargs,
        )

    task.signature_from_request = signature_from_request
    try:
        yield
    finally:
        del task.signature_from_request


@contextmanager
def _told(task: Any, recorder: Recorder) -> Iterator[None]:
    """Let `task.update_state()` tell the worker: there is no result backend here."""
    previous = task._backend
    task.backend = _progress.Backend(
        task.request.id, recorder.teller, lambda: previous or task.app.backend
    )
    try:
        yield
    finally:
        task.backend = previous
