"""How fast, with the default settings and all bookkeeping."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis
from celery import Celery
from envelopes import copies, push, template
from helpers import count_stored, new_ids, wait_settled
from latency_proxy import LatencyProxy
from petiole_worker import TENANT, PetioleWorker
from waiting import wait_for

pytestmark = [pytest.mark.petiole_only, pytest.mark.speed]
COUNT = 12000
LEAST_PER_S = 3000


def test_far_away_redis(
    proxy: LatencyProxy,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """With a round trip of 2 ms, at least 3,000 tasks a second: commands are batched."""
    proxy.delay_s = 0.001
    pattern = template(broker, client, TENANT, "petiole.sample.echo", args=("x",))
    push(broker, "aside", copies(pattern, new_ids(COUNT)))
    urls = {"broker_url": proxy.url(0), "result_backend": proxy.url(1)}
    start_petiole(settings=urls, log_level="WARNING")
    begin = time.monotonic()
    broker.rename("aside", TENANT)
    wait_for(lambda: count_stored(backend) == COUNT, 60)
    took = time.monotonic() - begin
    wait_settled(broker)
    assert COUNT / took >= LEAST_PER_S, f"{COUNT / took:.0f} tasks/s"
