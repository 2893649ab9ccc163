"""What is stored and published for a task, byte by byte what Celery's own worker writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery, chain
from conftest import Worker
from envelopes import template
from helpers import TENANT_HEADER, count_stored, stored, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker
from waiting import wait_for

ADD, ECHO, FAIL = "petiole.sample.add", "petiole.sample.echo", "petiole.sample.fail"
CALLS: list[tuple[str, list[Any], dict[str, Any]]] = [
    (ADD, [1, 2], {}),
    (ADD, [], {"x": 0.1, "y": 0.2}),
    (ECHO, ['é € \U0001f600 "\\/\b\n\x7f'], {}),
    (ECHO, [{"b": [1, -0.0, 1e300, None, True], "a": {}}], {}),
    (ECHO, [float("-inf")], {}),
    (ECHO, [[]], {}),
    (FAIL, ["no\nway"], {}),
    (FAIL, [], {}),
    (ADD, [1, "a"], {}),
    (ADD, [1], {}),
    (ADD, [1, 2], {"z": 3}),
    ("nobody.knows", [1], {"k": "v"}),
]
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?", "TIME"),
    (r'"traceback": ("(?:[^"\\]|\\.)*"|null)', '"traceback": "..."'),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r'"pid": \d+', '"pid": 0'),
)


def without_volatile(text: str) -> str:
    """Return a stored document without ids, times and traces."""
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.petiole_only
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"result_extended": True},
        {"timezone": "Asia/Taipei", "enable_utc": True},
        {"timezone": "America/New_York", "enable_utc": False},
    ],
    ids=["plain", "extended", "utc-with-zone", "local-zone"],
)
def test_documents_are_celerys(
    settings: dict[str, Any],
    start_petiole: Callable[..., PetioleWorker],
    start_celery: Callable[..., Worker],
    make_client: Callable[..., Celery],
    backend: redis.Redis,
) -> None:
    """The same calls, run by Celery's worker and by ours, leave the same bytes behind."""
    client = make_client(**settings)
    start_petiole(name="same", settings=settings)
    python = start_celery(name="same", settings=settings, queues=("python",))
    headers = {TENANT_HEADER: TENANT}
    documents: dict[str, list[str]] = {TENANT: [], "python": []}
    for task, args, kwargs in CALLS:
        for queue, texts in documents.items():
            result = client.send_task(task, args, kwargs, queue=queue, headers=headers)
            wait_stored(backend, result.id)
            text = backend.get(f"celery-task-meta-{result.id}").decode()
            texts.append(without_volatile(text).replace(f'"queue": "{queue}"', '"queue": "Q"'))
    assert documents[TENANT] == documents["python"]
    assert python.is_running()


