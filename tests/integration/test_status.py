"""The HTTP server and the probe command."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery
from petiole_worker import PetioleWorker, run_petiole
from ports import HOST
from redis_server import RedisServer
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
ADD, FAIL = "petiole.sample.add", "petiole.sample.fail"
SAMPLE_LINE = re.compile(r'[a-z_]+(\{([a-z_]+="[^"\n]*",?)*\})? [-+0-9.e]+(Inf|NaN)?')


def probe(worker: PetioleWorker, what: str, *arguments: str) -> tuple[int, str]:
    done = run_petiole("--config", str(worker.config_path), "probe", what, *arguments)
    return done.returncode, done.stderr


def test_pages(start_petiole: Callable[..., PetioleWorker]) -> None:
    worker = start_petiole()
    assert [worker.get(path)[0] for path in ("/livez", "/readyz", "/healthz")] == [200] * 3
    assert worker.get("/nothing")[0] == 404
    assert probe(worker, "live")[0] == 0
    assert probe(worker, "ready")[0] == 0
    assert probe(worker, "ready", "--address", f"{HOST}:{worker.http_port}")[0] == 0


def test_without_broker(
    start_petiole: Callable[..., PetioleWorker], redis_server: RedisServer, client: Celery
) -> None:
    """A worker that lost its broker is alive and not ready, and says what is missing."""
    worker = start_petiole()
    redis_server.kill()
    _, text = wait_for(lambda: (page := worker.get("/readyz"))[0] == 503 and page)
    assert "broker" in text
    assert worker.get("/livez")[0] == 200
    assert probe(worker, "live")[0] == 0
    exit_code, sentence = probe(worker, "ready")
    assert exit_code == 1
    assert "broker" in sentence
    redis_server.start()
    wait_for(lambda: worker.get("/readyz")[0] == 200, 20)
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


def test_probe_without_http(start_petiole: Callable[..., PetioleWorker]) -> None:
    """Without an address the probe asks over the socket in the run directory."""
    worker = start_petiole(settings={"worker_http_address": ""})
    assert probe(worker, "ready") == (0, "")
    worker.kill()
    exit_code, sentence = probe(worker, "ready")
    assert exit_code == 1
    assert len(sentence.strip().splitlines()) == 1


def test_metrics(start_petiole: Callable[..., PetioleWorker], client: Celery) -> None:
    """Names and labels are celery-exporter's; the counts are those of the tasks that ran."""
    worker = start_petiole()
    for _ in range(3):
        client.send_task(ADD, (1, 2)).get(timeout=10)
    client.send_task(FAIL, ("x",)).get(timeout=10, propagate=False)
    client.send_task("nobody.knows").get(timeout=10, propagate=False)
    status, text = worker.get("/metrics")
    assert status == 200
    for line in text.splitlines():
        assert line.startswith("# ") or SAMPLE_LINE.fullmatch(line), line
    labels = {"hostname": "test", "name": ADD, "queue_name": "tenant-a"}
    for name in ("received", "started", "succeeded"):
        assert worker.metric(f"celery_task_{name}_total", **labels) == 3
    assert worker.metric("celery_task_runtime_count", **labels) == 3
    failed = {"name": FAIL, "exception": "ValueError", "hostname": "test"}
    assert worker.metric("celery_task_failed_total", **failed) == 1
    assert worker.metric("celery_worker_up", hostname="test") == 1
    assert worker.metric("petiole_results_stored_total", tenant="tenant-a", state="SUCCESS") == 3
    assert "petiole_build_info" in text


@pytest.mark.parametrize(
    "request_bytes",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 9000],
    ids=["empty", "short", "tls", "version", "long"],
)
def test_hostile_requests(
    request_bytes: bytes, start_petiole: Callable[..., PetioleWorker]
) -> None:
    worker = start_petiole()
    with socket.create_connection((HOST, worker.http_port)) as connection:
        connection.sendall(request_bytes)
        connection.settimeout(10)
        assert receive(connection) in {b"", b"HTTP/1.1 4", b"HTTP/1.1 5"}
    assert worker.get("/livez")[0] == 200


def receive(connection: socket.socket) -> bytes:
    """Return the first ten bytes of the answer, b"" when the connection is closed without one."""
    try:
        return connection.recv(10)
    except ConnectionResetError:
        return b""


def test_address_in_use(
    start_petiole: Callable[..., PetioleWorker], start_program: Callable[..., Any]
) -> None:
    """A second worker on the same address says which it is and ends."""
    first = start_petiole()
    address = f"{HOST}:{first.http_port}"
    second = start_program(PetioleWorker, settings={"worker_http_address": address})
    assert second.wait_exit() == 1
    assert address in second.log()
