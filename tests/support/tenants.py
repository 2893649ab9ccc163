"""The tenants of the tests' clusters: namespaces, quota, and a worker's ServiceAccount each."""

from __future__ import annotations

from pathlib import Path

from cluster import Cluster

TENANTS = ("tenant-admin", "tenant-user")
_MANIFESTS = Path(__file__).resolve().parents[2] / "k8s"


def apply_tenants(cluster: Cluster) -> None:
    """Make them, by the project's own manifests."""
    cluster.apply(_MANIFESTS / "tenants/namespaces.yaml")
    cluster.apply(_MANIFESTS / "tenants/ns-user-quota.yaml")
    for tenant in TENANTS:
        overlay = _MANIFESTS / "overlays" / tenant
        cluster.apply(overlay, ("ServiceAccount", "Role", "RoleBinding"))
        cluster.wait(f"/api/v1/namespaces/{tenant}/serviceaccounts/default", bool)


def clear_tenant(cluster: Cluster, namespace: str) -> None:
    """Delete the Jobs, pods and Leases that are of workers."""
    selector = "labelSelector=app.kubernetes.io/managed-by%3Dpetiole"
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    cluster.client.request("DELETE", f"{jobs}?{selector}&propagationPolicy=Background")
    cluster.client.request("DELETE", f"{leases}?{selector}")
    cluster.client.request("DELETE", f"{pods}?{selector}&gracePeriodSeconds=0")
