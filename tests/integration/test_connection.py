"""Users, passwords, TLS, and a server that goes away and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from conftest import Worker
from envelopes import copies, push, template
from helpers import count_stored, new_ids, stored, wait_settled, wait_stored
from latency_proxy import LatencyProxy
from petiole_worker import TENANT, PetioleWorker
from redis_server import RedisServer
from waiting import wait_for

ADD, SLEEP = "petiole.sample.add", "petiole.sample.sleep"
SECRET = "s3cr3t-Pa55"
ACL = ("user", f"app on >{SECRET} ~* &* +@all")
LATE = {SLEEP: {"acks_late": True}}


def test_user_and_password(
    make_redis: Callable[..., RedisServer],
    start_worker: Callable[..., Worker],
    make_client: Callable[..., Celery],
) -> None:
    """An ACL user's password opens broker and backend, and is printed nowhere."""
    server = make_redis(options=(ACL, ("user", "default off")))
    urls = {
        "broker_url": server.url(2, "app", SECRET),
        "result_backend": server.url(3, "app", SECRET),
    }
    worker = start_worker(settings=urls, log_level="DEBUG")
    assert make_client(**urls).send_task(ADD, (1, 2)).get(timeout=10) == 3
    assert SECRET not in worker.log()
    if isinstance(worker, PetioleWorker):
        assert SECRET not in worker.get("/metrics")[1]
        assert SECRET not in worker.get("/readyz")[1]


def test_password_without_user(
    make_redis: Callable[..., RedisServer],
    start_worker: Callable[..., Worker],
    make_client: Callable[..., Celery],
) -> None:
    """The URL form redis://:password@host is AUTH with the password alone; %40 is decoded."""
    server = make_redis(options=(("requirepass", "p@ss/word"),))
    urls = {
        "broker_url": server.url(0, "", "p%40ss%2Fword"),
        "result_backend": server.url(1, "", "p%40ss%2Fword"),
    }
    worker = start_worker(settings=urls, log_level="DEBUG")
    assert make_client(**urls).send_task(ADD, (1, 2)).get(timeout=10) == 3
    assert "p@ss" not in worker.log()
    assert "p%40ss" not in worker.log()


@pytest.mark.petiole_only
def test_wrong_password(
    make_redis: Callable[..., RedisServer], start_program: Callable[..., Any]
) -> None:
    """The reason is logged, again and again; the password is not."""
    server = make_redis(options=(ACL, ("user", "default off")))
    url = server.url(0, "app", "wr0ng-one")
    worker = start_program(
        PetioleWorker,
        settings={"broker_url": url, "result_backend": url},
        log_level="DEBUG",
    )
    worker.wait_log(
        r"Cannot connect to redis://app:\*\*@\S+: AUTH was refused: WRONGPASS [^.]*[^.]\. "
        r"Trying again in \d+\.\d\d seconds\.\.\. \(1/100\)$"
    )
    assert worker.get("/readyz")[0] == 503
    assert worker.get("/livez")[0] == 200
    assert "wr0ng-one" not in worker.log()
    assert not worker.log_contains("ready.")


@pytest.mark.petiole_only
def test_a_server_that_knows_no_auth(
    make_redis: Callable[..., RedisServer], start_program: Callable[..., Any]
) -> None:
    """Redis repeats the arguments of a command that it does not know; the log does not."""
    server = make_redis(options=(("rename-command", 'AUTH ""'),))
    url = server.url(0, "app", SECRET)
    worker = start_program(PetioleWorker, settings={"broker_url": url, "result_backend": url})
    worker.wait_log(r"AUTH was refused: ERR unknown command")
    assert SECRET not in worker.log()


def test_tls(
    make_redis: Callable[..., RedisServer],
    certificates: Path,
    start_worker: Callable[..., Worker],
    make_client: Callable[..., Celery],
) -> None:
    """TLS with the authority from the URL's query."""
    server = make_redis(tls=certificates)
    query = f"?ssl_cert_reqs=required&ssl_ca_certs={certificates}/ca.crt"
    urls = {"broker_url": server.url(0) + query, "result_backend": server.url(1) + query}
    start_worker(settings=urls)
    assert make_client(**urls).send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_tls_unknown_authority(
    make_redis: Callable[..., RedisServer],
    certificates: Path,
    start_program: Callable[..., Any],
) -> None:
    """A certificate that nobody vouches for is refused, with the reason in the log."""
    server = make_redis(tls=certificates)
    url = f"{server.url(0)}?ssl_cert_reqs=required"
    worker = start_program(PetioleWorker, settings={"broker_url": url, "result_backend": url})
    worker.wait_log(r"(?i)cannot connect.*certificate")
    assert not worker.log_contains("ready.")


