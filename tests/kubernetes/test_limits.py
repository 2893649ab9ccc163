"""Limits of time, and what clients take back: tasks end when they must, and leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from publication_watch import PublicationWatch
from waiting import wait_for

TENANT = "tenant-admin"
PODS = f"/api/v1/namespaces/{TENANT}/pods"
QUOTAS = f"/api/v1/namespaces/{TENANT}/resourcequotas"
StartWorker = Callable[..., KubernetesWorker]


def send(client: Celery, task: str, *args: Any, **options: Any) -> AsyncResult:
    return client.send_task(task, args=args, queue=TENANT, **options)


def terminate(client: Celery, *results: AsyncResult) -> None:
    client.control.revoke([result.id for result in results], terminate=True, signal="SIGTERM")


def pods_of(cluster: Cluster, result: AsyncResult) -> list[dict[str, Any]]:
    selector = f"labelSelector=petiole.dev/task-id%3D{result.id}"
    items: list[dict[str, Any]] = cluster.client.request("GET", f"{PODS}?{selector}")["items"]
    return items


def wait_gone(
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    result: AsyncResult,
    reason: str = "terminated",
) -> None:
    """The task is REVOKED, and its Job, its pods and its entry in the outbox are gone."""
    with pytest.raises(TaskRevokedError, match=reason):
        result.get(timeout=40)
    for job in job_watch.of_task(result.id):
        job_watch.wait(lambda job=job: job.is_gone, what="the Job to be gone")
    wait_for(lambda: not pods_of(cluster, result), 30, "the pods to be gone")
    wait_for(lambda: not broker.exists(f"petiole:jobs:{TENANT}", "unacked"), 10, "no receipt")


def test_limits_of_message_and_row_are_kept_in_the_pod(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    template = write_template(tmp_path, "nap")
    by_row = {"job_template": template, "soft_time_limit": 1, "time_limit": 30}
    start_worker({"pods.nap": template, "pods.short_nap": by_row})
    soft = send(client, "pods.nap", 60, soft_time_limit=1)
    hard = send(client, "pods.nap", 60, time_limit=1)
    careful = send(client, "pods.nap", 60, "careful", soft_time_limit=1, time_limit=30)
    by_the_row = send(client, "pods.short_nap", 60)
    with pytest.raises(SoftTimeLimitExceeded):
        soft.get(timeout=40)
    with pytest.raises(TimeLimitExceeded) as caught:
        hard.get(timeout=40)
    assert caught.value.args == (1,)
    assert careful.get(timeout=40) == "tidied up after the soft limit"
    with pytest.raises(SoftTimeLimitExceeded):
        by_the_row.get(timeout=40)


def test_a_running_job_is_terminated_with_its_grace(
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    mark = tmp_path / "tidied"
    template = write_template(
        tmp_path, "nap", env={"TIDY": str(mark)}, pod={"terminationGracePeriodSeconds": 20}
    )
    row = {"job_template": template, "track_started": True}
    worker = start_worker({"pods.nap": row})
    result = send(client, "pods.nap", 600)
    begun = Path(f"{mark}.begun")
    wait_for(begun.exists, 30, "the body to begin")
    answer = client.control.revoke(
        result.id, terminate=True, signal="SIGTERM", reply=True, timeout=10, limit=1
    )
    assert answer == [{worker.node_name: {"ok": f"terminate: {result.id}"}}]
    wait_gone(cluster, job_watch, broker, result)
    assert mark.read_text() == "SIGTERM", "the body cleans up before it is killed"
    publications.sync()
    assert publications.results(result.id) == ["REVOKED"]
    assert len(job_watch.of_task(result.id)) == 1


def test_a_running_job_goes_on_when_it_is_revoked_without_terminate(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    script = f"{gate.script}; {report_script(report('done'))}"
    worker = start_worker({"pods.wait": write_template(tmp_path, "wait", script=script)})
    running = send(client, "pods.wait")
    job_watch.wait_job(running.id)
    later = send(client, "pods.wait", countdown=3600)
    worker.wait_log(r"\] received", count=2)
    client.control.revoke([running.id, later.id])
    with pytest.raises(TaskRevokedError, match="revoked"):
        later.get(timeout=10)
    gate.open()
    assert running.get(timeout=30) == "done"
    job_watch.sync()
    assert not job_watch.of_task(later.id)


def is_pending(pods: list[dict[str, Any]]) -> bool:
    """Return whether there is a pod that waits for its image, or for a node."""
    statuses = [pod["status"] for pod in pods]
    states = [each["state"] for status in statuses for each in status.get("containerStatuses", [])]
    conditions = [each for status in statuses for each in status.get("conditions", [])]
    reasons = {state.get("waiting", {}).get("reason") for state in states}
    reasons |= {each.get("reason") for each in conditions}
    return bool(reasons & {"ErrImagePull", "ImagePullBackOff", "SchedulingGated"})


@pytest.mark.parametrize(
    "parts",
    [
        {"container": {"image": "petiole.test/missing:1"}},
        {"pod": {"schedulingGates": [{"name": "petiole.test/held"}]}},
    ],
    ids=["image", "node"],
)
def test_jobs_that_are_pending_and_tasks_that_wait_for_quota_are_terminated(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    tmp_path: Path,
    parts: dict[str, Any],
) -> None:
    # One pod is there, and for another one room is kept.
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "2"}}}
    template = write_template(tmp_path, "stuck", script="sleep 600", **parts)
    worker = start_worker({"pods.stuck": template})
    pending = send(client, "pods.stuck")
    job_watch.wait_job(pending.id)
    wait_for(lambda: is_pending(pods_of(cluster, pending)), 30, "a pod that cannot run")
    cluster.client.request("POST", QUOTAS, quota)
    try:
        cluster.wait(f"{QUOTAS}/none", lambda found: bool(found and found["status"].get("used")))
        waiting = [send(client, "pods.stuck") for _ in range(4)]
        worker.wait_log(r"\] received", count=5)
        terminate(client, pending, *waiting)
        for result in waiting:
            wait_gone(cluster, job_watch, broker, result, "revoked|terminated")
        wait_gone(cluster, job_watch, broker, pending)
    finally:
        cluster.client.request("DELETE", f"{QUOTAS}/none")


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_a_job_that_the_worker_does_not_know_of_is_terminated_once(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    publications: PublicationWatch,
    make_proxy: Callable[[int], GateProxy],
    tmp_path: Path,
    lost: str,
) -> None:
    """The connection breaks while it makes the Job: there is one only when the request arrived."""
    tasks = {"pods.long": write_template(tmp_path, "long", script="sleep 600")}
    api = make_proxy(urlsplit(cluster.url).port or 0)
    worker = start_worker(tasks, api_port=api.port)
    gate = api.requests if lost == "request" else api.answers
    gate.close()
    result = send(client, "pods.long")
    if lost == "answer":
        job_watch.wait_job(result.id)
    gate.wait_held()
    worker.wait_log(r"\] received")
    terminate(client, result)
    worker.wait_log(f"Terminating {result.id}")
    api.drop()
    wait_gone(cluster, job_watch, broker, result, "revoked|terminated")
    publications.sync()
    job_watch.sync()
    assert publications.results(result.id) == ["REVOKED"]
    assert len(job_watch.of_task(result.id)) == (lost == "answer")


def test_a_task_without_a_job_is_revoked_while_the_api_is_away(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    make_proxy: Callable[[int], GateProxy],
    tmp_path: Path,
) -> None:
    api = make_proxy(urlsplit(cluster.url).port or 0)
    worker = start_worker({"pods.nap": write_template(tmp_path, "nap")}, api_port=api.port)
    api.close()
    worker.wait_log("Trying again in")
    result = send(client, "pods.nap", 1)
    worker.wait_log(r"\] received")
    terminate(client, result)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=10)
    wait_for(lambda: not broker.exists(f"petiole:jobs:{TENANT}", "unacked"), 10, "no receipt")
    job_watch.sync()
    assert not job_watch.of_task(result.id)


def test_a_message_that_comes_back_and_its_job_are_terminated_as_one(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    publications: PublicationWatch,
    make_proxy: Callable[[int], GateProxy],
    tmp_path: Path,
) -> None:
    """As when a worker dies between the Job and the acknowledgement, and then a client revokes."""
    tasks = {"pods.long": write_template(tmp_path, "long", script="sleep 600")}
    api = make_proxy(urlsplit(cluster.url).port or 0)
    worker = start_worker(tasks, api_port=api.port)
    api.answers.close()
    result = send(client, "pods.long")
    job_watch.wait_job(result.id)
    worker.kill()
    start_worker(tasks)
    terminate(client, result)
    wait_gone(cluster, job_watch, broker, result)
    publications.sync()
    assert publications.results(result.id) == ["REVOKED"]
    assert len(job_watch.of_task(result.id)) == 1


def test_a_job_is_terminated_although_the_api_was_away(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    broker: redis.Redis,
    publications: PublicationWatch,
    make_proxy: Callable[[int], GateProxy],
    tmp_path: Path,
) -> None:
    """Also by a worker that starts after the one that heard of it has been killed."""
    tasks = {"pods.long": write_template(tmp_path, "long", script="sleep 600")}
    api = make_proxy(urlsplit(cluster.url).port or 0)
    worker = start_worker(tasks, api_port=api.port)
    kept, lost = send(client, "pods.long"), send(client, "pods.long")
    for result in (kept, lost):
        job_watch.wait_job(result.id)
    wait_for(lambda: not broker.exists("unacked"), 10, "the Jobs to be the only receipts")
    api.requests.close()
    terminate(client, kept)
    worker.wait_log(f"Terminating {kept.id}")
    api.requests.wait_held()
    api.drop()
    wait_gone_but(cluster, job_watch, kept)
    api.requests.close()
    terminate(client, lost)
    worker.wait_log(f"Terminating {lost.id}")
    worker.kill()
    api.drop()
    start_worker(tasks)
    wait_gone(cluster, job_watch, broker, lost)
    publications.sync()
    for result in (kept, lost):
        assert publications.results(result.id) == ["REVOKED"]


def wait_gone_but(cluster: Cluster, job_watch: JobWatch, result: AsyncResult) -> None:
    """As wait_gone, while another task has its receipt."""
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=60)
    job = job_watch.wait_job(result.id)
    job_watch.wait(lambda: job.is_gone, what="the Job to be gone")
    wait_for(lambda: not pods_of(cluster, result), 30, "the pods to be gone")


def test_a_job_that_was_reported_and_not_deleted_is_deleted_by_the_next_worker(
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    """As when a worker dies after it has reported a terminated task."""
    tasks = {"pods.long": write_template(tmp_path, "long", script="sleep 600")}
    worker = start_worker(tasks)
    result = send(client, "pods.long")
    job = job_watch.wait_job(result.id)
    worker.stop()
    mark = {"metadata": {"annotations": {"petiole.dev/reported": "true"}}}
    path = f"/apis/batch/v1/namespaces/{TENANT}/jobs/{job.name}"
    cluster.client.request("PATCH", path, mark)
    start_worker(tasks)
    job_watch.wait(lambda: job.is_gone, what="the Job to be gone")
    wait_for(lambda: not pods_of(cluster, result), 30, "the pods to be gone")
