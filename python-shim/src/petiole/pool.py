"""The warm parent of the worker's Python processes: loads the app once and forks on demand.

    python -m petiole.pool -A APP [-n NODENAME] [-l LEVEL] [-I MODULES] [--overrides JSON]
                           [--own-results]

Options:
    -A, --app NAME       the app, as `celery -A` takes it
    -n, --hostname NAME  the worker's name; else celery@ and the host's
    -l, --loglevel LEVEL of Celery's loggers; WARNING without it
    -I, --include A,B    more modules to import, as `celery worker -I`
    --overrides JSON     what wins over the settings and tasks of the app: the object of
                         src/worker/settings_python.h
    --own-results        results are stored here, not by the worker: it has no such backend

The worker starts it with a SOCK_SEQPACKET socket as stdin. Packets, native byte order, `=BiI`:

| from the worker | |
|---|---|
| FORK, 0, number | with two descriptors: the process' socket, and where its output goes |
| REAP, pid, 0 | the worker sends no signal to `pid` any more |

| from here | |
|---|---|
| LOADED, 0, 0 | the app is there |
| FORKED, pid, number | |
| EXITED, code, pid | an exit code, or the negative number of a signal |
| REFUSED, errno, number | there is no such process: the system has no room for it |

A process that has ended stays a zombie until REAP, so that its id cannot be another's when the
worker sends it a signal. One that a thread of the app has waited for is told with code 255. Ends
when the worker closes the socket, and with it what it has forked: handlers of
`worker_process_shutdown` have ten seconds.

Exits with 0 when the worker has closed, with 2 when the command line is wrong, and with 1, after a
traceback, when the app cannot be loaded.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import copy
import errno
import gc
import importlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
import warnings
from dataclasses import dataclass
from typing import Any

from celery import platforms
from celery.app import trace
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter

from petiole import _app, _child, _leaving, _output, _tracing

FORK, REAP = 1, 2
LOADED, FORKED, EXITED, REFUSED = 1, 2, 3, 4
STDIN = 0
UNKNOWN_CODE = 255  # of a process that somebody else in the parent has waited for
CLOSE_GRACE_S = _leaving.THREADS_S_MAX  # for handlers of worker_process_shutdown, as there
_packet = struct.Struct("=BiI")
_FORK_DESCRIPTORS = 2


@dataclass(frozen=True)
class Place:
    """What the parent knows of a process that runs.

    Attributes:
        index: Its index; see Nursery._free_index.
        peer: A descriptor of its socket, to see whether the worker has closed its end.
    """

    index: int
    peer: int


class Nursery:
    """The forked processes, and the conversation with the worker about them."""

    def __init__(
        self, app: Any, hostname: str, control: socket.socket, has_own_results: bool
    ) -> None:
        """Take the control socket."""
        self._app = app
        self._hostname = hostname
        self._control = control
        self._has_own_results = has_own_results
        self._running: dict[int, Place] = {}
        self._ended: set[int] = set()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve the worker until it closes, then end what is left."""
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._send(LOADED, 0, 0)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
                self._tell_ended()
            if self._control.fileno() in ready and not self._receive():
                break
        self._close()

    def _send(self, kind: int, first: int, second: int) -> None:
        try:
            self._control.send(_packet.pack(kind, first, second))
        except ConnectionError:
            self._close()
            sys.exit(0)

    def _receive(self) -> bool:
        """Take one packet; return whether the worker is still there."""
        room = socket.CMSG_SPACE(_FORK_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._control.recvmsg(_packet.size, room)
        except ConnectionError:
            return False  # it left without reading all that was sent
        if len(data) < _packet.size:
            return False
        kind, pid, number = _packet.unpack(data)
        descriptors = array.array("i")
        for _level, _type, content in ancillary:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        if kind == FORK:
            self._fork(number, descriptors)
        elif kind == REAP and pid in self._ended:
            self._ended.discard(pid)
            with contextlib.suppress(ChildProcessError):  # see UNKNOWN_CODE
                os.waitpid(pid, 0)
        return True

    def _fork(self, number: int, descriptors: array.array[int]) -> None:
        pid = code = 0
        index = self._free_index()
        try:
            if len(descriptors) != _FORK_DESCRIPTORS:
                raise OSError(errno.EMFILE, "this process may have no more descriptors")
            os.set_inheritable(descriptors[0], False)
            pid = _fork_quietly()
        except OSError as error:
            code = error.errno or errno.EAGAIN
        if pid == 0 and code == 0:
            self._become_child(number, index, descriptors[0], descriptors[1])
        for descriptor in descriptors[1 if pid else 0 :]:
            os.close(descriptor)
        if code:
            self._send(REFUSED, code, number)
        else:
            self._running[pid] = Place(index, descriptors[0])
            self._send(FORKED, pid, number)

    def _free_index(self) -> int:
        """Return the least number from 0 on that no process has that may get tasks.

        Apps choose a processor or a port by it, and count on its being less than the number of
        processes (billiard/pool.py: Pool._avail_index): one that the worker lets end while it has
        another one forked does not keep its own.
        """
        poll = select.poll()
        for place in self._running.values():
            poll.register(place.peer, 0)
        closed = {descriptor for descriptor, _ in poll.poll(0)}
        taken = {place.index for place in self._running.values() if place.peer not in closed}
        return next(index for index in itertools.count() if index not in taken)

    def _become_child(self, number: int, index: int, peer: int, output: int) -> None:
        """In the fork: leave behind what is the parent's, and run tasks."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setpgid(0, 0)
        others = (place.peer for place in self._running.values())
        for descriptor in (self._wake_reader, self._wake_writer, *others):
            os.close(descriptor)
        self._control.close()
        os.dup2(output, _output.STDOUT)
        os.dup2(output, _output.STDERR)
        os.close(output)
        child = _child.Child(self._app, self._hostname, _patient_socket(peer))
        child.run(number, index, self._has_own_results)

    def _tell_ended(self) -> None:
        for pid in list(self._running):
            code = _exit_code(pid)
            if code is not None:
                self._forget(pid)
                self._ended.add(pid)
                self._send(EXITED, code, pid)

    def _forget(self, pid: int) -> None:
        os.close(self._running.pop(pid).peer)

    def _close(self) -> None:
        """Wait for the processes, which see their sockets closed, and kill those that stay."""
        self._control.close()
        deadline = time.monotonic() + CLOSE_GRACE_S
        while self._running and time.monotonic() < deadline:
            for pid in list(self._running):
                if _exit_code(pid) is not None:
                    self._forget(pid)
            time.sleep(0.01)
        for pid in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _fork_quietly() -> int:
    """Fork without the warning of Python 3.12 and later, which threads of the app would bring."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
        return os.fork()


def _exit_code(pid: int) -> int | None:
    """Return how a process has ended, as EXITED tells it; None while it runs."""
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return UNKNOWN_CODE
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def _patient_socket(descriptor: int) -> socket.socket:
    """Return the socket of `descriptor`, without the app's `socket.setdefaulttimeout`."""
    taken = socket.socket(fileno=descriptor)
    taken.settimeout(None)
    return taken


def _take_control() -> socket.socket:
    """Return the control socket, and leave /dev/null in its place."""
    control = _patient_socket(os.dup(STDIN))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, STDIN)
    os.close(null)
    control.set_inheritable(False)
    return control


