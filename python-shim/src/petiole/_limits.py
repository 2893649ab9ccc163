"""Time limits and termination of the task's body.

Both limits count from the start of the body, and each is a thread's: timers of the process, such as
`signal.alarm`, are the body's own. The soft one interrupts the main thread with
`SoftTimeLimitExceeded`, by SIGUSR1 as in Celery (`billiard/pool.py: soft_timeout_sighandler`), also
when somebody else sends that, and the body may catch it. The hard one needs no main thread, which
may be in a system call. Code that keeps the interpreter's lock for longer than the limit is ended
by the pod's own deadline.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Callable

from celery.exceptions import SoftTimeLimitExceeded


class TerminatedError(BaseException):
    """SIGTERM or SIGINT arrived: not an Exception, so that `except Exception` lets it through."""


@contextmanager
def limited(
    soft_s: float | None, hard_s: float | None, on_hard: Callable[[], None]
) -> Iterator[None]:
    """Run the block under both limits, in seconds; None or 0 means no such limit.

    Args:
        soft_s: After this long the block is interrupted with SoftTimeLimitExceeded, once.
        hard_s: After this long `on_hard` is called.
        on_hard: Called in a thread of its own; it should end the process.
    """
    main = threading.main_thread().ident or 0
    is_over = threading.Event()

    def _raise_soft_limit(_number: int, _frame: FrameType | None) -> None:
        if not is_over.is_set():
            raise SoftTimeLimitExceeded

    # It stays: the signal of a limit that comes when the block has just ended must not end us.
    signal.signal(signal.SIGUSR1, _raise_soft_limit)
    soft = _started(soft_s, partial(signal.pthread_kill, main, signal.SIGUSR1))
    hard = _started(hard_s, on_hard)
    try:
        yield
    finally:
        is_over.set()
        soft.cancel()
        hard.cancel()


def _started(seconds: float | None, call: Callable[[], None]) -> threading.Timer:
    """Return a timer that calls `call`, never without `seconds`."""
    timer = threading.Timer(seconds or 0, call)
    timer.daemon = True
    if seconds:
        timer.start()
    return timer


def raise_on_termination() -> None:
    """Make SIGTERM and SIGINT raise TerminatedError in the main thread from now on.

    Without a handler a container's first process would ignore SIGTERM altogether. A
    KeyboardInterrupt is then the body's own.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    signal.signal(signal.SIGINT, _raise_terminated)
    # A forked helper of the body is not the task: its parent may end it as any other process.
    os.register_at_fork(after_in_child=_restore_signals)


def ignore_termination() -> None:
    """Let SIGTERM and SIGINT pass from now on: what follows is short and must be completed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _restore_signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError
