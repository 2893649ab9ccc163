"""What to run for a message: a task of a Celery app, or a plain function."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Protocol

from celery import Task
from celery.exceptions import Ignore, InvalidTaskError, NotRegistered, Reject, Retry

from petiole import _message, _report, _traced, _tracing

LIMIT_S_MAX = 100_000_000


class Body(Protocol):
    """Something to run.

    Attributes:
        soft_limit_s: Seconds after which the body is interrupted; None or 0: never.
        hard_limit_s: Seconds after which the process is ended, likewise.
        is_logged: Whether how it ended stands in the log already.
    """

    soft_limit_s: float | None
    hard_limit_s: float | None
    is_logged: bool

    def run(self) -> _report.Report:
        """Run it; what the body raises as an Exception is in the report.

        Raises:
            BaseException: What no worker catches, such as SystemExit.
        """

    def lose(
        self, error: BaseException, trace: TracebackType | None, cause: BaseException | None
    ) -> _report.Report:
        """Return the report of a body that did not end by itself, as `_report.failure` does."""

    def close(self, exit_code: int) -> None:
        """Let the app tidy up; the report is written."""


@dataclass
class Function:
    """A plain function, with no Celery around it."""

    call: Callable[[], Any]
    soft_limit_s: float | None
    hard_limit_s: float | None
    is_logged: bool = False

    def run(self) -> _report.Report:
        """Call it; exceptions of Celery mean what they mean in a task."""
        try:
            return _report.success(self.call())
        except Reject as error:
            return _report.rejected(error)
        except Ignore as error:
            return _report.ignored(error)
        except Retry as error:
            return _report.retry_by_worker(error)
        except Exception as error:
            return _report.failure(error, _report.own_frames_cut(error.__traceback__))

    def lose(
        self, error: BaseException, trace: TracebackType | None, cause: BaseException | None
    ) -> _report.Report:
        """Return the report of a failure."""
        return _report.failure(error, trace, cause)

    def close(self, exit_code: int) -> None:
        """Do nothing: there is no app."""


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
    name = environ.get("PETIOLE_APP") or environ.get("CELERY_APP")
    function: Any = None
    app = _tracing.load_app(name) if name else None
    if app is None:
        function = _imported(environ.get("PETIOLE_FUNCTION"), message.task)
        if isinstance(function, Task):
            app = function.app
            app.finalize()
    task = None if app is None else _registered(app, message.task if name else function.name)
    call = _message.decode(message, _accepted(environ.get("PETIOLE_ACCEPT_CONTENT"), app))
    hard_s, soft_s = _limits(message, environ)
    if task is None:
        return Function(lambda: function(*call.args, **call.kwargs), soft_s, hard_s)
    return _traced.TracedTask(
        task, message, call, soft_s or task.soft_time_limit, hard_s or task.time_limit
    )


def _registered(app: Any, name: str) -> Any:
    """Return the task `name` of `app`."""
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
        seconds = float(text or 0)
        return _seconds(int(seconds) if seconds.is_integer() else seconds) if text else None
    except ValueError:
        raise InvalidTaskError(f"{name} is not a number of seconds: {text!r:.100}") from None


def _seconds(limit: Any) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0:
        raise InvalidTaskError(f"a time limit is not a number of seconds: {limit!r:.100}")
    return min(limit, LIMIT_S_MAX)
