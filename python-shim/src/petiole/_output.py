"""What the runner itself writes, whatever the task has made of `sys.stdout` and `sys.stderr`.

A task may close, replace or redirect these; descriptors 1 and 2 stay the container's output.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

STDOUT = 1
STDERR = 2
# Of a stream that is closed, or none, or that a signal's handler found at work.
STREAM_ERRORS = (AttributeError, OSError, RuntimeError, ValueError)


def complain(text: str) -> None:
    """Write `text` as lines to stderr; when nobody can read them that is no reason to fail."""
    data = text if text.endswith("\n") else f"{text}\n"
    with suppress(OSError):
        write_all(STDERR, data.encode("utf-8", "backslashreplace"))


def flush() -> None:
    """Let go what the task has written, as far as its streams still can."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(*STREAM_ERRORS):
            stream.flush()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`: one call for a file, as many as a pipe asks for.

    Raises:
        OSError: It cannot be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
