"""Ends of tasks that no tracing has reported: what Celery's worker does in its main process.

A lost process, the hard time limit, Reject, and what was raised outside of a task's body are
reported by Celery's own `Request`, of whichever version is installed: the result, errbacks, the
rest of a chain, the count of a chord, `on_failure` and the signal `task_failure`. What becomes of
the message is the worker's business.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable

from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded
from celery import signals, states
from celery.app.task import Context
from celery.exceptions import Reject
from celery.utils.serialization import create_exception_cls
from celery.worker.request import Request

from petiole import _tracing

_logger = logging.getLogger("petiole.pool")
_SIGNALS_AT_LIMIT = "task_failure" in Request.on_timeout.__code__.co_names
_RETRIES_LOST = hasattr(Request, "_retry_worker_lost")


class _EndedRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Celery's request of a task that has ended; its message is the worker's to settle."""

    is_given_back = False
    on_next_try: Callable[[], None]

    def acknowledge(self) -> None:
        """Leave it to the worker."""

    def reject(self, requeue: bool = False) -> None:
        """Leave it to the worker, and note what Celery would do."""
        self.is_given_back = requeue

    def _retry_worker_lost(self, exc: BaseException, exc_info: ExceptionInfo) -> bool:
        """Send the next try (Celery 5.7); a handler that raises afterwards does not unsend it."""
        try:
            with self._publication_noticed():
                return bool(super()._retry_worker_lost(exc, exc_info))
        except Exception:
            _logger.exception("a handler of task_retry or on_retry raised an exception")
            return True

    @contextlib.contextmanager
    def _publication_noticed(self) -> Iterator[None]:
        """Call `on_next_try` as soon as the task's own message has been published again."""

        def notice(body: Any, headers: Any = None, **_: Any) -> None:
            fields = headers or body  # as in protocol 1
            if isinstance(fields, Mapping) and fields.get("id") == self.id:
                self.on_next_try()

        signals.after_task_publish.connect(notice, weak=False)
        try:
            yield
        finally:
            signals.after_task_publish.disconnect(notice)


@dataclass(frozen=True)
class Process:
    """The process that an end is told to.

    Attributes:
        app: The app.
        hostname: The worker's name.
        on_next_try: Is called when the next try of a lost task has been sent, before handlers.
    """

    app: Any
    hostname: str
    on_next_try: Callable[[], None]


def conclude(process: Process, request: Mapping[str, Any], body: Any, text: bytes) -> bool:
    """Do what follows from an end that the worker has made of a task.

    Args:
        process: This one.
        request: The fields of the message and of the worker.
        body: args, kwargs and embed.
        text: How it ended: the JSON object of src/executor/process_ending.h.

    Returns:
        Whether it is done; else the worker does what it can by itself. Not done is what Celery
        would do by giving the message back, and the next try of a lost task before Celery 5.7.

    Raises:
        Exception: Whatever the backend or an errback raises.
    """
    app = process.app
    ending = json.loads(text)
    error = _exception(ending)
    name = request["task"]
    if ending["state"] == states.RETRY and not (_RETRIES_LOST and name in app.tasks):
        return False
    if ending["state"] != states.REVOKED and ending["has_begun"] and name in app.tasks:
        return report(process, request, body, error)
    context = Context(_tracing.full_request(request, body))
    backend = app.tasks[name].backend if name in app.tasks else app.backend
    if ending["state"] == states.REVOKED:
        reason = error.args[0] if error.args else ""
        backend.mark_as_revoked(context.id, reason, request=context, store_result=ending["stores"])
    else:
        backend.mark_as_failure(context.id, error, request=context, store_result=ending["stores"])
    return True


def report(process: Process, request: Mapping[str, Any], body: Any, error: BaseException) -> bool:
    """Report how a task that has begun ended.

    Args:
        process: This one.
        request: The fields of the message and of the worker.
        body: args, kwargs and embed.
        error: What it ended by.

    Returns:
        Whether it is reported; not that of a lost task whose message Celery would give back.

    Raises:
        Exception: Whatever Celery or the app raises; KeyError for a task that is not registered.
    """
    message = SimpleNamespace(
        headers=request,
        body=body,
        payload=body,
        delivery_info=request["delivery_info"],
        properties=request["properties"],
    )
    celerys = _EndedRequest(
        message,
        app=process.app,
        hostname=process.hostname,
        headers=dict(request),
        body=body,
        decoded=True,
    )
    celerys.on_next_try = process.on_next_try
    try:
        raise error
    except BaseException:
        info = ExceptionInfo()
    if isinstance(error, TimeLimitExceeded):
        celerys.on_timeout(False, error.args[0])
        if not _SIGNALS_AT_LIMIT:
            _signal_failure(celerys, info)
        return True
    # What tracing has seen is logged already.
    celerys.on_failure(info, return_ok=isinstance(error, Reject))
    return isinstance(error, Reject) or not celerys.is_given_back


def _signal_failure(request: Request, info: ExceptionInfo) -> None:
    """Send the signal that an older Celery sends when its pool has given the task up."""
    signals.task_failure.send(
        sender=request.task,
        task_id=request.id,
        exception=info.exception,
        args=request.args,
        kwargs=request.kwargs,
        traceback=info.traceback,
        einfo=info,
    )


def _exception(ending: Mapping[str, Any]) -> BaseException:
    """Return the exception that the worker names; of a class made up when there is none."""
    kind: Any = None
    with contextlib.suppress(ImportError):
        kind = getattr(importlib.import_module(ending["exc_module"]), ending["exc_type"], None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = create_exception_cls(ending["exc_type"], ending["exc_module"])
    error: BaseException = kind(*ending["exc_message"])
    return error
