"""Under the seed's quota, which refuses pods and never Jobs: what does not fit waits unmade."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from cluster import Cluster
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from waiting import wait_for

TENANT = "tenant-user"
TASKS = 20
FITS = 2  # of three pods one is kept for the worker's own
PODS = f"/api/v1/namespaces/{TENANT}/pods"
QUOTA = f"/api/v1/namespaces/{TENANT}/resourcequotas/user-quota"
StartWorker = Callable[..., KubernetesWorker]


@pytest.fixture(autouse=True)
def empty_namespace(cluster: Cluster) -> Iterator[None]:
    """Begin when the quota counts no pod."""

    def is_empty(quota: dict[str, Any] | None) -> bool:
        return bool(quota) and quota["status"]["used"]["pods"] == "0"

    cluster.wait(QUOTA, is_empty)
    yield


def quota_template(folder: Path, gate: PodGate, cpu: str = "100m") -> str:
    script = f"{gate.script}; {report_script(report('done'))}"
    requests = {"cpu": cpu, "memory": "64Mi"}
    return write_template(folder, f"train-{cpu}", script=script, requests=requests)


def wait_full(job_watch: JobWatch, count: int) -> None:
    """Wait until so many Jobs are on their way, and everything said about them is known."""
    job_watch.wait(lambda: job_watch.unfinished(TENANT) == count, 30, f"{count} unfinished Jobs")
    job_watch.sync()


@pytest.mark.parametrize("lookahead", [0, 16])
def test_twenty_tasks_at_once_all_succeed_and_only_what_fits_exists(
    *,
    start_worker: StartWorker,
    client: Celery,
    broker: redis.Redis,
    job_watch: JobWatch,
    tmp_path: Path,
    lookahead: int,
) -> None:
    gate = PodGate(tmp_path)
    settings = {"worker_lookahead": lookahead}
    template = quota_template(tmp_path, gate)
    worker = start_worker({"pods.train": template}, tenant=TENANT, settings=settings)
    job_watch.begin_peak(TENANT)
    results = [client.send_task("pods.train", queue=TENANT) for _ in range(TASKS)]
    wait_full(job_watch, FITS)
    rest = TASKS - FITS - lookahead  # what is not held back is in the queue
    job_watch.wait(lambda: broker.llen(TENANT) == max(0, rest), 15, f"{rest} in the queue")
    held = min(lookahead, TASKS - FITS)
    wait_for(lambda: broker.hlen("unacked") == held, what=f"{held} held back")
    gate.open()
    assert [result.get(timeout=120) for result in results] == ["done"] * TASKS
    job_watch.sync()
    assert job_watch.peak(TENANT) == FITS
    assert [len(job_watch.of_task(result.id)) for result in results] == [1] * TASKS
    assert worker.log_count("raised unexpected") == 0


def test_the_scarcest_resource_decides(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    template = quota_template(tmp_path, gate, cpu="600m")
    start_worker({"pods.train": template}, tenant=TENANT)
    job_watch.begin_peak(TENANT)
    results = [client.send_task("pods.train", queue=TENANT) for _ in range(5)]
    wait_full(job_watch, 1)
    gate.open()
    assert [result.get(timeout=60) for result in results] == ["done"] * 5
    job_watch.sync()
    assert job_watch.peak(TENANT) == 1


def test_what_others_use_is_left_to_them(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    container = {
        "name": "main",
        "image": "any:1",
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    cluster.client.request("POST", PODS, {"metadata": {"name": "notebook"}, "spec": spec})
    try:
        gate = PodGate(tmp_path)
        settings = {"kubernetes_quota_reserve": {"pods": 0}}
        template = quota_template(tmp_path, gate)
        start_worker({"pods.train": template}, tenant=TENANT, settings=settings)
        job_watch.begin_peak(TENANT)
        results = [client.send_task("pods.train", queue=TENANT) for _ in range(6)]
        wait_full(job_watch, FITS)
        gate.open()
        assert [result.get(timeout=60) for result in results] == ["done"] * 6
        job_watch.sync()
        assert job_watch.peak(TENANT) == FITS
    finally:
        cluster.client.request("DELETE", f"{PODS}/notebook?gracePeriodSeconds=0")


def test_two_replicas_exceed_what_fits_by_one_each_at_most(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    template = quota_template(tmp_path, gate)
    for _ in range(2):
        start_worker({"pods.train": template}, tenant=TENANT)
    job_watch.begin_peak(TENANT)
    results = [client.send_task("pods.train", queue=TENANT) for _ in range(TASKS)]
    gate.open()
    assert [result.get(timeout=120) for result in results] == ["done"] * TASKS
    job_watch.sync()
    assert job_watch.peak(TENANT) <= FITS + 2
    assert [len(job_watch.of_task(result.id)) for result in results] == [1] * TASKS
