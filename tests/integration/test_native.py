"""The native executor: tasks of a plugin, on threads of the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from envelopes import copies, push, template
from helpers import count_stored, new_ids, stored, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker, run_petiole, sample_plugin
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
ADD, SLEEP = "petiole.sample.add", "petiole.sample.sleep"


def test_native_tasks_run_side_by_side(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    start_petiole(settings={"native_threads": 4})
    begin = time.monotonic()
    results = [client.send_task(SLEEP, (1.5,)) for _ in range(4)]
    for result in results:
        wait_stored(backend, result.id)
    assert time.monotonic() - begin < 5, "one after the other they take 6 s"


def test_native_tasks_under_load(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """Thousands of tasks of all kinds on several threads, each with its own outcome."""
    start_petiole(settings={"native_threads": 8})
    ids: dict[str, list[str]] = {}
    calls: dict[str, tuple[Any, ...]] = {"add": (1, 2), "echo": ("x",), "fail": ("no",)}
    for name, args in calls.items():
        pattern = template(broker, client, TENANT, f"petiole.sample.{name}", args=args)
        ids[name] = new_ids(700)
        push(broker, TENANT, copies(pattern, ids[name]))
    wait_for(lambda: count_stored(backend) == 2100, 60)
    expected = {"add": 3, "echo": "x"}
    for name, value in expected.items():
        assert all(stored(backend, key)["result"] == value for key in ids[name])  # type: ignore[index]
    assert all(stored(backend, key)["status"] == "FAILURE" for key in ids["fail"])  # type: ignore[index]
    wait_settled(broker)


def test_native_soft_time_limit(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    """The task is asked to end, and its exception is Celery's."""
    start_petiole()
    result = client.send_task(SLEEP, (30,), soft_time_limit=0.3)
    document = wait_stored(backend, result.id)
    assert document["result"]["exc_type"] == "SoftTimeLimitExceeded"
    assert document["result"]["exc_module"] == "billiard.exceptions"


def test_native_hard_time_limit(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    """The task is reported as ended, and its thread is replaced: others go on."""
    worker = start_petiole(settings={"native_threads": 1})
    result = client.send_task(SLEEP, (30,), time_limit=0.3)
    document = wait_stored(backend, result.id)
    assert document["status"] == "FAILURE"
    assert document["result"] == {
        "exc_type": "TimeLimitExceeded",
        "exc_message": [0.3],
        "exc_module": "billiard.exceptions",
    }
    worker.wait_log(r"Hard time limit \(0\.3s\) exceeded for petiole\.sample\.sleep")
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


def test_native_plugin_option(start_petiole: Callable[..., PetioleWorker], client: Celery) -> None:
    start_petiole(settings={"plugins": []}, arguments=("--plugin", str(sample_plugin())))
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.parametrize("kind", ["missing", "no library", "another library"])
def test_native_plugin_refused(kind: str, tmp_path: Path) -> None:
    """A library that cannot be used is named before anything is connected."""
    path = tmp_path / "plugin.so"
    if kind == "no library":
        path.write_text("hello")
    elif kind == "another library":
        path = next(Path("/usr/lib").glob("*/libuv.so.1"))
    config = tmp_path / "petiole.yaml"
    config.write_text("tasks: {'*': {executor: native}}\nworker_http_address: ''\n")
    options = ("--config", str(config), "worker", "--plugin", str(path))
    done = run_petiole("-b", "redis://127.0.0.1:1/0", *options)
    assert done.returncode not in {0, -6, -11}
    assert str(path) in done.stderr


def test_native_task_without_function(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    """A name that the settings give to the native executor and no plugin has is NotRegistered."""
    start_petiole(settings={"tasks": {"*": {"executor": "native"}}})
    result = client.send_task("petiole.sample.nothing")
    assert wait_stored(backend, result.id)["result"]["exc_type"] == "NotRegistered"
