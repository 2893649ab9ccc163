"""Processes that never outlive the program that started them, and ports for them to listen on."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

# Below the range from which Linux takes the ports of outgoing connections, so that a port stays
# free while the program listening on it is being restarted.
_PORTS = range(20000, 32768)
_KILL_SECONDS = 10.0
# The signal is asked for after the fork; a parent that died before that is noticed by its number.
# (A shell would do it too, but drops variables with a dot in their name.)
_IF_PARENT_LIVES = "getppid == shift or exit 1; exec { $ARGV[0] } @ARGV"
_GUARD = ("setpriv", "--pdeathsig", "KILL", "--", "perl", "-e", _IF_PARENT_LIVES, "--")


class Spawner:
    """Starts processes in sessions of their own that the kernel kills when this program dies.

    The kernel sends the signal of PR_SET_PDEATHSIG when the *thread* that forked has ended, so
    all forks happen on one thread that lives as long as the Spawner.
    """

    def __init__(self) -> None:
        """The thread starts with the first process."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def start(
        self,
        command: Sequence[str | Path],
        output: IO[bytes] | int,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start COMMAND, a path and its arguments, with both output streams into OUTPUT."""
        guarded = [*_GUARD, str(os.getpid()), *map(str, command)]
        return self._thread.submit(
            subprocess.Popen,
            guarded,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
            cwd=cwd,
            start_new_session=True,
        ).result()

    def close(self) -> None:
        """End the thread; what still runs is killed by the kernel."""
        self._thread.shutdown()


def kill_session(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Send a signal to PROCESS and to all of its group; nothing happens when all are gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def wait_for_exit(pid: int, seconds: float | None = None) -> bool:
    """Wait until process PID, which need not be a child, has ended; False when it has not.

    Without SECONDS there is no limit.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))
    finally:
        os.close(handle)


def stop_process(pid: int, seconds: float) -> None:
    """Ask process PID to end, wait for SECONDS, then kill it."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        if not wait_for_exit(pid, seconds):
            os.kill(pid, signal.SIGKILL)
            wait_for_exit(pid, _KILL_SECONDS)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port on 127.0.0.1")
