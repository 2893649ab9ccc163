"""How the runner's process ends once there is nothing left to report.

Until it has ended its container stays, and its task counts as running. So what a task leaves behind
has a time to come to an end in, and no more. Both times together are within the 30 seconds that
Kubernetes gives a pod after SIGTERM.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from typing import Any, Callable, NoReturn

from petiole import _output

EXIT_REPORTED = 0
EXIT_FAILURE = 1
EXIT_UNREPORTED = os.EX_IOERR
EXIT_TERMINATED = 143  # what a shell tells of a process that SIGTERM has ended

# For handlers of worker_process_shutdown and threads: they had their time while the task ran.
THREADS_S_MAX = 10.0
# For functions of `atexit`: a request of OpenTelemetry's exporters may take 10 seconds.
EXIT_FUNCTIONS_S_MAX = 10.0


def leave(code: int, close: Callable[[], None] | None = None) -> NoReturn:
    """End the process with exit code `code`.

    In the order of any Python: `close` is called, the threads that are no daemons are waited for,
    functions of `atexit` are called, among them those by which Sentry and OpenTelemetry send what
    they still hold. Then the process ends without more ado, as a process of Celery's pool does
    (`billiard/popen_fork.py: Popen._launch`): objects are not destroyed.
    """
    turn = threading.Lock()

    def finish() -> NoReturn:
        if not turn.acquire(blocking=False):
            threading.Event().wait()  # another thread is about it
        try:
            atexit._run_exitfuncs()
            _output.flush()
        finally:
            os._exit(code)

    _after(THREADS_S_MAX, finish)
    _after(THREADS_S_MAX + EXIT_FUNCTIONS_S_MAX, os._exit, code)
    try:
        if close is not None:
            close()
        threading._shutdown()  # type: ignore[attr-defined]  # what Python itself calls at its end
    finally:
        finish()


def _after(seconds: float, call: Callable[..., Any], *arguments: Any) -> None:
    """Call `call` in a thread of its own after `seconds`, unless there is room for no thread."""
    timer = threading.Timer(seconds, call, arguments)
    timer.daemon = True
    with suppress(RuntimeError):
        timer.start()
