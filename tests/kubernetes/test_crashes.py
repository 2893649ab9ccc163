"""A worker is killed between two steps: one task still is one Job, one result, one publication.

Proxies before the API server and Redis stop the worker at the step that is meant; what they hold
back dies with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch, SeenJob
from kubernetes_worker import KubernetesWorker
from publication_watch import PublicationWatch
from redis_server import RedisServer
from waiting import wait_for

TENANT = "tenant-admin"
ELSEWHERE = "nothing-here"  # a queue for workers that are to take no message
TASK = "pods.work"
OUTBOX = f"petiole:jobs:{TENANT}"
JOBS = f"/apis/batch/v1/namespaces/{TENANT}/jobs"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{TENANT}/leases"


class Scene:
    """One Redis, one cluster, witnesses, and workers that may die."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        redis_server: RedisServer,
        broker: redis.Redis,
        client: Celery,
        job_watch: JobWatch,
        publications: PublicationWatch,
        start: Callable[..., KubernetesWorker],
        folder: Path,
    ) -> None:
        """Put the proxies up; no worker runs yet."""
        self.cluster = cluster
        self.broker = broker
        self.client = client
        self.jobs = job_watch
        self.publications = publications
        self.api = GateProxy(urlsplit(cluster.url).port or 0)
        self.redis = GateProxy(redis_server.port)
        self.pods = PodGate(folder)
        self._start = start
        done = report_script(report("done"))
        self.template = write_template(folder, "work", script=f"{self.pods.script}; {done}")
        self.tasks: dict[str, Any] = {TASK: self.template}

    def start(self, **options: Any) -> KubernetesWorker:
        """Start a worker with nothing between it and its servers."""
        return self._start(self.tasks, **options)

    def start_behind_proxies(self) -> KubernetesWorker:
        """Start a worker that the proxies can stop."""
        return self.start(api_port=self.api.port, redis_port=self.redis.port)

    def send(self) -> AsyncResult:
        """Send a task, whose pod waits until `pods` is opened."""
        return self.client.send_task(TASK, queue=TENANT)

    def kill(self, worker: KubernetesWorker) -> None:
        """Kill the worker and lose everything that the proxies hold, and its Lease."""
        worker.kill()
        self.api.drop()
        self.redis.drop()
        # As if its fifteen seconds were over: one test waits for that.
        for lease in self.cluster.client.request("GET", LEASES)["items"]:
            self.cluster.client.request("DELETE", f"{LEASES}/{lease['metadata']['name']}")

    def wait_popped(self) -> None:
        """Wait until a message is held by a worker."""
        wait_for(lambda: self.broker.hlen("unacked"), 15, "a message in unacked")

    def wait_acknowledged(self, count: int = 1) -> None:
        """Wait until the Jobs of `count` tasks are their only receipts."""
        wait_for(lambda: self.broker.hlen(OUTBOX) == count, 15, "the outbox")
        assert self.broker.hlen("unacked") == 0

    def wait_settled(self) -> None:
        """Wait until no message is anywhere, neither in its queue nor held, and no Job is open."""

        def is_settled() -> bool:
            keys = (TENANT, "unacked", "unacked_index", OUTBOX)
            return not any(self.broker.exists(key) for key in keys)

        wait_for(is_settled, 30, lambda: f"an empty broker: {self.broker.keys()}")

    def assert_once(self, *results: AsyncResult) -> None:
        """Wait for the end; each task has had one Job, one result and one publication."""
        for result in results:
            assert result.get(timeout=60) == "done"
        self.wait_settled()
        self.wait_reported(*results)
        self.jobs.sync()
        self.publications.sync()
        job_counts = {result.id: len(self.jobs.of_task(result.id)) for result in results}
        assert job_counts == {result.id: 1 for result in results}
        states = {result.id: self.publications.results(result.id) for result in results}
        assert states == {result.id: ["SUCCESS"] for result in results}

    def wait_reported(self, *results: AsyncResult) -> None:
        """Wait until a worker has taken leave of every Job of the tasks."""
        ids = {result.id for result in results}

        def are_reported() -> bool:
            jobs = [job for job in self.jobs.all() if job.task_id in ids]
            return all(job.is_reported for job in jobs)

        self.jobs.wait(are_reported, 60, "the farewell of all Jobs")


