"""A Petiole worker that runs tasks as Jobs of a test cluster, with its ServiceAccount's rights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import Cluster
from petiole_worker import PetioleWorker
from ports import HOST
from redis_server import RedisServer

SERVICE_ACCOUNT = "petiole"


def worker_kubeconfig(
    cluster: Cluster, tenant: str, folder: Path, port: int | None = None, ca: Path | None = None
) -> Path:
    """Write the kubeconfig of a tenant's worker.

    `port` is that of a proxy before the API server, `ca` the proxy's authority when it ends TLS.
    """
    path = cluster.kubeconfig_for(tenant, SERVICE_ACCOUNT)
    if port is None:
        return path
    behind = folder / f"kubeconfig-{tenant}-{port}"
    text = re.sub(r"server: \S+", f"server: https://{HOST}:{port}", path.read_text())
    if ca:
        text = re.sub(r"certificate-authority: \S+", f"certificate-authority: {ca}", text)
    behind.touch(mode=0o600)
    behind.write_text(text)
    return behind


def worker_settings(
    redis_port: int, tenant: str, tasks: Mapping[str, str | Mapping[str, object]]
) -> dict[str, object]:
    """Return the settings of a tenant's worker; see KubernetesWorker."""
    rows: dict[str, object] = {}
    for name, row in tasks.items():
        options = {"job_template": row} if isinstance(row, str) else dict(row)
        rows[name] = {"executor": "kubernetes", **options}
    return {
        "broker_url": f"redis://{HOST}:{redis_port}/0",
        "result_backend": f"redis://{HOST}:{redis_port}/1",
        "broker_transport_options": {"visibility_timeout": 2},
        "kubernetes_namespace": tenant,
        "kubernetes_result_ttl": 1,
        "plugins": [],
        "tasks": rows,
    }


class KubernetesWorker(PetioleWorker):
    """`petiole worker` of one tenant.

    `tasks` maps task names to the path of their template, or to all options of their row.
    `api_port` and `redis_port` are those of proxies; `kubeconfig` is another one to use. A message
    that nobody acknowledges is restored after 2 s, and a reported Job stays for 1 s, unless
    `settings` say else.
    """

    def __init__(
        self,
        cluster: Cluster,
        redis_server: RedisServer,
        folder: Path,
        tasks: Mapping[str, str | Mapping[str, object]],
        *,
        tenant: str = "tenant-admin",
        api_port: int | None = None,
        redis_port: int | None = None,
        kubeconfig: Path | None = None,
        settings: Mapping[str, object] | None = None,
        **rest: Any,
    ) -> None:
        """Start the worker; see wait_ready."""
        own = worker_settings(redis_port or redis_server.port, tenant, tasks)
        kubeconfig = kubeconfig or worker_kubeconfig(cluster, tenant, folder, api_port)
        super().__init__(
            folder,
            settings={**own, **(settings or {})},
            environment={"KUBECONFIG": str(kubeconfig)},
            **rest,
        )
