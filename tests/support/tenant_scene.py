"""A tenant's worker on a Redis of its own, somebody who lies to it, and witnesses of what it does.

Everybody who can write to Redis can forge a message. What a real client would never send is made
of what it does send: see `TenantScene.forge`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from celery.result import AsyncResult
from celery_client import client_app
from cluster import Cluster
from envelopes import Envelope, copies, push, template
from job_template import report, report_script, write_template
from job_watch import JobWatch, SeenJob
from kubernetes_worker import KubernetesWorker
from petiole.exceptions import PetioleError
from publication_watch import PublicationWatch
from redis_server import RedisServer
from waiting import wait_for

Json = dict[str, Any]
TENANT = "tenant-admin"  # whose worker runs
OTHER = "tenant-user"  # whose namespace, rights and queue it must leave alone
SHARED = "shared"  # a queue that is no tenant's
HEADER = "petiole_tenant"
TASK = "pods.work"
RETRIED = "pods.retried"  # is to be retried whenever it fails
SECOND_TRY = "pods.second_try"  # asks to be retried, once
CONTAINER = "/spec/template/spec/containers/0"
MEMORY = f"{CONTAINER}/resources/requests/memory"  # the one field that a message may override


def config_of(tenant: Any) -> Json:
    """Return keyword arguments that name the tenant where by_tenant and the worker look."""
    return {"config": {"metadata": {"namespace": tenant}}}


def operator_template(folder: Path, name: str, script: str) -> str:
    """Write a Job template that lets a message into every kind of field that one may reach."""
    path = write_template(
        folder,
        name,
        script=script,
        env={"NAME": "${kwargs.name=nobody}"},
        requests={"cpu": "10m", "memory": "${kwargs.memory:quantity=16Mi}"},
        container={
            "image": "test:${kwargs.tag=1}",
            "volumeMounts": [
                {"name": "scratch", "mountPath": "/scratch", "subPath": "${kwargs.folder=plain}"}
            ],
            "securityContext": {"allowPrivilegeEscalation": False},
        },
        pod={
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "activeDeadlineSeconds": "${kwargs.limit:int=600}",
        },
    )
    whole = json.loads(Path(path).read_text())
    whole["metadata"] = {"labels": {"run": "${kwargs.run=first}"}}
    Path(path).write_text(json.dumps(whole, indent=1))
    return path


def task_rows(folder: Path) -> dict[str, Json]:
    """Return the tasks of the scene's worker."""
    done = report_script(report("done"))
    again = report_script(report(None, state="RETRY", exception=None, countdown=0))
    once_more = f"if test $TRY = 0; then {again}; else {done}; fi"
    work = {"job_template": operator_template(folder, "work", done), "override": [MEMORY]}
    second = write_template(folder, "second", script=once_more, env={"TRY": "${retries:int}"})
    return {
        TASK: work,
        RETRIED: {**work, "autoretry_for": ["TenantMismatch", "Exception"], "max_retries": 3},
        SECOND_TRY: {"job_template": second},
    }


