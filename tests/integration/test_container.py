"""Tasks in containers, by `python -m petiole.run`: Celery's own code, the worker as its broker.

The containers are processes of the local executor; their app cannot reach any Redis.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from celery.result import AsyncResult
from helpers import new_ids, wait_settled, wait_stored
from job_template import report, write_template
from petiole_worker import TENANT, TOP, PetioleWorker

pytestmark = pytest.mark.petiole_only
TIMEOUT_S = 60


@pytest.fixture
def start(start_petiole: Callable[..., PetioleWorker], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that starts a worker whose containers run a Python."""

    def start_with(python: str = sys.executable, **settings: Any) -> PetioleWorker:
        template = write_template(
            tmp_path,
            "container",
            command=(python, "-m", "petiole.run"),
            env={"PETIOLE_APP": "container_app"},
        )
        folders = ("python-shim/src", "tests/integration", "tests/support")
        row = {"executor": "local", "job_template": template, "track_started": True}
        return start_petiole(
            task_options={"container_app.*": row},
            environment={"PYTHONPATH": ":".join(str(TOP / folder) for folder in folders)},
            settings={"worker_concurrency": 2, **settings},
        )

    return start_with


def sign(client: Celery, name: str, *args: Any, **options: Any) -> Signature:
    """Return a signature of a task of the app."""
    immutable = options.pop("immutable", False)
    signature = client.signature(f"container_app.{name}", args=args, immutable=immutable)
    return signature.set(**options) if options else signature


def test_signals_and_handlers(
    start: Callable[..., PetioleWorker], client: Celery, python: str
) -> None:
    start(python)
    result = sign(client, "notes").delay()
    assert result.get(timeout=TIMEOUT_S) == ["task_prerun", "before_start"]


def test_retry_with_changes(
    start: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis, python: str
) -> None:
    worker = start(python)
    result = sign(client, "again", "a").apply_async(headers={"mine": {"deep": 1}})
    assert result.get(timeout=TIMEOUT_S) == ["a!", 1, 5, {"deep": 1}]
    assert worker.log_count(rf"container_app.again\[{result.id}\] retry: Retry: KeyError\('why'\)")
    wait_settled(broker)


def test_autoretry(start: Callable[..., PetioleWorker], client: Celery, python: str) -> None:
    start(python)
    assert sign(client, "flaky").delay().get(timeout=TIMEOUT_S) == 2


def test_chain_callbacks_and_children(
    start: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis, python: str
) -> None:
    start(python)
    first = sign(client, "add", 1, 2)
    first.link(sign(client, "tell"))
    result = chain(first, sign(client, "add", 10), sign(client, "add", 100)).apply_async()
    assert result.get(timeout=TIMEOUT_S) == 113
    document = wait_stored(backend, result.parent.parent.id)
    callback, following = (child[0][0] for child in document["children"])
    assert following == result.parent.id
    assert AsyncResult(callback, app=client).get(timeout=TIMEOUT_S) == ["told", 3]


def test_failure_of_a_chain(
    start: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis, python: str
) -> None:
    start(python)
    (errback,) = new_ids(1)
    failing = sign(client, "fail")
    failing.link_error(sign(client, "tell", task_id=errback))
    result = chain(failing, sign(client, "add", 10), sign(client, "add", 100)).apply_async()
    with pytest.raises(ValueError, match="failed"):
        result.get(timeout=TIMEOUT_S, propagate=True)
    first = result.parent.parent.id
    assert wait_stored(backend, result.parent.id)["result"]["exc_type"] == "ValueError"
    assert wait_stored(backend, first)["status"] == "FAILURE"
    assert AsyncResult(errback, app=client).get(timeout=TIMEOUT_S) == ["told", first]


def test_task_that_sends_a_task(
    start: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis, python: str
) -> None:
    worker = start(python)
    (child,) = new_ids(1)
    parent = sign(client, "sends", "delay", child).delay()
    assert parent.get(timeout=TIMEOUT_S) == child
    assert AsyncResult(child, app=client).get(timeout=TIMEOUT_S) == 3
    assert wait_stored(backend, parent.id)["children"] == [[[child, None], None]]
    assert worker.metric("celery_task_sent_total", name="container_app.add") == 1


