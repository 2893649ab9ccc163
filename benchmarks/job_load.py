"""Thousands of Jobs: a witness that keeps little of each, and what the Job controller would do.

Meant for a control plane without controllers and nodes, where nothing but these functions and the
worker under test changes anything.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kube_client import TRANSIENT_ERRORS, ApiError, KubeClient, Watch

Json = dict[str, Any]
Admin = tuple[str, Path, tuple[Path, Path]]  # the arguments of a KubeClient
OWNER = "petiole.dev/owner"
RETRY_S = 0.2
CALLERS = 8


def jobs_path(namespace: str) -> str:
    """Return the path of the namespace's Jobs."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


class JobTally:
    """Watches the Jobs of one namespace, which has none yet, and keeps times and owners by name.

    Times are those of time.perf_counter, taken when the event's line has come.
    """

    def __init__(self, client: KubeClient, namespace: str) -> None:
        """Begin; `client` is borrowed until `stop`."""
        self.added: dict[str, float] = {}
        self.finished: dict[str, float] = {}
        self._owners: dict[str, str] = {}
        self._owned: Counter[str] = Counter()
        self._client = client
        self._path = jobs_path(namespace)
        self._changed = threading.Condition()
        self._is_stopping = False
        found = client.patient("GET", f"{self._path}?limit=1")
        assert not found["items"], f"{namespace} has Jobs already"
        self._version = str(found["metadata"]["resourceVersion"])
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._follow, name="job-tally", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._is_stopping = True
        if self._watch:
            self._watch.close()
        self._thread.join()

    def owned(self, but: str = "") -> int:
        """Return how many Jobs have an owner, other than `but`."""
        return sum(count for owner, count in self._owned.items() if owner not in ("", but))

    def owner(self) -> str:
        """Return the owner of most Jobs, or nothing."""
        found = self._owned.most_common(1)
        return found[0][0] if found else ""

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until `condition` holds, which is asked again after each event.

        Raises:
            AssertionError: it did not within `timeout_s`.
        """
        with self._changed:
            is_so = self._changed.wait_for(condition, timeout_s)
        assert is_so, (
            f"{what}: not within {timeout_s} s; {len(self.added)} Jobs, "
            f"{len(self.finished)} finished, owners {dict(self._owned)}"
        )

    def _follow(self) -> None:
        while not self._is_stopping:
            try:
                with self._client.watch(self._path, self._version) as watch:
                    self._watch = watch
                    for event in watch:
                        self._take(event, time.perf_counter())
            except (ApiError, *TRANSIENT_ERRORS):
                threading.Event().wait(RETRY_S)

    def _take(self, event: Json, now_s: float) -> None:
        meta = event["object"]["metadata"]
        self._version = meta["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return
        assert event["type"] != "ERROR", event
        name = meta["name"]
        owner = meta.get("labels", {}).get(OWNER, "")
        with self._changed:
            self.added.setdefault(name, now_s)
            self._owned[self._owners.get(name, "")] -= 1
            self._owned[owner] += 1
            self._owners[name] = owner
            if is_complete(event["object"]):
                self.finished.setdefault(name, now_s)
            self._changed.notify_all()


def is_complete(job: Json) -> bool:
    """Return whether the Job has ended well."""
    conditions = job.get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Complete", "True") for each in conditions)


def add_pods(client: KubeClient, namespace: str, jobs: Iterable[str]) -> None:
    """Create a pod for each Job, as its controller would."""

    def add(job: str) -> None:
        labels = {
            "app.kubernetes.io/managed-by": "petiole",
            "batch.kubernetes.io/job-name": job,
        }
        spec = {"containers": [{"name": "main", "image": "none"}], "restartPolicy": "Never"}
        body = {"metadata": {"name": f"{job[:57]}-pod", "labels": labels}, "spec": spec}
        client.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(add, jobs))


def finish_jobs(
    admin: Admin, namespace: str, jobs: Iterable[str], report: str, per_second: float
) -> None:
    """End Jobs that `add_pods` has given a pod, so many a second.

    First the pod's status tells an exit code of 0 and `report` as termination message, then the
    Job's that it is complete. Meant for a process of its own, so that it holds no witness up.
    """
    client = KubeClient(*admin)

    def finish(job: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        end = {"exitCode": 0, "message": report, "startedAt": now, "finishedAt": now}
        container = {"name": "main", "image": "none", "imageID": "", "state": {"terminated": end}}
        container |= {"ready": False, "restartCount": 0}
        pod = {"phase": "Succeeded", "containerStatuses": [container]}
        path = f"/api/v1/namespaces/{namespace}/pods/{job[:57]}-pod/status"
        client.request("PATCH", path, {"status": pod})
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        times = {"startTime": now, "completionTime": now}
        status = {"succeeded": 1, "conditions": conditions, "uncountedTerminatedPods": {}, **times}
        client.request("PATCH", f"{jobs_path(namespace)}/{job}/status", {"status": status})

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(finish, _paced(jobs, per_second)))


def post_jobs(
    folder: Path, *, url: str, token: str, ca: Path, bodies: Iterable[str], parallel: int
) -> None:
    """Create Jobs with as many requests at once over HTTP/2 as `parallel` says, and nothing else.

    curl does so, whose library is that of the worker. `url` is that of the namespace's Jobs.

    Raises:
        RuntimeError: an answer was not 201.
    """
    lines: list[str] = []
    for number, body in enumerate(bodies):
        file = folder / f"job-{number}.json"
        file.write_text(body)
        lines += [
            *(["next"] if number else []),
            f'url = "{url}"',
            f'data = "@{file}"',
            'header = "Content-Type: application/json"',
            f'header = "Authorization: Bearer {token}"',
            f'cacert = "{ca}"',
            'output = "/dev/null"',
            "silent",
            'write-out = "%{http_code}\\n"',
        ]
    options = folder / "curl.conf"
    options.touch(mode=0o600)
    options.write_text("\n".join(lines))
    command = ["curl", "-q", "--http2", "-Z", "--parallel-max", str(parallel), "-K", str(options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answers = Counter(done.stdout.split())
    if set(answers) != {"201"}:
        raise RuntimeError(f"raw POSTs were answered {dict(answers)}")


def _paced(items: Iterable[str], per_second: float) -> Iterator[str]:
    begun = time.perf_counter()
    for index, item in enumerate(items):
        time.sleep(max(0.0, begun + index / per_second - time.perf_counter()))
        yield item
