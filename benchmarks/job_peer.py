"""A Celery app whose task creates a Job with the package `kubernetes` and waits for its end.

What a team writes that has Jobs and no Petiole: each task holds a thread of the worker until its
Job has ended. JOB_PEER in the environment is a JSON object: `settings` of the app, `kubeconfig`,
`namespace`, `body` (the Job as JSON, whose name is "NAME"), `threads`, and `shares_watch`: whether
one watch serves all, or each task opens its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from typing import Any

from celery import Celery, Task
from kubernetes import client, config, watch

GIVEN = json.loads(os.environ["JOB_PEER"])
NAMESPACE = GIVEN["namespace"]
SELECTOR = "app.kubernetes.io/managed-by=petiole"

app = Celery("job_peer")
app.conf.update(**GIVEN["settings"])


def make_api() -> client.ApiClient:
    """Return a client with a connection for each thread."""
    given = client.Configuration()
    config.load_kube_config(GIVEN["kubeconfig"], client_configuration=given)
    given.connection_pool_maxsize = 2 * GIVEN["threads"]
    return client.ApiClient(given)


API = make_api()
BATCH, CORE = client.BatchV1Api(API), client.CoreV1Api(API)


def has_ended(job: client.V1Job) -> bool:
    """Return whether the Job is Complete or Failed."""
    found = job.status.conditions or []
    return any(each.type in ("Complete", "Failed") and each.status == "True" for each in found)


class SharedWatch:
    """One watch of all Jobs, in a thread of its own."""

    def __init__(self) -> None:
        """Begin."""
        self._ends: defaultdict[str, threading.Event] = defaultdict(threading.Event)
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, name: str) -> None:
        """Wait until the Job has ended."""
        self._ends[name].wait()
        del self._ends[name]

    def _follow(self) -> None:
        while True:
            events = watch.Watch().stream(
                BATCH.list_namespaced_job, NAMESPACE, label_selector=SELECTOR
            )
            for event in events:
                if has_ended(event["object"]):
                    self._ends[event["object"].metadata.name].set()


def watch_alone(name: str) -> None:
    """Wait until the Job has ended, with a watch of its own."""
    own = watch.Watch()
    while True:
        events = own.stream(
            BATCH.list_namespaced_job, NAMESPACE, field_selector=f"metadata.name={name}"
        )
        for event in events:
            if has_ended(event["object"]):
                own.stop()
                return


wait_for_job = SharedWatch().wait if GIVEN["shares_watch"] else watch_alone


@app.task(name="app.tasks.training.train", bind=True, acks_late=True)
def train(self: Task, **_kwargs: Any) -> Any:
    """Create the Job, wait for it, and return what its pod reported."""
    name = f"train-{self.request.id}-0"
    body = json.loads(GIVEN["body"].replace('"NAME"', json.dumps(name)))
    BATCH.create_namespaced_job(NAMESPACE, body)
    wait_for_job(name)
    selector = f"batch.kubernetes.io/job-name={name}"
    (pod,) = CORE.list_namespaced_pod(NAMESPACE, label_selector=selector).items
    return json.loads(pod.status.container_statuses[0].state.terminated.message)["result"]
