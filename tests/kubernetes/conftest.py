"""A real control plane and a node for all tests of this folder.

KUBECONFIG is used when it names a control plane without nodes of its own, as `cluster.py up` makes
one: a test never touches a cluster where somebody's pods run. Else a control plane is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support" / "cluster"))

from cluster import Cluster  # noqa: E402 - the path above makes it known
from fake_kubelet import NODE, FakeKubelet  # noqa: E402
from kube_client import TRANSIENT_ERRORS, ApiError  # noqa: E402


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with the tenants' namespaces, quota and worker ServiceAccounts (petiole)."""
    folder = tmp_path_factory.mktemp("cluster")
    if found := _given_cluster(folder):
        _apply_tenants(found)
        yield found
        found.stop()
        return
    with Cluster(folder) as own:
        _apply_tenants(own)
        yield own


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that a test may kill and restart; mostly the same one as `cluster`."""
    if cluster.is_owned:
        yield cluster
        return
    with Cluster(tmp_path_factory.mktemp("own-cluster")) as own:
        _apply_tenants(own)
        yield own


@pytest.fixture(scope="session")
def kubelet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubelet]:
    """A node that really runs the pods of `cluster`, with the tests' own Python."""
    with FakeKubelet(cluster, tmp_path_factory.mktemp("kubelet")) as running:
        yield running


@pytest.fixture(scope="session")
def own_kubelet(
    own_cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeKubelet]:
    """The node of `own_cluster`; mostly the same one as `kubelet`."""
    if own_cluster is request.getfixturevalue("cluster"):
        yield request.getfixturevalue("kubelet")
        return
    with FakeKubelet(own_cluster, tmp_path_factory.mktemp("own-kubelet")) as running:
        yield running


def _given_cluster(folder: Path) -> Cluster | None:
    """Return the cluster of KUBECONFIG, or None, with a line why, when it cannot be used."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        return None
    try:
        found = Cluster.of_kubeconfig(Path(kubeconfig), folder)
        nodes = found.client.request("GET", "/api/v1/nodes")["items"]
    except (ApiError, ValueError, *TRANSIENT_ERRORS) as error:
        print(f"KUBECONFIG is not used: {error}", file=sys.stderr)
        return None
    if any(node["metadata"]["name"] != NODE for node in nodes):
        print("KUBECONFIG is not used: the cluster has nodes of its own", file=sys.stderr)
        return None
    return found


def _apply_tenants(cluster: Cluster) -> None:
    cluster.apply(ROOT / "k8s/tenants/namespaces.yaml")
    cluster.apply(ROOT / "k8s/tenants/ns-user-quota.yaml")
    for tenant in ("tenant-admin", "tenant-user"):
        overlay = ROOT / "k8s/overlays" / tenant
        cluster.apply(overlay, ("ServiceAccount", "Role", "RoleBinding"))
        cluster.wait(f"/api/v1/namespaces/{tenant}/serviceaccounts/default", bool)
