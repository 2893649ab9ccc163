"""A process of the worker's pool: takes tasks from its socket and runs them one after the other.

It is forked by `petiole.pool`, prepares itself as a process of Celery's prefork pool does, and ends
when the worker closes the socket. It opens no connection by itself.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import signal
import socket
import threading
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

from billiard import common as billiard_common
from billiard import process as billiard_process
from billiard import util as billiard_util
from billiard.exceptions import WorkerLostError
from celery import states
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import InvalidTaskError, Reject, SoftTimeLimitExceeded

from petiole import _frames, _output, _report, _tracing

EXIT_BROKEN = 1
# Billiard 4.3 and later report a task's own SystemExit before the process ends, and others of the
# like as failures; before that the process was simply gone (billiard/pool.py: Worker.workloop).
REPORTS_EXITS = hasattr(billiard_common, "terminate_handler_fired")
SIGNAL_BASE = 256
LOST = "LOST"
_TEXTS_OF_TASK = 6
_OUTCOMES = {
    states.SUCCESS: _frames.SUCCESS,
    states.FAILURE: _frames.FAILURE,
    states.RETRY: _frames.RETRY,
    states.IGNORED: _frames.IGNORED,
    states.REJECTED: _frames.REJECTED,
    LOST: _frames.LOST,
}


class LogHandler(logging.Handler):
    """Hands records to the worker's log; before there is a channel, to stderr."""

    channel: _frames.Channel | None = None
    output = _output.STDERR  # whatever a task makes of that one

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what goes wrong is told as by every handler of logging."""
        try:
            text = self.format(record).encode("utf-8", "backslashreplace")
            level = min(max(record.levelno // 10 - 1, 0), 4)
            if not _send_line(level, text):
                os.write(_output.STDERR, text + b"\n")
        except SoftTimeLimitExceeded:
            raise  # of the task that logs, not of the log
        except Exception:
            self.handleError(record)


def _send_line(level: int, text: bytes) -> bool:
    """Send a line to the worker; return False where there is none, or none any more."""
    channel = LogHandler.channel
    if channel is None or not channel.is_own():
        return False
    try:
        channel.send(_frames.LOG, _frames.log(level, text))
    except OSError:
        return False  # the worker lets this process end
    with contextlib.suppress(OSError):
        os.write(LogHandler.output, _frames.MARK)  # all at once, see PIPE_BUF
    return True


class Child:
    """The tasks of one process, and what the worker hears of them."""

    def __init__(self, app: Any, hostname: str, peer: socket.socket) -> None:
        """Take the socket; nothing is sent yet."""
        self._app = app
        self._hostname = hostname
        self._channel = _frames.Channel(peer, self._after_send)
        self._task_id: str | None = None
        self._name = ""
        self._document: tuple[str, bytes] = ("", b"")
        self._is_stored = False  # the document
        self._is_due = False

    def run(self, number: int, index: int, has_own_results: bool) -> NoReturn:
        """Prepare this process, run tasks until the worker closes, and exit.

        Args:
            number: Of all processes so far, from 1 on.
            index: Of those that there are at a time, from 0 on.
            has_own_results: Whether results are stored here, not by the worker.
        """
        code = EXIT_BROKEN
        try:
            _name_process(number, index)
            self._prepare(has_own_results)
            self._channel.send(_frames.READY, _frames.ready(os.getpid()))
            while (task := self._channel.receive_task()) is not None:
                if len(task) == _TEXTS_OF_TASK:
                    self._run_task(task)
                else:
                    self._conclude(task)
            code = 0
            billiard_util._exit_function()
        except SystemExit as error:
            code = _exit_code(error)
        except ConnectionError:
            pass
        except Exception:
            logging.getLogger("petiole.pool").critical("a process of the pool ends", exc_info=True)
        except BaseException:
            code = (
                0  # a task's own KeyboardInterrupt or the like (billiard/pool.py: Worker.__call__)
            )
        finally:
            _leave(code)

    def store(self, task_id: str, state: str, document: bytes, is_end: bool) -> None:
        """Take a document of Celery's backend: the last since the task's end is told with the end.

        What handlers of the end store comes after it, and a SUCCESS stays
        (celery/backends/base.py: KeyValueStoreBackend._store_result). So does what becomes of the
        rest of its chain.

        Raises:
            OSError: The worker is gone.
        """
        if not self._channel.is_own():
            self._store_alone(task_id, state, document, is_end)
        elif task_id != self._task_id or not (is_end or self._document[1]):
            if task_id != self._task_id:
                self._send_document()
            self._send_state(task_id, state, document)
        elif self._document[0] != states.SUCCESS:
            self._flush_document()
            self._hold(state, document)
            if is_end and state == states.SUCCESS and self._has_handlers_of_success():
                self._channel.send(_frames.ENDED, _frames.text(document))

    def _has_handlers_of_success(self) -> bool:
        return _tracing.has_handlers_of_success(self._app, self._name)

    def _store_alone(self, task_id: str, state: str, document: bytes, is_end: bool) -> None:
        """Store a state in a process that a task has forked: the socket is not that one's.

        Raises:
            Exception: Whatever the backend raises.
        """
        if is_end:
            return  # it came back from the fork: see _tell
        backend = self._app.backend.behind()
        if backend._get_task_meta_for(task_id)["status"] != states.SUCCESS:
            backend._set_with_state(backend.get_key_for_task(task_id), document, state)

    def _hold(self, state: str = "", document: bytes = b"") -> None:
        """Keep what is to be told with the end."""
        self._document = (state, document)
        self._is_stored = False

    def _flush_document(self) -> None:
        """Store what was to be the end, before another one, such as when a handler raises."""
        self._send_document()
        self._hold()

    def _send_document(self) -> None:
        """Store what is the end so far; the worker stores and publishes equal documents once."""
        state, document = self._document
        if document and self._task_id is not None and not self._is_stored:
            self._is_stored = True
            self._send_state(self._task_id, state, document)

    def _send_state(self, task_id: str, state: str, document: bytes) -> None:
        texts = (task_id.encode(), state.encode(), document)
        self._channel.send(_frames.STATE, b"".join(map(_frames.text, texts)))

    def _prepare(self, has_own_results: bool) -> None:
        """Become a process of the pool (celery/concurrency/prefork.py: process_initializer)."""
        LogHandler.channel = self._channel
        LogHandler.output = os.dup(_output.STDERR)
        billiard_util._run_after_forkers()
        if not has_own_results:
            _tracing.lead_stores_to(self._app, self)
        process_initializer(self._app, self._hostname)
        # So that a signal that ends the process runs `finally` blocks (billiard/pool.py:
        # Worker.after_fork); only those that Celery's pool, which has no threads, does it for.
        billiard_common.reset_signals()
        signal.signal(signal.SIGUSR1, self._on_soft_limit)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_soft_limit(self, _number: int, _frame: FrameType | None) -> None:
        """Interrupt the task that runs; half a frame must not be left in the socket."""
        if self._task_id is None:
            return
        if self._channel.is_sending():
            self._is_due = True  # see _after_send
            return
        raise SoftTimeLimitExceeded

    def _after_send(self) -> None:
        """Interrupt the task whose limit came while it sent; signals are the main thread's."""
        if self._is_due and threading.current_thread() is threading.main_thread():
            self._is_due = False
            raise SoftTimeLimitExceeded

    def _run_task(self, task: list[bytes]) -> None:
        """Run one task and tell how it ended.

        Raises:
            BaseException: What ends the process too.
        """
        task_id, name, text, content_type, content_encoding, body = task
        self._hold()
        self._is_due = False
        self._channel.send(_frames.ACCEPTED)
        self._task_id = task_id.decode()
        self._name = name.decode()
        request: dict[str, Any] = {}
        opened: Any = None
        try:
            request = _tracing.parse_request(text)
            body = _tracing.unpack(body, request)
            opened = _tracing.decode(body, content_type.decode(), content_encoding.decode())
            ending = _tracing.run(self._app, self._name, self._task_id, request, opened)
        except Exception as error:
            ending = _tracing.Ending(states.FAILURE, error, False, 0.0)
        except BaseException as error:
            if not REPORTS_EXITS or billiard_common.terminate_handler_fired():
                raise
            leaves = isinstance(error, (SystemExit, KeyboardInterrupt))
            ending = _tracing.Ending(LOST if leaves else states.FAILURE, error, False, 0.0)
        if opened is not None and not ending.is_told and ending.state != LOST:
            ending = self._reported(ending, request, opened)
        self._task_id = None
        self._tell(ending)
        if ending.state == LOST and ending.error is not None:
            raise ending.error

    def _reported(
        self, ending: _tracing.Ending, request: dict[str, Any], body: Any
    ) -> _tracing.Ending:
        """Return the end as Celery has reported it, or as it was when Celery could not."""
        self._flush_document()
        try:
            error = ending.error or RuntimeError("a task ended without a word")
            module = _ending_module()
            is_told = module.report(self._process(module), request, body, error)
        except Exception:
            self._hold()
            return ending
        return replace(ending, is_told=is_told)

    def _conclude(self, texts: list[bytes]) -> None:
        """Do what follows from the end of a task that the worker has ended."""
        task_id, _, request, content_type, content_encoding, body, text = texts
        self._hold()
        self._channel.send(_frames.ACCEPTED)
        self._task_id = task_id.decode()
        is_told = False
        try:
            fields = _tracing.parse_request(request)
            opened = _tracing.try_decode(
                body, content_type.decode(), content_encoding.decode(), fields
            )
            module = _ending_module()
            is_told = module.conclude(self._process(module), fields, opened, text)
        except Exception:
            logging.getLogger("petiole.pool").exception("the end of a task cannot be told")
        finally:
            self._task_id = None
        self._tell(_tracing.Ending(self._document[0], None, is_told, 0.0))

    def _process(self, module: Any) -> Any:
        return module.Process(self._app, self._hostname, self._tell_next_try)

    def _tell_next_try(self) -> None:
        """Say that the next try is sent: a handler may end this process before DONE."""
        self._channel.send(_frames.ENDED, _frames.text(b""))

    def _tell(self, ending: _tracing.Ending) -> None:
        """Send how the task ended, its output first."""
        if not self._channel.is_own():
            os._exit(0)  # a fork of the task's own that came back from it
        _output.flush()
        state, document = self._document
        error = ending.error
        if ending.state == LOST:
            error = WorkerLostError(f"Worker exited prematurely: {_status(error)}.")
        cause = getattr(error, "exc", None) if ending.state == states.RETRY else error
        named = cause if isinstance(cause, BaseException) else error
        texts = [state.encode(), document, b"", b"", b"", b""]
        if named is not None:
            texts[2] = type(named).__qualname__.encode()
        if error is not None and not ending.is_told:
            texts[2:] = _described(error)
        rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = _OUTCOMES.get(ending.state, _frames.FAILURE)
        requeue = isinstance(error, Reject) and bool(error.requeue)
        payload = _frames.done(outcome, requeue, ending.is_told, ending.runtime_s, rss_kib, *texts)
        self._channel.send(_frames.DONE, payload)


