"""An independent witness of the Jobs of a cluster: every one that ever was, by its uid."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kube_client import TRANSIENT_ERRORS, ApiError, KubeClient, Watch

Json = dict[str, Any]
T = TypeVar("T")
JOBS = "/apis/batch/v1/jobs"
MARKERS = "default"  # the namespace of the Jobs that `sync` makes
RETRY_S = 0.2


@dataclass
class SeenJob:
    """One Job: what it looked like last, and whether it is gone."""

    object: Json
    is_gone: bool = False
    namespace: str = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Take out what never changes."""
        self.namespace = self.object["metadata"]["namespace"]
        self.name = self.object["metadata"]["name"]

    @property
    def annotations(self) -> dict[str, str]:
        """Return the Job's annotations."""
        found: dict[str, str] = self.object["metadata"].get("annotations", {})
        return found

    @property
    def labels(self) -> dict[str, str]:
        """Return the Job's labels."""
        found: dict[str, str] = self.object["metadata"].get("labels", {})
        return found

    @property
    def task_id(self) -> str:
        """Return the id of the task that it is of, empty when it is nobody's."""
        return self.annotations.get("petiole.dev/task-id", "")

    def has(self, condition: str) -> bool:
        """Return whether the condition is true of it."""
        conditions = self.object.get("status", {}).get("conditions", [])
        return any(each["type"] == condition and each["status"] == "True" for each in conditions)

    @property
    def is_finished(self) -> bool:
        """Return whether it has ended, well or not."""
        return self.has("Complete") or self.has("Failed")

    @property
    def is_reported(self) -> bool:
        """Return whether a worker has marked it as reported."""
        return self.annotations.get("petiole.dev/reported") == "true"


class JobWatch:
    """Watches the Jobs of all namespaces from its start to `stop`."""

    def __init__(self, client: KubeClient) -> None:
        """Begin; everything that exists already counts as seen before."""
        self._client = client
        self._changed = threading.Condition()
        self._seen: dict[str, SeenJob] = {}
        self._peaks: dict[str, int] = {}
        self._is_stopping = False
        self._watch: Watch | None = None
        self._version = self._list()
        self._thread = threading.Thread(target=self._follow, name="job-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._is_stopping = True
        if self._watch:
            self._watch.close()
        self._thread.join()

    def all(self, namespace: str = "") -> list[SeenJob]:
        """Return every Job ever seen, in the order of their creation; markers are left out."""
        with self._changed:
            return [
                job
                for job in self._seen.values()
                if job.namespace != MARKERS and namespace in ("", job.namespace)
            ]

    def of_task(self, task_id: str) -> list[SeenJob]:
        """Return every Job that was ever made for the task."""
        return [job for job in self.all() if job.task_id == task_id]

    def wait(self, condition: Callable[[], T], timeout_s: float = 30.0, what: object = "") -> T:
        """Return the first true value of `condition`, which is asked again after each event.

        Raises:
            AssertionError: there was none within `timeout_s`.
        """
        with self._changed:
            value = self._changed.wait_for(condition, timeout_s)
        assert value, f"not within {timeout_s} s: {what or condition}: {self._describe()}"
        return value

    def wait_job(self, task_id: str, timeout_s: float = 30.0) -> SeenJob:
        """Wait until there is a Job for the task, and return the first one."""
        what = f"a Job for task {task_id}"
        return self.wait(lambda: self.of_task(task_id), timeout_s, what)[0]

    def wait_finished(self, task_id: str, timeout_s: float = 30.0) -> SeenJob:
        """Wait until the task's first Job has ended, and return it."""

        def look() -> list[SeenJob]:
            return [job for job in self.of_task(task_id)[:1] if job.is_finished]

        return self.wait(look, timeout_s, f"the end of the Job of task {task_id}")[0]

    def sync(self) -> None:
        """Return when everything that happened until now has been seen."""
        container = {"name": "none", "image": "none"}
        pod = {"restartPolicy": "Never", "containers": [container]}
        body = {
            "metadata": {"name": f"marker-{uuid.uuid4().hex[:12]}"},
            "spec": {"suspend": True, "template": {"spec": pod}},
        }
        path = f"/apis/batch/v1/namespaces/{MARKERS}/jobs"
        made = self._client.patient("POST", path, body)["metadata"]
        self.wait(lambda: made["uid"] in self._seen, what="the marker Job")
        self._client.patient("DELETE", f"{path}/{made['name']}?propagationPolicy=Background")

    def unfinished(self, namespace: str) -> int:
        """Return how many Jobs of the namespace exist and have not ended."""
        jobs = self.all(namespace)
        return sum(not job.is_gone and not job.is_finished for job in jobs)

    def begin_peak(self, namespace: str) -> None:
        """Begin to keep the highest number of unfinished Jobs of the namespace."""
        with self._changed:
            self._peaks[namespace] = self.unfinished(namespace)

    def peak(self, namespace: str) -> int:
        """Return that number."""
        return self._peaks[namespace]

    def _describe(self) -> list[str]:
        return [
            f"{job.namespace}/{job.name} {'gone' if job.is_gone else job.object.get('status')}"
            for job in self.all()[-8:]
        ]

    def _list(self) -> str:
        found = self._client.patient("GET", JOBS)
        there = {job["metadata"]["uid"] for job in found["items"]}
        with self._changed:
            for seen_uid, seen in self._seen.items():
                seen.is_gone = seen_uid not in there
            for job in found["items"]:
                self._see(job)
            self._changed.notify_all()
        return str(found["metadata"]["resourceVersion"])

    def _see(self, job: Json) -> None:
        uid = job["metadata"]["uid"]
        if seen := self._seen.get(uid):
            seen.object = job
        else:
            self._seen[uid] = SeenJob(job)
        for namespace, highest in self._peaks.items():
            self._peaks[namespace] = max(highest, self.unfinished(namespace))

    def _follow(self) -> None:
        while not self._is_stopping:
            try:
                with self._client.watch(JOBS, self._version) as watch:
                    self._watch = watch
                    self._read(watch)
            except (ApiError, *TRANSIENT_ERRORS):
                threading.Event().wait(RETRY_S)

    def _read(self, watch: Watch) -> None:
        """Take in events until the watch ends, whyever."""
        for event in watch:
            if self._is_stopping:
                return
            if event["type"] == "ERROR":
                self._version = self._list()
                return
            job = event["object"]
            self._version = job["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                continue
            with self._changed:
                self._see(job)
                if event["type"] == "DELETED":
                    self._seen[job["metadata"]["uid"]].is_gone = True
                self._changed.notify_all()
