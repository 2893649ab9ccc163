"""Every failure of a Job is told by its cause, and what never ran is begun once more.

What a container cannot do by itself is written into the pod's status as a kubelet, the scheduler
or a controller would write it: a pod that names another node is left alone by the tests' kubelet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from cluster import Cluster
from job_template import report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from petiole import exceptions
from publication_watch import PublicationWatch
from waiting import wait_for

TENANT = "tenant-admin"
TASK = "pods.work"
ELSEWHERE = {"nodeName": "another-node"}
JOBS = f"/apis/batch/v1/namespaces/{TENANT}/jobs"
PODS = f"/api/v1/namespaces/{TENANT}/pods"
BEGAN = "2026-01-01T00:00:00Z"
Json = dict[str, Any]
StartWorker = Callable[..., KubernetesWorker]


class Scene:
    """A worker, and the hands of a kubelet for its pods."""

    def __init__(
        self,
        start: StartWorker,
        client: Celery,
        cluster: Cluster,
        jobs: JobWatch,
        folder: Path,
    ) -> None:
        """Nothing runs yet."""
        self.jobs = jobs
        self._start = start
        self._client = client
        self._api = cluster.client
        self._folder = folder

    def start(
        self, settings: Json | None = None, row: Json | None = None, **template: Any
    ) -> KubernetesWorker:
        """Start a worker whose task has this template, by default on another node."""
        template.setdefault("pod", ELSEWHERE)
        path = write_template(self._folder, "work", **{"script": "true", **template})
        return self._start({TASK: {"job_template": path, **(row or {})}}, settings=settings or {})

    def send(self) -> AsyncResult:
        """Send the task."""
        return self._client.send_task(TASK, queue=TENANT)

    def pod(self, result: AsyncResult, attempt: int = 0) -> str:
        """Wait for the pod of the task's Job number `attempt`, and return its name."""
        suffix = f"-a{attempt}" if attempt else ""
        selector = f"labelSelector=batch.kubernetes.io%2Fjob-name%3Dwork-{result.id}-0{suffix}"

        def look() -> list[Json]:
            found: list[Json] = self._api.request("GET", f"{PODS}?{selector}")["items"]
            return found

        name: str = wait_for(look, 20, "the pod")[0]["metadata"]["name"]
        return name

    def write(self, pod: str, **status: Any) -> None:
        """Write the pod's status."""
        self._api.request("PATCH", f"{PODS}/{pod}/status", {"status": status})

    def phase(self, pod: str) -> str:
        """Return the pod's phase."""
        found: str = self._api.request("GET", f"{PODS}/{pod}")["status"]["phase"]
        return found

    def delete_pod(self, pod: str, grace_s: int = 0) -> None:
        """Delete the pod by hand; without grace as if its kubelet had told that nothing is left."""
        self._api.request("DELETE", f"{PODS}/{pod}?gracePeriodSeconds={grace_s}")

    def delete_job(self, name: str) -> None:
        """Delete the Job by hand."""
        self._api.request("DELETE", f"{JOBS}/{name}?propagationPolicy=Background")

    def say(self, reason: str, message: str, pod: str) -> None:
        """Write an event of the pod."""
        body = {
            "metadata": {"name": f"{pod}.{reason.lower()}"},
            "involvedObject": {"kind": "Pod", "name": pod, "namespace": TENANT},
            "reason": reason,
            "message": message,
            "lastTimestamp": BEGAN,
            "type": "Warning",
        }
        self._api.request("POST", f"/api/v1/namespaces/{TENANT}/events", body)


@pytest.fixture
def scene(
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    tmp_path: Path,
) -> Scene:
    """Return a scene of this test."""
    return Scene(start_worker, client, cluster, job_watch, tmp_path)


def failure_of(result: AsyncResult, timeout_s: float = 30.0) -> exceptions.PetioleError:
    """Return what the client's get() raises."""
    with pytest.raises(exceptions.PetioleError) as caught:
        result.get(timeout=timeout_s)
    return caught.value


def container(name: str = "main", **state: Any) -> Json:
    """Return an entry of containerStatuses."""
    return {
        "name": name,
        "image": "test:1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }


def ended(code: int, reason: str = "Error") -> Json:
    """Return the state of a container that ran and ended."""
    return {"exitCode": code, "reason": reason, "startedAt": BEGAN, "finishedAt": BEGAN}


def disrupted(reason: str, message: str = "") -> list[Json]:
    """Return the condition of a pod that was ended from outside."""
    return [
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
        }
    ]


KILLED = [container(terminated=ended(137))]
LOW = "The node was low on resource: memory."


