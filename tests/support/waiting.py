"""The one place where a test waits: for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.01
T = TypeVar("T")


def wait_for(condition: Callable[[], T], timeout_s: float = 10.0, what: object = "") -> T:
    """Return the first true value of `condition`, which is called every 10 ms.

    `what` is what is waited for, in words; a callable is asked when the time is up.

    Raises:
        AssertionError: there was none within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s} s: {text or condition}")
        time.sleep(POLL_S)