@pytest.mark.parametrize(("how", "value"), [("replace", 7), ("replace by chain", 12)])
def test_replace(start: Callable[..., PetioleWorker], client: Celery, how: str, value: int) -> None:
    start()
    assert sign(client, "sends", how).delay().get(timeout=TIMEOUT_S) == value


def test_group(start: Callable[..., PetioleWorker], client: Celery) -> None:
    start()
    result = group(sign(client, "add", number, 1) for number in range(3)).apply_async()
    assert result.get(timeout=TIMEOUT_S) == [1, 2, 3]


def test_chord_fails_with_a_sentence(
    start: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    start()
    members = [sign(client, "add", 1, 2), sign(client, "add", 3, 4)]
    result = chord(members)(sign(client, "tell"))
    for member in result.parent:
        with pytest.raises(Exception, match="a chord, which this version") as raised:
            member.get(timeout=TIMEOUT_S)
        assert type(raised.value).__name__ == "CanvasUnsupported"
    body = wait_stored(backend, result.id)["result"]
    assert body["exc_type"] == "ChordError"
    assert " raised CanvasUnsupported('task container_app.add[" in body["exc_message"][0]


def test_queue_of_others_is_refused(
    start: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    start()
    (child,) = new_ids(1)
    result = sign(client, "sends", "elsewhere", child).delay()
    with pytest.raises(Exception, match=r"elsewhere.*kubernetes_publish_queues"):
        result.get(timeout=TIMEOUT_S)
    assert result.state == "FAILURE"
    assert broker.llen("elsewhere") == 0


def test_queue_of_others_can_be_allowed(
    start: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    start(kubernetes_publish_queues=["else*"])
    (child,) = new_ids(1)
    assert sign(client, "sends", "elsewhere", child).delay().get(timeout=TIMEOUT_S) == child
    (element,) = broker.lrange("elsewhere", 0, -1)
    assert f'"petiole_tenant": "{TENANT}"'.encode() in element


def test_trace_reaches_the_environment(start: Callable[..., PetioleWorker], client: Celery) -> None:
    start()
    names = ["TRACEPARENT", "TRACESTATE", "BAGGAGE", "SENTRY_TRACE"]
    headers = {"traceparent": "00-ab-cd-01", "baggage": "a=$(HOME)", "sentry-trace": "ab-cd-1"}
    result = sign(client, "environment", names).apply_async(headers=headers)
    assert result.get(timeout=TIMEOUT_S) == {
        "TRACEPARENT": "00-ab-cd-01",
        "TRACESTATE": None,
        "BAGGAGE": "a=$(HOME)",
        "SENTRY_TRACE": "ab-cd-1",
    }


def test_links_of_a_task_that_its_container_did_not_survive(
    start: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    start()
    (errback,) = new_ids(1)
    dying = sign(client, "dies")
    dying.link_error(sign(client, "tell", task_id=errback))
    result = chain(dying, sign(client, "add", 10)).apply_async()
    first = result.parent.id
    assert wait_stored(backend, first, timeout_s=TIMEOUT_S)["result"]["exc_type"] == "CrashExit"
    last = wait_stored(backend, result.id)
    assert (last["status"], last["result"]["exc_type"]) == ("FAILURE", "CrashExit")
    assert AsyncResult(errback, app=client).get(timeout=TIMEOUT_S) == ["told", first]


def test_success_of_a_container_that_knows_no_links(
    start_petiole: Callable[..., PetioleWorker], client: Celery, tmp_path: Path
) -> None:
    script = 'printf %s "$REPORT" > "$PETIOLE_RESULT_FILE"'
    template = write_template(tmp_path, "shell", script=script, env={"REPORT": report(3)})
    row = {"executor": "local", "job_template": template}
    start_petiole(task_options={"container_app.*": row})
    assert sign(client, "add", 1, 2).delay().get(timeout=TIMEOUT_S) == 3
    linked = sign(client, "add", 1, 2)
    linked.link(sign(client, "tell"))
    with pytest.raises(Exception, match=r"must run python -m petiole\.run"):
        linked.delay().get(timeout=TIMEOUT_S)
