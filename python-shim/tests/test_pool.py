"""The parent of the pool's processes, without a worker."""

from __future__ import annotations

import array
import errno
import os
import socket
import threading
import warnings
from collections.abc import Iterator

import pytest

from petiole import pool

NUMBER = 7


@pytest.fixture
def worker() -> Iterator[socket.socket]:
    """Give the worker's end of a parent's control socket."""
    worker, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker:
        worker.settimeout(10)
        nursery = pool.Nursery(None, "celery@host", control, False)
        server = threading.Thread(target=serve, args=(nursery,), daemon=True)
        server.start()
        yield worker
        worker.close()
        server.join(10)
        assert not server.is_alive()


def serve(nursery: pool.Nursery) -> None:
    """Take packets until the worker closes: `run` without its signals, which need a main thread."""
    while nursery._receive():
        pass
    nursery._close()


def nursery_with_stranger(control: socket.socket) -> tuple[pool.Nursery, int]:
    """Return a parent, and the id of a process of its that something else has waited for."""
    nursery = pool.Nursery(None, "celery@host", control, False)
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    nursery._running[pid] = pool.Place(0, os.open(os.devnull, os.O_RDONLY))
    return nursery, pid


def test_a_process_that_the_app_has_waited_for() -> None:
    """Its end is told, without the code that nobody knows any more."""
    worker, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker, control:
        worker.settimeout(10)
        nursery, pid = nursery_with_stranger(control)
        nursery._tell_ended()
        assert pool._packet.unpack(worker.recv(64)) == (pool.EXITED, 255, pid)
        worker.send(pool._packet.pack(pool.REAP, pid, 0))
        assert nursery._receive()


def test_a_process_that_the_app_has_waited_for_is_no_error_at_the_end() -> None:
    worker, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker:
        nursery, _ = nursery_with_stranger(control)
        nursery._close()
        assert nursery._running == {}


def ask(worker: socket.socket, descriptors: tuple[int, ...]) -> tuple[int, int, int]:
    """Ask for a process and return the answer."""
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    worker.sendmsg([pool._packet.pack(pool.FORK, 0, NUMBER)], [rights])
    kind, first, second = pool._packet.unpack(worker.recv(64))
    return kind, first, second


def test_no_room_for_a_process(worker: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent goes on, tells the worker, and keeps no descriptor."""

    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.os, "fork", fork)
    peer, theirs = socket.socketpair()
    reader, writer = os.pipe()
    with peer:
        for _ in range(2):
            answer = ask(worker, (theirs.fileno(), writer))
            assert answer == (pool.REFUSED, errno.EAGAIN, NUMBER)
        theirs.close()
        os.close(writer)
        assert peer.recv(1) == b""
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_an_app_with_threads(worker: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 and later warn of a fork then; it is no news."""

    def fork() -> int:
        text = "This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks"
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.os, "fork", fork)
    reader, writer = os.pipe()
    assert ask(worker, (reader, writer)) == (pool.REFUSED, errno.EAGAIN, NUMBER)
    os.close(reader)
    os.close(writer)


def test_descriptors_that_did_not_arrive(worker: socket.socket) -> None:
    """A parent that may open no more gets fewer descriptors than were sent."""
    reader, writer = os.pipe()
    assert ask(worker, (writer,)) == (pool.REFUSED, errno.EMFILE, NUMBER)
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)
