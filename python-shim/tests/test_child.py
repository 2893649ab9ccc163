"""A process of the worker's pool, without a worker."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from petiole import _child, _frames, _tracing


class Peer:
    """A socket that is full: the soft limit of the task comes while it is written to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        """Take the data."""
        os.kill(os.getpid(), signal.SIGUSR1)
        self.sent.append(data)


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def child(peer: Peer) -> Iterator[_child.Child]:
    """Give a process in which a task runs."""
    stranger: Any = peer
    child = _child.Child(None, "celery@host", stranger)
    child._task_id = "id"
    before = signal.signal(signal.SIGUSR1, child._on_soft_limit)
    _child.LogHandler.channel = child._channel
    try:
        yield child
    finally:
        _child.LogHandler.channel = None
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("size", [2, 1 << 20])
def test_soft_limit_within_a_state(child: _child.Child, peer: Peer, size: int) -> None:
    """It interrupts the task when the frame is whole."""
    with pytest.raises(SoftTimeLimitExceeded):
        child.store("id", "PROGRESS", b"x" * size, False)
    assert len(peer.sent) == 1


def test_soft_limit_within_a_line_of_the_log(child: _child.Child, peer: Peer) -> None:
    """It is no error of the log."""
    logger = logging.Logger("test_child")
    logger.addHandler(_child.LogHandler())
    with pytest.raises(SoftTimeLimitExceeded):
        logger.warning("still here")
    assert len(peer.sent) == 1


class Stream:
    """A stream that a handler of a signal found at work."""

    def flush(self) -> None:
        """Raise as `io.BufferedWriter` does."""
        raise RuntimeError("reentrant call inside")


def test_end_that_finds_a_stream_at_work(
    child: _child.Child, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told all the same."""
    child._task_id = None
    monkeypatch.setattr(sys, "stdout", Stream())
    child._tell(_tracing.Ending("SUCCESS", None, True, 0.0))
    assert len(peer.sent) == 1


def test_log_when_the_worker_has_closed(
    child: _child.Child, capfd: pytest.CaptureFixture[str]
) -> None:
    """What handlers of the end of a process log goes to its output, which is still read."""
    worker, own = socket.socketpair()
    worker.close()
    with own:
        _child.LogHandler.channel = _frames.Channel(own)
        logger = logging.Logger("test_child")
        logger.addHandler(_child.LogHandler())
        logger.warning("closing the database")
    assert capfd.readouterr().err == "closing the database\n"