class TenantScene:
    """One worker, which also consumes a queue of nobody's and, by mistake, the other tenant's."""

    def __init__(self, cluster: Cluster, job_watch: JobWatch, folder: Path) -> None:
        """Start everything; `job_watch` is borrowed until `close`."""
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            server = RedisServer(folder / "redis")
            stack.callback(server.stop)
            self.broker: redis.Redis = stack.enter_context(contextlib.closing(server.client(0)))
            self.client = stack.enter_context(client_app(server))
            self.client.conf.task_routes = ("petiole.routing.by_tenant",)
            self.forger = stack.enter_context(client_app(server))
            self._good: list[AsyncResult] = []
            self.jobs = job_watch
            self.publications = PublicationWatch(self.broker)
            stack.callback(self.publications.stop)
            queues = (TENANT, SHARED, OTHER)
            self.worker = KubernetesWorker(
                cluster, server, folder, task_rows(folder), tenant=TENANT, queues=queues
            )
            stack.callback(self.worker.stop)
            self.worker.wait_ready()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End everything; the worker must end well.

        Raises:
            AssertionError: its exit code is not 0.
        """
        self.worker.stop()
        code = self.worker.process.returncode
        self._stack.close()
        assert code == 0, f"exit code {code}:\n{self.worker.log()}"

    def send(self, task: str = TASK, **options: Any) -> AsyncResult:
        """Send a task as an honest client does, whose router finds the queue."""
        return self.client.send_task(task, **{"kwargs": config_of(TENANT), **options})

    def forge(
        self,
        *,
        task: str = TASK,
        queue: str = TENANT,
        body: str = "",
        change: Callable[[Envelope], None] | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Push a message that no router has seen; return the result that its sender would ask.

        It is what Celery makes of `options`, then with `body`, if any, instead of its own, and
        then as `change` leaves it.
        """
        envelope = template(self.broker, self.forger, queue, task, **options)
        if body:
            envelope["body"] = base64.b64encode(body.encode()).decode()
        task_id = envelope["headers"]["id"]
        if change:
            change(envelope)
            task_id = envelope["headers"].get("id", task_id)
        push(self.broker, queue, [json.dumps(envelope).encode()])
        return AsyncResult(task_id, app=self.forger)

    def forge_many(self, count: int, **options: Any) -> list[AsyncResult]:
        """Push `count` such messages to the tenant's queue at once; return what each becomes."""
        envelope = template(self.broker, self.forger, TENANT, TASK, **options)
        ids = [str(uuid.uuid4()) for _ in range(count)]
        push(self.broker, TENANT, copies(envelope, ids))
        return [AsyncResult(task_id, app=self.forger) for task_id in ids]

    def counted(self, category: str) -> dict[str, float]:
        """Return what has been counted so far: Jobs, mismatches and failures of a category."""
        metric = self.worker.metric
        return {
            "mismatches": metric("petiole_tenant_mismatches_total", tenant=TENANT),
            "job failures": metric("petiole_job_failures_total", tenant=TENANT, category=category),
            "failed tasks": metric("celery_task_failed_total", exception=category),
            "created Jobs": self.created_jobs(),
            "seen Jobs": len(self.jobs.all()),
        }

    def created_jobs(self) -> float:
        """Return how many Jobs the worker says that it has made."""
        return self.worker.metric("petiole_jobs_created_total", tenant=TENANT)

    def wait_settled(self) -> None:
        """Wait until no message is in any queue or held by the worker."""
        keys = (TENANT, SHARED, OTHER, "unacked", "unacked_index")
        what = lambda: f"an empty broker: {self.broker.keys()}"  # noqa: E731
        wait_for(lambda: not self.broker.exists(*keys), 15, what)

    def assert_refused(
        self, category: type[PetioleError], words: tuple[str, ...], **forged: Any
    ) -> None:
        """Forge a message: it fails as `category` with `words`, is counted, and gets no Job.

        Afterwards the worker does what it is there for.
        """
        before = self.counted(category.__name__)
        result = self.forge(**forged)
        error = _error_of(result)
        assert type(error) is category, repr(error)
        assert error.category == category.__name__
        for word in words:
            assert word in str(error), (word, str(error))
        self.jobs.sync()
        self.wait_settled()
        self.publications.sync()
        assert self.jobs.of_task(result.id) == []
        assert self.publications.results(result.id) == ["FAILURE"]
        is_mismatch = category.__name__ == "TenantMismatch"
        more = {"mismatches": int(is_mismatch), "job failures": 1, "failed tasks": 1}
        expected = {key: count + more.get(key, 0) for key, count in before.items()}
        assert self.counted(category.__name__) == expected
        self.assert_works()

    def assert_works(self) -> SeenJob:
        """Send a task as an honest client does; see `assert_taken`."""
        return self._assert_one_job(self.send)

    def assert_taken(self, **forged: Any) -> SeenJob:
        """Forge a message that is no lie, and return its Job, which is where it belongs.

        That it succeeds is for `assert_all_done`: a Job takes its second.
        """
        return self._assert_one_job(lambda: self.forge(**forged))

    def _assert_one_job(self, send: Callable[[], AsyncResult]) -> SeenJob:
        seen, created = len(self.jobs.all()), self.created_jobs()
        result = send()
        job = self.jobs.wait_job(result.id, 15)
        self._good.append(result)
        wait_for(lambda: self.created_jobs() == created + 1, 15, "the Job to be counted")
        assert (job.namespace, job.labels["petiole.dev/tenant"]) == (TENANT, TENANT)
        assert len(self.jobs.of_task(result.id)) == 1
        assert len(self.jobs.all()) == seen + 1
        return job

    def assert_all_done(self) -> None:
        """Wait until every task that has got its Job has succeeded."""
        assert [result.get(timeout=30) for result in self._good] == ["done"] * len(self._good)


def _error_of(result: AsyncResult) -> Exception:
    """Return what the sender's get() raises."""
    try:
        value = result.get(timeout=15)
    except Exception as error:
        return error
    raise AssertionError(f"the forged task returned {value!r}")