@pytest.mark.petiole_only
def test_starts_before_redis(
    redis_server: RedisServer, start_program: Callable[..., Any], client: Celery
) -> None:
    redis_server.stop()
    worker = start_program(PetioleWorker)
    worker.wait_log(r"Cannot connect to redis://\S+")
    redis_server.start()
    worker.wait_ready()
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_redis_restart(
    make_redis: Callable[..., RedisServer],
    start_petiole: Callable[..., PetioleWorker],
    make_client: Callable[..., Celery],
) -> None:
    """A server that is killed and comes back with its file loses no task, and none runs twice."""
    server = make_redis(appendonly=True)
    urls = {"broker_url": server.url(0), "result_backend": server.url(1)}
    client = make_client(**urls)
    worker = start_petiole(settings=urls)
    with contextlib.closing(server.client(0)) as broker:
        pattern = template(broker, client, TENANT, SLEEP, args=(0.01,))
        ids = new_ids(200)
        push(broker, TENANT, copies(pattern, ids))
    with contextlib.closing(server.client(1)) as backend:
        wait_for(lambda: count_stored(backend) > 20)
    server.restart()
    with contextlib.closing(server.client(1)) as backend:
        wait_for(lambda: count_stored(backend) == len(ids), 20, worker.log)
        assert {stored(backend, task_id)["status"] for task_id in ids} == {"SUCCESS"}  # type: ignore[index]
    with contextlib.closing(server.client(0)) as broker:
        wait_settled(broker)
        assert broker.llen(TENANT) == 0
    assert worker.log_count("] received") == len(ids)


def test_connection_cut_while_a_task_runs(
    proxy: LatencyProxy,
    start_worker: Callable[..., Worker],
    client: Celery,
    redis_server: RedisServer,
    backend: redis.Redis,
) -> None:
    """The task goes on, its result is stored after the reconnect, and other tasks run."""
    worker = start_worker(
        settings={"broker_url": proxy.url(0), "result_backend": proxy.url(1)}, task_options=LATE
    )
    result = client.send_task(SLEEP, (4.0,))
    worker.wait_log(rf"{result.id}\] received")
    proxy.cut()
    wait_stored(backend, result.id, timeout_s=30)
    after = client.send_task(ADD, (1, 2))
    assert wait_stored(backend, after.id, timeout_s=30)["result"] == 3


@pytest.mark.petiole_only
def test_lease_survives_a_cut(
    proxy: LatencyProxy,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A late task that runs through a lost connection is settled afterwards and runs once."""
    worker = start_petiole(settings={"broker_url": proxy.url(0)}, task_options=LATE)
    result = client.send_task(SLEEP, (4.0,))
    worker.wait_log(rf"{result.id}\] received")
    proxy.cut(refuse=True)
    worker.wait_log("(?i)connection to broker lost")
    wait_stored(backend, result.id)
    assert broker.hlen("unacked") == 1
    proxy.flow()
    wait_settled(broker)
    assert worker.log_count("] received") == 1
    assert broker.llen(TENANT) == 0


@pytest.mark.petiole_only
def test_backend_away(
    make_redis: Callable[..., RedisServer],
    start_petiole: Callable[..., PetioleWorker],
    make_client: Callable[..., Celery],
    broker: redis.Redis,
) -> None:
    """A result waits for its backend and is never dropped; the message is settled after it."""
    store = make_redis()
    late = {ADD: {"acks_late": True}}
    worker = start_petiole(settings={"result_backend": store.url(0)}, task_options=late)
    client = make_client(result_backend=None)
    assert worker.get("/readyz")[0] == 200
    store.kill()
    ids = [client.send_task(ADD, (number, 1)).id for number in range(20)]
    worker.wait_log(r"(?i)result backend redis://\S+ lost")
    wait_for(lambda: broker.hlen("unacked") > 0)
    assert worker.get("/livez")[0] == 200
    store.start()
    with contextlib.closing(store.client(0)) as backend:
        results = [wait_stored(backend, task_id, timeout_s=20)["result"] for task_id in ids]
    assert results == [number + 1 for number in range(20)]
    wait_settled(broker)


@pytest.mark.petiole_only
def test_frozen_server(
    redis_server: RedisServer,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A server that stops answering for a while costs no task; the probe stays alive."""
    worker = start_petiole()
    pattern = template(broker, client, TENANT, SLEEP, args=(0.005,))
    ids = new_ids(200)
    push(broker, TENANT, copies(pattern, ids))
    wait_for(lambda: count_stored(backend) > 5)
    redis_server.freeze()
    try:
        assert worker.get("/livez")[0] == 200
    finally:
        redis_server.thaw()
    wait_for(lambda: count_stored(backend) == len(ids), 20)
    wait_settled(broker)
