"""Jobs on a real node: what containerd, the kubelet and the scheduler make of them.

Nothing here is written into a pod's status by the test: what is told of a failure is told of one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from cluster import Cluster
from job_template import SMALL, write_template
from kubernetes_worker import KubernetesWorker
from petiole import exceptions
from waiting import wait_for

TENANT = "tenant-admin"
TASK = "pods.work"
TIMEOUT_S = 60.0
PODS = f"/api/v1/namespaces/{TENANT}/pods"
NO_BODY = 65534
RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": NO_BODY,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
TAKES_MEMORY = "python -c 'print(len(bytearray(b\"x\") * (300 << 20)))'"
Json = dict[str, Any]
StartWorker = Callable[..., KubernetesWorker]


class Scene:
    """A worker with one task, and a client."""

    def __init__(self, start: StartWorker, client: Celery, cluster: Cluster, folder: Path) -> None:
        """Nothing runs yet."""
        self.api = cluster.client
        self._start = start
        self._client = client
        self._folder = folder

    def start(
        self, task: str = TASK, settings: Json | None = None, **template: Any
    ) -> KubernetesWorker:
        """Start a worker with this template for the task."""
        path = write_template(self._folder, "work", **template)
        return self._start({task: path}, settings=settings or {})

    def send(self, task: str = TASK, *arguments: Any) -> AsyncResult:
        """Send the task."""
        return self._client.send_task(task, arguments, queue=TENANT)

    def pods(self, result: AsyncResult) -> list[Json]:
        """Return the task's pods."""
        selector = f"labelSelector=petiole.dev%2Ftask-id%3D{result.id}"
        found: list[Json] = self.api.request("GET", f"{PODS}?{selector}")["items"]
        return found

    def wait_running(self, result: AsyncResult) -> None:
        """Wait until the task's pod runs."""
        wait_for(
            lambda: [each for each in self.pods(result) if each["status"]["phase"] == "Running"],
            TIMEOUT_S,
            "a running pod",
        )


@pytest.fixture
def scene(start_worker: StartWorker, client: Celery, cluster: Cluster, tmp_path: Path) -> Scene:
    """Return a scene of this test."""
    return Scene(start_worker, client, cluster, tmp_path)


def failure_of(result: AsyncResult) -> exceptions.PetioleError:
    """Return what the client's get() raises."""
    with pytest.raises(exceptions.PetioleError) as caught:
        result.get(timeout=TIMEOUT_S)
    return caught.value


def limited(megabytes: int) -> Json:
    """Return a container's member that limits its memory."""
    return {"resources": {"requests": SMALL, "limits": {"memory": f"{megabytes}Mi"}}}


def test_result_under_the_restricted_profile(scene: Scene) -> None:
    scene.start(
        "pods.add",
        pod={"securityContext": RESTRICTED_POD},
        container={"securityContext": RESTRICTED},
    )
    assert scene.send("pods.add", 2, 3).get(timeout=TIMEOUT_S) == 5


def test_result_that_only_the_log_has_room_for(scene: Scene) -> None:
    scene.start("pods.big")
    size = 300_000
    assert len(scene.send("pods.big", size).get(timeout=TIMEOUT_S)) == size


def test_exception_of_the_app(scene: Scene) -> None:
    scene.start("pods.fail")
    with pytest.raises(Exception, match="no luck") as caught:
        scene.send("pods.fail", "no luck").get(timeout=TIMEOUT_S)
    assert type(caught.value).__name__ == "UnluckyError"


def test_exit_code_with_the_end_of_the_log(scene: Scene) -> None:
    scene.start("pods.crash")
    error = failure_of(scene.send("pods.crash", 7))
    assert isinstance(error, exceptions.CrashExit)
    assert error.exit_code == 7
    assert error.details["log"] == "about to crash\n"


def test_task_that_takes_too_much_memory(scene: Scene) -> None:
    scene.start("pods.hog", container=limited(96))
    error = failure_of(scene.send("pods.hog"))
    assert isinstance(error, exceptions.OOMKilled)
    assert error.exit_code == 137


def test_child_that_takes_too_much_memory(scene: Scene) -> None:
    """The shell goes on and ends with 0, unless the kernel kills whole containers."""
    scene.start(script=f"{TAKES_MEMORY}; true", container=limited(96))
    error = failure_of(scene.send())
    assert isinstance(error, exceptions.OOMKilled)
    assert error.exit_code in (0, 137)


