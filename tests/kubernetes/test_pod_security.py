"""The files of k8s/ work where Pod Security enforces the restricted profile, and nothing is warned.

The worker here is a pod of its Deployment, with the settings and the template of k8s/base as they
are. What a machine without containers needs comes from the ConfigMap lora-config, which is the
platform's own in any case: addresses, PATH and a kubeconfig of the ServiceAccount petiole.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from cluster import Cluster, ClusterError
from fake_kubelet import FakeKubelet
from job_watch import JobWatch, SeenJob
from petiole_worker import petiole_binary
from ports import HOST, free_port
from redis_server import RedisServer

ROOT = Path(__file__).resolve().parents[2]
LEVEL = "restricted"
LABEL = "pod-security.kubernetes.io"
STRICT = ("--warnings-as-errors", "--validate=strict")
OVERLAY = """apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {}
resources:
- ../../base
"""
TRAINING = "app.tasks.training.train_lora"
Json = dict[str, Any]


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """Return a new namespace that enforces the profile, warns of it, and has the seed's quota."""
    name = f"tenant-{uuid.uuid4().hex[:8]}"
    labels = {f"{LABEL}/enforce": LEVEL, f"{LABEL}/warn": LEVEL}
    body = {"metadata": {"name": name, "labels": labels}}
    cluster.client.request("POST", "/api/v1/namespaces", body)
    cluster.wait(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    quota = (ROOT / "k8s/tenants/ns-user-quota.yaml").read_text()
    text = quota.replace("namespace: tenant-user", f"namespace: {name}")
    assert name in text
    cluster.kubectl("apply", *STRICT, "-f", "-", stdin=text)
    cluster.kubectl("apply", *STRICT, "-n", name, "-f", ROOT / "k8s/samples/results-pvc.yaml")
    yield name
    claim = f"/api/v1/namespaces/{name}/persistentvolumeclaims/results-pvc"
    # No controller runs here that would take the protecting finalizer away.
    cluster.client.raw("PATCH", claim, {"metadata": {"finalizers": None}})
    cluster.client.raw("DELETE", f"/api/v1/namespaces/{name}")


def lora_config(cluster: Cluster, namespace: str, server: RedisServer) -> Json:
    """Return the platform's ConfigMap for a worker that is a process of this machine."""
    data = {
        "CELERY_BROKER_URL": server.url(0),
        "CELERY_RESULT_BACKEND": server.url(1),
        "TZ": "Asia/Taipei",
        "PATH": os.pathsep.join((str(petiole_binary().parent), os.environ["PATH"])),
        "KUBECONFIG": str(cluster.kubeconfig_for(namespace, "petiole")),
        "PETIOLE_WORKER_HTTP_ADDRESS": f"{HOST}:{free_port()}",
        # The Deployment's emptyDir: a built-in path is not rewritten without containers.
        "PETIOLE_RUN_DIR": "/run/petiole",
    }
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    return {**kind, "metadata": {"name": "lora-config"}, "data": data}


def overlay(namespace: str, folder: Path) -> Path:
    """Return a copy of k8s/ with an overlay for the namespace; kubectl wants relative paths."""
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    own = folder / "k8s/overlays" / namespace
    own.mkdir()
    (own / "kustomization.yaml").write_text(OVERLAY.format(namespace))
    return own


@pytest.fixture
def deployed(
    *,
    cluster: Cluster,
    kubelet: FakeKubelet,
    namespace: str,
    redis_server: RedisServer,
    tmp_path: Path,
) -> Iterator[str]:
    """Apply everything for real, and return the namespace with its worker."""
    own = overlay(namespace, tmp_path)
    # The ServiceAccount comes first: a kubeconfig of it is part of lora-config.
    cluster.apply(own, ("ServiceAccount",))
    config = json.dumps(lora_config(cluster, namespace, redis_server))
    cluster.kubectl("apply", *STRICT, "-n", namespace, "-f", "-", stdin=config)
    cluster.kubectl("apply", *STRICT, "-k", own)
    yield namespace
    cluster.kubectl("delete", "-n", namespace, "deployment", "petiole")
    selector = ("-l", "app.kubernetes.io/component=worker")
    cluster.kubectl("wait", "-n", namespace, "--for=delete", "--timeout=30s", "pod", *selector)


def train(client: Celery, tenant: str) -> Json:
    """Let the tenant's worker train, and return the result."""
    config = {
        "experiment_name": "restricted",
        "user_id": "someone",
        "training": {"epochs": 1},
        "metadata": {"namespace": tenant},
    }
    result = client.send_task(TRAINING, kwargs={"config": config}, queue=tenant)
    found: Json = result.get(timeout=60)
    return {**found, "task_id": result.id}


def violations(cluster: Cluster, namespace: str, job: SeenJob, **pod: Any) -> str:
    """Return what the API server warns of when a Job has this Job's pod, changed by `pod`."""
    spec = {**job.object["spec"]["template"]["spec"], **pod}
    kind = {"apiVersion": "batch/v1", "kind": "Job"}
    again = {**kind, "metadata": {"name": "again"}, "spec": {"template": {"spec": spec}}}
    try:
        dry = ("create", "--dry-run=server", *STRICT, "-n", namespace, "-f", "-")
        cluster.kubectl(*dry, stdin=json.dumps(again))
    except ClusterError as error:
        return str(error)
    return ""


def test_worker_and_job_run_where_the_profile_is_enforced(
    *, cluster: Cluster, client: Celery, job_watch: JobWatch, deployed: str
) -> None:
    done = train(client, deployed)
    assert (done["status"], done["metadata"]) == ("success", {"namespace": deployed})
    (job,) = job_watch.of_task(done["task_id"])
    assert job.namespace == deployed
    events = cluster.client.request("GET", f"/api/v1/namespaces/{deployed}/events")["items"]
    assert [each["message"] for each in events if each["reason"] == "FailedCreate"] == []
    pods = cluster.client.request("GET", f"/api/v1/namespaces/{deployed}/pods")["items"]
    made_by = {pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods}
    assert "ReplicaSet" in made_by
    assert violations(cluster, deployed, job) == ""
    # The same question about what is not fine has an answer.
    assert "would violate PodSecurity" in violations(cluster, deployed, job, securityContext={})
    assert "would violate PodSecurity" in violations(cluster, deployed, job, hostNetwork=True)


@pytest.mark.parametrize("tenant", ["tenant-admin", "tenant-user"])
def test_the_tenants_namespaces_have_nothing_to_warn_of(
    cluster: Cluster, tenant: str, tmp_path: Path
) -> None:
    found = cluster.client.request("GET", f"/api/v1/namespaces/{tenant}")["metadata"]["labels"]
    assert (found[f"{LABEL}/enforce"], found[f"{LABEL}/warn"]) == ("baseline", LEVEL)
    dry = ("apply", "--dry-run=server", *STRICT)
    cluster.kubectl(*dry, "-k", ROOT / "k8s/overlays" / tenant)
    careless = ROOT / "k8s/base/deployment.yaml"
    text = careless.read_text().replace("runAsNonRoot: true", "runAsNonRoot: false")
    copy = tmp_path / "k8s"
    shutil.copytree(ROOT / "k8s", copy)
    (copy / "base/deployment.yaml").write_text(text)
    with pytest.raises(ClusterError) as error:
        cluster.kubectl(*dry, "-k", copy / "overlays" / tenant)
    assert "would violate PodSecurity" in str(error.value)


@pytest.mark.parametrize(
    "pod",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"containers": [{"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
    ],
    ids=["host network", "host processes", "host path", "capability"],
)
@pytest.mark.parametrize("tenant", ["tenant-admin", "tenant-user"])
def test_no_pod_of_a_tenant_gets_at_its_node(cluster: Cluster, tenant: str, pod: Json) -> None:
    plain = {
        "name": "x",
        "image": "x",
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    spec = {"containers": [{}], **pod}
    spec["containers"] = [plain | each for each in spec["containers"]]
    body = {"metadata": {"name": "intruder"}, "spec": spec}
    status, text = cluster.client.raw("POST", f"/api/v1/namespaces/{tenant}/pods?dryRun=All", body)
    assert status == 403
    assert "violates PodSecurity" in text
