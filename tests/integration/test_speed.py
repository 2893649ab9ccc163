"""How fast, with the default settings and all bookkeeping."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
import redis
from celery import Celery
from celery_worker import APP_FOLDER, CeleryWorker, app_environment
from envelopes import copies, push, template
from helpers import count_stored, new_ids, wait_settled
from latency_proxy import LatencyProxy
from petiole_worker import TENANT, TOP, PetioleWorker
from process_family import family, processor_s
from redis_server import RedisServer
from resources import sample
from waiting import wait_for

pytestmark = [pytest.mark.petiole_only, pytest.mark.speed]
COUNT = 12000
LEAST_PER_S = 1000  # one command a round trip makes 500 at most
PYTHON_COUNT = 10000
PREFORK_COUNT = 2000
ROUNDS = 3
WARM_UP_COUNT = 200
MOST_OF_PREFORK = 1 / 3  # of its processor time; a fifth on a machine that does nothing else
MOST_OF_MEMORY = 0.6  # of its PSS; the exact figure is the benchmark python-memory-warm
LEAST_OF_PREFORK = 2  # of its tasks a second; five times on such a machine


def test_far_away_redis(
    proxy: LatencyProxy,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """With a round trip of 2 ms, more tasks than round trips: commands are batched."""
    proxy.delay_s = 0.001
    pattern = template(broker, client, TENANT, "petiole.sample.echo", args=("x",))
    urls = {"broker_url": proxy.url(0), "result_backend": proxy.url(1)}
    start_petiole(settings=urls, log_level="WARNING")
    rates = []
    for _ in range(ROUNDS):
        backend.flushdb()
        push(broker, "aside", copies(pattern, new_ids(COUNT)))
        begin = time.monotonic()
        broker.rename("aside", TENANT)
        wait_for(lambda: count_stored(backend) == COUNT, 60)
        rates.append(COUNT / (time.monotonic() - begin))
        wait_settled(broker)
    assert max(rates) >= LEAST_PER_S, f"{max(rates):.0f} tasks/s"


@pytest.fixture
def start_pool(
    start_petiole: Callable[..., PetioleWorker], redis_server: RedisServer
) -> Callable[..., PetioleWorker]:
    """Return a function that starts a worker of the tests' app in two processes.

    They end after `idle_s` (0: never).
    """
    urls = {"broker_url": redis_server.url(0), "result_backend": redis_server.url(1)}
    path = f"{TOP / 'python-shim' / 'src'}:{APP_FOLDER}"

    def start(idle_s: float = 0) -> PetioleWorker:
        return start_petiole(
            settings={
                "plugins": [],
                "tasks": {"petiole.sample.*": {"executor": "process"}},
                "process_idle_timeout": idle_s,
            },
            global_arguments=("-A", "app"),
            arguments=("-c", "2"),
            environment={
                **app_environment(urls),
                "PETIOLE_PYTHON": sys.executable,
                "PYTHONPATH": path,
            },
            log_level="WARNING",
        )

    return start


@pytest.fixture
def start_prefork(start_program: Callable[..., CeleryWorker]) -> Callable[[], CeleryWorker]:
    """Return a function that starts Celery's worker, with the same app in as many processes."""
    settings = {"worker_prefetch_multiplier": 32}
    return lambda: start_program(
        CeleryWorker, settings=settings, concurrency=2, log_level="WARNING"
    )


@pytest.fixture
def send_many(
    client: Celery, broker: redis.Redis, backend: redis.Redis
) -> Callable[[int, str], None]:
    """Return a function that puts so many no-op tasks into a queue, with no results there."""
    pattern = template(broker, client, TENANT, "petiole.sample.add", args=(2, 3))

    def send(count: int, queue: str = TENANT) -> None:
        wait_settled(broker)
        backend.flushdb()
        push(broker, queue, copies(pattern, new_ids(count)))

    return send


def processor_s_and_rate(
    worker: PetioleWorker | CeleryWorker,
    count: int,
    send_many: Callable[..., None],
    broker: redis.Redis,
    backend: redis.Redis,
) -> tuple[float, float]:
    """Return what a no-op task takes of a warm worker, and tasks a second; stops the worker.

    The best of some rounds of `count` tasks, which are all there when a round begins.
    """
    send_many(WARM_UP_COUNT)
    wait_for(lambda: count_stored(backend) == WARM_UP_COUNT, 60)
    rounds = []
    for _ in range(ROUNDS):
        send_many(count, "aside")
        used_then, begin = processor_s(worker.pid), time.monotonic()
        broker.rename("aside", TENANT)
        wait_for(lambda: count_stored(backend) == count, 60)
        took_s, used = time.monotonic() - begin, processor_s(worker.pid) - used_then
        rounds.append((used / count, count / took_s))
    end_well(worker)
    return min(used for used, _ in rounds), max(rate for _, rate in rounds)


def end_well(worker: PetioleWorker | CeleryWorker) -> None:
    """Stop a worker, which must end well if it is ours."""
    code = worker.stop()
    assert code == 0 or isinstance(worker, CeleryWorker), f"exit code {code}"


def test_python_tasks_beside_prefork(
    start_pool: Callable[..., PetioleWorker],
    start_prefork: Callable[[], CeleryWorker],
    send_many: Callable[..., None],
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """A small task of an app takes a fraction of what it takes under Celery's own pool."""
    by = (send_many, broker, backend)
    prefork, prefork_rate = processor_s_and_rate(start_prefork(), PREFORK_COUNT, *by)
    ours, rate = processor_s_and_rate(start_pool(), PYTHON_COUNT, *by)
    shown = f"{ours * 1e6:.0f} us a task, prefork {prefork * 1e6:.0f} us"
    assert ours <= prefork * MOST_OF_PREFORK, shown
    assert rate >= prefork_rate * LEAST_OF_PREFORK, f"{rate:.0f}/s, prefork {prefork_rate:.0f}/s"


def test_memory_of_python_tasks_beside_prefork(
    start_pool: Callable[..., PetioleWorker],
    start_prefork: Callable[[], CeleryWorker],
    send_many: Callable[..., None],
    backend: redis.Redis,
) -> None:
    """Idle after tasks: a tenth of prefork's PSS without processes, about half of it with them."""

    def idle_bytes(worker: PetioleWorker | CeleryWorker, processes: int | None) -> int:
        send_many(WARM_UP_COUNT)
        wait_for(lambda: count_stored(backend) == WARM_UP_COUNT, 60)
        wait_for(lambda: processes in {None, len(family(worker.pid))}, 20, "the end of processes")
        used = sum(sample(one).pss for one in family(worker.pid))
        end_well(worker)
        return used

    prefork = idle_bytes(start_prefork(), None)
    warm = idle_bytes(start_pool(), None)
    reaped = idle_bytes(start_pool(idle_s=0.5), 1)
    assert warm <= prefork * MOST_OF_MEMORY, f"{warm} B, prefork {prefork} B"
    assert reaped <= prefork / 10, f"{reaped} B, prefork {prefork} B"
