"""What happens in a long life with the API server: credentials change, peers fall silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import report, report_script, write_template
from kubernetes_worker import KubernetesWorker

TENANT = "tenant-admin"
# Until it is noticed that a peer has died; what follows is a new connection and a list.
NOTICE_S = 45.0
StartWorker = Callable[..., KubernetesWorker]
MakeProxy = Callable[[int], GateProxy]


def api_port(cluster: Cluster) -> int:
    """Return the port of the API server."""
    return int(cluster.url.rpartition(":")[2])


def quick_template(folder: Path) -> str:
    """Return the path of the template of a task that is done at once."""
    return write_template(folder, "quick", script=report_script(report("done")))


def test_a_peer_that_acknowledges_and_never_answers_is_noticed(
    start_worker: StartWorker,
    cluster: Cluster,
    client: Celery,
    make_proxy: MakeProxy,
    tmp_path: Path,
) -> None:
    proxy = make_proxy(api_port(cluster))
    worker = start_worker({"pods.quick": quick_template(tmp_path)}, api_port=proxy.port)
    assert client.send_task("pods.quick", queue=TENANT).get(timeout=30) == "done"
    proxy.mute()
    began = time.monotonic()
    assert client.send_task("pods.quick", queue=TENANT).get(timeout=NOTICE_S + 10) == "done"
    assert time.monotonic() - began < NOTICE_S
    assert worker.log_count(r"Kubernetes: .* Trying again in") > 0
