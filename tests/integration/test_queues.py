"""Where messages are taken from, in which order, and what the database shows of it meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from conftest import Worker
from envelopes import copies, copy, push, template
from helpers import SEPARATOR, TENANT_HEADER, count_stored, new_ids, wait_settled, wait_stored
from kombu import Exchange
from petiole_worker import TENANT, PetioleWorker
from redis_server import RedisServer
from waiting import wait_for

ADD, SLEEP, ECHO = "petiole.sample.add", "petiole.sample.sleep", "petiole.sample.echo"
ONE_AT_A_TIME: dict[str, Any] = {
    "native_threads": 1,
    "worker_lookahead": 0,
    "worker_prefetch_multiplier": 1,
}


def received_order(worker: Worker) -> list[str]:
    """Return the ids of the log's `received` lines, in order."""
    lines = worker.log().splitlines()
    return [line.split("[")[-1].split("]")[0] for line in lines if line.endswith("] received")]


def test_priority_steps(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis
) -> None:
    """0 is the most urgent on Redis, and steps are 0, 3, 6 and 9."""
    priorities = [9, 4, 0, 7, 3, 6, 2, 5]
    ids = {
        client.send_task(ADD, (1, 1), priority=priority, queue=TENANT).id: priority
        for priority in priorities
    }
    assert broker.llen(TENANT) == 2
    assert broker.llen(f"{TENANT}{SEPARATOR}3") == 3
    worker = start_worker(settings=ONE_AT_A_TIME)
    wait_for(lambda: len(received_order(worker)) == len(priorities), what=worker.log)
    assert [ids[task_id] for task_id in received_order(worker)] == [0, 2, 4, 3, 5, 7, 6, 9]


def test_queues_take_turns(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis
) -> None:
    """With one queue full, a message of another one does not wait for all of it."""
    pattern = template(broker, client, "crowd", ADD, args=(1, 1), headers={TENANT_HEADER: TENANT})
    crowd = new_ids(900)
    push(broker, "crowd", copies(pattern, crowd))
    others = [
        client.send_task(ADD, (1, 1), queue=queue, headers={TENANT_HEADER: TENANT}).id
        for queue in ("second", "third")
        for _ in range(3)
    ]
    worker = start_worker(settings=ONE_AT_A_TIME, queues=("crowd", "second", "third"))
    total = len(crowd) + len(others)
    wait_for(lambda: len(received_order(worker)) == total, 20, worker.log)
    order = received_order(worker)
    assert sorted(order) == sorted(crowd + others)
    assert max(order.index(task_id) for task_id in others) < total // 2
    assert [task_id for task_id in order if task_id in crowd] == crowd, (
        "a queue is first in, first out"
    )


