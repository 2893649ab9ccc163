"""What `python -m petiole.run` does, once it heeds SIGTERM: the task, its limits, one report."""

from __future__ import annotations

import argparse
import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from petiole import _body, _leaving, _limits, _output, _report

DEFAULT_RESULT_FILE = "/dev/termination-log"
ERRBACKS_S_MAX = 10.0


class Reporter:
    """Writes the one report of this process: that of the body, or of the hard limit."""

    def __init__(self, path: Path) -> None:
        """Remember where the report goes, and whose it is; nothing is opened yet."""
        self._path = path
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_claimed = False
        self._exit_code: int | None = None

    def end_copy(self) -> None:
        """End this process if the app has forked it, and it came back: the report is not its."""
        if os.getpid() != self._pid:
            _output.flush()
            os._exit(0)

    def claim(self) -> bool:
        """Return True to the first who asks: the end of the task is its to tell."""
        with self._lock:
            is_first, self._is_claimed = not self._is_claimed, True
            return is_first

    def send(self, report: _report.Report) -> int:
        """Write `report` unless one is written, and return the exit code of the one that is."""
        with self._lock:
            if self._exit_code is None:
                self._exit_code = self._write(report)
            return self._exit_code

    def _write(self, report: _report.Report) -> int:
        _output.flush()
        try:
            encoded = _report.encode(report)
        except Exception as error:
            trace = _report.own_frames_cut(error.__traceback__)
            encoded = _report.encode(_report.failure(error, trace))
        try:
            _report.write(encoded, self._path)
        except OSError as error:
            _output.complain(f"petiole.run: no report: {self._path}: {error.strerror}")
            return _leaving.EXIT_UNREPORTED
        return _leaving.EXIT_FAILURE if encoded.state == "FAILURE" else _leaving.EXIT_REPORTED


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the task that the environment names and end the process."""
    argparse.ArgumentParser(
        prog="python -m petiole.run",
        description="Run the task of PETIOLE_TASK_FILE and report to PETIOLE_RESULT_FILE.",
    ).parse_args(arguments)
    reporter = Reporter(Path(os.environ.get("PETIOLE_RESULT_FILE") or DEFAULT_RESULT_FILE))
    _limits.raise_on_termination()
    try:
        report, body = _run(os.environ, reporter)
        reporter.end_copy()
        _limits.ignore_termination()
    except _limits.TerminatedError:
        _output.complain("petiole.run: terminated")
        _leaving.leave(_leaving.EXIT_TERMINATED)
    if report.traceback and not (body and body.is_logged):
        _output.complain(report.traceback)
    code = reporter.send(report)
    _leaving.leave(code, functools.partial(body.close, code) if body else None)


def _run(
    environ: Mapping[str, str], reporter: Reporter
) -> tuple[_report.Report, _body.Body | None]:
    """Prepare and run the task; whatever goes wrong is the report."""
    body = None
    try:
        body = _body.prepare(environ)
        return _call(body, reporter), body
    except _limits.TerminatedError:
        raise
    except BaseException as error:
        trace = _report.own_frames_cut(error.__traceback__)
        if isinstance(error, Exception):
            report = _report.failure(error, trace)
        else:
            # Its own class would end the client that asks for the result, as SystemExit does. A
            # Celery worker's child dies of it, and the master reports this.
            lost = WorkerLostError(_premature_exit(error))
            lose = _report.failure if body is None else body.lose
            report = lose(lost, trace, error)
        return report, body


def _call(body: _body.Body, reporter: Reporter) -> _report.Report:
    """Call the body under its limits; the hard one ends the process here."""

    def end(report: _report.Report) -> None:
        code = _leaving.EXIT_UNREPORTED
        try:
            code = reporter.send(report)
            _output.flush()
        finally:
            os._exit(code)

    def on_hard_limit() -> None:
        if not reporter.claim():
            return  # the body has just ended
        _output.complain(f"petiole.run: hard time limit ({body.hard_limit_s}s) exceeded")
        error = TimeLimitExceeded(body.hard_limit_s)
        # Errbacks are the app's own code: they may take as long as they like, but not for ever.
        impatience = threading.Timer(ERRBACKS_S_MAX, end, [_report.failure(error)])
        impatience.daemon = True
        impatience.start()
        end(body.lose(error, None, None))

    with _limits.limited(body.soft_limit_s, body.hard_limit_s, on_hard_limit):
        try:
            return body.run()
        finally:
            _be_first(reporter)


def _be_first(reporter: Reporter) -> None:
    """Claim the end of the task, or wait for the thread that has claimed it to end the process."""
    reporter.end_copy()
    if not reporter.claim():
        threading.Event().wait()


def _premature_exit(error: BaseException) -> str:
    """Return Celery's sentence for a worker process that a task ended."""
    if not isinstance(error, SystemExit):
        shown = "KeyboardInterrupt" if isinstance(error, KeyboardInterrupt) else f"{error!r:.200}"
        return f"Worker exited prematurely: {shown}."
    code = 0 if error.code is None else error.code
    return f"Worker exited prematurely: exitcode {code if isinstance(code, int) else 1}."