def test_child_that_a_signal_ends(scene: Scene) -> None:
    scene.start(script="python -c 'import os; os.abort()'; exit $?")
    error = failure_of(scene.send())
    assert isinstance(error, exceptions.Signalled)
    assert error.exit_code == 134


NO_MAP = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "no-such-map", "key": "x"}}}
UNREADABLE = {"securityContext": {"runAsNonRoot": True}}


@pytest.mark.parametrize(
    ("container", "category"),
    [
        ({"image": "petiole.test/missing:1"}, exceptions.ImagePullError),
        ({"image": "missing:1", "imagePullPolicy": "Never"}, exceptions.ImagePullError),
        ({"image": "NO/NAME:1"}, exceptions.InvalidImage),
        ({"env": [NO_MAP]}, exceptions.ContainerConfigError),
        (UNREADABLE, exceptions.ContainerConfigError),
        ({"command": ["/no/such/program"]}, exceptions.CreateContainerError),
    ],
    ids=["missing", "never", "name", "configmap", "root", "command"],
)
def test_container_that_cannot_begin(
    scene: Scene, container: Json, category: type[exceptions.PetioleError]
) -> None:
    settings = {"kubernetes_image_pull_grace": 1, "max_delivery_attempts": 1}
    scene.start(settings=settings, script="true", container=container)
    assert type(failure_of(scene.send())) is category


def test_init_container_that_fails(scene: Scene) -> None:
    prepare = {
        "name": "prepare",
        "image": "test:1",
        "command": ["sh", "-c", "echo no data here; exit 3"],
        "resources": {"requests": SMALL},
    }
    scene.start(
        settings={"max_delivery_attempts": 1}, script="true", pod={"initContainers": [prepare]}
    )
    error = failure_of(scene.send())
    assert "prepare" in str(error)
    assert error.details["log"] == "no data here\n"


def test_sidecar_neither_decides_nor_stays(scene: Scene) -> None:
    sidecar = {
        "name": "proxy",
        "image": "test:1",
        "restartPolicy": "Always",
        "command": ["sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done"],
        "resources": {"requests": SMALL},
    }
    scene.start("pods.add", pod={"initContainers": [sidecar]})
    assert scene.send("pods.add", 2, 3).get(timeout=TIMEOUT_S) == 5


def test_volume_over_its_limit_evicts(scene: Scene) -> None:
    scene.start(
        script="head -c 8000000 /dev/zero > /scratch/much; sleep 60",
        pod={"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]},
        container={"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
    )
    error = failure_of(scene.send())
    assert isinstance(error, exceptions.Evicted)
    assert "scratch" in str(error)


def test_pod_that_gives_way_to_a_higher_priority(scene: Scene) -> None:
    high = {"metadata": {"name": "first"}, "value": 1000}
    scene.api.request("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", high)
    (node,) = scene.api.request("GET", "/api/v1/nodes")["items"]
    most = {"cpu": f"{int(node['status']['allocatable']['cpu']) * 1000 - 200}m", "memory": "16Mi"}
    scene.start(script="sleep 60", requests=most)
    result = scene.send()
    scene.wait_running(result)
    rival = {
        "metadata": {"name": "rival"},
        "spec": {
            "priorityClassName": "first",
            "containers": [
                {
                    "name": "main",
                    "image": "test:1",
                    "command": ["sleep", "60"],
                    "resources": {"requests": most},
                }
            ],
        },
    }
    scene.api.request("POST", PODS, rival)
    try:
        assert isinstance(failure_of(result), exceptions.Preempted)
    finally:
        scene.api.request("DELETE", f"{PODS}/rival?gracePeriodSeconds=0")
        scene.api.request("DELETE", "/apis/scheduling.k8s.io/v1/priorityclasses/first")


def test_pod_that_no_node_takes(scene: Scene) -> None:
    scene.start(
        settings={"kubernetes_unschedulable_timeout": 1, "max_delivery_attempts": 1},
        script="true",
        pod={"nodeSelector": {"disk": "none"}},
    )
    error = failure_of(scene.send())
    assert isinstance(error, exceptions.Unschedulable)
    assert "node" in str(error)


def test_runner_heeds_sigterm_as_first_process(scene: Scene) -> None:
    """The kernel drops a signal to a first process without a handler: SIGKILL after two minutes."""
    scene.start("pods.nap", pod={"terminationGracePeriodSeconds": 120})
    result = scene.send("pods.nap", 60)
    scene.wait_running(result)
    result.revoke(terminate=True)
    wait_for(lambda: not scene.pods(result), 60, "the end of the pod")
    assert result.state == "REVOKED"