def test_unacked_is_kombus(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """What a worker holds is registered as Kombu does it, so that any other can restore it."""
    start_worker(task_options={SLEEP: {"acks_late": True}})
    pattern = template(broker, client, TENANT, SLEEP, args=(3.0,))
    before = time.time()
    push(broker, TENANT, [json.dumps(pattern).encode()])
    wait_for(lambda: broker.hlen("unacked") == 1)
    (tag, text), *_ = broker.hgetall("unacked").items()
    assert json.loads(text) == [pattern, "", TENANT]
    score = broker.zscore("unacked_index", tag)
    assert before - 1 <= score <= time.time()
    assert broker.llen(TENANT) == 0
    wait_stored(backend, pattern["headers"]["id"])
    wait_settled(broker)


def test_early_acknowledgement(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Without acks_late a message is acknowledged when its task begins, not when it ends."""
    start_worker()
    result = client.send_task(SLEEP, (6.0,))
    wait_for(lambda: broker.llen(TENANT) == 0)
    wait_settled(broker, 4)
    assert result.state == "PENDING"
    wait_stored(backend, result.id)


@pytest.mark.parametrize(
    "options",
    [
        {"global_keyprefix": "shop:"},
        {"sep": ":", "priority_steps": [0, 2, 4, 6, 8]},
        {"unacked_key": "mine", "unacked_index_key": "mine_index", "unacked_mutex_key": "mutex"},
        {"queue_order_strategy": "priority"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_transport_options(
    options: dict[str, Any],
    start_worker: Callable[..., Worker],
    make_client: Callable[..., Celery],
    broker: redis.Redis,
) -> None:
    """The keys of a client with the same options are found, and no others are left behind."""
    client = make_client(broker_transport_options=options)
    late = {SLEEP: {"acks_late": True}}
    start_worker(settings={"broker_transport_options": options}, task_options=late)
    assert client.send_task(ADD, (1, 2), priority=7).get(timeout=10) == 3
    result = client.send_task(SLEEP, (3.0,))
    prefix = options.get("global_keyprefix", "")
    unacked = prefix + options.get("unacked_key", "unacked")
    wait_for(lambda: broker.hlen(unacked) == 1)
    result.get(timeout=20)
    wait_for(lambda: broker.hlen(unacked) == 0)
    left = {key.decode() for key in broker.keys("*")}
    assert {key for key in left if "binding" not in key and "unacked" not in key} == set()
    assert all(key.startswith(prefix) for key in left)


def test_exchanges_lead_to_their_queues(
    start_worker: Callable[..., Worker], make_client: Callable[..., Celery], broker: redis.Redis
) -> None:
    """The worker binds its queues, so that a client need not know them."""
    settings = {
        "task_default_queue": TENANT,
        "task_queues": {
            "lo": {"exchange": "shop", "exchange_type": "direct", "routing_key": "lo.key"},
            "orders": {"exchange": "events", "exchange_type": "topic", "routing_key": "order.#"},
            "plain": {},
        },
    }
    worker = start_worker(settings=settings, queues=("lo", "orders", "plain", "other"))
    client = make_client()
    for exchange, kind, key in (
        ("shop", "direct", "lo.key"),
        ("events", "topic", "order.new.big"),
        (TENANT, "direct", "plain"),
        ("other", "direct", "other"),
    ):
        with client.producer_pool.acquire(block=True) as producer:
            producer.maybe_declare(Exchange(exchange, type=kind))
            options = {"exchange": exchange, "routing_key": key, "producer": producer}
            sent = client.send_task(ADD, (1, 2), headers={TENANT_HEADER: TENANT}, **options)
        assert sent.get(timeout=10) == 3, exchange
    for line in (
        r"\.> lo +exchange=shop\(direct\) key=lo\.key$",
        r"\.> orders +exchange=events\(topic\) key=order\.#$",
        rf"\.> plain +exchange={TENANT}\(direct\) key=plain$",
        r"\.> other +exchange=other\(direct\) key=other$",
    ):
        worker.wait_log(line)
    topic = f"order.#{SEPARATOR}^order\\..*?${SEPARATOR}orders".encode()
    for table in ("_kombu.binding.events", "_kombu.binding_permanent.events"):
        assert broker.smembers(table) == {topic}


def test_database_number_and_socket(
    start_worker: Callable[..., Worker],
    make_client: Callable[..., Celery],
    redis_server: RedisServer,
) -> None:
    """Messages in database 5 behind the unix socket, results in database 7."""
    urls = {
        "broker_url": f"redis+socket://{redis_server.socket_path}?virtual_host=5",
        "result_backend": redis_server.url(7),
    }
    start_worker(settings=urls)
    client = make_client(**{**urls, "broker_url": redis_server.url(5)})
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


def test_backend_key_prefix(
    start_worker: Callable[..., Worker], make_client: Callable[..., Celery], backend: redis.Redis
) -> None:
    settings = {"result_backend_transport_options": {"global_keyprefix": "shop"}}
    start_worker(settings=settings)
    result = make_client(**settings).send_task(ADD, (1, 2))
    assert result.get(timeout=10) == 3
    assert backend.keys("*") == [f"shop_celery-task-meta-{result.id}".encode()]


@pytest.mark.petiole_only
def test_no_hoarding(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """A worker takes what it has a place for; the rest stays where others can take it."""
    pattern = template(broker, client, TENANT, SLEEP, args=(30,))
    start_petiole(
        settings={"native_threads": 1, "worker_lookahead": 4},
        task_options={SLEEP: {"acks_late": True}},
    )
    push(broker, TENANT, copies(pattern, new_ids(1500)))
    wait_for(lambda: broker.hlen("unacked") > 0)
    left = wait_for(lambda: broker.llen(TENANT) <= 1500 - 512 and broker.llen(TENANT))
    assert 1500 - left <= 512 + 1 + 4, "more than the native queue, its thread and the look-ahead"


@pytest.mark.petiole_only
def test_idle_worker(
    start_petiole: Callable[..., PetioleWorker], redis_server: RedisServer
) -> None:
    """An idle worker has at most three connections and sends fewer than five commands a second."""
    start_petiole(queues=("first", "second", "third"))
    assert len(redis_server.worker_connections()) <= 3
    seconds = 3.0
    with redis_server.monitor() as monitor:
        end = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() > end)
        commands = monitor.commands()
    assert len(commands) / seconds < 5, commands


@pytest.mark.petiole_only
@pytest.mark.speed
@pytest.mark.parametrize("queues", [("only",), ("first", "second", "third")], ids=["one", "three"])
def test_idle_worker_starts_at_once(
    queues: tuple[str, ...],
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A message at the last step of the last queue of an idle worker starts within 50 ms.

    Measured from the LPUSH until the result can be read, which is more than the start.
    """
    start_petiole(queues=queues)
    pattern = template(
        broker, client, queues[-1], ADD, args=(1, 1), headers={TENANT_HEADER: TENANT}
    )
    pattern["properties"]["priority"] = 9
    key = f"{queues[-1]}{SEPARATOR}9"
    took = []
    for task_id in new_ids(15):
        element = json.dumps(copy(pattern, task_id)).encode()
        subscriber = backend.pubsub()
        subscriber.subscribe(f"celery-task-meta-{task_id}")
        subscriber.get_message(timeout=5)
        begin = time.monotonic()
        broker.lpush(key, element)
        assert subscriber.get_message(timeout=5)
        took.append(time.monotonic() - begin)
        subscriber.close()
    assert sorted(took)[len(took) // 2] < 0.05, took


def test_many_small_tasks(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Every one of many messages is run once and gives its own result."""
    start_worker()
    pattern = template(broker, client, TENANT, ADD, args=(20, 22))
    ids = new_ids(800)
    push(broker, TENANT, copies(pattern, ids))
    wait_for(lambda: count_stored(backend) == len(ids), 30)
    assert {wait_stored(backend, task_id)["result"] for task_id in ids} == {42}
    wait_settled(broker)
    assert broker.llen(TENANT) == 0
