"""The programs that the demo starts: until when to wait for them, and an end for each."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from processes import Spawner, kill_session

POLL_S = 0.05
# After the first of them a worker still waits for its tasks; nobody wants those any more.
STOP_S = (1.0, 10.0)
LOG_TAIL_LINES = 15
KIB = 1024
_PR_SET_CHILD_SUBREAPER = 36


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


@dataclass(frozen=True)
class Memory:
    """What a program and everything that it started hold, in bytes.

    `rss_bytes` counts a page in full for each process that has it, `pss_bytes` as 1/n when n
    processes of the machine share it.
    """

    processes: int
    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class Program:
    """A program that was started, with its output in the file `log` from `begin` on."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    begin: int

    def check(self) -> None:
        """Raise DemoError, with the end of the log in it, when the program has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"{self.name} ended with {code}:\n{self.log_tail()}")

    def text(self) -> str:
        """Return what it has printed."""
        return self.log.read_bytes()[self.begin :].decode(errors="replace")

    def log_tail(self) -> str:
        """Return the last lines that it printed."""
        return "\n".join(self.text().splitlines()[-LOG_TAIL_LINES:])

    def memory(self) -> Memory:
        """Return what it and its children hold now."""
        pids = [self.process.pid, *descendants(self.process.pid)]
        found = [_memory_kib(pid) for pid in pids]
        return Memory(
            processes=len(pids),
            rss_bytes=sum(each["Rss"] for each in found) * KIB,
            pss_bytes=sum(each["Pss"] for each in found) * KIB,
        )


class Programs:
    """Everything that was started. The kernel kills it when the demo itself is killed."""

    def __init__(self, logs: Path) -> None:
        """Keep logs in the folder `logs`. What a program leaves behind becomes our child."""
        self._logs = logs
        self._spawner = Spawner()
        self._running: list[Program] = []
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path
    ) -> Program:
        """Start `command` with exactly the environment `env`; `name` is for people."""
        path = self._logs / f"{name.replace(' ', '-')}.log"
        with path.open("ab") as log:
            begin = log.tell()
            process = self._spawner.start(command, log, env, cwd)
        program = Program(name, process, path, begin)
        self._running.append(program)
        return program

    def wait_for_line(self, program: Program, text: str, seconds: float) -> None:
        """Wait until `program` has printed `text`.

        Raises:
            DemoError: It ended, or did not print it within `seconds`.
        """

        def is_printed() -> bool:
            if text in program.text():
                return True
            program.check()
            return False

        if not wait_until(is_printed, seconds):
            raise DemoError(
                f"{program.name} was not ready within {seconds:.0f} s:\n{program.log_tail()}"
            )

    def check(self) -> None:
        """Raise DemoError when one of them has ended."""
        for program in self._running:
            program.check()

    def stop(self, program: Program) -> None:
        """Ask `program` to end, twice if need be: the second time ends a worker's tasks too."""
        if program in self._running:
            self._running.remove(program)
        for seconds in STOP_S:
            with suppress(ProcessLookupError):
                program.process.terminate()
            if wait_until(lambda: program.process.poll() is not None, seconds):
                break
        kill_session(program.process)
        program.process.wait()

    def kill(self, program: Program) -> None:
        """Kill `program` with SIGKILL, so that it can tidy nothing up."""
        self._running.remove(program)
        program.process.kill()
        program.process.wait()

    def close(self) -> None:
        """End everything, the last one first, and whatever any of them has left behind."""
        while self._running:
            self.stop(self._running[-1])
        self._spawner.close()
        while left := descendants(os.getpid()):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)


def say(text: str) -> None:
    """Tell what happens next."""
    print(f"demo: {text}", flush=True)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether `condition` became true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def descendants(pid: int) -> list[int]:
    """Return the children of process `pid`, their children, and so on."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # The name before the state may hold blanks and brackets.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def _memory_kib(pid: int) -> dict[str, int]:
    """Return the sizes that the kernel tells of one process; 0 when it has ended meanwhile."""
    sizes = {"Rss": 0, "Pss": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0])
    return sizes
