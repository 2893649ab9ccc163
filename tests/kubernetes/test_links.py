"""Callbacks, errbacks and chains of Jobs: what pods send, the worker sends; they have no broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from celery.canvas import Signature
from celery.result import AsyncResult
from job_template import write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from petiole import exceptions
from publication_watch import PublicationWatch

TENANT = "tenant-admin"
TIMEOUT_S = 60
StartWorker = Callable[..., KubernetesWorker]


def sign(client: Celery, name: str, *args: Any, **options: Any) -> Signature:
    """Return a signature of a task of the pods' app, for the tenant's queue."""
    return client.signature(f"pods.{name}", args=args).set(queue=TENANT, **options)


def test_a_chain_is_a_job_each(
    start_worker: StartWorker,
    client: Celery,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    start_worker({"pods.add": write_template(tmp_path, "add")})
    callback = str(uuid.uuid4())
    first = sign(client, "add", 1, 2)
    first.link(sign(client, "add", 1000, task_id=callback))
    result = chain(first, sign(client, "add", 10), sign(client, "add", 100)).apply_async()
    assert result.get(timeout=TIMEOUT_S) == 113
    assert AsyncResult(callback, app=client).get(timeout=TIMEOUT_S) == 1003
    job_watch.sync()
    publications.sync()
    for task_id in (result.parent.parent.id, result.parent.id, result.id, callback):
        assert [job.name for job in job_watch.of_task(task_id)] == [f"add-{task_id}-0"]
        assert publications.results(task_id) == ["SUCCESS"]


def test_a_pod_that_is_killed_ends_its_chain_and_calls_its_errback(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    limit = {"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "120Mi"}}}
    hog = write_template(tmp_path, "hog", container=limit)
    start_worker({"pods.hog": hog, "pods.*": write_template(tmp_path, "other")})
    errback = str(uuid.uuid4())
    first = sign(client, "hog")
    first.link_error(sign(client, "told", task_id=errback))
    result = chain(first, sign(client, "add", 10)).apply_async()
    with pytest.raises(exceptions.OOMKilled):
        result.get(timeout=TIMEOUT_S)
    told = AsyncResult(errback, app=client).get(timeout=TIMEOUT_S)
    assert told == f"{result.parent.id} failed"
    job_watch.sync()
    assert not job_watch.of_task(result.id)


def test_the_trace_of_a_message_reaches_the_pod(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    start_worker({"pods.*": write_template(tmp_path, "trace")})
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "tracestate": "vendor=$(TASK)", "sentry-trace": "ab-cd-1"}
    names = ["TRACEPARENT", "TRACESTATE", "SENTRY_TRACE", "BAGGAGE"]
    result = sign(client, "environment", names).apply_async(headers=headers)
    assert result.get(timeout=TIMEOUT_S) == [trace, "vendor=$(TASK)", "ab-cd-1", None]