@pytest.fixture
def scene(
    *,
    cluster: Cluster,
    redis_server: RedisServer,
    broker: redis.Redis,
    client: Celery,
    job_watch: JobWatch,
    publications: PublicationWatch,
    start_worker: Callable[..., KubernetesWorker],
    tmp_path: Path,
) -> Iterator[Scene]:
    """Return a scene without workers."""
    made = Scene(
        cluster=cluster,
        redis_server=redis_server,
        broker=broker,
        client=client,
        job_watch=job_watch,
        publications=publications,
        start=start_worker,
        folder=tmp_path,
    )
    yield made
    made.pods.open()
    made.api.close()
    made.redis.close()


def test_killed_before_the_post_of_the_job(scene: Scene) -> None:
    worker = scene.start_behind_proxies()
    scene.api.requests.close()
    result = scene.send()
    scene.wait_popped()
    scene.api.requests.wait_held()
    scene.kill(worker)
    scene.jobs.sync()
    assert not scene.jobs.of_task(result.id)
    scene.pods.open()
    scene.start()
    scene.assert_once(result)


@pytest.mark.parametrize("is_gated", [True, False], ids=["while it runs", "when it has ended"])
def test_killed_between_the_post_and_its_answer(scene: Scene, is_gated: bool) -> None:
    worker = scene.start_behind_proxies()
    scene.api.answers.close()
    result = scene.send()
    scene.jobs.wait_job(result.id)
    assert scene.broker.hlen("unacked") == 1
    scene.kill(worker)
    if not is_gated:
        scene.pods.open()
        scene.jobs.wait_finished(result.id)
    scene.start()
    scene.pods.open()
    scene.assert_once(result)


def test_killed_between_the_answer_and_the_acknowledgement(scene: Scene) -> None:
    worker = scene.start_behind_proxies()
    scene.api.answers.close()
    result = scene.send()
    scene.jobs.wait_job(result.id)
    scene.redis.requests.close()
    scene.api.answers.open()
    scene.redis.requests.wait_held()
    scene.kill(worker)
    assert (scene.broker.hlen("unacked"), scene.broker.hlen(OUTBOX)) == (1, 0)
    scene.start()
    scene.pods.open()
    scene.assert_once(result)


def test_killed_between_completion_and_result(scene: Scene) -> None:
    worker = scene.start_behind_proxies()
    result = scene.send()
    scene.wait_acknowledged()
    scene.redis.requests.close()
    scene.pods.open()
    worker.wait_log(r"succeeded in", timeout_s=30)
    scene.kill(worker)
    assert result.state == "PENDING"
    scene.start()
    scene.assert_once(result)


@pytest.mark.parametrize("step", ["its answer", "the patch of the TTL"])
def test_killed_between_the_result_and(scene: Scene, step: str) -> None:
    worker = scene.start_behind_proxies()
    result = scene.send()
    scene.wait_acknowledged()
    scene.redis.answers.close()
    scene.pods.open()
    worker.wait_log(r"succeeded in", timeout_s=30)
    # Everything that is still to be asked of the API server comes after the result.
    scene.api.requests.close()
    scene.redis.answers.open()
    wait_for(lambda: scene.publications.results(result.id), 15, "the publication")
    if step == "its answer":
        scene.redis.answers.close()
    else:
        wait_for(lambda: not scene.broker.exists(OUTBOX), 15, "the end of the outbox entry")
        scene.api.requests.wait_held()
    scene.kill(worker)
    scene.jobs.sync()
    (job,) = scene.jobs.of_task(result.id)
    assert not job.is_reported
    assert job.object["spec"]["ttlSecondsAfterFinished"] == 86400
    scene.start()
    scene.assert_once(result)
    scene.jobs.wait(lambda: job.is_gone, what="the end of the TTL")


def test_killed_between_a_retry_and_its_settling(scene: Scene, tmp_path: Path) -> None:
    again = report_script(report(None, state="RETRY", exception=None, countdown=0))
    done = report_script(report("done"))
    script = f"{scene.pods.script}; if test $RETRIES = 0; then {again}; else {done}; fi"
    template = write_template(tmp_path, "again", script=script, env={"RETRIES": "${retries:int}"})
    scene.tasks = {TASK: template}
    worker = scene.start_behind_proxies()
    result = scene.send()
    scene.wait_acknowledged()
    scene.redis.answers.close()
    scene.pods.open()
    worker.wait_log(r"retry: Retry in 0s", timeout_s=30)
    wait_for(lambda: scene.broker.llen(TENANT) + scene.broker.hlen("unacked"), 15, "the retry")
    scene.kill(worker)
    scene.start()
    assert result.get(timeout=60) == "done"
    scene.jobs.wait(lambda: scene.jobs.of_task(result.id)[-1].is_gone)
    # The first stays: nobody alive has seen its message settled, so a copy may come to it.
    (first, _) = scene.jobs.of_task(result.id)
    assert first.is_reported
    assert first.object["spec"]["ttlSecondsAfterFinished"] == 86400
    scene.wait_settled()
    scene.publications.sync()
    names = [job.name for job in scene.jobs.of_task(result.id)]
    assert names == [f"work-{result.id}-0", f"work-{result.id}-1"]
    assert scene.publications.results(result.id) == ["SUCCESS"]


