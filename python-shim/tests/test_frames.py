"""Frames between the worker and a process of its pool."""

from __future__ import annotations

import signal
import socket
import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import NoReturn

import pytest

from petiole import _frames

TEXTS = [b"id", b"name", b"{}", b"application/json", b"utf-8", b"[[], {}, {}]"]
LARGE = [*TEXTS[:-1], b"x" * (3 * _frames.READ_BYTES)]


def frame(texts: list[bytes], kind: int = _frames.TASK) -> bytes:
    """Return a frame as the worker writes it."""
    payload = b"".join(map(_frames.text, texts))
    return struct.pack("<IB", len(payload), kind) + payload


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, _frames.Channel]]:
    """Give the worker's end and the process' channel."""
    worker, peer = socket.socketpair()
    with worker, peer:
        yield worker, _frames.Channel(peer)


def test_tasks_in_one_piece(ends: tuple[socket.socket, _frames.Channel]) -> None:
    """What came together is taken one after the other, and then the end is seen."""
    worker, channel = ends
    other = [b"other", *TEXTS[1:]]
    worker.sendall(frame(TEXTS) + frame(other) + frame(TEXTS))
    worker.shutdown(socket.SHUT_WR)
    assert [channel.receive_task() for _ in range(4)] == [TEXTS, other, TEXTS, None]


def test_task_in_many_pieces(ends: tuple[socket.socket, _frames.Channel]) -> None:
    """A frame may come byte by byte, and be larger than what is read at once."""
    worker, channel = ends
    data = frame(TEXTS) + frame(LARGE)

    def write() -> None:
        for byte in data[:100]:
            worker.sendall(bytes([byte]))
        worker.sendall(data[100:])

    writer = threading.Thread(target=write)
    writer.start()
    assert channel.receive_task() == TEXTS
    assert channel.receive_task() == LARGE
    writer.join()


def test_end_inside_a_task(ends: tuple[socket.socket, _frames.Channel]) -> None:
    """Half a frame is none."""
    worker, channel = ends
    worker.sendall(frame(TEXTS)[:-1])
    worker.shutdown(socket.SHUT_WR)
    assert channel.receive_task() is None


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXTS, _frames.DONE),
        frame(TEXTS[:-1]),
        frame([*TEXTS, b"more"]),
        struct.pack("<IB", 6, _frames.TASK) + struct.pack("<I", 9) + b"ab",
    ],
    ids=["kind", "too few", "too many", "too long"],
)
def test_broken(ends: tuple[socket.socket, _frames.Channel], data: bytes) -> None:
    """What is no TASK is refused."""
    worker, channel = ends
    worker.sendall(data)
    with pytest.raises(ValueError, match="the worker sent"):
        channel.receive_task()


@pytest.mark.parametrize("step", [1, 2], ids=["before the lock", "with the lock"])
def test_send_within_the_steps_of_a_send(
    ends: tuple[socket.socket, _frames.Channel], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """A handler of a signal that logs may run between any two steps of a send."""
    worker, channel = ends
    steps: list[int] = []

    def interrupt() -> int:
        steps.append(1)
        if len(steps) == step:
            channel.send(_frames.LOG, b"nested")
        return threading.get_ident()

    # In the module of the channel alone: threads ask for their identity, too.
    monkeypatch.setattr(_frames, "threading", SimpleNamespace(get_ident=interrupt))
    sender = threading.Thread(target=channel.send, args=(_frames.ACCEPTED,), daemon=True)
    sender.start()
    sender.join(10)
    assert not sender.is_alive()
    whole = struct.pack("<IB", 6, _frames.LOG) + b"nested" + struct.pack("<IB", 0, _frames.ACCEPTED)
    assert worker.recv(100) == whole


@pytest.fixture
def alarm() -> Iterator[None]:
    """Let SIGALRM raise TimeoutError, as decorators of functions do."""

    def interrupt(*_: object) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_signal_within_a_large_frame(ends: tuple[socket.socket, _frames.Channel]) -> None:
    """Its handler may raise when the frame is whole: half of one would break the stream."""
    worker, channel = ends
    document = b"x" * (1 << 22)
    received: list[bytes] = []

    def read() -> None:
        worker.recv(1, socket.MSG_PEEK)  # it has begun, and most of it finds no room
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        while piece := worker.recv(1 << 20):
            received.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with pytest.raises(TimeoutError):
        channel.send(_frames.STATE, document)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    channel.send(_frames.ACCEPTED)
    channel._peer.close()
    reader.join()
    whole = struct.pack("<IB", len(document), _frames.STATE) + document
    assert b"".join(received) == whole + struct.pack("<IB", 0, _frames.ACCEPTED)
