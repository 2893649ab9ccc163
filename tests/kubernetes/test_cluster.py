"""The test cluster itself: what the other tests of this folder take for granted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from fake_kubelet import FakeKubelet
from kube_client import ApiError, client_of_kubeconfig
from processes import wait_for_exit
from tenants import TENANTS
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
TENANT = "tenant-admin"
Json = dict[str, Any]


def job_object(name: str, container: Json, pod: Json | None = None) -> Json:
    template = {
        "metadata": {"annotations": {"petiole.dev/message": '{"the": "message"}'}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "any:1", **container}],
            **(pod or {}),
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template},
    }


def start_job(
    cluster: Cluster, container: Json, pod: Json | None = None, namespace: str = TENANT
) -> str:
    """Create a Job and return its name."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    cluster.client.request("POST", jobs, job_object(name, container, pod))
    return name


def has_condition(kind: str) -> Callable[[Json | None], bool]:
    def check(found: Json | None) -> bool:
        conditions = (found or {}).get("status", {}).get("conditions", [])
        return any(each["type"] == kind and each["status"] == "True" for each in conditions)

    return check


def finished(cluster: Cluster, name: str, condition: str, namespace: str = TENANT) -> Json:
    """Wait for the Job's condition and return its pod."""
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
    cluster.wait(path, has_condition(condition))
    return pod_of(cluster, name, namespace)


def pod_of(cluster: Cluster, name: str, namespace: str = TENANT) -> Json:
    selector = f"labelSelector=batch.kubernetes.io/job-name={name}"
    path = f"/api/v1/namespaces/{namespace}/pods?{selector}"
    (pod,) = cluster.client.request("GET", path)["items"]
    return pod


def terminated(pod: Json) -> Json:
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]


def wait_for_pod(cluster: Cluster, name: str, until: Callable[[Json], bool]) -> Json:
    """Wait until a pod of the Job exists and UNTIL says yes to it."""
    job = f"/apis/batch/v1/namespaces/{TENANT}/jobs/{name}"
    cluster.wait(job, lambda found: bool(found and found["status"].get("active")))
    pod = pod_of(cluster, name)
    path = f"/api/v1/namespaces/{TENANT}/pods/{pod['metadata']['name']}"
    found = cluster.wait(path, lambda each: each is not None and until(each))
    assert found
    return found


def is_waiting_with(reason: str) -> Callable[[Json], bool]:
    def check(pod: Json) -> bool:
        statuses = pod["status"].get("containerStatuses", [])
        return any(s["state"].get("waiting", {}).get("reason") == reason for s in statuses)

    return check


@pytest.fixture(autouse=True)
def leave_no_jobs(cluster: Cluster) -> Iterator[None]:
    """Delete Jobs and pods after each test: others count what a tenant has."""
    yield
    for tenant in TENANTS:
        jobs = f"/apis/batch/v1/namespaces/{tenant}/jobs"
        pods = f"/api/v1/namespaces/{tenant}/pods"
        cluster.client.request("DELETE", f"{jobs}?propagationPolicy=Background")
        cluster.client.request("DELETE", f"{pods}?gracePeriodSeconds=0")