def _set_up_logging(app: Any, level: str, hostname: str) -> None:
    """Set Celery's logging up, with the worker's log in place of stderr.

    Where a receiver of the signal `setup_logging` has done it, all is left as it is: what its
    handlers write to stderr is output of the process. Formatters that are not Celery's, filters and
    levels that the app has given to Celery's handlers (`after_setup_logger`) stay.
    """
    receivers = app.log.setup(level, None, False, colorize=False, hostname=hostname)
    if receivers:
        return
    for name in (None, "celery.task", "multiprocessing", "billiard", "celery"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler and handler.stream is sys.__stderr__:
                logger.removeHandler(handler)
                logger.addHandler(_to_worker(handler, app))


def _to_worker(handler: logging.Handler, app: Any) -> logging.Handler:
    """Return what writes to the worker's log as `handler` would to stderr.

    Celery's own formats lose what the worker's log has by itself: time, level and process. Colors
    would be shown there as escapes.
    """
    replacement = _child.LogHandler(handler.level)
    replacement.filters = handler.filters
    formatter: Any = handler.formatter
    format_ = getattr(formatter, "_fmt", None)
    if type(formatter) is TaskFormatter and format_ == app.log.task_format:
        formatter = TaskFormatter("%(task_name)s[%(task_id)s]: %(message)s", use_color=False)
    elif type(formatter) is ColorFormatter and format_ == app.log.format:
        formatter = logging.Formatter("%(message)s")
    elif isinstance(formatter, ColorFormatter):
        formatter = copy.copy(formatter)
        formatter.use_color = False
    replacement.setFormatter(formatter)
    return replacement


def _take_urls() -> dict[str, str]:
    """Return broker and backend where the worker names them for its app alone.

    Tasks, what they start, and other apps of theirs do not see these variables.
    """
    names = {"broker_url": "PETIOLE_BROKER_URL", "result_backend": "PETIOLE_RESULT_BACKEND"}
    found = {setting: os.environ.pop(name, "") for setting, name in names.items()}
    return {setting: url for setting, url in found.items() if url}


def _load(options: argparse.Namespace, hostname: str) -> Any:
    """Return the app, ready for processes that are forked: a worker is about to start."""
    if sys.version_info < (3, 11):
        with contextlib.suppress(ImportError):
            # Celery's worker has it, and it changes how tracebacks are written.
            importlib.import_module("exceptiongroup")
    include = tuple(name for name in options.include.split(",") if name)
    overrides = json.loads(options.overrides)
    overrides["settings"] = {**overrides.get("settings", {}), **_take_urls()}
    app = _tracing.load_app(options.app, include, overrides)
    trace.setup_worker_optimizations(app, hostname)
    _app.tell_start(app, hostname, overrides["settings"])
    _set_up_logging(app, options.loglevel, hostname)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Load the app and fork processes for the worker until it closes; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m petiole.pool", description=__doc__)
    parser.add_argument("-A", "--app", required=True)
    parser.add_argument("-n", "--hostname", default="")
    parser.add_argument("-l", "--loglevel", default="WARNING")
    parser.add_argument("-I", "--include", default="")
    parser.add_argument("--overrides", default="{}", help="what wins over the app's settings: JSON")
    parser.add_argument(
        "--own-results", action="store_true", help="store results here, not in the worker"
    )
    options = parser.parse_args(arguments)
    control = _take_control()
    platforms.set_pdeathsig("SIGKILL")
    for stream in (sys.stdout, sys.stderr):
        # No text that a task prints is an error (celery/utils/log.py: LoggingProxy.write).
        stream.reconfigure(  # type: ignore[union-attr]
            line_buffering=True, errors="backslashreplace"
        )
    hostname = options.hostname or f"celery@{socket.gethostname()}"
    app = _load(options, hostname)
    gc.collect()
    gc.freeze()
    Nursery(app, hostname, control, options.own_results).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
