"""What follows from an end that the worker has made of a task: its process is gone.

Celery's worker does this in its main process: the result, the count of a chord, the rest of a
chain, errbacks and handlers of the failure (`celery/worker/request.py`: Request.on_timeout,
on_failure, _announce_revoked). Here a process of the pool does, through Celery's own backend.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery.app.task import Context
from celery.utils.serialization import create_exception_cls
from celery.worker.request import Request

logger = logging.getLogger(__name__)
# From 5.7 on Celery's worker calls the task's own methods at the hard time limit.
_CALLS_METHODS_AT_LIMIT = "on_failure" in Request.on_timeout.__code__.co_names


def conclude(app: Any, name: str, task_id: str, fields: Mapping[str, Any], text: bytes) -> None:
    """Do what follows from the end of a task.

    Args:
        app: The app.
        name: The task's name.
        task_id: Its id.
        fields: Those of the message and of the worker, args, kwargs and embed among them.
        text: How it ended: the JSON object of src/executor/process_ending.h.

    Raises:
        Exception: Whatever the backend or an errback raises.
    """
    ending = json.loads(text)
    context = Context(fields)
    task = app.tasks.get(name)
    backend = task.backend if task is not None else app.backend
    error = _exception(ending)
    if ending["state"] == states.REVOKED:
        reason = error.args[0] if error.args else ""
        backend.mark_as_revoked(task_id, reason, request=context, store_result=ending["stores"])
        return
    backend.mark_as_failure(task_id, error, request=context, store_result=ending["stores"])
    if task is not None and ending["has_begun"]:
        _call_handlers(task, context, error, is_timeout=ending["timed_out"])


def _exception(ending: Mapping[str, Any]) -> BaseException:
    """Return the exception that the worker names; of a class made up when there is none."""
    kind: Any = None
    with contextlib.suppress(ImportError):
        kind = getattr(importlib.import_module(ending["exc_module"]), ending["exc_type"], None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = create_exception_cls(ending["exc_type"], ending["exc_module"])
    error: BaseException = kind(*ending["exc_message"])
    return error


def _call_handlers(task: Any, context: Context, error: BaseException, *, is_timeout: bool) -> None:
    """Call the handlers of a failure that Celery's worker calls in its main process."""
    try:
        raise error
    except BaseException:
        info = ExceptionInfo()
    task.request_stack.push(context)
    try:
        if is_timeout and _CALLS_METHODS_AT_LIMIT:
            task.on_failure(error, context.id, context.args, context.kwargs, info)
            task.after_return(states.FAILURE, error, context.id, context.args, context.kwargs, None)
        signals.task_failure.send(
            sender=task,
            task_id=context.id,
            exception=error,
            args=context.args,
            kwargs=context.kwargs,
            traceback=info.traceback,
            einfo=info,
        )
    except Exception:
        logger.exception("a handler of the failure of task %s[%s] raised", task.name, context.id)
    finally:
        task.request_stack.pop()
