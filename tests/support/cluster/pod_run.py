"""The life of one pod: bound, started, watched, ended, each step reported to the API server."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from container_run import ContainerRun, rfc3339_now
from kube_client import TRANSIENT_ERRORS, ApiError, Json, KubeClient
from pod_files import Machine, NotReady, PodFiles, StartError
from processes import Spawner

MISSING_IMAGES = "petiole.test/missing"
_RETRY_SECONDS = 1.0
_MEMORY_SECONDS = 0.1
_PATIENCE_SECONDS = 600.0
_NOT_FOUND = 404
_CONFLICT = 409


@dataclass(frozen=True)
class Host:
    """What all pods of a kubelet share."""

    client: KubeClient
    node: str
    folder: Path
    machine: Machine
    spawner: Spawner
    stopping: threading.Event


class PodRun:
    """One pod on its own thread. The public functions may be called from any thread."""

    def __init__(self, pod: Json, host: Host) -> None:
        """POD is the object as the API server has it; start() begins its life."""
        meta = pod["metadata"]
        self.uid: str = meta["uid"]
        self._host = host
        self._pod = pod
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self._files = PodFiles(
            pod, host.folder / "pods" / self.uid, host.folder / "claims", host.client
        )
        logs = host.folder / "logs" / f"{meta['namespace']}_{meta['name']}_{self.uid}"
        self._containers = [
            ContainerRun(spec, self.uid, logs, host.spawner) for spec in pod["spec"]["containers"]
        ]
        self._thread = threading.Thread(target=self._live, name=meta["name"], daemon=True)
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._is_over = False
        self._is_deleted = "deletionTimestamp" in meta
        self._is_vanished = False
        self._is_past_deadline = False
        self._is_image_missing = False
        self._started_at = ""
        self._began = time.monotonic()
        self._kill_at: float | None = None
        self._reported: tuple[str, list[Json]] | None = None

    def start(self) -> None:
        """Begin its life."""
        self._thread.start()

    def update(self, pod: Json) -> None:
        """Tell what the API server has now; a deletionTimestamp ends the pod gracefully."""
        with self._lock:
            was_deleted = self._is_deleted
            self._pod = pod
            self._is_deleted = "deletionTimestamp" in pod["metadata"]
            if not self._is_over:
                os.eventfd_write(self._wake, 1)
            elif self._is_deleted and not was_deleted:
                threading.Thread(target=self._remove, daemon=True).start()

    def vanish(self) -> None:
        """Kill it and report nothing more: the API server lost it, or the kubelet stops."""
        with self._lock:
            self._is_vanished = True
            if not self._is_over:
                os.eventfd_write(self._wake, 1)

    def join(self, seconds: float) -> None:
        """Wait until all its processes have ended, at most SECONDS."""
        self._thread.join(seconds)

    def container(self, name: str) -> ContainerRun | None:
        """Return the container of this name, if there is one."""
        return next((each for each in self._containers if each.name == name), None)

    def _live(self) -> None:
        try:
            if self._pod["status"].get("phase") not in ("Succeeded", "Failed"):
                self._run()
        except (ApiError, *TRANSIENT_ERRORS) as error:
            if not self._is_vanished:
                print(f"fake kubelet: {self._path}: {error}", file=sys.stderr)
        finally:
            self._clean_up()
        if self._is_deleted:
            self._remove()

    def _run(self) -> None:
        """Live from the binding to the last report."""
        if self._pod["status"].get("startTime"):
            self._started_at = self._pod["status"]["startTime"]
            for each in self._containers:
                each.lose()
        else:
            self._bind()
            self._started_at = rfc3339_now()
            self._prepare()
        while self._is_active():
            self._report("Running")
            self._pause(self._seconds_to_next())
            self._step()
        self._report(self._last_phase())

    def _bind(self) -> None:
        spec, meta = self._pod["spec"], self._pod["metadata"]
        if "nodeName" in spec:
            return
        spec["nodeName"] = self._host.node
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": self.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._host.node},
        }
        try:
            self._send("POST", f"{self._path}/binding", body)
        except ApiError as error:
            # It was bound before the connection broke, or it is gone: the next patch will tell.
            if error.status != _CONFLICT:
                raise

    def _prepare(self) -> None:
        """Start all containers as soon as everything that they refer to is there."""
        while not self._must_end():
            try:
                self._start_all()
                return
            except NotReady as problem:
                for each in self._containers:
                    each.wait_for(problem)
            self._report("Pending")
            self._pause(_RETRY_SECONDS)

    def _start_all(self) -> None:
        for each in self._containers:
            self._check_image(each.spec.get("image", ""))
        launches = []
        for each in self._containers:
            try:
                launches.append((each, self._files.launch(each.spec, self._host.machine)))
            except StartError as problem:
                each.fail_to_start(problem, self._pod["spec"]["restartPolicy"])
        for each, launch in launches:
            self._poll.register(each.start(launch), select.POLLIN)

    def _check_image(self, image: str) -> None:
        if not image.startswith(MISSING_IMAGES):
            return
        if self._is_image_missing:
            raise NotReady("ImagePullBackOff", f'Back-off pulling image "{image}"')
        self._is_image_missing = True
        raise NotReady("ErrImagePull", f'failed to pull and unpack image "{image}": not found')

    def _is_active(self) -> bool:
        return any(each.is_running or each.restart_at for each in self._containers)

    def _step(self) -> None:
        """Act on whatever has happened to a running pod."""
        must_end = self._must_end()
        for each in self._containers:
            if each.handle is not None and _is_readable(each.handle):
                self._poll.unregister(each.handle)
                each.reap("Never" if must_end else self._pod["spec"]["restartPolicy"])
            each.enforce_memory_limit()
            if each.restart_at and must_end:
                each.restart_at = None
            if each.restart_at and each.restart_at <= time.monotonic():
                self._restart(each)
        if must_end:
            self._terminate()

    def _restart(self, each: ContainerRun) -> None:
        each.restart_at = None
        try:
            launch = self._files.launch(each.spec, self._host.machine)
        except NotReady as problem:
            each.wait_for(problem)
            each.restart_at = time.monotonic() + _RETRY_SECONDS
        except StartError as problem:
            each.fail_to_start(problem, self._pod["spec"]["restartPolicy"])
        else:
            self._poll.register(each.start(launch), select.POLLIN)

    def _deadline(self) -> float | None:
        limit = self._pod["spec"].get("activeDeadlineSeconds")
        return None if limit is None else self._began + limit

    def _seconds_to_next(self) -> float | None:
        """Return how long nothing can happen but an end or a wake-up; None is for ever."""
        times = [each.restart_at for each in self._containers if each.restart_at]
        until = self._kill_at or self._deadline()
        if until:
            times.append(until)
        if any(each.is_running and each.memory_limit_bytes for each in self._containers):
            times.append(time.monotonic() + _MEMORY_SECONDS)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _pause(self, seconds: float | None) -> None:
        """Sleep until a process ends, somebody wakes this thread, or SECONDS are over."""
        self._poll.poll(None if seconds is None else math.ceil(seconds * 1000))
        with suppress(BlockingIOError):  # It was something else.
            os.eventfd_read(self._wake)

    def _must_end(self) -> bool:
        deadline = self._deadline()
        if deadline and time.monotonic() >= deadline:
            self._is_past_deadline = True
        return self._is_vanished or self._is_deleted or self._is_past_deadline

    def _terminate(self) -> None:
        """SIGTERM first; SIGKILL when the grace period is over, or when nobody waits for it."""
        now = time.monotonic()
        if self._kill_at is None:
            self._kill_at = now + self._grace_seconds()
            self._signal(signal.SIGTERM)
        if self._is_vanished or now >= self._kill_at:
            self._kill_at = now + _RETRY_SECONDS
            self._signal(signal.SIGKILL)

    def _grace_seconds(self) -> float:
        grace = self._pod["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self._pod["spec"].get("terminationGracePeriodSeconds", 30)
        return float(grace)

    def _signal(self, number: int) -> None:
        for each in self._containers:
            each.signal(number)

    def _last_phase(self) -> str:
        ends = [each.terminated for each in self._containers]
        if self._is_past_deadline or any(end and end["exitCode"] for end in ends):
            return "Failed"
        return "Pending" if None in ends else "Succeeded"  # Pending: deleted before its start.

    def _report(self, phase: str) -> None:
        """Patch the status, unless the API server knows it already."""
        statuses = [each.status() for each in self._containers]
        if self._is_vanished or self._reported == (phase, statuses):
            return
        self._reported = (phase, statuses)
        is_ready = str(all(each.is_running for each in self._containers))
        now = rfc3339_now()
        status: Json = {
            "phase": phase,
            "startTime": self._started_at,
            "hostIP": "127.0.0.1",
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._started_at},
                {"type": "Initialized", "status": "True", "lastTransitionTime": self._started_at},
                {"type": "ContainersReady", "status": is_ready, "lastTransitionTime": now},
                {"type": "Ready", "status": is_ready, "lastTransitionTime": now},
            ],
            "containerStatuses": statuses,
        }
        if self._is_past_deadline:
            status["reason"] = "DeadlineExceeded"
            status["message"] = "Pod was active on the node longer than the specified deadline"
        # The uid makes the server refuse it when the name belongs to another pod by now.
        body = {"metadata": {"uid": self.uid}, "status": status}
        self._send("PATCH", f"{self._path}/status", body)

    def _send(self, method: str, path: str, body: Json) -> None:
        host = self._host
        host.client.patient(method, path, body, _PATIENCE_SECONDS, host.stopping)

    def _clean_up(self) -> None:
        """Leave nothing running and nothing open, whatever happened."""
        self._signal(signal.SIGKILL)
        for each in self._containers:
            if each.is_running:
                each.reap("Never")
        self._files.delete()
        with self._lock:
            self._is_over = True
            os.close(self._wake)

    def _remove(self) -> None:
        """Tell the API server that nothing is left of a pod that it wants deleted."""
        body: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        body["preconditions"] = {"uid": self.uid}
        try:
            self._send("DELETE", self._path, body)
        except (ApiError, *TRANSIENT_ERRORS) as error:
            if getattr(error, "status", None) not in (_NOT_FOUND, _CONFLICT):
                print(f"fake kubelet: {self._path}: {error}", file=sys.stderr)


def _is_readable(handle: int) -> bool:
    return bool(select.select([handle], [], [], 0)[0])
