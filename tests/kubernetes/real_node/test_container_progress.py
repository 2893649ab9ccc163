"""What a task in a real container says of itself comes through containerd's log and the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from celery import Celery
from job_template import write_template
from kubernetes_worker import KubernetesWorker
from publication_watch import PublicationWatch

TENANT = "tenant-admin"
StartWorker = Callable[..., KubernetesWorker]


def test_progress_of_a_container(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    start_worker({"pods.count": write_template(tmp_path, "count")})
    result = client.send_task("pods.count", (6.0,), queue=TENANT)
    assert result.get(timeout=60) == "counted"
    publications.sync()
    seen = [(each["status"], each["result"]) for each in publications.documents(result.id)]
    assert seen == [
        ("COUNTING", {"number": 1}),
        ("COUNTING", {"number": 2}),
        ("SUCCESS", "counted"),
    ]
