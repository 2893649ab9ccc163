"""Who waits for a quota and who does not: what never fits, who goes first, what becomes free."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch, SeenJob
from kubernetes_worker import KubernetesWorker
from petiole import exceptions
from waiting import wait_for

TENANT = "tenant-user"
MANY = 200
FITS = 3  # pods of the quota; these workers keep none of them free
LOOKAHEAD = 16
PODS = f"/api/v1/namespaces/{TENANT}/pods"
EVENTS = f"/api/v1/namespaces/{TENANT}/events"
RANGES = f"/api/v1/namespaces/{TENANT}/limitranges"
QUOTA = f"/api/v1/namespaces/{TENANT}/resourcequotas/user-quota"
ALL_FREE = {"kubernetes_quota_reserve": {"pods": 0}}
DONE = report_script(report("done"))
StartWorker = Callable[..., KubernetesWorker]
Occupy = Callable[[str], None]


@pytest.fixture(autouse=True)
def empty_namespace(cluster: Cluster) -> Iterator[None]:
    """Begin when the quota counts no pod."""
    wait_used(cluster, 0)
    yield


@pytest.fixture
def occupy(cluster: Cluster) -> Iterator[Occupy]:
    """Return a function that takes a place of the quota by a pod that no worker made."""
    names: list[str] = []

    def take(name: str) -> None:
        resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
        container = {
            "name": "main",
            "image": "any:1",
            "command": ["sleep", "600"],
            "resources": resources,
        }
        spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
        cluster.client.request("POST", PODS, {"metadata": {"name": name}, "spec": spec})
        names.append(name)

    yield take
    for name in names:
        cluster.client.raw("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")


def wait_used(cluster: Cluster, pods: int) -> None:
    """Wait until the quota's status counts so many pods."""

    def is_so(quota: dict[str, Any] | None) -> bool:
        return bool(quota) and quota["status"]["used"]["pods"] == str(pods)

    cluster.wait(QUOTA, is_so)


def template(folder: Path, name: str, script: str = DONE, *, cpu: str = "50m") -> str:
    requests = {"cpu": cpu, "memory": "16Mi"}
    return write_template(folder, name, script=script, requests=requests)


def active(job: SeenJob) -> bool:
    """Return whether the Job controller counts a pod of it."""
    return bool(job.object.get("status", {}).get("active"))


