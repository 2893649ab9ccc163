"""An app with everything that a manifest tells, and much that it cannot."""

from __future__ import annotations

import re
import ssl
from datetime import timedelta

from celery import Celery, Task, bootsteps, signals
from celery.worker.control import control_command
from celery.worker.request import Request
from kombu import Exchange, Queue, binding

print("what an app prints is no part of its manifest")

app = Celery("manifest", broker="redis://user:secret@broker/0", backend="redis://:hidden@results/1")
app.conf.update(
    task_acks_late=True,
    result_expires=timedelta(hours=2),
    task_time_limit=90,
    worker_prefetch_multiplier=2,
    broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"},
    broker_transport_options={"visibility_timeout": 600},
    result_backend_transport_options={"sentinel_kwargs": {"password": "behind"}},
    redis_password="beside",
    beat_schedule={"odd": {"task": "x", "schedule": object()}},
    task_publish_retry_policy={"retry_errors": object()},
    task_annotations={"manifest.annotated": {"rate_limit": "7/s"}},
    task_queues=[
        Queue("feeds", Exchange("feeds", type="topic"), routing_key="feed.#"),
        Queue("plain", queue_arguments={"x-max-priority": 5}),
        Queue(
            "bound",
            [
                binding(Exchange("events", type="topic"), routing_key="a.*"),
                binding(Exchange("shop"), routing_key="lo"),
            ],
        ),
    ],
    task_routes=(
        "petiole.routing.by_tenant",
        {"feeds.*": {"queue": "feeds"}, "one": "plain"},
        [(re.compile(r"^re\."), {"queue": "plain", "priority": 3})],
        lambda name, *rest, **more: None,
    ),
    petiole_tenant_header="team",
    worker_pool="gevent",
    worker_consumer="own.worker:Consumer",
    worker_autoscaler="own.worker:Autoscaler",
    worker_timer="own.worker:Timer",
)


class OwnRequest(Request):
    """A request that only a Python master could use."""


class Own(Task):
    """A task class with what a worker in C cannot use."""

    Request = OwnRequest
    Strategy = "elsewhere:strategy"


class Step(bootsteps.StartStopStep):
    """A bootstep."""


class ExpectedError(Exception):
    """What a task may raise."""


app.steps["consumer"].add(Step)
app.steps["worker"].add(Step)
app.user_options["worker"].add(object())


@signals.worker_ready.connect
def on_ready(**_):
    """Do what is not done."""


def on_others(**_):
    """Do what is not done, either."""


for name in (
    "celeryd_after_setup",
    "worker_shutting_down",
    "worker_shutdown",
    "task_received",
    "task_revoked",
):
    getattr(signals, name).connect(on_others)


@signals.celeryd_init.connect
def configure(conf, **_):
    """Change a setting."""
    conf.task_default_rate_limit = "1/m"


@signals.celeryd_init.connect
@signals.worker_init.connect
def on_start(**_):
    """Do what Python processes do."""


@signals.task_prerun.connect
def on_prerun(**_):
    """Do what a process does."""


@control_command()
def own_command(state):
    """Answer nothing."""


@app.task(
    name="manifest.full",
    autoretry_for=(ExpectedError, OSError),
    dont_autoretry_for=[FileNotFoundError],
    retry_backoff=True,
    retry_backoff_max=60,
    retry_jitter=False,
    retry_kwargs={"max_retries": 5, "countdown": 2},
    max_retries=None,
    default_retry_delay=7,
    throws=(KeyError, ExpectedError),
    acks_late=False,
    acks_on_failure_or_timeout=False,
    reject_on_worker_lost=True,
    retry_on_worker_lost=True,
    ignore_result=True,
    store_errors_even_if_ignored=True,
    time_limit=10,
    soft_time_limit=5.5,
    rate_limit="10/m",
    track_started=True,
    send_events=False,
    serializer="yaml",
    expires=timedelta(minutes=1),
)
def full():
    """Have every option."""


@app.task(name="manifest.bare")
def bare():
    """Have none."""


@app.task(name="manifest.annotated")
def annotated():
    """Have what task_annotations says."""


@app.task(name="manifest.custom", base=Own, backend="cache+memory://", max_retries=-1)
def custom():
    """Be what cannot be carried over."""


@app.task(name="manifest.unlimited", max_retries=float("inf"))
def unlimited():
    """Have an option without a form in JSON."""