def restore(client: Celery) -> None:
    """Bring all messages that are held back into their queues, as a Celery worker does."""
    with client.connection_for_read() as connection:
        channel = connection.default_channel
        channel.visibility_timeout = 0
        channel.qos.restore_visible()


def kill_with_a_job_nobody_acknowledged(scene: Scene, *, is_restored: bool) -> AsyncResult:
    """Return a task whose Job has ended while its message is still held, by a dead worker."""
    options = {"broker_transport_options": {"visibility_timeout": 60}}
    worker = scene.start(api_port=scene.api.port, redis_port=scene.redis.port, settings=options)
    scene.api.answers.close()
    result = scene.send()
    scene.jobs.wait_job(result.id)
    scene.kill(worker)
    scene.pods.open()
    scene.jobs.wait_finished(result.id)
    if is_restored:
        restore(scene.client)
    # The next worker takes no message, but Jobs that are nobody's.
    reporter = scene.start(queues=[ELSEWHERE], settings=options)
    (job,) = scene.jobs.of_task(result.id)
    scene.jobs.wait(lambda: job.is_gone, what="the Job to be gone")
    reporter.stop()
    return result


def test_a_message_restored_after_its_job_is_gone_makes_no_second_one(scene: Scene) -> None:
    result = kill_with_a_job_nobody_acknowledged(scene, is_restored=True)
    assert scene.broker.llen(TENANT) == 1, "the message was restored"
    scene.start()
    scene.assert_once(result)


def test_whoever_reports_a_job_settles_its_delivery(scene: Scene) -> None:
    result = kill_with_a_job_nobody_acknowledged(scene, is_restored=False)
    assert not scene.broker.exists("unacked", "unacked_index", TENANT)
    scene.start()
    scene.assert_once(result)


def test_killed_at_any_moment(scene: Scene) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    scene.pods.open()
    results = [scene.send() for _ in range(24)]
    for _ in range(6):
        worker = scene.start(settings={"kubernetes_max_jobs": 6})
        time.sleep(moments.uniform(0.05, 1.2))  # the moment is the point
        scene.kill(worker)
    scene.start()
    scene.assert_once(*results)


def test_of_two_replicas_only_the_owner_reports(scene: Scene, tmp_path: Path) -> None:
    # A failure is stored as often as it is reported: there is no SUCCESS that would stay.
    scene.tasks = {TASK: write_template(tmp_path, "fail", script="exit 3")}
    for _ in range(2):
        scene.start(settings={"kubernetes_max_jobs": 6})
    results = [scene.send() for _ in range(16)]
    wait_for(lambda: {each.id for each in results} <= scene.publications.tasks(), 60, "the ends")
    scene.wait_settled()
    scene.wait_reported(*results)
    scene.publications.sync()
    assert len(owners_of(scene, results)) == 2
    assert [scene.publications.results(each.id) for each in results] == [["FAILURE"]] * 16


def test_one_of_two_replicas_is_killed_with_fifty_jobs_on_their_way(scene: Scene) -> None:
    replicas = [scene.start(settings={"kubernetes_max_jobs": 30}) for _ in range(2)]
    results = [scene.send() for _ in range(50)]

    def are_on_their_way() -> bool:
        return len(jobs_of(scene, results)) >= 25 and len(owners_of(scene, results)) == 2

    scene.jobs.wait(are_on_their_way, 60, "half of the Jobs, of both")
    replicas[0].kill()
    scene.pods.open()
    began = time.monotonic()
    scene.assert_once(*results)
    assert time.monotonic() - began > 5, "the Lease of the dead was waited for"
    assert len(owners_of(scene, results)) == 1


def jobs_of(scene: Scene, results: list[AsyncResult]) -> list[SeenJob]:
    """Return every Job that there has been for these tasks."""
    ids = {result.id for result in results}
    return [job for job in scene.jobs.all() if job.task_id in ids]


def owners_of(scene: Scene, results: list[AsyncResult]) -> set[str]:
    """Return the workers that these tasks' Jobs belonged to at last."""
    return {job.labels["petiole.dev/owner"] for job in jobs_of(scene, results)}
