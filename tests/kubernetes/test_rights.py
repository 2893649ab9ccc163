"""`petiole check` with the ServiceAccount's token: the Role is enough, and all of it is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from job_template import write_template
from kube_client import ApiError, KubeClient, client_of_kubeconfig
from kubernetes_worker import worker_kubeconfig, worker_settings
from petiole_worker import run_petiole
from redis_server import RedisServer
from role_rights import Right, each_right
from waiting import wait_for

TENANT = "tenant-user"
ROLE = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{TENANT}/roles/petiole"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
Json = dict[str, Any]


@pytest.fixture
def role(cluster: Cluster) -> Iterator[Json]:
    """Return the worker's Role, which is put back at the end."""
    found = cluster.client.request("GET", ROLE)
    yield found
    cluster.client.request("PATCH", ROLE, {"rules": found["rules"]})


@pytest.fixture
def config(redis_server: RedisServer, tmp_path: Path) -> Path:
    """Return the settings file of the tenant's worker."""
    template = write_template(tmp_path, "add")
    path = tmp_path / "petiole.json"
    path.write_text(json.dumps(worker_settings(redis_server.port, TENANT, {"pods.add": template})))
    return path


def check(cluster: Cluster, config: Path) -> subprocess.CompletedProcess[str]:
    """Run `petiole check` with the worker's own credentials."""
    kubeconfig = worker_kubeconfig(cluster, TENANT, config.parent)
    return run_petiole(
        "--config", str(config), "check", environment={"KUBECONFIG": str(kubeconfig)}
    )


def without(role: Json, right: Right) -> list[Json]:
    """Return rules that allow everything that the Role does, but for `right`."""
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        for group, resource, verb in each_right(role)
        if (group, resource, verb) != right
    ]


def is_allowed(worker: KubeClient, right: Right) -> bool:
    """Return what the API server says to the worker's ServiceAccount."""
    group, resource, verb = right
    resource, _, subresource = resource.partition("/")
    attributes = {
        "namespace": TENANT,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
    }
    answer = worker.request("POST", REVIEWS, {"spec": {"resourceAttributes": attributes}})
    return bool(answer["status"]["allowed"])


def test_everything_is_fine_with_the_role_as_it_is(
    cluster: Cluster, config: Path, role: Json
) -> None:
    done = check(cluster, config)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines
    assert [line for line in lines if not line.startswith("ok")] == []
    told = {line.split()[1] for line in lines}
    assert {"settings", "broker", "results", "cluster", "right"} <= told
    for _, resource, verb in each_right(role):
        assert any(f" {verb} {resource} in {TENANT}" in line for line in lines), (verb, resource)


def test_each_right_that_is_missing_is_named(cluster: Cluster, config: Path, role: Json) -> None:
    kubeconfig = worker_kubeconfig(cluster, TENANT, config.parent)
    worker = client_of_kubeconfig(kubeconfig, str(cluster.programs / "kubectl"))
    rights = each_right(role)
    assert len(rights) > 20
    before = rights[0]
    for right in rights:
        cluster.client.request("PATCH", ROLE, {"rules": without(role, right)})
        # The API server learns of it by a watch of its own.
        wait_for(lambda right=right: not is_allowed(worker, right), 60, f"{right} to be gone")
        if before != right:
            wait_for(lambda before=before: is_allowed(worker, before), 60, f"{before} to be back")
        before = right
        done = check(cluster, config)
        _, resource, verb = right
        failed = [line for line in done.stdout.splitlines() if not line.startswith("ok")]
        assert done.returncode == 1, right
        assert len(failed) == 1, (right, failed)
        assert f" {verb} {resource} in {TENANT}: not allowed" in failed[0]
    worker.close()


def test_a_token_that_nobody_knows_is_told_in_one_line(cluster: Cluster, config: Path) -> None:
    kubeconfig = worker_kubeconfig(cluster, TENANT, config.parent, cluster.client.port)
    token = config.parent / "token"
    token.write_text("no-such-token")
    text = kubeconfig.read_text()
    known = next(line for line in text.splitlines() if "tokenFile:" in line)
    kubeconfig.write_text(text.replace(known, f"    tokenFile: {token}"))
    environment = {"KUBECONFIG": str(kubeconfig)}
    done = run_petiole("--config", str(config), "check", environment=environment)
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if not line.startswith("ok")]
    assert len(failed) == 1
    assert "Unauthorized" in failed[0]
    assert "no-such-token" not in done.stdout + done.stderr


@pytest.mark.parametrize("right", ["create", "list"])
def test_the_token_of_a_tenant_is_good_for_nothing_in_another(
    cluster: Cluster, tmp_path: Path, right: str
) -> None:
    kubeconfig = worker_kubeconfig(cluster, "tenant-admin", tmp_path)
    worker = client_of_kubeconfig(kubeconfig, str(cluster.programs / "kubectl"))
    jobs = f"/apis/batch/v1/namespaces/{TENANT}/jobs"
    container = {"name": "main", "image": "any:1", "command": ["true"]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    job = {"metadata": {"name": "intruder"}, "spec": {"template": {"spec": pod}}}
    with pytest.raises(ApiError) as error:
        worker.request("POST" if right == "create" else "GET", jobs, job)
    worker.close()
    assert (error.value.status, error.value.reason) == (403, "Forbidden")
    own = client_of_kubeconfig(kubeconfig, str(cluster.programs / "kubectl"))
    own.request("POST", jobs.replace(TENANT, "tenant-admin") + "?dryRun=All", job)
    own.close()
