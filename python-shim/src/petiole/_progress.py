"""States of a task before its end: `update_state` becomes a line on stdout that the worker reads.

    ::petiole {"seq": N, "state": STATE, "meta": VALUE}

A line is ASCII, at most 4096 bytes long with the newlines around it, and written by a single
write(2): before it goes a newline, so that text without a line's end does not swallow it. VALUE is
in Kombu's JSON dialect. STATE is any but SUCCESS, FAILURE and REVOKED, which only a report can say:
a task that sets one of these and raises `Ignore` has it in its report.

N grows from line to line, so that the worker, which may read a line twice, knows what it has read:
it is the time in nanoseconds, and so it also grows from one process of the container to the next.

The lines are news, not the result: the worker may be away, follow too many other pods, or store
only the newest of several. Whatever a task must not lose belongs into its result.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from celery import states

from petiole import _report

LINE_PREFIX = "::petiole"
LINE_BYTES_MAX = 4096
STDOUT = 1


@dataclass
class Teller:
    """Writes the lines of one task, from whichever thread, and remembers the last state."""

    stdout_fd: int = STDOUT
    last: dict[str, Any] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seq: int = 0

    def tell(self, state: str, meta: Any) -> None:
        """Write one line, unless it is of a ready state. What does not fit stderr complains of.

        Raises:
            EncodeError: `meta` has no JSON form.
        """
        text = f'"state":{_report.encode_json(state)},"meta":{_report.encode_json(meta)}}}'
        with self._lock:
            self.last = {"state": state, "meta": meta}
            if state in states.READY_STATES:
                return
            self._seq = max(self._seq + 1, time.time_ns())
            line = f'\n{LINE_PREFIX} {{"seq":{self._seq},{text}\n'.encode("ascii")
            if len(line) > LINE_BYTES_MAX:
                print(
                    f"petiole.run: a state {state!r:.100} of {len(line)} bytes is over the limit "
                    f"of {LINE_BYTES_MAX} and is not told",
                    file=sys.stderr,
                )
                return
            # The body may have closed or replaced its stdout: that is no reason to end it.
            with suppress(AttributeError, OSError, ValueError):
                sys.stdout.flush()
            with suppress(OSError):
                os.write(self.stdout_fd, line)
