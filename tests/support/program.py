"""A program that a test starts: its log in a file, signals, exit code, and an end for sure."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from waiting import wait_for

INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PETIOLE_CACHE",
    "XDG_CACHE_HOME",
    "ASAN_OPTIONS",
    "UBSAN_OPTIONS",
    "TSAN_OPTIONS",
    "LSAN_OPTIONS",
)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without anything that would configure a worker, but for `extra`."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, **(extra or {})}


class Program:
    """One run of a program whose stdout and stderr go to the file `log`.

    It leads a process group of its own; `stop` kills what is left of it, so nothing that it
    started outlives the test.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        """Start `command` with exactly `environment`; an existing log is appended to."""
        self.command = list(command)
        self.log_path = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid

    def is_running(self) -> bool:
        """Return whether it has not ended yet."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return everything that it has printed."""
        return self.log_path.read_text(errors="replace")

    def log_count(self, pattern: str) -> int:
        """Return how often the regular expression is found in the log."""
        return len(re.findall(pattern, self.log(), re.MULTILINE))

    def log_contains(self, text: str) -> bool:
        """Return whether `text` stands in the log."""
        return text in self.log()

    def wait_log(self, pattern: str, timeout_s: float = 10.0, count: int = 1) -> str:
        """Wait until the regular expression is in the log `count` times; return the last match."""

        def found() -> list[str]:
            was_running = self.is_running()  # asked first: what it printed last is read after
            matches = [match[0] for match in re.finditer(pattern, self.log(), re.MULTILINE)]
            if len(matches) < count:
                assert was_running, f"ended without {pattern!r}:\n{self.log()}"
                return []
            return matches

        return wait_for(found, timeout_s, lambda: f"{pattern!r} in the log:\n{self.log()}")[-1]

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group, and wait."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def wait_exit(self, timeout_s: float = 15.0) -> int:
        """Return the exit code, negative for a signal.

        Raises:
            AssertionError: it did not end within `timeout_s`.
        """
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log()}") from None

    def stop(self, timeout_s: float = 15.0) -> int:
        """End it: SIGTERM, then SIGKILL to what is left of its group; return its exit code."""
        if self.is_running():
            self.signal(signal.SIGCONT)
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        self.kill()
        return self.process.returncode
