"""The sample Redis users and their component: a tenant's worker can do all it does, and no more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery_client import client_app
from cluster import Cluster
from fake_kubelet import FakeKubelet
from job_template import report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from redis_server import RedisServer
from tenants import TENANTS, clear_tenant
from waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
USERS = ROOT / "k8s/samples/redis-acl.conf"
COMPONENT = ROOT / "k8s/components/redis-acl/deployment.yaml"
TENANT, OTHER = "tenant-user", "tenant-admin"
DONE, LONG = "pods.done", "pods.long"
StartWorker = Callable[[str], KubernetesWorker]


def password(user: str) -> str:
    """Return the sample password of a sample user."""
    return f"change-me-{user}"


def settings_of(cluster: Cluster, tenant: str) -> dict[str, Any]:
    """Return the settings that the component gives the worker of a tenant."""
    made = cluster.kubectl("create", "--dry-run=client", "-o", "json", "-f", COMPONENT)
    (worker,) = json.loads(made)["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value", "") for each in worker["env"]}
    exchange = env["PETIOLE_CONTROL_EXCHANGE"].replace("$(POD_NAMESPACE)", tenant)
    options = env["PETIOLE_BROKER_TRANSPORT_OPTIONS"].replace("$(POD_NAMESPACE)", tenant)
    transport = {**json.loads(options), "visibility_timeout": 2}
    return {"control_exchange": exchange, "broker_transport_options": transport}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis that knows the sample users and nobody else."""
    running = RedisServer(
        tmp_path / "redis", options=(("include", str(USERS)), ("user", "default off"))
    )
    yield running
    running.stop()


@pytest.fixture
def connect(server: RedisServer) -> Iterator[Callable[[str], redis.Redis]]:
    """Return a function that gives a client of a sample user."""
    with contextlib.ExitStack() as stack:

        def make(user: str) -> redis.Redis:
            client = server.client(0, username=user, password=password(user))
            return stack.enter_context(contextlib.closing(client))

        yield make


@pytest.fixture
def client(server: RedisServer) -> Iterator[Celery]:
    """Return the control plane's app, which controls the workers of the tenant."""
    with client_app(server, "control-plane", password("control-plane")) as app:
        app.conf.control_exchange = TENANT
        yield app


@pytest.fixture
def start(
    cluster: Cluster, kubelet: FakeKubelet, server: RedisServer, tmp_path: Path
) -> Iterator[StartWorker]:
    """Return a function that starts a tenant's worker as the tenant's user."""
    workers: list[KubernetesWorker] = []
    tasks = {
        DONE: write_template(tmp_path, "done", script=report_script(report("done"))),
        LONG: write_template(tmp_path, "long", script="exec sleep 600"),
    }

    def make(tenant: str) -> KubernetesWorker:
        urls = [server.url(db, tenant, password(tenant)) for db in (0, 1)]
        own = {
            **settings_of(cluster, tenant),
            "broker_url": urls[0],
            "result_backend": urls[1],
        }
        worker = KubernetesWorker(
            cluster, server, tmp_path, tasks, tenant=tenant, settings=own, name=tenant
        )
        workers.append(worker)
        worker.wait_ready()
        return worker

    yield make
    for worker in workers:
        worker.stop()
    for tenant in TENANTS:
        clear_tenant(cluster, tenant)


def test_a_worker_with_a_tenants_user_runs_answers_and_revokes(
    *,
    start: StartWorker,
    client: Celery,
    connect: Callable[[str], redis.Redis],
    job_watch: JobWatch,
) -> None:
    own, other = start(TENANT), start(OTHER)
    everything = connect("control-plane")
    assert client.control.ping(timeout=5, limit=1) == [{own.node_name: {"ok": "pong"}}]
    assert client.send_task(DONE, queue=TENANT).get(timeout=30) == "done"
    later = client.send_task(DONE, queue=TENANT, countdown=3600, priority=9)
    running = client.send_task(LONG, queue=TENANT)
    job = job_watch.wait_job(running.id)
    own.wait_log(r"\] received", count=3)
    answer = client.control.revoke(
        [later.id, running.id], terminate=True, reply=True, timeout=5, limit=1
    )
    assert answer == [{own.node_name: {"ok": f"terminate: {later.id}, {running.id}"}}]
    for result in (later, running):
        with pytest.raises(TaskRevokedError):
            result.get(timeout=30)
    job_watch.wait(lambda: job.is_gone, what="the Job to be gone")
    assert everything.zcard(f"petiole:revoked:{TENANT}") == 2
    left = (f"petiole:jobs:{TENANT}", f"{TENANT}:unacked", f"{TENANT}:unacked_index")
    wait_for(lambda: not everything.exists(*left), what="no receipt")
    for worker in (own, other):
        assert not worker.log_contains("NOPERM")
    assert not everything.exists("unacked", f"petiole:revoked:{OTHER}")


@pytest.mark.parametrize(
    "command",
    [
        ("LLEN", OTHER),
        ("LPUSH", OTHER, "x"),
        ("RPOP", f"{OTHER}\x06\x163"),
        ("LPUSH", f"{TENANT}2", "x"),
        ("HGETALL", f"{OTHER}:unacked"),
        ("HGETALL", "unacked"),
        ("HGETALL", f"petiole:jobs:{OTHER}"),
        ("ZADD", f"petiole:revoked:{OTHER}", "1", "terminate:x"),
        ("LPUSH", f"x.reply.{OTHER}.pidbox", "x"),
        ("PUBLISH", f"/0.{OTHER}.pidbox", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("EVAL", f"return redis.call('lrange', '{OTHER}', 0, -1)", "0"),
        ("KEYS", "*"),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("ACL", "LIST"),
        ("MONITOR",),
    ],
    ids=" ".join,
)
def test_a_tenants_user_reaches_nothing_of_the_other(
    connect: Callable[[str], redis.Redis], command: tuple[str, ...]
) -> None:
    with pytest.raises(redis.ResponseError, match=r"permission|NOPERM|can.t access"):
        connect(TENANT).execute_command(*command)


def test_a_tenants_user_hears_no_remote_control_of_the_other(
    connect: Callable[[str], redis.Redis],
) -> None:
    for channel in (f"/0.{OTHER}.pidbox", "/0.celery.pidbox"):
        listener = connect(TENANT).pubsub()
        with contextlib.closing(listener), pytest.raises(redis.exceptions.NoPermissionError):
            listener.subscribe(channel)
            listener.get_message(timeout=5)
