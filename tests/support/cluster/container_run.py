"""One container as a process: start, memory limit, end, and its entry in ``containerStatuses``."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from container_log import ContainerLog
from kube_client import Json
from pod_files import Launch, NotReady, StartError, parse_quantity
from processes import Spawner, kill_session

# The kubelet's own limits.
_MESSAGE_BYTES = 4096
_FALLBACK_BYTES = 2048
_FALLBACK_LINES = 80
_BACKOFF_SECONDS = 10.0
_BACKOFF_MAX_SECONDS = 300.0

_START_ERROR_CODE = 128
_LOST_CODE = 137
_DRAIN_SECONDS = 2.0
_NEVER = "1970-01-01T00:00:00Z"


def rfc3339_now() -> str:
    """Return the time as Kubernetes writes it, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ContainerRun:
    """A container of a pod, with all its restarts. One thread uses it; the log any number."""

    def __init__(self, spec: Json, pod_uid: str, logs: Path, spawner: Spawner) -> None:
        """SPEC is the container of the pod's spec; LOGS is the folder for its logs."""
        self.spec = spec
        self.name: str = spec["name"]
        self.logs: list[ContainerLog] = []
        self.handle: int | None = None
        self.restart_at: float | None = None
        limit = spec.get("resources", {}).get("limits", {}).get("memory")
        self.memory_limit_bytes = parse_quantity(limit) if limit else None
        self.terminated: Json | None = None
        self._pod_uid = pod_uid
        self._folder = logs / self.name
        self._spawner = spawner
        self._process: subprocess.Popen[bytes] | None = None
        self._launch: Launch | None = None
        self._started_at = _NEVER
        self._is_out_of_memory = False
        self._restarts = 0
        self._last_state: Json = {}
        self._waiting: Json = {"reason": "ContainerCreating"}

    @property
    def is_running(self) -> bool:
        """Whether its process has not been reaped yet."""
        return self._process is not None

    def start(self, launch: Launch) -> int:
        """Start the process and return ``handle``, a pidfd: reap() is due when it is readable."""
        log = ContainerLog(self._folder / f"{self._restarts}.log")
        self.logs.append(log)
        self._launch = launch
        self._started_at = rfc3339_now()
        self._is_out_of_memory = False
        self.terminated = None
        pipe = log.open_pipe()
        try:
            self._process = self._spawner.start(launch.argv, pipe, launch.env, launch.cwd)
        finally:
            os.close(pipe)
        self.handle = os.pidfd_open(self._process.pid)
        return self.handle

    def wait_for(self, problem: NotReady) -> None:
        """Note why it cannot start yet."""
        self._waiting = {"reason": problem.reason, "message": str(problem)}

    def fail_to_start(self, problem: StartError, policy: str) -> None:
        """Note that it could not start, and plan another attempt if the POLICY wants one."""
        self.terminated = {
            "exitCode": _START_ERROR_CODE,
            "reason": "StartError",
            "message": str(problem),
            "startedAt": _NEVER,
            "finishedAt": rfc3339_now(),
        }
        if policy != "Never":
            self._plan_restart()

    def lose(self) -> None:
        """Note that its process belonged to a kubelet that is gone."""
        self.terminated = {
            "exitCode": _LOST_CODE,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": None,
            "finishedAt": None,
        }

    def signal(self, number: int) -> None:
        """Send a signal to all its processes."""
        if self._process:
            kill_session(self._process, number)

    def enforce_memory_limit(self) -> None:
        """Kill it when it holds more memory than its limit."""
        if not self._process or self.memory_limit_bytes is None:
            return
        if _memory_bytes(self._process.pid) > self.memory_limit_bytes:
            self._is_out_of_memory = True
            kill_session(self._process)

    def reap(self, policy: str) -> None:
        """Take the exit status of the ended process, and plan a restart if the POLICY wants one.

        Everything that it left behind is killed, as when a container's first process ends.
        """
        assert self._process and self.handle is not None
        code = self._process.wait()
        kill_session(self._process)
        os.close(self.handle)
        self.handle = self._process = None
        self.logs[-1].finish(_DRAIN_SECONDS)
        self._note_end(code if code >= 0 else 128 - code)
        if policy == "Always" or (policy == "OnFailure" and code != 0):
            self._plan_restart()

    def status(self) -> Json:
        """Return its entry in containerStatuses."""
        if self.terminated and self.restart_at is None:
            state = {"terminated": self.terminated}
        elif self.is_running:
            state = {"running": {"startedAt": self._started_at}}
        else:
            state = {"waiting": self._waiting}
        return {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": "",
            "containerID": f"fake://{self._pod_uid}-{self.name}-{self._restarts}",
            "ready": self.is_running,
            "started": self.is_running,
            "restartCount": self._restarts,
            "state": state,
            "lastState": self._last_state,
        }

    def _note_end(self, code: int) -> None:
        """A kubelet on containerd reports a signal as 128 + its number, and no ``signal``."""
        reason = "Completed" if code == 0 else "Error"
        if self._is_out_of_memory:
            reason = "OOMKilled"
        self.terminated = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self._started_at,
            "finishedAt": rfc3339_now(),
        }
        if message := self._termination_message(code):
            self.terminated["message"] = message

    def _termination_message(self, code: int) -> str:
        assert self._launch
        try:
            with self._launch.message_file.open("rb") as file:
                message = file.read(_MESSAGE_BYTES).decode(errors="replace")
        except OSError:
            message = ""
        is_fallback = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and code != 0 and is_fallback:
            return self.logs[-1].tail(_FALLBACK_BYTES, _FALLBACK_LINES)
        return message

    def _plan_restart(self) -> None:
        pause = min(_BACKOFF_SECONDS * 2**self._restarts, _BACKOFF_MAX_SECONDS)
        self.restart_at = time.monotonic() + pause
        self._restarts += 1
        self._last_state = {"terminated": self.terminated}
        self._waiting = {
            "reason": "CrashLoopBackOff",
            "message": f"back-off {pause:g}s restarting failed container={self.name}",
        }


def _memory_bytes(pid: int) -> int:
    """Return what PID and its descendants hold that the kernel cannot give back by itself."""
    total, families = 0, [pid]
    while families:
        each = families.pop()
        try:
            for line in Path(f"/proc/{each}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                families += map(int, children.read_text().split())
        except OSError:
            continue  # It has ended meanwhile.
    return total
