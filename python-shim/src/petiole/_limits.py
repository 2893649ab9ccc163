"""Time limits and termination of the task's body.

Both limits count from the start of the body. The soft one interrupts the main thread with
`SoftTimeLimitExceeded`, by SIGALRM, and the body may catch it. The hard one is a thread's, so that
it also works while the main thread is in a system call. Code that keeps the interpreter's lock for
longer than the limit is ended by the pod's own deadline.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    timer = threading.Timer(hard_s, on_hard) if hard_s else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    previous = signal.signal(signal.SIGALRM, _raise_soft_limit) if soft_s else None
    try:
        if soft_s:
            signal.setitimer(signal.ITIMER_REAL, soft_s)
        yield
    finally:
        if soft_s:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        if timer is not None:
            timer.cancel()


def raise_on_termination() -> None:
    """Make SIGTERM and SIGINT raise TerminatedError in the main thread from now on.

    Without a handler a container's first process would ignore SIGTERM altogether. A
    KeyboardInterrupt is then the body's own.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    signal.signal(signal.SIGINT, _raise_terminated)
    # A forked helper of the body is not the task: its parent may end it as any other process.
    os.register_at_fork(after_in_child=_restore_termination)


def ignore_termination() -> None:
    """Let SIGTERM and SIGINT pass from now on: what follows is short and must be completed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _restore_termination() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _raise_soft_limit(_number: int, _frame: FrameType | None) -> None:
    raise SoftTimeLimitExceeded


def _raise_terminated(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError
