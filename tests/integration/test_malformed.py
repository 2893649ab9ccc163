"""Messages that cannot be run: each ends with a line in the log, settled, and the worker lives on.

The cases are those of Celery's own worker, with its log line and its result; where Celery's worker
crashes or loops over a message, ours rejects it and says so.
"""

from __future__ import annotations

import base64
import bz2
import json
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery
from conftest import Worker
from envelopes import Envelope, template
from helpers import SEPARATOR, new_ids, stored, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker
from waiting import wait_for

ADD, ECHO = "petiole.sample.add", "petiole.sample.echo"
UNKNOWN = r"WARNING.*Received and deleted unknown message\.  Wrong destination\?!\?"
INVALID = r"ERROR.*Received invalid task message: "
ANY = "(ERROR|WARNING|CRITICAL)"
UNDECODABLE = r"CRITICAL.*Can't decode message body: "


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Case:
    """A change of a good envelope, the log line that it leads to, and the exception stored."""

    name: str
    change: Callable[[Envelope], Any]
    log: str
    exc_type: str | None = None
    is_celerys: bool = True

    def __str__(self) -> str:
        return self.name


def set_body(data: bytes, **envelope_members: Any) -> Callable[[Envelope], Any]:
    return lambda envelope: envelope.update({"body": encoded(data), **envelope_members})


def set_headers(**headers: Any) -> Callable[[Envelope], Any]:
    return lambda envelope: envelope["headers"].update(headers)


def set_members(**members: Any) -> Callable[[Envelope], Any]:
    return lambda envelope: envelope.update(
        {name.replace("_", "-"): value for name, value in members.items()}
    )


def drop(*path: str) -> Callable[[Envelope], Any]:
    def change(envelope: Envelope) -> None:
        holder: Any = envelope
        for name in path[:-1]:
            holder = holder[name]
        del holder[path[-1]]

    return change


def compressed(data: bytes, kind: str) -> Callable[[Envelope], Any]:
    def change(envelope: Envelope) -> None:
        envelope["body"] = encoded(data)
        envelope["headers"]["compression"] = kind

    return change


def version_1(body: dict[str, Any]) -> Callable[[Envelope], Any]:
    """Replace a message by one of protocol 1: no headers, one object as body."""

    def change(envelope: Envelope) -> None:
        own = {"task": ADD, "id": envelope["headers"]["id"], "args": [1, 2], "kwargs": {}}
        envelope["headers"] = {}
        envelope["body"] = encoded(json.dumps({**own, **body}).encode())

    return change


def nothing_of_version_1(envelope: Envelope) -> None:
    envelope["headers"] = {}
    envelope["body"] = encoded(b'{"hello": "world"}')


CASES = [
    Case("unregistered", set_headers(task="nope.x"), r"ERROR.*Received unregistered task of type "
         r"'nope\.x'.* no pattern of `tasks` in the settings matches its name\.", "NotRegistered"),
    Case("no task header", nothing_of_version_1, UNKNOWN),
    Case("body no object, no task", lambda e: (e.update(headers={}), set_body(b"[1]")(e)), UNKNOWN),
    Case("not JSON", set_body(b"[[1, 2], {}"), UNDECODABLE),
    Case("not UTF-8", set_body(b'[["\xff\xfe"], {}, {}]'), UNDECODABLE),
    Case("unknown compression", set_headers(compression="application/x-nothing"), UNDECODABLE),
    Case("corrupt compression", set_headers(compression="application/x-gzip"), UNDECODABLE),
    Case("pickle", set_members(content_type="application/x-python-serialize",
         content_encoding="binary"), INVALID + "Refusing to deserialize"),
    Case("unknown content type", set_members(content_type="application/x-new"), INVALID
         + "Refusing to deserialize"),
    Case("bad eta", set_headers(eta="tomorrow"), INVALID + "invalid ETA value .tomorrow."),
    Case("bad expires", set_headers(expires="25 o'clock"), INVALID + "invalid expires value"),
    Case("v1 kwargs no mapping", version_1({"kwargs": [1]}), INVALID
         + "Task keyword arguments must be a mapping"),
    Case("too many arguments", set_body(b"[[1, 2, 3], {}, {}]"), "raised unexpected: TypeError",
         "TypeError"),
]  # fmt: skip
OUR_CASES = [
    Case("no id", drop("headers", "id"), "ERROR.*id"),
    Case("v1 without id", version_1({"id": None}), "ERROR.*id"),
    Case("content type null", set_members(content_type=None), "ERROR"),
    Case("application/data", set_members(content_type="application/data"), "ERROR"),
    Case("empty body", set_members(body=""), ANY),
    Case("body of two items", set_body(b"[[1, 2], {}]"), ANY),
    Case("body of four items", set_body(b"[[1, 2], {}, {}, {}]"), ANY),
    Case("v2 kwargs no mapping", set_body(b"[[1, 2], [], {}]"), "ERROR"),
    Case("args no list", set_body(b'["ab", {}, {}]'), "ERROR"),
    Case("embed no object", set_body(b"[[1, 2], {}, 7]"), "ERROR"),
    Case("task no text", set_headers(task=7), ANY),
    Case("id no text", set_headers(id=[1]), "ERROR"),
    Case("retries no number", set_headers(retries="many"), "ERROR"),
    Case("headers no object", set_members(headers=[1]), ANY),
    Case("properties no object", set_members(properties=7), ANY),
    Case("body no text", set_members(body=7), ANY),
    Case("body not base64", set_members(body="%%%"), ANY),
    Case("eta too far", set_headers(eta="9999-12-31T23:59:59.999999-23:59"), "ERROR"),
    Case("eta no text", set_headers(eta=5), "ERROR"),
]  # fmt: skip


def check_case(
    case: Case, worker: Worker, pattern: Envelope, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Send the case and see its log line, its settlement and its result."""
    task_id = new_ids(1)[0]
    envelope = json.loads(json.dumps(pattern).replace(pattern["headers"]["id"], task_id))
    case.change(envelope)
    marked = len(worker.log())
    broker.lpush(TENANT, json.dumps(envelope))
    worker.wait_log(rf"(?s)\A.{{{marked}}}.*?{case.log}")
    wait_settled(broker)
    assert broker.llen(TENANT) == 0
    if case.exc_type:
        document = wait_stored(backend, task_id)
        assert (document["status"], document["result"]["exc_type"]) == ("FAILURE", case.exc_type)
    else:
        assert stored(backend, task_id) is None


def test_as_celery_does(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    worker = start_worker(log_level="INFO")
    pattern = template(broker, client, TENANT, ADD, args=(1, 2))
    for case in CASES:
        check_case(case, worker, pattern, broker, backend)
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_better_than_celery(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """Celery's worker crashes, loops or forgets here; rejecting the message is enough."""
    worker = start_petiole()
    pattern = template(broker, client, TENANT, ADD, args=(1, 2))
    for case in OUR_CASES:
        check_case(case, worker, pattern, broker, backend)
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_elements_that_are_no_messages(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """They go to petiole:rejected:<queue>, a bounded list, and never into `unacked`."""
    worker = start_petiole()
    elements = [b"", b"not json", b"[1, 2]", b'"text"', b"{", b'{"a": 1} x', b"\xff\x00", b"null"]
    for element in elements:
        broker.lpush(TENANT, element)
    broker.lpush(f"{TENANT}{SEPARATOR}9", b"nine")
    rejected = f"petiole:rejected:{TENANT}"
    wait_for(lambda: broker.llen(rejected) == len(elements) + 1, what=worker.log)
    assert set(broker.lrange(rejected, 0, -1)) == {*elements, b"nine"}
    assert broker.llen(TENANT) == 0
    assert broker.hlen("unacked") == 0
    worker.wait_log(r"(WARNING|ERROR).*petiole:rejected:tenant-a")
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3
    broker.lpush(TENANT, *[b"more"] * 1500)
    wait_for(lambda: broker.llen(TENANT) == 0)
    assert broker.llen(rejected) == 1000


@pytest.mark.petiole_only
@pytest.mark.parametrize(
    "missing", [("properties", "delivery_tag"), ("properties", "delivery_info")]
)
def test_envelope_without_delivery_members(
    missing: tuple[str, ...],
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """What Kombu needs and we do not: such a message runs, or is rejected with a line."""
    worker = start_petiole()
    envelope = template(broker, client, TENANT, ADD, args=(1, 2))
    drop(*missing)(envelope)
    broker.lpush(TENANT, json.dumps(envelope))
    wait_settled(broker)
    wait_for(lambda: stored(backend, envelope["headers"]["id"]) or worker.log_count(ANY))
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


@pytest.mark.petiole_only
def test_wrong_type_of_key(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """A queue or `unacked` that is no list or hash is named, and serves again when it is gone."""
    worker = start_petiole()
    broker.set("unacked", "surprise")
    result = client.send_task(ADD, (1, 2))
    worker.wait_log(r"(ERROR|CRITICAL|WARNING).*WRONGTYPE")
    broker.delete("unacked")
    assert result.get(timeout=15) == 3


def test_body_encodings(
    start_worker: Callable[..., Worker], client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Plain text instead of base64, and zlib, in the names that Kombu knows."""
    start_worker()
    body = b'[["x"], {}, null]'
    changes: list[Callable[[Envelope], Any]] = [
        lambda e: (e.update(body=body.decode()), e["properties"].update(body_encoding="utf-8")),
        lambda e: (e.update(body=body.decode()), e["properties"].pop("body_encoding")),
        compressed(zlib.compress(body), "application/x-gzip"),
        compressed(zlib.compress(body), "gzip"),
        compressed(zlib.compress(body), "zlib"),
    ]
    for change in changes:
        envelope = template(broker, client, TENANT, ECHO, args=("x",))
        change(envelope)
        broker.lpush(TENANT, json.dumps(envelope))
        assert wait_stored(backend, envelope["headers"]["id"])["result"] == "x"


@pytest.mark.petiole_only
def test_compressions_without_a_library(
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
) -> None:
    """What Celery unpacks and we cannot is a failure that says so to the client."""
    start_petiole()
    body = b'[["x"], {}, null]'
    for kind, data in (("x-bz2", bz2.compress(body)), ("x-lzma", lzma.compress(body))):
        envelope = template(broker, client, TENANT, ECHO, args=("x",))
        compressed(data, f"application/{kind}")(envelope)
        broker.lpush(TENANT, json.dumps(envelope))
        document = wait_stored(backend, envelope["headers"]["id"])
        assert document["result"]["exc_type"] == "MessageUnsupported"
        assert kind in document["result"]["exc_message"][0]
    wait_settled(broker)


@pytest.mark.petiole_only
def test_bomb(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """A small message that would unpack to gigabytes is refused, and costs no memory."""
    worker = start_petiole()
    envelope = template(broker, client, TENANT, ECHO, args=("x",))
    packer = zlib.compressobj(9)
    megabyte = b" " * (1 << 20)
    data = b"".join([*(packer.compress(megabyte) for _ in range(1200)), packer.flush()])
    compressed(data, "application/x-gzip")(envelope)
    broker.lpush(TENANT, json.dumps(envelope))
    worker.wait_log(UNDECODABLE, 20)
    wait_settled(broker)
    assert worker.metric("process_resident_memory_bytes") < 1 << 30
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3
