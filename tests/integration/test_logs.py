"""What the worker prints: Celery's banner and lines, or JSON, and never a secret."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import redis
from celery import Celery
from conftest import Worker
from petiole_worker import PetioleWorker
from redis_server import RedisServer

ADD, FAIL = "petiole.sample.add", "petiole.sample.fail"
STAMP = r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: "


def test_celerys_lines(
    start_worker: Callable[..., Worker], client: Celery, redis_server: RedisServer
) -> None:
    """People and tools look for these."""
    worker = start_worker()
    added = client.send_task(ADD, (1, 2))
    failed = client.send_task(FAIL, ("no",))
    shadowed = client.send_task(ADD, (1, 2), shadow="my.shadow")
    assert (added.get(timeout=10), shadowed.get(timeout=10)) == (3, 3)
    with pytest.raises(ValueError, match="no"):
        failed.get(timeout=10)
    head = STAMP + r"INFO/MainProcess\] "
    ended = STAMP + r"INFO/\S+\] "
    url = rf"redis://(:\*\*@)?127\.0\.0\.1:{redis_server.port}"
    for pattern in (
        rf"{head}Connected to {url}/0$",
        rf"{head}{re.escape(worker.node_name)} ready\.$",
        rf"{head}Task {ADD}\[{added.id}\] received$",
        rf"{ended}Task {ADD}\[{added.id}\] succeeded in [\d.e-]+s: 3$",
        rf"{STAMP}ERROR/\S+\] Task {FAIL}\[{failed.id}\] raised unexpected: ValueError\('no'\)$",
        rf"{ended}Task my\.shadow\[{shadowed.id}\] succeeded in [\d.e-]+s: 3$",
        rf" -------------- {re.escape(worker.node_name)} (v|petiole )\d",
        r"^- \*\* ---------- \[config\]$",
        rf"\.> transport: +{url}/0$",
        rf"\.> results: +{url}/1$",
        r"\.> concurrency: +\d+ \(",
        r"\.> task events: +OFF",
        r"^ -------------- \[queues\]$",
        r"\.> tenant-a +exchange=tenant-a\(direct\) key=tenant-a$",
        r"^\[tasks\]$",
        r"^  \. petiole\.sample\.",
    ):
        worker.wait_log(pattern)


@pytest.mark.petiole_only
def test_quiet_by_default(start_program: Callable[..., Worker], client: Celery) -> None:
    """At WARNING, Celery's default, a task that succeeds leaves no line; -q leaves no banner."""
    worker = start_program(
        PetioleWorker, log_level="WARNING", global_arguments=("-q",), name="quiet"
    )
    assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
    assert worker.log() == ""


@pytest.mark.petiole_only
def test_json_lines(start_petiole: Callable[..., PetioleWorker], client: Celery) -> None:
    worker = start_petiole(settings={"worker_log_json": True}, global_arguments=("-q",))
    added = client.send_task(ADD, (1, 2))
    failed = client.send_task(FAIL, ("no",))
    unknown = client.send_task("nobody.knows")
    assert added.get(timeout=10) == 3
    for result in (failed, unknown):
        result.get(timeout=10, propagate=False)
    worker.wait_log("unregistered")
    worker.terminate()
    assert worker.wait_exit() == 0
    lines = [json.loads(line) for line in worker.log().splitlines() if line.startswith("{")]
    rest = [line for line in worker.log().splitlines() if line and not line.startswith("{")]
    assert all(line.startswith("worker: ") for line in rest), rest
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    about = [line for line in lines if line.get("task_id") == added.id]
    assert {line["task_name"] for line in about} == {ADD}
    assert len(about) == 2
    assert [line["level"] for line in lines if line.get("task_id") == failed.id][-1] == "ERROR"


@pytest.mark.petiole_only
@pytest.mark.parametrize("is_json", [False, True], ids=["text", "json"])
def test_lines_cannot_be_forged(
    is_json: bool,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
) -> None:
    """Line breaks and control characters from messages do not make lines of their own."""
    worker = start_petiole(settings={"worker_log_json": is_json})
    forged = "[2026-11-23 00:00:00,000: CRITICAL/MainProcess] forged"
    client.send_task(f"x\n{forged}\r\x1b[31m", task_id=f"y\n{forged}")
    client.send_task(ADD, (1, 2), shadow=f"z\n{forged}")
    client.send_task(FAIL, (f"w\n{forged}",))
    broker.lpush("tenant-a", f"\n{forged}\n")
    client.send_task(ADD, (1, 2)).get(timeout=10)
    worker.wait_log("unregistered")
    worker.wait_log("rejected")
    forgeries = [line for line in worker.log().splitlines() if line.lstrip().startswith(forged)]
    assert forgeries == []
    assert "\x1b" not in worker.log()


@pytest.mark.petiole_only
def test_no_secrets(start_program: Callable[..., Worker], redis_server: RedisServer) -> None:
    """Passwords stand in URLs; they are in no line, at any level, connected or not."""
    secret = "gehe1m"
    urls = {
        "broker_url": f"redis://user:{secret}@127.0.0.1:{redis_server.port}/0",
        "result_backend": f"redis://:{secret}2@127.0.0.1:1/1",
        "redis_password": f"{secret}3",
    }
    worker = start_program(PetioleWorker, settings=urls, log_level="DEBUG")
    worker.wait_log(r"(?i)cannot connect", count=2)
    worker.terminate()
    worker.wait_exit()
    assert secret not in worker.log()
    assert "redis://user:**@127.0.0.1" in worker.log()