@pytest.mark.parametrize(
    ("status", "category", "subreason", "part"),
    [
        (
            {"reason": "Evicted", "message": LOW, "containerStatuses": KILLED},
            "Evicted",
            "Evicted",
            LOW,
        ),
        (
            {
                "conditions": disrupted("EvictionByEvictionAPI"),
                "containerStatuses": KILLED,
            },
            "Evicted",
            "EvictionByEvictionAPI",
            "evicted",
        ),
        (
            {
                "conditions": disrupted("PreemptionByScheduler"),
                "containerStatuses": KILLED,
            },
            "Preempted",
            "PreemptionByScheduler",
            "higher priority",
        ),
        (
            {
                "conditions": disrupted("DeletionByTaintManager"),
                "containerStatuses": KILLED,
            },
            "NodeLost",
            "DeletionByTaintManager",
            "node",
        ),
        (
            {"conditions": disrupted("DeletionByPodGC")},
            "NodeLost",
            "DeletionByPodGC",
            "node is gone",
        ),
        (
            {"containerStatuses": [container(terminated=ended(128, "StartError"))]},
            "CreateContainerError",
            "StartError",
            "could not start",
        ),
    ],
    ids=["pressure", "eviction", "preemption", "taint", "lost", "start"],
)
def test_what_ended_a_pod_from_outside_is_told(
    scene: Scene, status: Json, category: str, subreason: str, part: str
) -> None:
    scene.start()
    result = scene.send()
    pod = scene.pod(result)
    scene.write(pod, phase="Failed", **status)
    error = failure_of(result)
    assert type(error) is getattr(exceptions, category)
    assert (error.category, error.subreason, error.pod) == (category, subreason, pod)
    assert part in str(error)
    scene.jobs.sync()
    assert len(scene.jobs.of_task(result.id)) == 1


def test_out_of_memory_is_told_whatever_the_exit_code(scene: Scene) -> None:
    scene.start()
    result = scene.send()
    scene.write(
        scene.pod(result),
        phase="Succeeded",
        containerStatuses=[container(terminated=ended(0, "OOMKilled"))],
    )
    error = failure_of(result)
    assert isinstance(error, exceptions.OOMKilled)
    assert error.exit_code == 0


@pytest.mark.parametrize(
    ("reason", "category"),
    [
        ("CreateContainerConfigError", "ContainerConfigError"),
        ("CreateContainerError", "CreateContainerError"),
        ("ImageInspectError", "InvalidImage"),
        ("InvalidImageName", "InvalidImage"),
        ("ErrImageNeverPull", "ImagePullError"),
    ],
)
def test_a_fatal_reason_to_wait_fails_at_once(scene: Scene, reason: str, category: str) -> None:
    scene.start()
    result = scene.send()
    waiting = container(waiting={"reason": reason, "message": "what it says"})
    scene.write(scene.pod(result), phase="Pending", containerStatuses=[waiting])
    error = failure_of(result, 15)
    assert (error.category, error.subreason) == (category, reason)
    assert "what it says" in str(error)
    job = scene.jobs.of_task(result.id)[0]
    scene.jobs.wait(lambda: job.is_gone, what="the Job to be deleted")


def test_an_image_has_its_grace_and_the_list_is_a_setting(scene: Scene) -> None:
    settings = {
        "kubernetes_image_pull_grace": 3,
        "kubernetes_fatal_pending_reasons": ["ErrImagePull", "CrashLoopBackOff"],
    }
    scene.start(settings=settings)
    lucky, unlucky, bound = scene.send(), scene.send(), scene.send()
    pods = [scene.pod(each) for each in (lucky, unlucky, bound)]
    for pod in pods[:2]:
        waiting = container(waiting={"reason": "ErrImagePull"})
        scene.write(pod, phase="Pending", containerStatuses=[waiting])
    patient = container(waiting={"reason": "CreateContainerConfigError"})
    scene.write(pods[2], phase="Pending", containerStatuses=[patient])
    running = container(running={"startedAt": BEGAN})
    scene.write(pods[0], phase="Running", containerStatuses=[running])
    error = failure_of(unlucky)
    assert isinstance(error, exceptions.ImagePullError)
    assert (lucky.state, bound.state) == ("PENDING", "PENDING")


def test_a_pod_that_no_node_takes_fails_in_the_end(scene: Scene) -> None:
    message = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }."
    scene.start(
        settings={"kubernetes_unschedulable_timeout": 1},
        pod={"schedulingGates": [{"name": "petiole.test/hold"}]},
    )
    result = scene.send()
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": BEGAN,
    }
    scene.write(scene.pod(result), conditions=[condition])
    error = failure_of(result)
    assert isinstance(error, exceptions.Unschedulable)
    assert error.subreason == "Taint"
    assert message in str(error)


def test_the_end_of_the_log_is_told(scene: Scene) -> None:
    script = "for i in 1 2 3; do echo line $i; done; exit 3"
    scene.start(script=script, pod={})
    error = failure_of(scene.send())
    assert isinstance(error, exceptions.CrashExit)
    assert error.exit_code == 3
    assert error.details["log"] == "line 1\nline 2\nline 3\n"


