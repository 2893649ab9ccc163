"""Tasks that wait: for an ETA, until they expire, for another try."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from conftest import Worker
from helpers import stored, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker
from waiting import wait_for

ADD, ECHO, FAIL = "petiole.sample.add", "petiole.sample.echo", "petiole.sample.fail"
UTC = dt.UTC


def in_seconds(seconds: float, zone: dt.tzinfo | None = UTC) -> dt.datetime:
    return dt.datetime.now(zone) + dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"countdown": 3.0},
        lambda: {"eta": in_seconds(3.0)},
        lambda: {"eta": in_seconds(3.0, dt.timezone(dt.timedelta(hours=5, minutes=30)))},
        lambda: {"eta": in_seconds(3.0).replace(tzinfo=None)},
    ],
    ids=["countdown", "utc", "offset", "naive"],
)
def test_eta(
    options: Callable[[], dict[str, Any]],
    start_worker: Callable[..., Worker],
    client: Celery,
    broker: redis.Redis,
) -> None:
    """A task runs at its time, not before, and is held as unacknowledged until then."""
    worker = start_worker()
    begin = time.monotonic()
    result = client.send_task(ADD, (1, 2), **options())
    worker.wait_log(rf"{result.id}\] received")
    assert broker.hlen("unacked") == 1
    assert result.get(timeout=30) == 3
    assert 2.9 < time.monotonic() - begin < 30
    wait_settled(broker)


def test_eta_in_the_past(start_worker: Callable[..., Worker], client: Celery) -> None:
    start_worker()
    assert client.send_task(ADD, (1, 2), eta=in_seconds(-3600)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_eta_beyond_the_visibility_timeout(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
) -> None:
    """The wait's lease is renewed, so that no other worker runs the task as well."""
    settings = {"broker_transport_options": {"visibility_timeout": 5}}
    workers = [start_petiole(settings=settings) for _ in range(2)]
    result = client.send_task(ADD, (1, 2), countdown=11)
    assert result.get(timeout=30) == 3
    wait_settled(broker)
    assert sum(worker.log_count("] received") for worker in workers) == 1


