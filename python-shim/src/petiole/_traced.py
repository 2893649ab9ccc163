"""Runs a Celery task in a container as a worker's process does, and reports how it ended.

Everything around the body is Celery's own (`celery/app/trace.py`): signals, handlers of custom Task
classes, retries, callbacks, log lines. Broker and result backend are stand-ins: `petiole._outbox`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from billiard import current_process
from celery import signals, states
from celery._state import _set_task_join_will_block
from celery.app import trace as celery_trace
from celery.app.task import Context

from petiole import _app, _message, _outbox, _report, _tracing
from petiole.exceptions import CanvasUnsupported

logger = logging.getLogger(__name__)
DEFAULT_LOG_LEVEL = "INFO"
_LINKS = ("callbacks", "errbacks", "chain")


@dataclass
class TracedTask:
    """A task of an app with its message."""

    task: Any
    message: _message.Message
    call: _message.Call
    soft_limit_s: float | None
    hard_limit_s: float | None
    is_logged: bool = False

    def __post_init__(self) -> None:
        """Make this process one that runs tasks of the app.

        Raises:
            CanvasUnsupported: The task is a member of a chord.
        """
        if self.call.embed.get("chord"):
            raise CanvasUnsupported(
                f"task {self.message.task}[{self.message.id}] is a member of a chord: counting its "
                "members needs the result backend, which a container cannot reach",
                {"category": "CanvasUnsupported"},
            )
        self._app = self.task.app
        self._outbox = _outbox.Outbox(self.message.id)
        self._request = _request(self.message)
        _outbox.connect(self._app, self._outbox)
        _become_worker_process(self._app, self._request["hostname"])
        self.task.track_started = False  # the worker has stored STARTED already
        self.task.__trace__ = celery_trace.build_tracer(
            self.task.name,
            self.task,
            self._app.loader,
            self._request["hostname"],
            app=self._app,
        )

    def run(self) -> _report.Report:
        """Run the task through Celery's tracing."""
        call = self.call
        ending = _tracing.run(
            self._app,
            self.task.name,
            self.message.id,
            self._request,
            (call.args, call.kwargs, call.embed),
        )
        self.is_logged = ending.is_told
        return self._with_frames(self._ended(ending))

    def lose(
        self, error: BaseException, trace: TracebackType | None, cause: BaseException | None
    ) -> _report.Report:
        """Fail the task as Celery's master does when a process did not (`Request.on_failure`)."""
        self._outbox.claim()
        try:
            self.task.backend.mark_as_failure(
                self.message.id, error, request=self._context(), store_result=True
            )
        except Exception:
            logger.exception("an errback of task %s[%s] raised", self.task.name, self.message.id)
        return self._with_frames(_report.failure(error, trace, cause))

    def close(self, exit_code: int) -> None:
        """Tell the app's handlers that the process ends."""
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=exit_code)

    def _context(self) -> Context:
        call = self.call
        return Context(self._request, args=call.args, kwargs=call.kwargs, **call.embed)

    def _ended(self, ending: _tracing.Ending) -> _report.Report:
        """Return the report: of what was stored last, as in Celery, else of how the task ended."""
        error, document = ending.error, self._outbox.document
        if ending.state == states.REJECTED:
            return _report.rejected(error)
        if ending.state == states.IGNORED:
            return _report.ignored(error, self._outbox.teller.last)
        if document:
            return _of_document(document, error)
        if ending.state == states.SUCCESS:
            return _report.success(None)  # it is ignored: nobody is to see it
        if ending.state == states.RETRY:
            stored = _report.exception_or_none(getattr(error, "exc", None))
            text = getattr(ending.retval, "traceback", None)
            return _report.Report(states.RETRY, {"exception": stored}, text)
        cause = error or RuntimeError(f"the task ended as {ending.state} without an exception")
        return _report.failure(cause, cause.__traceback__)

    def _with_frames(self, report: _report.Report) -> _report.Report:
        """Return `report` with what the worker is to do before it stores the end."""
        payload = dict(report.payload)
        frames = self._outbox.taken()
        if children := (self._outbox.document or {}).get("children"):
            payload["children"] = children
        # Also when there are none: so the worker knows that nothing is left to it.
        if frames or report.state == states.RETRY or any(map(self.call.embed.get, _LINKS)):
            payload["frames"] = frames
        return _report.Report(report.state, payload, report.traceback)


def _of_document(document: Mapping[str, Any], error: BaseException | None) -> _report.Report:
    """Return the report that makes the worker store `document`, but for a handler's own state.

    That of a handler, such as `on_failure`, stays as the state of a task that is ignored.
    """
    state, result = document["status"], document["result"]
    if state == states.SUCCESS:
        return _report.success(result)
    is_exception = _is_exception(result) or (state == states.RETRY and result is None)
    if state in {states.RETRY, states.FAILURE} and is_exception:
        return _report.Report(state, {"exception": result}, document["traceback"])
    return _report.ignored(error, {"state": state, "meta": result})


def _is_exception(result: Any) -> bool:
    """Return whether `result` is an exception as Celery stores it."""
    return (
        isinstance(result, dict)
        and isinstance(result.get("exc_message"), list)
        and isinstance(result.get("exc_type"), str)
        and isinstance(result.get("exc_module"), str)
    )


def _request(message: _message.Message) -> dict[str, Any]:
    """Return the fields of `task.request`, as a worker makes them of a message.

    `celery/worker/request.py: Request`.
    """
    properties = message.properties
    delivery = properties.get("delivery_info") or {}
    headers = message.headers
    return {
        **headers,
        **_custom_headers(headers),
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
    }


def _custom_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field of the headers that are none of Celery's, where Celery does not make it.

    Celery before 5.3 would leave them out of a retry (`celery/app/task.py: Context`).
    """
    if hasattr(Context, "_get_custom_headers"):
        return {}
    known = {*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}
    custom = {key: value for key, value in headers.items() if key not in known}
    return {"headers": custom} if custom else {}


def _become_worker_process(app: Any, hostname: str) -> None:
    """Do what a process of Celery's pool does before its first task, but for its signal handlers.

    `celery/concurrency/prefork.py: process_initializer`. There is no process that it was forked
    from: what that does at its start is done here, too. It is the only one, so its number is 0
    (`billiard/pool.py: Pool._create_worker_process`).
    """
    current_process().index = 0
    celery_trace.setup_worker_optimizations(app, hostname)
    _app.tell_start(app, hostname)
    app.log.setup(_log_level(os.environ.get("CELERY_LOG_LEVEL")), hostname=hostname)
    app.loader.init_worker_process()
    _set_task_join_will_block(True)
    signals.worker_process_init.send(sender=None)


def _log_level(text: str | None) -> int | str:
    """Return a level of logging by number or name, INFO for anything else."""
    if text and text.isdigit() and int(text) > 0:
        return int(text)
    name = (text or DEFAULT_LOG_LEVEL).upper()
    return name if isinstance(logging.getLevelName(name), int) else DEFAULT_LOG_LEVEL