def test_the_main_container_decides_and_its_sidecar_is_not_waited_for(
    scene: Scene,
) -> None:
    sidecar = {"name": "proxy", "image": "test:1", "command": ["sleep", "120"]}
    main = {
        "name": "main",
        "image": "test:1",
        "command": ["sh", "-c", report_script(report("done"))],
    }
    settings = {"kubernetes_sidecar_grace": 1}
    scene.start(settings=settings, pod={"containers": [main, sidecar]})
    result = scene.send()
    assert result.get(timeout=30) == "done"
    job = scene.jobs.of_task(result.id)[0]
    scene.jobs.wait(lambda: job.is_gone, what="the Job to be deleted")


def test_an_init_container_that_fails_is_named_and_tried_again(scene: Scene) -> None:
    scene.start(row={"max_delivery_attempts": 2})
    result = scene.send()
    for attempt in range(2):
        init = container("fetch", terminated=ended(9))
        main = container(waiting={"reason": "PodInitializing"})
        pod = scene.pod(result, attempt)
        scene.write(pod, phase="Failed", initContainerStatuses=[init], containerStatuses=[main])
    error = failure_of(result)
    assert isinstance(error, exceptions.CrashExit)
    assert (error.container, error.exit_code) == ("fetch", 9)
    assert error.details["attempts"] == 2
    scene.jobs.sync()
    assert len(scene.jobs.of_task(result.id)) == 2


def test_what_never_ran_is_begun_again_free_of_retries(
    scene: Scene, publications: PublicationWatch, broker: Any
) -> None:
    scene.start(row={"max_retries": 0})
    result = scene.send()
    scene.write(scene.pod(result), phase="Failed", reason="Evicted", message=LOW)
    text = report("second")
    second = {**ended(0, "Completed"), "message": text}
    scene.write(
        scene.pod(result, 1),
        phase="Succeeded",
        containerStatuses=[container(terminated=second)],
    )
    assert result.get(timeout=30) == "second"
    jobs = scene.jobs.of_task(result.id)
    assert [job.name for job in jobs] == [
        f"work-{result.id}-0",
        f"work-{result.id}-0-a1",
    ]
    for job in jobs:
        scene.jobs.wait(lambda job=job: job.is_gone, what="the farewell")
    publications.sync()
    assert publications.results(result.id) == ["SUCCESS"]
    wait_for(lambda: not broker.exists(f"petiole:jobs:{TENANT}"), what="an empty outbox")


def test_a_task_that_never_runs_ends_after_its_attempts(
    scene: Scene, publications: PublicationWatch
) -> None:
    scene.start(settings={"max_delivery_attempts": 3})
    result = scene.send()
    for attempt in range(3):
        scene.write(scene.pod(result, attempt), phase="Failed", reason="OutOfcpu")
    error = failure_of(result)
    assert isinstance(error, exceptions.Unschedulable)
    assert (error.subreason, error.details["attempts"]) == ("InsufficientResources", 3)
    scene.jobs.sync()
    publications.sync()
    assert len(scene.jobs.of_task(result.id)) == 3
    assert publications.results(result.id) == ["FAILURE"]


def test_a_pod_that_somebody_deletes_is_told(scene: Scene) -> None:
    scene.start(script="sleep 60", pod={})
    result = scene.send()
    pod = scene.pod(result)
    wait_for(lambda: scene.phase(pod) == "Running", 20, "the pod to run")
    scene.delete_pod(pod, grace_s=1)
    error = failure_of(result)
    assert isinstance(error, exceptions.JobDeleted)
    assert error.subreason == "PodDeleted"


def test_a_job_that_somebody_deletes_is_told_at_once(scene: Scene) -> None:
    scene.start()
    result = scene.send()
    scene.pod(result)
    name = scene.jobs.wait_job(result.id).name
    scene.delete_job(name)
    error = failure_of(result, 15)
    assert isinstance(error, exceptions.JobDeleted)
    assert name in str(error)


@pytest.mark.parametrize(
    ("reason", "category"), [("TaintManagerEviction", "NodeLost"), ("", "Unknown")]
)
def test_events_explain_a_pod_that_is_collected_already(
    scene: Scene, reason: str, category: str
) -> None:
    worker = scene.start()
    result = scene.send()
    pod = scene.pod(result)
    scene.write(
        pod,
        phase="Running",
        containerStatuses=[container(running={"startedAt": BEGAN})],
    )
    worker.stop()
    if reason:
        scene.say(reason, "Marking for deletion Pod", pod)
    scene.delete_pod(pod)
    scene.jobs.wait_finished(result.id)
    scene.start()
    error = failure_of(result)
    assert error.category == category
    assert "Marking for deletion" in str(error) or not reason
