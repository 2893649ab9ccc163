"""No message is lost at any instant, and none is run twice while its holder lives."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from conftest import Worker
from envelopes import copies, push, template
from helpers import count_stored, new_ids, stored, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker
from redis_server import RedisServer
from waiting import wait_for

ADD, SLEEP = "petiole.sample.add", "petiole.sample.sleep"
LATE: dict[str, dict[str, Any]] = {
    SLEEP: {"acks_late": True},
    "petiole.sample.echo": {"acks_late": True},
}
# A worker that is killed while it restores leaves Kombu's lock behind, which runs out by itself.
SHORT = {"broker_transport_options": {"visibility_timeout": 2, "unacked_mutex_expire": 2}}


@pytest.mark.petiole_only
@pytest.mark.parametrize("seed", [1, 2])
def test_kill_at_random_moments(
    seed: int,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """Workers that are killed with SIGKILL again and again run every late task in the end."""
    randomness = random.Random(seed)
    ids = new_ids(600)
    pattern = template(broker, client, TENANT, "petiole.sample.echo", args=("x",))
    push(broker, TENANT, copies(pattern, ids[:300]))
    pattern = template(broker, client, TENANT, SLEEP, args=(0.01,))
    push(broker, TENANT, copies(pattern, ids[300:]))
    for _ in range(6):
        worker = start_petiole(settings=SHORT, task_options=LATE)
        end = time.monotonic() + randomness.uniform(0, 0.15)
        wait_for(lambda end=end: time.monotonic() > end)
        worker.kill()
    start_petiole(settings=SHORT, task_options=LATE)
    wait_for(lambda: count_stored(backend) == len(ids), 30)
    assert {stored(backend, task_id)["status"] for task_id in ids} == {"SUCCESS"}  # type: ignore[index]
    wait_settled(broker)
    assert broker.llen(TENANT) == 0


@pytest.mark.petiole_only
def test_kill_with_early_acknowledgement(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """Each task that a killed worker had not begun runs on another; begun ones at most once."""
    ids = new_ids(400)
    pattern = template(broker, client, TENANT, SLEEP, args=(0.005,))
    settings = {**SHORT, "native_threads": 2}
    worker = start_petiole(settings=settings)
    push(broker, TENANT, copies(pattern, ids))
    wait_for(lambda: count_stored(backend) > 10)
    worker.kill()
    second = start_petiole(settings=settings)
    wait_for(lambda: broker.llen(TENANT) == 0 and broker.hlen("unacked") == 0, 30)
    lost = [task_id for task_id in ids if stored(backend, task_id) is None]
    wait_for(lambda: count_stored(backend) + len(lost) >= len(ids))
    lost = [task_id for task_id in ids if stored(backend, task_id) is None]
    # Acknowledged before the body: those on threads, or whose result was on its way.
    assert len(lost) <= 64
    assert second.is_running()


def test_restores_what_another_held(
    start_program: Callable[..., Any],
    start_worker: Callable[..., Worker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A message of a dead Petiole comes back, marked, within the visibility timeout and a little.

    Under --worker=celery the one that restores is Celery's.
    """
    first = start_program(PetioleWorker, settings=SHORT, task_options=LATE).wait_ready()
    result = client.send_task(SLEEP, (4.0,))
    wait_for(lambda: broker.hlen("unacked") == 1)
    first.kill()
    assert stored(backend, result.id) is None
    end = time.monotonic() + 2.1
    wait_for(lambda: time.monotonic() > end)
    start_worker(settings=SHORT, task_options=LATE)
    assert wait_stored(backend, result.id)["status"] == "SUCCESS"
    wait_settled(broker)


@pytest.mark.petiole_only
def test_restores_what_celery_held(
    start_celery: Callable[..., Worker],
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """What a dead Python worker held is restored by us and runs here."""
    python = start_celery(settings=SHORT, task_options=LATE)
    result = client.send_task(SLEEP, (4.0,))
    wait_for(lambda: broker.hlen("unacked") == 1)
    python.kill()
    worker = start_petiole(settings=SHORT, task_options=LATE)
    assert wait_stored(backend, result.id)["status"] == "SUCCESS"
    assert worker.log_contains(result.id)
    wait_settled(broker)


@pytest.mark.petiole_only
def test_celery_restores_what_we_held(
    start_celery: Callable[..., Worker],
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A Python worker that starts after our death restores what we held, and runs it."""
    worker = start_petiole(settings=SHORT, task_options=LATE)
    ids = [client.send_task(SLEEP, (4.0,)).id for _ in range(3)]
    wait_for(lambda: broker.hlen("unacked") > 0)
    worker.kill()
    end = time.monotonic() + 2.1
    wait_for(lambda: time.monotonic() > end)
    python = start_celery(settings=SHORT, task_options=LATE, concurrency=3)
    for task_id in ids:
        assert wait_stored(backend, task_id)["status"] == "SUCCESS"
        assert python.log_contains(task_id)
    wait_settled(broker)


@pytest.mark.petiole_only
def test_leases_are_renewed(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A task longer than the visibility timeout runs once, with another worker waiting for it."""
    settings = {"broker_transport_options": {"visibility_timeout": 5}}
    first = start_petiole(settings=settings, task_options=LATE)
    result = client.send_task(SLEEP, (11.0,))
    first.wait_log(rf"{result.id}\] received")
    second = start_petiole(settings=settings, task_options=LATE)
    wait_stored(backend, result.id, timeout_s=30)
    wait_settled(broker)
    assert first.log_count("] received") + second.log_count("] received") == 1


@pytest.mark.petiole_only
def test_restored_message_is_marked(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    redis_server: RedisServer,
) -> None:
    """A worker that ends gives back what it has not begun, marked as redelivered."""
    settings = {"native_threads": 1, "worker_lookahead": 0}
    worker = start_petiole(settings=settings, task_options=LATE)
    first = client.send_task(SLEEP, (4.0,))
    worker.wait_log(rf"{first.id}\] received")
    others = [client.send_task(SLEEP, (0,)).id for _ in range(3)]
    worker.wait_log(rf"{others[-1]}\] received")
    worker.terminate()
    assert worker.wait_exit() == 0
    restored = [json.loads(element) for element in broker.lrange(TENANT, 0, -1)]
    assert {envelope["headers"]["id"] for envelope in restored} == set(others)
    assert all(envelope["headers"]["redelivered"] for envelope in restored)
    assert all(envelope["properties"]["delivery_info"]["redelivered"] for envelope in restored)
    assert broker.hlen("unacked") == 0