def _name_process(number: int, index: int) -> None:
    """Be to billiard, and to multiprocessing, what a process of its pool is.

    billiard/pool.py: Pool._create_worker_process, billiard/process.py: BaseProcess._bootstrap. A
    daemon may have no children by them.
    """
    process = billiard_process.current_process()
    process._name = f"ForkPoolWorker-{number}"
    process.index = index
    process.daemon = True
    billiard_process._set_current_process(process)


def _ending_module() -> Any:
    """Return the module of what most processes never do; it imports Celery's worker."""
    return importlib.import_module("petiole._endings")


def _described(error: BaseException) -> list[bytes]:
    """Return type, module, arguments and traceback of what the worker is to report."""
    document = _report.exception_document(error)
    if isinstance(error, (InvalidTaskError, Reject)) or error.__traceback__ is None:
        trace = ""
    else:
        trace = _report.format_trace(error, error.__traceback__)
    return [
        document["exc_type"].encode(),
        document["exc_module"].encode(),
        _report.encode_json(document["exc_message"]).encode(),
        trace.encode("utf-8", "backslashreplace"),
    ]


def _status(error: BaseException | None) -> str:
    """Return how a task ended its process (celery/worker/request.py: _worker_lost_info)."""
    if not isinstance(error, SystemExit):
        return type(error).__name__
    code = error.code if isinstance(error.code, int) else int(error.code is not None)
    return str(billiard_common.human_status(code))


def _exit_code(error: SystemExit) -> int:
    """Return the exit code of a process that a task ends (billiard/process.py: _bootstrap).

    A negative one is of a signal that has ended it, by billiard/common.py: _shutdown_cleanup.
    """
    if error.code is None:
        return 0
    if not isinstance(error.code, int):
        return 1
    return error.code if error.code < 0 else error.code & 0xFF


def _leave(code: int) -> NoReturn:
    """End this process as billiard/pool.py: Worker._do_exit does; of a signal that has ended it."""
    try:
        process_destructor(os.getpid(), code)
        _output.flush()
        if code < 0:
            number = SIGNAL_BASE + code
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
    finally:
        os._exit(code & 0xFF)
