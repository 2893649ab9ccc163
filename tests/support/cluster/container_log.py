"""The log of one run of a container, kept as a container runtime keeps it.

Each line of the file is ``<time> stdout <F or P> <text>``; P marks a piece of a longer line. Both
output streams go through one pipe, so that their order is the real one and ``stdout`` stands for
either.
"""

from __future__ import annotations

import io
import os
import threading
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_PIECE_BYTES = 16 * 1024


class ContainerLog:
    """One log: a thread writes it, any number of threads read it."""

    def __init__(self, path: Path) -> None:
        """The file at PATH is written anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        self.path = path
        self._changed = threading.Condition()
        self._is_complete = False
        self._collector: threading.Thread | None = None

    def open_pipe(self) -> int:
        """Return a descriptor, the caller's to close, whose text goes into the log."""
        read_end, write_end = os.pipe()
        self._collector = threading.Thread(target=self._collect, args=(read_end,), daemon=True)
        self._collector.start()
        return write_end

    def finish(self, seconds: float) -> None:
        """Wait until all writers have closed the pipe, at most SECONDS: the log is complete."""
        if self._collector:
            self._collector.join(seconds)
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()

    def tail(self, max_bytes: int, max_lines: int) -> str:
        """Return the end of the log without its times."""
        last: deque[bytes] = deque(maxlen=max_lines)
        for text in self.read():
            last.append(text)
        return b"".join(last)[-max_bytes:].decode(errors="replace")

    def read(
        self, follow: bool = False, since: datetime | None = None, timestamps: bool = False
    ) -> Iterator[bytes]:
        """Yield the texts line by line; with FOLLOW wait for more until the log is complete."""
        with self.path.open("rb") as file:
            while True:
                with self._changed:
                    is_complete = self._is_complete
                    size = self.path.stat().st_size
                    if size == file.tell():
                        if is_complete or not follow:
                            return
                        self._changed.wait()
                        continue
                for line in io.BytesIO(file.read(size - file.tell())):
                    time, _, tag, text = line.split(b" ", 3)
                    if since and datetime.fromisoformat(time.decode()) < since:
                        continue
                    whole = text if tag == b"F" else text.removesuffix(b"\n")
                    yield time + b" " + whole if timestamps else whole

    def _collect(self, read_end: int) -> None:
        rest = b""
        with open(read_end, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_PIECE_BYTES):
                lines = (rest + chunk).split(b"\n")
                rest = lines.pop()
                self._append(b"F", lines)
                if len(rest) >= _PIECE_BYTES:
                    self._append(b"P", [rest])
                    rest = b""
        if rest:
            self._append(b"P", [rest])

    def _append(self, tag: bytes, lines: list[bytes]) -> None:
        if not lines:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z").encode()
        text = b"".join(b"%s stdout %s %s\n" % (now, tag, line) for line in lines)
        with self._changed:
            with self.path.open("ab") as file:
                file.write(text)
            self._changed.notify_all()
