"""Hundreds of Jobs in flight in one worker: what they cost it, and how a restart finds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from celery import Celery
from cluster import Cluster
from job_template import write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker

TENANT = "tenant-admin"
TASKS = 500
# Of one Job; the rest of what a worker needs once, as buffers and a connection, comes on top.
JOB_BYTES = 1024
ONCE_BYTES = 8 * 1024 * 1024
ADOPTION_S = 90.0
StartWorker = Callable[..., KubernetesWorker]


def pss_bytes(worker: KubernetesWorker) -> int:
    for line in Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def test_five_hundred_jobs_cost_little_and_a_restart_adopts_them_all(
    *,
    start_worker: StartWorker,
    cluster: Cluster,
    client: Celery,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    # A gated pod is nobody's to run: its Job stays in flight.
    gates = [{"name": "petiole.test/held"}]
    template = write_template(tmp_path, "held", script="true", pod={"schedulingGates": gates})
    jobs = f"/apis/batch/v1/namespaces/{TENANT}/jobs?labelSelector=petiole.dev%2Fowner"

    def owners() -> dict[str, str]:
        found = cluster.client.request("GET", jobs)["items"]
        metas = [job["metadata"] for job in found]
        return {meta["name"]: meta["labels"]["petiole.dev/owner"] for meta in metas}

    first = start_worker({"pods.held": template}, tenant=TENANT)
    before = pss_bytes(first)
    for _ in range(TASKS):
        client.send_task("pods.held", queue=TENANT)
    job_watch.wait(lambda: job_watch.unfinished(TENANT) == TASKS, 120, f"{TASKS} Jobs")
    assert pss_bytes(first) - before < ONCE_BYTES + TASKS * JOB_BYTES
    was = owners()
    assert len(set(was.values())) == 1
    first.stop()
    start_worker({"pods.held": template}, tenant=TENANT)
    old = next(iter(was.values()))

    def are_adopted() -> bool:
        there = [job for job in job_watch.all(TENANT) if job.name in was and not job.is_gone]
        return all(job.labels["petiole.dev/owner"] != old for job in there)

    job_watch.wait(are_adopted, ADOPTION_S, "all adopted")
    now = owners()
    assert now.keys() == was.keys()
    assert len(set(now.values())) == 1