def test_publications(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    """Each state is published once, as it is stored, on the channel named like the key."""
    start_worker(settings={"task_track_started": True})
    with backend.pubsub() as subscriber:
        subscriber.psubscribe("celery-task-meta-*")
        assert subscriber.get_message(timeout=5)
        result = client.send_task(ADD, (1, 2))
        states = []
        while states[-1:] != ["SUCCESS"]:
            message = subscriber.get_message(timeout=5)
            assert message, states
            assert message["channel"].decode() == f"celery-task-meta-{result.id}"
            states.append(json.loads(message["data"])["status"])
        assert states == ["STARTED", "SUCCESS"]
        assert subscriber.get_message(timeout=0.2) is None
    assert message["data"] == backend.get(f"celery-task-meta-{result.id}")


def test_track_started(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    """STARTED names the process and the node."""
    worker = start_worker(settings={"task_track_started": True})
    result = client.send_task("petiole.sample.sleep", (3.0,))
    document = wait_stored(backend, result.id, ("STARTED",))
    assert set(document["result"]) == {"pid", "hostname"}
    assert document["result"]["hostname"] == worker.node_name
    assert document["date_done"] is None
    assert result.get(timeout=20) is None


def test_ignored_results(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """The message's wish wins over the task's; failures of ignored tasks are not stored either."""
    start_worker(task_options={ECHO: {"ignore_result": True}})
    for task, args, options in (
        (ADD, (1, 2), {"ignore_result": True}),
        (FAIL, ("x",), {"ignore_result": True}),
        (ECHO, ("x",), {}),
    ):
        client.send_task(task, args, **options)
    kept = client.send_task(ECHO, ("y",), ignore_result=False)
    last = client.send_task(ADD, (1, 2))
    assert (kept.get(timeout=10), last.get(timeout=10)) == ("y", 3)
    wait_settled(broker)
    assert count_stored(backend) == 2


def test_errors_of_ignored_tasks(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    start_worker(settings={"task_store_errors_even_if_ignored": True})
    assert client.send_task(ADD, (1, 2), ignore_result=True)
    failed = client.send_task(FAIL, ("x",), ignore_result=True)
    assert wait_stored(backend, failed.id)["status"] == "FAILURE"
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3
    assert count_stored(backend) == 2


@pytest.mark.parametrize(("expires", "bounds"), [(100, (90, 100)), (None, (-1, -1)), (0, (-1, -1))])
def test_result_expires(
    expires: int | None,
    bounds: tuple[int, int],
    start_worker: Callable[..., Worker],
    client: Celery,
    backend: redis.Redis,
) -> None:
    """Seconds until a result is gone; none and 0 are for ever."""
    start_worker(settings={"result_expires": expires})
    result = client.send_task(ADD, (1, 2))
    wait_stored(backend, result.id)
    assert bounds[0] <= backend.ttl(f"celery-task-meta-{result.id}") <= bounds[1]


def test_default_expiry_is_a_day(
    start_worker: Callable[..., Worker], client: Celery, backend: redis.Redis
) -> None:
    start_worker()
    result = client.send_task(ADD, (1, 2))
    wait_stored(backend, result.id)
    assert 86000 < backend.ttl(f"celery-task-meta-{result.id}") <= 86400


def test_success_is_final(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """A stored SUCCESS is not overwritten, by whatever a second copy of the message ends in."""
    start_worker()
    result = client.send_task(ADD, (1, 2))
    before = wait_stored(backend, result.id)
    client.send_task(FAIL, ("second copy",), task_id=result.id)
    assert client.send_task(ADD, (3, 4)).get(timeout=10) == 7
    wait_settled(broker)
    wait_for(lambda: broker.llen(TENANT) == 0)
    assert stored(backend, result.id) == before


def test_no_backend(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Without a result backend tasks run and nothing is stored."""
    worker = start_worker(settings={"result_backend": None})
    result = client.send_task(ADD, (1, 2))
    worker.wait_log(rf"{result.id}\] succeeded in")
    wait_settled(broker)
    assert count_stored(backend) == 0


@pytest.mark.petiole_only
def test_canvas_is_refused(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """Callbacks and chains, which the worker does not follow, are a FAILURE that says so."""
    start_petiole()
    signature = {"task": ADD, "args": [1], "kwargs": {}, "options": {}, "subtask_type": None}
    for member in ("callbacks", "chain"):
        envelope = template(
            broker,
            client,
            TENANT,
            ADD,
            args=(1, 2),
            **{_OPTION[member]: [client.signature(signature)]},
        )
        broker.lpush(TENANT, json.dumps(envelope))
        document = wait_stored(backend, envelope["headers"]["id"])
        assert document["status"] == "FAILURE"
        assert member.rstrip("s") in json.dumps(document["result"])


@pytest.mark.petiole_only
def test_who_waits_behind_refused_canvas_is_told(
    start_petiole: Callable[..., PetioleWorker], client: Celery, backend: redis.Redis
) -> None:
    """The last task of a chain fails with the first, and an errback is called."""
    start_petiole()
    first = client.signature(ADD, args=(1, 2))
    first.link_error(client.signature(ADD, args=(3, 4), immutable=True, task_id="errback"))
    last = chain(first, client.signature(ADD, args=(5,))).apply_async()
    with pytest.raises(Exception, match="asks for a chain") as raised:
        last.get(timeout=10)
    assert type(raised.value).__name__ == "CanvasUnsupported"
    assert wait_stored(backend, "errback")["result"] == 7


_OPTION = {"callbacks": "link", "chain": "chain"}
