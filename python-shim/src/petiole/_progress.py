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
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from celery import states

from petiole import _output, _report

LINE_PREFIX = "::petiole"
LINE_BYTES_MAX = 4096


@dataclass
class Teller:
    """Writes the lines of one task, from whichever thread, and remembers the last state.

    A handler of a signal may tell a state while another one is being told: the two are told in one
    order or the other, and of both the one with the greater number counts.
    """

    stdout_fd: int = _output.STDOUT
    last: dict[str, Any] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _seq: int = 0

    def tell(self, state: str, meta: Any) -> None:
        """Write one line, unless it is of a ready state. What does not fit stderr complains of.

        Raises:
            EncodeError: `meta` has no JSON form.
        """
        text = f'"state":{_report.encode_json(state)},"meta":{_report.encode_json(meta)}}}'
        with self._lock:
            seq = max(self._seq + 1, time.time_ns())
            if seq > self._seq:  # else a signal's handler has just told a later one
                self._seq, self.last = seq, {"state": state, "meta": meta}
            if state not in states.READY_STATES:
                self._write(state, f'\n{LINE_PREFIX} {{"seq":{seq},{text}\n'.encode("ascii"))

    def _write(self, state: str, line: bytes) -> None:
        if len(line) > LINE_BYTES_MAX:
            _output.complain(
                f"petiole.run: a state {state!r:.100} of {len(line)} bytes is over the limit "
                f"of {LINE_BYTES_MAX} and is not told"
            )
            return
        _output.flush()
        with suppress(OSError):
            os.write(self.stdout_fd, line)
