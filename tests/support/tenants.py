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