def test_a_job_gets_its_message_and_its_own_is_reported(
    cluster: Cluster, kubelet: FakeKubelet
) -> None:
    mount = {"name": "task", "mountPath": "/etc/task"}
    field = {"fieldPath": "metadata.annotations['petiole.dev/message']"}
    item = {"path": "message", "fieldRef": field}
    name = start_job(
        cluster,
        {
            "command": ["sh", "-c", 'cat "$PETIOLE_TASK_FILE" > "$PETIOLE_RESULT_FILE"; echo "$P"'],
            "env": [
                {"name": "PETIOLE_TASK_FILE", "value": "/etc/task/message"},
                {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            ],
            "volumeMounts": [mount],
        },
        {"volumes": [{"name": "task", "downwardAPI": {"items": [item]}}]},
    )
    pod = finished(cluster, name, "Complete")
    assert pod["status"]["phase"] == "Succeeded"
    end = terminated(pod)
    assert (end["exitCode"], end["reason"]) == (0, "Completed")
    assert end["message"] == '{"the": "message"}'
    assert pod["status"]["startTime"] <= end["startedAt"] <= end["finishedAt"]
    assert cluster.kubectl("-n", TENANT, "logs", f"job/{name}") == f"{TENANT}\n"


def test_a_path_that_a_shell_uses_is_rewritten(cluster: Cluster, kubelet: FakeKubelet) -> None:
    name = start_job(cluster, {"command": ["sh", "-c", "echo done >/dev/termination-log"]})
    assert terminated(finished(cluster, name, "Complete"))["message"] == "done\n"


def test_a_failed_job_falls_back_to_its_log(cluster: Cluster, kubelet: FakeKubelet) -> None:
    container = {"command": ["sh", "-c", "seq 1 200; echo broken >&2; exit 3"]}
    name = start_job(cluster, container | {"terminationMessagePolicy": "FallbackToLogsOnError"})
    end = terminated(finished(cluster, name, "Failed"))
    assert (end["exitCode"], end["reason"]) == (3, "Error")
    # A kubelet takes the last 80 lines.
    assert end["message"].splitlines() == [str(n) for n in range(122, 201)] + ["broken"]
    quiet = start_job(cluster, container)
    assert "message" not in terminated(finished(cluster, quiet, "Failed"))


def test_too_much_memory_is_oom_killed(cluster: Cluster, kubelet: FakeKubelet) -> None:
    program = "import signal; held = bytearray(b'x') * (100 << 20); signal.pause()"
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    name = start_job(cluster, {"command": ["python", "-c", program], **limits})
    end = terminated(finished(cluster, name, "Failed"))
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_the_deadline_of_a_pod_ends_it(cluster: Cluster, kubelet: FakeKubelet) -> None:
    name = start_job(cluster, {"command": ["sleep", "60"]}, {"activeDeadlineSeconds": 1})
    pod = finished(cluster, name, "Failed")
    assert pod["status"]["reason"] == "DeadlineExceeded"
    assert terminated(pod)["exitCode"] == 128 + 15


def test_a_missing_image_never_runs(cluster: Cluster, kubelet: FakeKubelet) -> None:
    name = start_job(cluster, {"command": ["true"], "image": "petiole.test/missing:1"})
    pod = wait_for_pod(cluster, name, is_waiting_with("ImagePullBackOff"))
    assert pod["status"]["phase"] == "Pending"
    cluster.kubectl("-n", TENANT, "delete", "job", name)


def test_a_missing_program_cannot_start(cluster: Cluster, kubelet: FakeKubelet) -> None:
    name = start_job(cluster, {"command": ["no-such-program"]})
    end = terminated(finished(cluster, name, "Failed"))
    assert (end["exitCode"], end["reason"]) == (128, "StartError")


def test_a_container_that_fails_is_started_again_later(
    cluster: Cluster, kubelet: FakeKubelet
) -> None:
    name = start_job(cluster, {"command": ["no-such-program"]}, {"restartPolicy": "OnFailure"})
    pod = wait_for_pod(cluster, name, is_waiting_with("CrashLoopBackOff"))
    (status,) = pod["status"]["containerStatuses"]
    assert (pod["status"]["phase"], status["restartCount"]) == ("Running", 1)
    assert status["lastState"]["terminated"]["reason"] == "StartError"
    cluster.kubectl("-n", TENANT, "delete", "job", name)


def test_a_missing_configmap_holds_a_container_back(cluster: Cluster, kubelet: FakeKubelet) -> None:
    settings = f"c-{uuid.uuid4().hex[:8]}"
    source = {"configMapKeyRef": {"name": settings, "key": "word"}}
    env = [{"name": "W", "valueFrom": source}]
    container = {"command": ["sh", "-c", "test $W = hello"], "env": env}
    name = start_job(cluster, container)
    wait_for_pod(cluster, name, is_waiting_with("CreateContainerConfigError"))
    cluster.kubectl("-n", TENANT, "create", "configmap", settings, "--from-literal=word=hello")
    finished(cluster, name, "Complete")


def test_a_deleted_pod_may_clean_up_first(
    cluster: Cluster, kubelet: FakeKubelet, tmp_path: Path
) -> None:
    trap = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo ready; sleep 60 & wait"
    name = start_job(cluster, {"command": ["sh", "-c", trap]})
    pod = wait_for_pod(cluster, name, lambda each: each["status"]["phase"] == "Running")
    follow = ["-n", TENANT, "logs", "-f", f"job/{name}", "--limit-bytes=5"]
    assert cluster.kubectl(*follow) == "ready"
    cluster.kubectl("-n", TENANT, "delete", "job", name)
    path = f"/api/v1/namespaces/{TENANT}/pods/{pod['metadata']['name']}"
    cluster.wait(path, lambda each: each is None)
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_a_claim_keeps_files_between_pods(cluster: Cluster, kubelet: FakeKubelet) -> None:
    claim = (ROOT / "k8s/samples/results-pvc.yaml").read_text()
    cluster.kubectl("-n", TENANT, "apply", "-f", "-", stdin=claim)
    volume = {"name": "results", "persistentVolumeClaim": {"claimName": "results-pvc"}}
    mount = {"name": "results", "mountPath": "/results", "subPath": uuid.uuid4().hex}
    for script in ("echo kept > /results/file", 'test "$(cat /results/file)" = kept'):
        container = {"command": ["sh", "-c", script], "volumeMounts": [mount]}
        finished(cluster, start_job(cluster, container, {"volumes": [volume]}), "Complete")


def test_a_restarted_apiserver_changes_nothing(
    own_cluster: Cluster, own_kubelet: FakeKubelet, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    wait_for_go = f"until test -e {go}; do sleep 0.05; done; echo went >/dev/termination-log"
    name = start_job(own_cluster, {"command": ["sh", "-c", wait_for_go]})
    wait_for_pod(own_cluster, name, lambda each: each["status"]["phase"] == "Running")
    own_cluster.kill_apiserver()
    go.touch()
    own_cluster.start_apiserver()
    assert terminated(finished(own_cluster, name, "Complete"))["message"] == "went\n"
    later = start_job(own_cluster, {"command": ["true"]})
    finished(own_cluster, later, "Complete")


def test_the_quota_holds_pods_back(cluster: Cluster, kubelet: FakeKubelet, tmp_path: Path) -> None:
    go = tmp_path / "go"
    container = {
        "command": ["sh", "-c", f"until test -e {go}; do sleep 0.05; done"],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    names = [start_job(cluster, container, namespace="tenant-user") for _ in range(5)]
    quota = "/api/v1/namespaces/tenant-user/resourcequotas/user-quota"
    used = cluster.wait(quota, lambda found: bool(found and found["status"]["used"]["pods"] == "3"))
    assert used
    assert used["status"]["hard"] == {"pods": "3", "requests.cpu": "1", "requests.memory": "2Gi"}

    def count() -> int:
        return len(cluster.client.request("GET", pods_path("tenant-user"))["items"])

    # A pod is counted before it is written.
    wait_for(lambda: count() == 3, 30, "three pods")
    assert count() == 3
    go.touch()
    for name in names:
        finished(cluster, name, "Complete", "tenant-user")


def pods_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods?fieldSelector=status.phase!=Succeeded"


@pytest.mark.parametrize("tenant", ["tenant-admin", "tenant-user"])
def test_the_manifests_are_accepted(cluster: Cluster, tenant: str) -> None:
    dry = ("apply", "--dry-run=server", "--validate=strict", "-o", "json")
    found = json.loads(cluster.kubectl(*dry, "-k", ROOT / f"k8s/overlays/{tenant}"))["items"]
    assert {each["metadata"]["namespace"] for each in found} == {tenant}
    kinds = ["ConfigMap", "Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]
    assert sorted(each["kind"] for each in found) == kinds
    for sample in ("lora-config.yaml", "results-pvc.yaml"):
        cluster.kubectl(*dry, "-n", tenant, "-f", ROOT / "k8s/samples" / sample)


def test_the_component_for_redis_users_names_keys_of_the_tenant(
    cluster: Cluster, tmp_path: Path
) -> None:
    # kubectl reads what a kustomization refers to by relative paths only.
    copy = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", copy)
    overlay = copy / "overlays/tenant-user/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "components:\n- ../../components/redis-acl\n")
    dry = ("apply", "--dry-run=server", "--validate=strict", "-o", "json")
    found = json.loads(cluster.kubectl(*dry, "-k", overlay.parent))["items"]
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    (worker,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in worker["env"]}
    assert env["PETIOLE_CONFIG"] == "/etc/petiole/petiole.yaml"
    options = json.loads(env["PETIOLE_BROKER_TRANSPORT_OPTIONS"])
    assert options["unacked_key"] == "$(POD_NAMESPACE):unacked"


def test_the_configmap_holds_the_sample_job(cluster: Cluster) -> None:
    path = ROOT / "k8s/base/configmap.yaml"
    made = cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", path)
    sample = (ROOT / "k8s/samples/train-job.yaml").read_text()
    assert json.loads(made)["data"]["train-job.yaml"] == sample


RIGHTS = {
    ("batch", "jobs"): "create get list watch patch delete",
    ("", "pods"): "get list watch",
    ("", "pods/log"): "get",
    ("", "events"): "list watch",
    ("", "resourcequotas"): "get list watch",
    ("", "limitranges"): "get list watch",
    ("coordination.k8s.io", "leases"): "get list watch create update delete",
}


def test_the_role_gives_these_rights_and_no_others(cluster: Cluster) -> None:
    kubeconfig = cluster.kubeconfig_for("tenant-user", "petiole")
    worker = client_of_kubeconfig(kubeconfig, str(cluster.programs / "kubectl"))
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "tenant-user"},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    rules = worker.request("POST", path, body)["status"]["resourceRules"]
    found = {
        (group, resource): set(rule["verbs"])
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        # Everybody may ask what he may do.
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }
    assert found == {name: set(verbs.split()) for name, verbs in RIGHTS.items()}
    for refused in ("/api/v1/namespaces/tenant-user/secrets", pods_path("tenant-admin")):
        with pytest.raises(ApiError) as error:
            worker.request("GET", refused)
        assert (error.value.status, error.value.reason) == (403, "Forbidden")


def test_nothing_outlives_the_program_that_started_it(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT / "tests/support/cluster")!r})
from processes import Spawner
print(Spawner().start(["/bin/sleep", "600"], 2).pid, flush=True)
os.kill(os.getpid(), 9)
"""
    answer = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    assert wait_for_exit(int(answer.stdout), 10)
