"""Frames between the worker and a process of its pool, over a stream socket.

A frame is a head of five bytes, `<IB`: the length of what follows, and the kind. What follows is,
little-endian and without padding, where a *text* is a length (`<I`) and so many bytes:

| kind | from the worker |
|---|---|
| TASK | texts: id, name, request (JSON object), content type, content encoding, body |
| ENDING | the same, and how the task has ended (JSON object): do what follows from it |

| kind | from the process |
|---|---|
| READY | `<I` process id |
| ACCEPTED | nothing: the task, or what follows from its end, begins |
| STATE | texts: task id, state, document to store before the task's end: of a state on the way, |
| | of an end that is followed by another one (DONE), or of another task, its end too |
| DONE | `<BBBdI` outcome (SUCCESS and so on), requeue, whether Celery has told all that follows, |
| | runtime in seconds, resident KiB; texts: the document's state, which the worker passes over, |
| | document to store or nothing, exc_type, exc_module, exc_message, traceback |
| ENDED | text: the document of a task that has succeeded, whose handlers are still to be called; |
| | after ENDING nothing: the next try of a lost task is sent, and handlers are to be called |
| LOG | `<B` level (0 DEBUG to 4 CRITICAL); text: the message; then MARK in the output says where |

The other side is src/executor/process_frame.h.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from typing import Callable

TASK = 1
ENDING = 2
READY = 1
ACCEPTED = 2
STATE = 3
DONE = 4
LOG = 5
ENDED = 6

MARK = b"\0\x1d\n"
SUCCESS, FAILURE, RETRY, IGNORED, REJECTED, LOST = range(6)

READ_BYTES = 65536
ATOMIC_BYTES = 4096  # Linux takes so many whole or not at all (net/unix: unix_stream_sendmsg)
_ALL_SIGNALS = signal.valid_signals()
_head = struct.Struct("<IB")
_length = struct.Struct("<I")
_ready = struct.Struct("<I")
_done = struct.Struct("<BBBdI")
_level = struct.Struct("<B")
_texts_of = {TASK: 6, ENDING: 7}


def text(data: bytes) -> bytes:
    """Return `data` as a text of a frame."""
    return _length.pack(len(data)) + data


def ready(pid: int) -> bytes:
    """Return the payload of READY."""
    return _ready.pack(pid)


def done(
    outcome: int, requeue: bool, is_told: bool, runtime_s: float, rss_kib: int, *texts: bytes
) -> bytes:
    """Return the payload of DONE; the six `texts` in the order of the table."""
    head = _done.pack(outcome, requeue, is_told, runtime_s, min(rss_kib, 0xFFFFFFFF))
    return head + b"".join(map(text, texts))


def log(level: int, message: bytes) -> bytes:
    """Return the payload of LOG."""
    return _level.pack(level) + text(message)


class Channel:
    """The process' end of the socket. Any thread may send; one reads."""

    def __init__(self, peer: socket.socket, after_send: Callable[[], None] | None = None) -> None:
        """Take the connected socket `peer`; `after_send` is called after each whole frame."""
        self._peer = peer
        self._after_send = after_send
        self._lock = threading.RLock()  # a handler of a signal may send between any two steps
        self._pid = os.getpid()
        self._owner = 0
        self._deferred: list[bytes] = []
        self._input = b""

    def is_own(self) -> bool:
        """Return whether this process may send: one that a task has forked may not."""
        return os.getpid() == self._pid

    def is_sending(self) -> bool:
        """Return whether the current thread is inside `send`: a handler of a signal asks this."""
        return self._owner == threading.get_ident()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a frame. Called by a signal's handler inside another `send`, it follows that one.

        Raises:
            OSError: The worker is gone.
        """
        frame = _head.pack(len(payload), kind) + payload
        if self._owner == threading.get_ident():
            self._deferred.append(frame)
            return
        with self._lock:
            self._send_whole(frame)
            while self._deferred:
                self._send_whole(self._deferred.pop(0))
        if self._after_send is not None:
            self._after_send()

    def _send_whole(self, frame: bytes) -> None:
        self._owner = threading.get_ident()
        try:
            if len(frame) > ATOMIC_BYTES:
                self._send_large(frame)
            else:
                self._peer.sendall(frame)
        finally:
            self._owner = 0

    def _send_large(self, frame: bytes) -> None:
        """Send what the system may take in parts: no handler of a signal may raise between them.

        One that comes in this thread waits, SIGTERM too: until the worker has read on, or closes.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
            self._peer.sendall(frame)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def receive_task(self) -> list[bytes] | None:
        """Wait for the next TASK or ENDING; return its texts, or None when the worker has closed.

        Raises:
            OSError: The connection broke.
            ValueError: What came is no such frame.
        """
        if not self._fill(_head.size):
            return None
        length, kind = _head.unpack_from(self._input)
        size = _head.size + length
        if not self._fill(size):
            return None
        if kind not in _texts_of:
            raise ValueError(f"the worker sent a frame of kind {kind}")
        data = self._input
        self._input = data[size:]
        return _split(data, size, _texts_of[kind])

    def _fill(self, count: int) -> bool:
        """Wait until there are `count` bytes of input; return False at its end."""
        missing = count - len(self._input)
        pieces = [self._input]
        while missing > 0:
            piece = self._peer.recv(max(READ_BYTES, missing))
            if not piece:
                return False
            pieces.append(piece)
            missing -= len(piece)
        self._input = b"".join(pieces)
        return True


def _split(frame: bytes, size: int, count: int) -> list[bytes]:
    """Return the `count` texts of the frame that `frame` begins with, in `size` bytes."""
    texts: list[bytes] = []
    position = _head.size
    while position < size:
        (length,) = _length.unpack_from(frame, position)
        begin = position + _length.size
        position = begin + length
        texts.append(frame[begin:position])
    if position != size or len(texts) != count:
        raise ValueError("the worker sent a broken frame")
    return texts
