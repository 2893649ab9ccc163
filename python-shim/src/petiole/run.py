"""Run one task and report how it ended: the command of a task's container.

    python -m petiole.run

Environment:
    PETIOLE_TASK_FILE       the task; see `petiole._message` for the format
    PETIOLE_RESULT_FILE     where the report goes, default /dev/termination-log; see
                            `petiole._report` for the format
    PETIOLE_APP             the Celery app whose task it is, as `celery -A` takes it; else
                            CELERY_APP
    PETIOLE_FUNCTION        without an app, the function to call, as `module:function`; else the
                            task's name is taken as `module.function`
    PETIOLE_TIME_LIMIT      seconds after which the body is ended, when the message has no limit of
                            its own; the worker sets it from its settings
    PETIOLE_SOFT_TIME_LIMIT seconds after which SoftTimeLimitExceeded is raised in it, likewise
    PETIOLE_ACCEPT_CONTENT  serializers that a message may use, with commas between them; else the
                            app's `accept_content`, else json

With an app the task's body runs as in a Celery worker: the request is in place for `bind=True`,
`autoretry_for` and `self.retry()` work, limits of the message or the task are kept. The runner
stores no result, publishes nothing and needs no broker: a retry is part of the report, and the
worker sends it. A retry that was asked for is carried out whatever the body did afterwards.

Exits with 0 when SUCCESS, RETRY, IGNORED or REJECTED was reported, with 1 when FAILURE was, with 74
when no report could be written, and with 143, without a report, after SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry

from petiole import _body, _limits, _report

DEFAULT_RESULT_FILE = "/dev/termination-log"
EXIT_REPORTED = 0
EXIT_FAILURE = 1
EXIT_UNREPORTED = os.EX_IOERR
EXIT_TERMINATED = 143


class Reporter:
    """Writes the one report of this process, whichever thread comes first."""

    def __init__(self, path: Path) -> None:
        """Remember where the report goes; nothing is opened yet."""
        self._path = path
        self._lock = threading.Lock()
        self._exit_code: int | None = None

    def send(self, report: _report.Report) -> int:
        """Write `report` unless one is written, and return the exit code of the one that is."""
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._write(report)
            return self._exit_code

    def _write(self, report: _report.Report) -> int:
        # The body may have closed its stdout; the report does not depend on it.
        with suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
        try:
            encoded = _report.encode(report)
        except Exception as error:
            encoded = _report.encode(_report.failure(error, _own_frames_cut(error.__traceback__)))
        try:
            _report.write(encoded, self._path)
        except OSError as error:
            print(f"petiole.run: no report: {self._path}: {error.strerror}", file=sys.stderr)
            return EXIT_UNREPORTED
        return EXIT_FAILURE if encoded.state == "FAILURE" else EXIT_REPORTED


def main(arguments: list[str] | None = None) -> int:
    """Run the task that the environment names and return the exit code."""
    argparse.ArgumentParser(
        prog="python -m petiole.run",
        description="Run the task of PETIOLE_TASK_FILE and report to PETIOLE_RESULT_FILE.",
    ).parse_args(arguments)
    reporter = Reporter(Path(os.environ.get("PETIOLE_RESULT_FILE") or DEFAULT_RESULT_FILE))
    _limits.raise_on_termination()
    try:
        report = _run(reporter)
        _limits.ignore_termination()
    except (KeyboardInterrupt, _limits.TerminatedError):
        print("petiole.run: terminated", file=sys.stderr)
        return EXIT_TERMINATED
    if report.traceback:
        print(report.traceback, end="", file=sys.stderr)
    return reporter.send(report)


def _run(reporter: Reporter) -> _report.Report:
    """Prepare and run the task; whatever goes wrong is the report."""
    recorder = _body.Recorder()
    try:
        body = _body.prepare(os.environ)
        recorder = body.recorder
        result = _call(body, reporter)
    except (KeyboardInterrupt, _limits.TerminatedError):
        raise
    except BaseException as error:
        return _raised(error, recorder)
    if recorder.retry is not None:
        return _retried(recorder.retry, None, None)
    return _report.success(result)


def _call(body: _body.Body, reporter: Reporter) -> Any:
    """Call the body under its limits; the hard one ends the process here."""

    def on_hard_limit() -> None:
        error = TimeLimitExceeded(body.hard_limit_s)
        print(f"petiole.run: hard time limit ({body.hard_limit_s}s) exceeded", file=sys.stderr)
        code = reporter.send(_report.failure(error))
        sys.stderr.flush()
        os._exit(code)

    with _limits.limited(body.soft_limit_s, body.hard_limit_s, on_hard_limit):
        return body.call()


def _raised(error: BaseException, recorder: _body.Recorder) -> _report.Report:
    """Return the report of a body that raised `error`."""
    trace = _own_frames_cut(error.__traceback__)
    if recorder.retry is not None:
        return _retried(recorder.retry, error, trace)
    if isinstance(error, Retry):
        when = error.when
        is_count = isinstance(when, (int, float))
        request = _body.RetryRequest(
            countdown=when if is_count else None, eta=None if is_count else when
        )
        return _retried(request, error, trace)
    if isinstance(error, Reject):
        payload = {"exception": _report.exception_document(error), "requeue": bool(error.requeue)}
        return _report.Report("REJECTED", payload)
    if isinstance(error, Ignore):
        payload = {"exception": _report.exception_document(error)}
        if recorder.teller.last is not None:
            payload["told"] = recorder.teller.last
        return _report.Report("IGNORED", payload)
    if not isinstance(error, Exception):
        # Its own class would end the client that asks for the result, as SystemExit does. A Celery
        # worker's child dies of it, and the master reports this.
        return _report.failure(WorkerLostError(_premature_exit(error)), trace, error)
    return _report.failure(error, trace)


def _premature_exit(error: BaseException) -> str:
    """Return Celery's sentence for a worker process that a task ended."""
    if not isinstance(error, SystemExit):
        return f"Worker exited prematurely: {error!r:.200}."
    code = 0 if error.code is None else error.code
    return f"Worker exited prematurely: exitcode {code if isinstance(code, int) else 1}."


def _retried(
    request: _body.RetryRequest, error: BaseException | None, trace: TracebackType | None
) -> _report.Report:
    """Return the report of a body that asked to be run again; `error` is what it raised."""
    cause = error.exc if isinstance(error, Retry) else error
    payload: dict[str, Any] = {
        "exception": (
            _report.exception_document(cause) if isinstance(cause, BaseException) else None
        )
    }
    eta = request.eta.isoformat() if isinstance(request.eta, datetime) else request.eta
    changes = {
        "countdown": request.countdown,
        "eta": eta,
        "args": request.args,
        "kwargs": request.kwargs,
        "options": dict(request.options) or None,
    }
    payload.update((key, value) for key, value in changes.items() if value is not None)
    text = None if error is None else _report.format_trace(error, trace)
    return _report.Report("RETRY", payload, text)


def _own_frames_cut(trace: TracebackType | None) -> TracebackType | None:
    """Return `trace` from the first frame on that is not the runner's own."""
    package = str(Path(__file__).parent)
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(package):
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    sys.exit(main())