@pytest.mark.petiole_only
def test_waiting_tasks_do_not_block(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """However many tasks wait for their time, those that are due run."""
    start_petiole(settings={"native_threads": 1})
    for _ in range(700):
        client.send_task(ADD, (1, 2), countdown=600)
    assert client.send_task(ADD, (3, 4)).get(timeout=10) == 7


def test_expired(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """REVOKED, as Celery stores it; `get` raises TaskRevokedError; the message is settled."""
    worker = start_worker()
    result = client.send_task(ADD, (1, 2), expires=in_seconds(-1))
    document = wait_stored(backend, result.id)
    assert document["status"] == "REVOKED"
    assert document["result"] == {
        "exc_type": "TaskRevokedError",
        "exc_message": ["expired"],
        "exc_module": "celery.exceptions",
    }
    with pytest.raises(TaskRevokedError, match="expired"):
        result.get(timeout=10)
    worker.wait_log(rf"Discarding revoked task: {ADD}\[{result.id}\]")
    wait_settled(broker)


def test_expires_before_its_eta(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    start_worker()
    result = client.send_task(ADD, (1, 2), countdown=1.5, expires=0.5)
    assert wait_stored(backend, result.id)["status"] == "REVOKED"


def test_not_yet_expired(start_worker: Callable[..., Worker], client: Celery) -> None:
    start_worker()
    assert client.send_task(ADD, (1, 2), countdown=0.3, expires=60).get(timeout=10) == 3


def states_of(backend: redis.Redis, send: Callable[[], Any]) -> list[dict[str, Any]]:
    """Return the documents published for the task that `send` sends, up to its end."""
    with backend.pubsub() as subscriber:
        subscriber.psubscribe("celery-task-meta-*")
        assert subscriber.get_message(timeout=5)
        send()
        documents: list[dict[str, Any]] = []
        while not documents or documents[-1]["status"] == "RETRY":
            message = subscriber.get_message(timeout=10)
            assert message, documents
            documents.append(json.loads(message["data"]))
        return documents


def test_retries(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis, broker: redis.Redis
) -> None:
    """autoretry_for: RETRY is stored for each failed try, then the failure itself."""
    options = {"autoretry_for": ["ValueError"], "max_retries": 2, "default_retry_delay": 0.2}
    worker = start_worker(settings={"result_extended": True}, task_options={FAIL: options})
    results = []
    documents = states_of(backend, lambda: results.append(client.send_task(FAIL, ("x",))))
    assert [document["status"] for document in documents] == ["RETRY", "RETRY", "FAILURE"]
    assert [document["retries"] for document in documents] == [0, 1, 2]
    assert {document["task_id"] for document in documents} == {results[0].id}
    error = {"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"}
    assert all(document["result"] == error for document in documents)
    assert [bool(document["date_done"]) for document in documents] == [False, False, True]
    with pytest.raises(ValueError, match="x"):
        results[0].get(timeout=10)
    worker.wait_log(rf"Task {FAIL}\[{results[0].id}\] retry: Retry in", count=2)
    worker.wait_log(rf"Task {FAIL}\[{results[0].id}\] raised unexpected: ValueError\('x'\)")
    wait_settled(broker)


def test_message_of_a_retry(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis, broker: redis.Redis
) -> None:
    """The next try is the same message with one more retry, a time, and itself as its parent."""
    options = {"autoretry_for": ["ValueError"], "max_retries": 1, "default_retry_delay": 30}
    start_worker(task_options={FAIL: options})
    sent = client.send_task(
        FAIL, ("x",), priority=3, headers={"x-own": "v"}, shadow="other", expires=3600
    )
    wait_stored(backend, sent.id, ("RETRY",))
    (text,) = wait_for(
        lambda: [t for t in broker.hvals("unacked") if b'"retries": 1' in t or b'"retries":1' in t]
    )
    envelope, exchange, routing_key = json.loads(text)
    assert (exchange, routing_key) == ("", TENANT)
    headers, properties = envelope["headers"], envelope["properties"]
    assert (headers["id"], headers["root_id"], headers["parent_id"]) == (sent.id,) * 3
    assert (headers["retries"], headers["task"], headers["shadow"]) == (1, FAIL, "other")
    assert headers["x-own"] == "v"
    assert headers["argsrepr"] == "('x',)"
    assert headers["expires"]
    eta = dt.datetime.fromisoformat(headers["eta"])
    assert 20 < (eta - dt.datetime.now(UTC)).total_seconds() <= 30
    assert properties["correlation_id"] == sent.id
    assert properties["priority"] == 3
    assert properties["delivery_info"]["routing_key"] == TENANT
    assert stored(backend, sent.id)["status"] == "RETRY"  # type: ignore[index]


def test_backoff(start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis) -> None:
    """retry_backoff without jitter: 1 s, then 2 s, of which retry_backoff_max leaves one."""
    options = {
        "autoretry_for": ["ValueError"],
        "max_retries": 2,
        "retry_backoff": True,
        "retry_backoff_max": 1,
        "retry_jitter": False,
    }
    start_worker(task_options={FAIL: options})
    begin = time.monotonic()
    documents = states_of(backend, lambda: client.send_task(FAIL, ("x",)))
    assert len(documents) == 3
    assert 1.9 < time.monotonic() - begin < 6


def test_no_retry_of_other_errors(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    options = {"autoretry_for": ["TypeError"], "max_retries": 2}
    start_worker(task_options={FAIL: options})
    documents = states_of(backend, lambda: client.send_task(FAIL, ("x",)))
    assert [document["status"] for document in documents] == ["FAILURE"]


def test_ignored_result_of_a_retry(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis, broker: redis.Redis
) -> None:
    """Nothing is stored for an ignored task, and its retries happen all the same."""
    options = {"autoretry_for": ["ValueError"], "max_retries": 1, "default_retry_delay": 0.1}
    worker = start_worker(task_options={FAIL: options})
    sent = client.send_task(FAIL, ("x",), ignore_result=True)
    worker.wait_log(rf"{sent.id}\] received", count=2)
    worker.wait_log(r"raised unexpected: ValueError\('x'\)")
    wait_settled(broker)
    assert stored(backend, sent.id) is None
