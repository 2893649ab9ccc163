"""How a worker ends: warm, cold, and with which exit code; what ran, and what it had taken."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery
from conftest import Worker
from helpers import stored, wait_settled
from petiole_worker import TENANT, PetioleWorker
from redis_server import RedisServer
from waiting import wait_for

ADD, SLEEP = "petiole.sample.add", "petiole.sample.sleep"
ONE: dict[str, Any] = {"native_threads": 1}
WARM = "worker: Warm shutdown (MainProcess)"
COLD = "worker: Cold shutdown (MainProcess)"
AGAIN_COLD = (
    "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!"
)
AGAIN_KILL = "worker: Hitting Ctrl+C again will terminate all running tasks!"


@dataclass
class Busy:
    """A worker with one running task and two that it has taken and not begun."""

    worker: Worker
    running: str
    waiting: list[str]


def make_busy(
    start_worker: Callable[..., Worker],
    client: Celery,
    seconds: float,
    *,
    is_late: bool,
    **options: Any,
) -> Busy:
    """Start a worker and keep it busy for so many seconds."""
    late = {SLEEP: {"acks_late": is_late, "track_started": True}}
    worker = start_worker(settings=ONE, task_options=late, **options)
    running = client.send_task(SLEEP, (seconds,)).id
    wait_for(lambda: client.AsyncResult(running).state == "STARTED")
    waiting = [client.send_task(SLEEP, (0,)).id for _ in range(2)]
    worker.wait_log(rf"{waiting[-1]}\] received")
    return Busy(worker, running, waiting)


def ids_in_queue(broker: redis.Redis) -> list[str]:
    """Return the task ids that wait, the next one first."""
    elements = [element.decode() for element in reversed(broker.lrange(TENANT, 0, -1))]
    return [element.split('"id": "')[1].split('"')[0] for element in elements]


@dataclass(frozen=True)
class Ending:
    """Signals, each with the line that tells that it has arrived, and the exit code.

    Celery ends with 1 after two SIGINTs only when its loop, which turns once a second, has seen
    the first before the second; hence the pause.
    """

    name: str
    signals: tuple[tuple[int, str], ...]
    exit_code: int
    lines: tuple[str, ...]
    pause_s: float = 0.0

    def send(self, worker: Worker) -> None:
        """End `worker` in this way and look at what it says."""
        for position, (number, line) in enumerate(self.signals):
            end = time.monotonic() + (self.pause_s if position else 0.0)
            wait_for(lambda end=end: time.monotonic() >= end)
            worker.signal(number)
            worker.wait_log(re.escape(line))
        assert worker.wait_exit() == self.exit_code
        assert all(worker.log_contains(line) for line in self.lines), worker.log()


WARM_ENDINGS = [
    Ending("SIGTERM", ((signal.SIGTERM, WARM),), 0, (WARM,)),
    Ending("SIGINT", ((signal.SIGINT, WARM),), 1, (AGAIN_COLD, WARM)),
]
COLD_ENDINGS = [
    Ending("SIGQUIT", ((signal.SIGQUIT, COLD),), 0, (AGAIN_KILL, COLD)),
    Ending(
        "SIGINT-twice",
        ((signal.SIGINT, WARM), (signal.SIGINT, AGAIN_KILL)),
        1,
        (AGAIN_COLD, WARM, AGAIN_KILL),
        1.2,
    ),
    Ending("SIGTERM-SIGQUIT", ((signal.SIGTERM, WARM), (signal.SIGQUIT, COLD)), 0, (WARM, COLD)),
]


@pytest.mark.parametrize("is_late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("ending", WARM_ENDINGS, ids=lambda ending: ending.name)
def test_warm(
    ending: Ending,
    start_worker: Callable[..., Worker],
    client: Celery,
    broker: redis.Redis,
    *,
    is_late: bool,
) -> None:
    """What runs is finished and settled; what was taken goes back."""
    busy = make_busy(start_worker, client, 4.0, is_late=is_late)
    ending.send(busy.worker)
    assert client.AsyncResult(busy.running).state == "SUCCESS"
    assert sorted(ids_in_queue(broker)) == sorted(busy.waiting)
    wait_settled(broker)


@pytest.mark.parametrize("ending", COLD_ENDINGS, ids=lambda ending: ending.name)
def test_cold(
    ending: Ending,
    start_worker: Callable[..., Worker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """An acknowledged task that was ended is RETRY, as Celery has it; the others go back."""
    busy = make_busy(start_worker, client, 60, is_late=False)
    ending.send(busy.worker)
    document = stored(backend, busy.running)
    assert document
    assert document["status"] == "RETRY"
    assert document["result"]["exc_type"] == "Retry"
    assert sorted(ids_in_queue(broker)) == sorted(busy.waiting)
    wait_settled(broker)


def test_cold_gives_late_tasks_back(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """A late task that was ended stays STARTED and goes back to its queue with the others."""
    busy = make_busy(start_worker, client, 60, is_late=True)
    busy.worker.signal(signal.SIGQUIT)
    assert busy.worker.wait_exit() == 0
    document = stored(backend, busy.running)
    assert document
    assert document["status"] == "STARTED"
    assert sorted(ids_in_queue(broker)) == sorted([*busy.waiting, busy.running])
    wait_settled(broker)


@pytest.mark.petiole_only
def test_remapped_sigterm(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    """REMAP_SIGTERM=SIGQUIT makes SIGTERM cold."""
    busy = make_busy(
        start_petiole, client, 60, is_late=False, environment={"REMAP_SIGTERM": "SIGQUIT"}
    )
    busy.worker.terminate()
    assert busy.worker.wait_exit() == 0
    assert busy.worker.log_contains(COLD)
    assert stored(backend, busy.running)["status"] == "RETRY"  # type: ignore[index]


@pytest.mark.petiole_only
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_idle_worker_ends_at_once(number: int, start_petiole: Callable[..., PetioleWorker]) -> None:
    worker = start_petiole()
    worker.signal(number)
    assert worker.wait_exit(4.5) == (1 if number == signal.SIGINT else 0)


@pytest.mark.petiole_only
def test_ends_without_redis(
    start_petiole: Callable[..., PetioleWorker], redis_server: RedisServer
) -> None:
    """A worker whose server is gone ends too, within its grace period."""
    worker = start_petiole()
    redis_server.kill()
    worker.wait_log("(?i)connection to broker lost")
    worker.terminate()
    assert worker.wait_exit(12.0) == 0
    redis_server.start()


@pytest.mark.petiole_only
def test_waiting_eta_tasks_go_back(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    worker = start_petiole()
    ids = [client.send_task(ADD, (1, 2), countdown=600).id for _ in range(3)]
    worker.wait_log(rf"{ids[-1]}\] received")
    worker.terminate()
    assert worker.wait_exit() == 0
    assert sorted(ids_in_queue(broker)) == sorted(ids)
    wait_settled(broker)