def test_what_never_fits_fails_at_once_and_says_why(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    silent = write_template(
        tmp_path, "silent", script=DONE, container={"resources": {"limits": {"cpu": "1"}}}
    )
    tasks = {
        "pods.hold": template(tmp_path, "hold", f"{gate.script}; {DONE}"),
        "pods.huge": template(tmp_path, "huge", cpu="1100m"),
        "pods.silent": silent,
    }
    start_worker(tasks, tenant=TENANT, settings=ALL_FREE)
    held = [client.send_task("pods.hold", queue=TENANT) for _ in range(FITS + 1)]
    job_watch.wait(lambda: job_watch.unfinished(TENANT) == FITS, what="a full quota")
    huge = client.send_task("pods.huge", queue=TENANT)
    with pytest.raises(exceptions.QuotaExceeded) as too_large:
        huge.get(timeout=10)
    assert re.fullmatch(
        r"the Job is larger than the whole quota: its pod needs 1100m of requests\.cpu; "
        r"quota user-quota allows 1, of which \d+m? is in use",
        too_large.value.args[0],
    )
    with pytest.raises(exceptions.AdmissionDenied) as missing:
        client.send_task("pods.silent", queue=TENANT).get(timeout=10)
    sentence = missing.value.args[0]
    assert "quota user-quota: must specify requests.memory for: main;" in sentence
    assert "LimitRange" in sentence
    assert job_watch.of_task(huge.id) == []
    gate.open()
    assert [result.get(timeout=60) for result in held] == ["done"] * len(held)


def test_a_limit_range_says_what_a_template_does_not(
    start_worker: StartWorker, client: Celery, cluster: Cluster, tmp_path: Path
) -> None:
    silent = write_template(tmp_path, "silent", script=DONE, container={"resources": {}})
    start_worker({"pods.silent": silent}, tenant=TENANT, settings=ALL_FREE)
    with pytest.raises(exceptions.AdmissionDenied):
        client.send_task("pods.silent", queue=TENANT).get(timeout=10)
    defaults = {"type": "Container", "defaultRequest": {"cpu": "50m", "memory": "16Mi"}}
    limit_range = {"metadata": {"name": "defaults"}, "spec": {"limits": [defaults]}}
    cluster.client.request("POST", RANGES, limit_range)
    try:

        def runs() -> bool:
            with contextlib.suppress(exceptions.AdmissionDenied):
                return bool(client.send_task("pods.silent", queue=TENANT).get(timeout=20) == "done")
            return False

        wait_for(runs, 20, "a Job with the defaults of the LimitRange")
    finally:
        cluster.client.request("DELETE", f"{RANGES}/defaults")


def test_waiting_is_visible_and_ends_with_the_task_or_the_setting(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    occupy: Occupy,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    for index in range(FITS):
        occupy(f"notebook-{index}")
    wait_used(cluster, FITS)
    settings = {**ALL_FREE, "task_track_started": True, "kubernetes_quota_timeout": 10}
    worker = start_worker(
        {"pods.train": template(tmp_path, "train")}, tenant=TENANT, settings=settings
    )
    tired = client.send_task("pods.train", queue=TENANT)
    wait_for(lambda: tired.state == "WAITING_QUOTA", what="the state WAITING_QUOTA")
    assert "pods; quota user-quota allows 3, of which 3 is in use" in tired.info["reason"]
    assert worker.metric("petiole_jobs_waiting_quota", tenant=TENANT) == 1
    short = client.send_task("pods.train", queue=TENANT, expires=1)
    with pytest.raises(TaskRevokedError):
        short.get(timeout=10)
    with pytest.raises(exceptions.QuotaExceeded, match="after 10 seconds the quota has no room"):
        tired.get(timeout=30)
    assert worker.metric("petiole_jobs_waiting_quota", tenant=TENANT) == 0
    assert job_watch.of_task(tired.id) == job_watch.of_task(short.id) == []


def test_a_place_that_becomes_free_is_taken_at_once(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    occupy: Occupy,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    for index in range(FITS):
        occupy(f"notebook-{index}")
    wait_used(cluster, FITS)
    start_worker({"pods.train": template(tmp_path, "train")}, tenant=TENANT, settings=ALL_FREE)
    result = client.send_task("pods.train", queue=TENANT)
    cluster.client.request("DELETE", f"{PODS}/notebook-0?gracePeriodSeconds=0")
    wait_used(cluster, FITS - 1)
    # Nothing but the news of the quota begins it: without them it would wait for good.
    job_watch.wait(lambda: any(map(active, job_watch.of_task(result.id))), 10, "its pod")
    assert result.get(timeout=30) == "done"


def test_a_job_whose_pod_was_refused_does_not_wait_for_the_controllers_back_off(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    occupy: Occupy,
    job_watch: JobWatch,
    make_proxy: Callable[[int], GateProxy],
    tmp_path: Path,
) -> None:
    """Somebody takes the last place unseen by the worker, just before it makes its Job."""
    gate = PodGate(tmp_path)
    api = make_proxy(urlsplit(cluster.url).port or 0)
    start_worker(
        {"pods.train": template(tmp_path, "train", f"{gate.script}; {DONE}")},
        tenant=TENANT,
        settings=ALL_FREE,
        api_port=api.port,
    )
    api.answers.close()
    for index in range(FITS):
        occupy(f"notebook-{index}")
    wait_used(cluster, FITS)
    result = client.send_task("pods.train", queue=TENANT)
    job = job_watch.wait_job(result.id)
    api.answers.open()

    def ttl_s() -> int:
        return int(job.object["spec"]["ttlSecondsAfterFinished"])

    def is_refused_often() -> bool:
        events = cluster.client.request("GET", f"{EVENTS}?fieldSelector=reason%3DFailedCreate")
        mine = [each for each in events["items"] if each["involvedObject"]["name"] == job.name]
        # After the third time the Job controller waits for 4 s.
        return sum(each.get("count", 1) for each in mine) >= 3

    wait_for(is_refused_often, 20, "three refusals of the pod")
    assert not active(job)
    ttl_before_s = ttl_s()
    cluster.client.request("DELETE", f"{PODS}/notebook-0?gracePeriodSeconds=0")
    wait_used(cluster, FITS - 1)
    free_s = time.monotonic()
    job_watch.wait(lambda: active(job), what="its pod")
    # The worker changes the TTL to have the Job looked at, unless the controller was about to.
    assert ttl_s() > ttl_before_s or time.monotonic() - free_s < 1
    gate.open()
    assert result.get(timeout=30) == "done"
    assert len(job_watch.of_task(result.id)) == 1


def test_small_tasks_pass_a_large_one_but_not_for_ever(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    tasks = {
        "pods.hold": template(tmp_path, "hold", f"{gate.script}; {DONE}"),
        "pods.small": template(tmp_path, "small"),
        "pods.large": template(tmp_path, "large", cpu="960m"),
    }
    start_worker(tasks, tenant=TENANT, settings={**ALL_FREE, "worker_lookahead": LOOKAHEAD})
    held = client.send_task("pods.hold", queue=TENANT)
    job_watch.wait(lambda: any(map(active, job_watch.of_task(held.id))), what="the first pod")
    large = client.send_task("pods.large", queue=TENANT)
    small = [client.send_task("pods.small", queue=TENANT) for _ in range(LOOKAHEAD + 4)]
    assert [each.get(timeout=60) for each in small[:LOOKAHEAD]] == ["done"] * LOOKAHEAD
    job_watch.sync()
    # Nothing more begins: what is free is kept for the large one.
    assert [len(job_watch.of_task(each.id)) for each in small] == [1] * LOOKAHEAD + [0] * 4
    assert job_watch.of_task(large.id) == []
    gate.open()
    everything = [held, large, *small]
    assert [each.get(timeout=60) for each in everything] == ["done"] * len(everything)
    order = [job.task_id for job in job_watch.all(TENANT)]
    assert order.index(large.id) < min(order.index(each.id) for each in small[LOOKAHEAD:])


def requests_of(cluster: Cluster, verb: str, resource: str) -> int:
    """Return how many requests the API server has counted."""
    _, text = cluster.client.raw("GET", "/metrics")
    head = "apiserver_request_total{"
    rows = [row for row in text.splitlines() if row.startswith(head)]
    wanted = (f'resource="{resource}"', f'verb="{verb}"', 'subresource=""')
    return sum(
        int(float(row.rsplit(" ", 1)[1])) for row in rows if all(word in row for word in wanted)
    )


def test_two_hundred_tasks_under_a_quota_of_three(
    *,
    start_worker: StartWorker,
    client: Celery,
    broker: redis.Redis,
    cluster: Cluster,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    gate = PodGate(tmp_path)
    train = template(tmp_path, "train", f"{gate.script}; {DONE}")
    settings = {**ALL_FREE, "worker_lookahead": LOOKAHEAD}
    worker = start_worker({"pods.train": train}, tenant=TENANT, settings=settings)
    job_watch.begin_peak(TENANT)
    before = {verb: requests_of(cluster, verb, "jobs") for verb in ("POST", "PATCH")}
    results = [client.send_task("pods.train", queue=TENANT) for _ in range(MANY)]
    job_watch.wait(lambda: job_watch.unfinished(TENANT) == FITS, what="as many Jobs as fit")
    wait_for(lambda: broker.llen(TENANT) == MANY - FITS - LOOKAHEAD, what="the rest in the queue")
    wait_for(
        lambda: worker.metric("petiole_jobs_waiting_quota", tenant=TENANT) == LOOKAHEAD,
        what="the look-ahead to wait",
    )
    assert requests_of(cluster, "POST", "jobs") - before["POST"] == FITS
    assert requests_of(cluster, "PATCH", "jobs") == before["PATCH"]
    gate.open()
    assert [result.get(timeout=150) for result in results] == ["done"] * MANY
    posts = requests_of(cluster, "POST", "jobs") - before["POST"]
    patches = requests_of(cluster, "PATCH", "jobs") - before["PATCH"]
    job_watch.sync()
    assert job_watch.peak(TENANT) <= FITS + 1
    assert [len(job_watch.of_task(result.id)) for result in results] == [1] * MANY
    # A Job is made once, marked once, and at most hastened once.
    assert posts == MANY
    assert patches <= 2 * MANY


def test_finished_jobs_make_room_for_others_where_their_number_is_limited(
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    """A Job that is reported is kept for whoever looks, but no longer than there is room."""
    quota = {"metadata": {"name": "jobs"}, "spec": {"hard": {"count/jobs.batch": "2"}}}
    quotas = f"/api/v1/namespaces/{TENANT}/resourcequotas"
    cluster.client.request("POST", quotas, quota)
    try:
        cluster.wait(f"{quotas}/jobs", lambda found: bool(found and found["status"].get("used")))
        settings = {**ALL_FREE, "kubernetes_result_ttl": 600}
        start_worker({"pods.train": template(tmp_path, "train")}, tenant=TENANT, settings=settings)
        results = [client.send_task("pods.train", queue=TENANT) for _ in range(7)]
        assert [result.get(timeout=40) for result in results] == ["done"] * 7
        job_watch.sync()
        assert [len(job_watch.of_task(result.id)) for result in results] == [1] * 7
    finally:
        cluster.client.request("DELETE", f"{quotas}/jobs")
