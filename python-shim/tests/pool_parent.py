"""The worker's side of `python -m petiole.pool`: the parent, and the processes it forks."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness import TIMEOUT_S, Interpreter
from petiole import _frames, pool

ID = "11111111-1111-4111-8111-111111111111"


@dataclass
class Process:
    """A process of the pool.

    Attributes:
        pid: Its id.
        peer: The worker's end of its socket.
        output: The reading end of its output.
    """

    pid: int
    peer: socket.socket
    output: int
    _input: bytes = b""

    def run(self, name: str, *args: Any) -> list[tuple[int, list[Any]]]:
        """Run a task; return the frames up to its end, as their kinds and fields."""
        request = {
            "task": name,
            "id": ID,
            "root_id": ID,
            "retries": 0,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "properties": {},
        }
        body = json.dumps([args, {}, {}])
        texts = (ID, name, json.dumps(request), "application/json", "utf-8", body)
        payload = b"".join(_frames.text(text.encode()) for text in texts)
        self.peer.sendall(struct.pack("<IB", len(payload), _frames.TASK) + payload)
        found = []
        while not found or found[-1][0] != _frames.DONE:
            found.append(self.receive())
        return found

    def printed(self) -> str:
        """Return what the process has written to its output, but for marks; each only once."""
        os.set_blocking(self.output, False)
        with contextlib.suppress(BlockingIOError):
            return os.read(self.output, 65536).replace(_frames.MARK, b"").decode()
        return ""

    def receive(self) -> tuple[int, list[Any]]:
        """Return kind and fields of the next frame."""
        length, kind = struct.unpack("<IB", self._take(5))
        payload = self._take(length)
        heads = {_frames.READY: "<I", _frames.DONE: "<BBBdI", _frames.LOG: "<B"}
        head = struct.Struct(heads.get(kind, "<"))
        fields: list[Any] = list(head.unpack_from(payload))
        position = head.size
        while position < len(payload):
            (size,) = struct.unpack_from("<I", payload, position)
            fields.append(payload[position + 4 : position + 4 + size])
            position += 4 + size
        return kind, fields

    def close(self) -> None:
        """Let the process end."""
        self.peer.close()
        os.close(self.output)

    def _take(self, count: int) -> bytes:
        while len(self._input) < count:
            piece = self.peer.recv(65536)
            assert piece, "the process has closed"
            self._input += piece
        taken, self._input = self._input[:count], self._input[count:]
        return taken


@dataclass
class Parent:
    """The warm parent.

    Attributes:
        control: The worker's end of its socket.
        program: The program; its output is a pipe.
        processes: What it was made to fork.
        output: All that the program wrote, once it has ended.
    """

    control: socket.socket
    program: subprocess.Popen[str]
    processes: list[Process] = field(default_factory=list)
    output: str = ""

    def fork(self, number: int = 1) -> Process:
        """Have a process forked, and wait until it is ready."""
        peer, theirs = socket.socketpair()
        output, writer = os.pipe()
        descriptors = array.array("i", (theirs.fileno(), writer))
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
        self.control.sendmsg([pool._packet.pack(pool.FORK, 0, number)], [rights])
        theirs.close()
        os.close(writer)
        kind, pid, _ = self.receive()
        assert kind == pool.FORKED
        peer.settimeout(TIMEOUT_S)
        process = Process(pid, peer, output)
        self.processes.append(process)
        while process.receive()[0] != _frames.READY:
            continue
        return process

    def end(self, process: Process) -> int:
        """End a process; return its exit code."""
        self.processes.remove(process)
        process.close()
        kind, code, pid = self.receive()
        assert (kind, pid) == (pool.EXITED, process.pid)
        self.control.send(pool._packet.pack(pool.REAP, pid, 0))
        return code

    def receive(self) -> tuple[int, int, int]:
        """Return the next packet."""
        packet = self.control.recv(64)
        assert packet, self.program.communicate()[0]
        kind, first, second = pool._packet.unpack(packet)
        return kind, first, second


@contextmanager
def warm_parent(python: Interpreter, app: str, *arguments: str, **environ: str) -> Iterator[Parent]:
    """Run the parent of an app of `programs` until the block ends; it is loaded."""
    worker, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker, control:
        program = subprocess.Popen(
            [python.executable, "-m", "petiole.pool", "-A", app, *arguments],
            env=python.environment(environ),
            stdin=control,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        control.close()
        worker.settimeout(TIMEOUT_S)
        parent = Parent(worker, program)
        try:
            assert parent.receive()[0] == pool.LOADED
            yield parent
        finally:
            for process in parent.processes:
                process.close()
            worker.close()
            parent.output = program.communicate(timeout=TIMEOUT_S)[0]


def result(frames: list[tuple[int, list[Any]]]) -> Any:
    """Return the result in the document at the end of a task's frames."""
    return json.loads(frames[-1][1][6])["result"]


def states(frames: list[tuple[int, list[Any]]]) -> list[str]:
    """Return the states that were stored before the end of a task."""
    return [fields[1].decode() for kind, fields in frames if kind == _frames.STATE]


def logged(frames: list[tuple[int, list[Any]]]) -> list[tuple[int, str]]:
    """Return levels and texts of the lines of a task."""
    return [(fields[0], fields[1].decode()) for kind, fields in frames if kind == _frames.LOG]
