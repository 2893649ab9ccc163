"""Jobs on a real node: what containerd, the kubelet and the scheduler make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from job_template import write_template
from kubernetes_worker import KubernetesWorker

TENANT = "tenant-admin"
TIMEOUT_S = 60.0
Json = dict[str, Any]
StartWorker = Callable[..., KubernetesWorker]


def test_result_of_a_container(start_worker: StartWorker, client: Celery, tmp_path: Path) -> None:
    start_worker({"pods.add": write_template(tmp_path, "add")})
    assert client.send_task("pods.add", (2, 3), queue=TENANT).get(timeout=TIMEOUT_S) == 5
