#!/usr/bin/env python3
"""Write messages.json: real task messages, and how a real Celery worker reads them.

Some of them become seeds of tests/fuzz/fuzz_message.c, too.

    "$(python3 tests/support/python_env.py newest)" tests/data/make_messages.py CAPTURE.json ...

A capture is what task clients of some Celery version left in the lists of a Redis:
{"redis": {"celery": VERSION, "scenarios": {NAME: {"queues": {KEY: [{"raw": TEXT}]}}}}}. Each
different message is kept as it lay there, beside what celery.worker.request.Request (and the
conversion of protocol 1 before it) makes of it: names, ids, limits, times as seconds since 1970,
and the parts of the body as json.dumps writes them. Exits 0.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Celery
from celery.worker.request import Request
from celery.worker.strategy import hybrid_to_proto2
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.message import Message
from kombu.utils import json as kombu_json

HERE = Path(__file__).resolve().parent
QUEUES = ("celery", "prio", "topicq", "pfx:celery")
SEEDS = HERE.parent / "fuzz" / "corpus" / "message"
SEEDED = (
    "simple", "eta_offset_expires_dt", "shadow_headers_limits", "json_types", "chord", "stamped",
    "compress_gzip", "proto1_full", "serializer_yaml", "priority_5",
)  # fmt: skip
UNREADABLE = ("bzip2", "lzma")  # Celery reads them; the worker leaves them to Python processes


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """Yield a name and the raw envelope of each message in a capture."""
    capture = json.loads(path.read_text())["redis"]
    for scenario, content in sorted(capture["scenarios"].items()):
        for key, elements in sorted(content["queues"].items()):
            if key.split("\x06")[0].removesuffix(":5") in QUEUES:
                for number, element in enumerate(elements):
                    yield f"{capture['celery']} {scenario} {number}", element["raw"]


def body_of(envelope: dict[str, Any]) -> bytes:
    """Return the body as it was serialized and compressed."""
    return base64.b64decode(envelope["body"])


def read(app: Celery, raw: str) -> dict[str, Any]:
    """Return what Celery's worker reads in an envelope."""
    envelope = json.loads(raw)
    properties = envelope["properties"]
    message = Message(
        body=body_of(envelope),
        delivery_tag=properties["delivery_tag"],
        content_type=envelope["content-type"],
        content_encoding=envelope["content-encoding"],
        delivery_info=properties["delivery_info"],
        properties=properties,
        headers=envelope["headers"],
        accept=["application/json"],
    )
    try:
        payload = message.payload
    except ContentDisallowed:
        return {"fault": "invalid"}
    except DecodeError:
        return {"fault": "undecodable"}
    protocol = 2 if "task" in envelope["headers"] else 1
    options: dict[str, Any] = {}
    embed = payload[2] if isinstance(payload, list) else {}
    if isinstance(payload, dict):
        body, headers, decoded, utc = hybrid_to_proto2(message, payload)
        options = {"body": body, "headers": headers, "decoded": decoded, "utc": utc}
        embed = body[2]
    task = app.tasks["stand.in"]
    request = Request(message, app=app, hostname="celery@golden", task=task, **options)
    return {"fault": "fine", "protocol": protocol} | members(request, embed, payload)


def members(request: Request, embed: dict[str, Any], payload: Any) -> dict[str, Any]:
    """Return the members of a request that a worker in C reads too."""
    known = request.request_dict
    hard, soft = known.get("timelimit") or (None, None)
    args, kwargs = known["args"], known["kwargs"]
    plain = isinstance(payload, (list, dict)) and is_plain([args, kwargs])
    return {
        "task": request._type,
        "shadow": known.get("shadow") or "",
        "id": request.id,
        "root_id": request.root_id or "",
        "parent_id": request.parent_id or "",
        "group": known.get("group") or "",
        "group_index": known.get("group_index"),
        "retries": known.get("retries"),
        "replaced_task_nesting": known.get("replaced_task_nesting") or 0,
        "ignore_result": known.get("ignore_result"),
        "hard_limit": hard or 0,
        "soft_limit": soft or 0,
        "eta": request.eta.timestamp() if request.eta else 0,
        "expires": request.expires.timestamp() if request.expires else 0,
        "priority": known["properties"].get("priority") or 0,
        "reply_to": request.reply_to or "",
        "correlation_id": request.correlation_id or "",
        "routing_key": request.delivery_info["routing_key"],
        "exchange": request.delivery_info["exchange"],
        "argsrepr": known.get("argsrepr") or "",
        "headers": {key: known[key] for key in ("x-custom", "n", "h") if key in known},
        "stamps": known.get("stamps"),
        "args": json.dumps(args) if plain else None,
        "kwargs": json.dumps(kwargs) if plain else None,
        "callbacks": json.dumps((embed or {}).get("callbacks")),
        "errbacks": json.dumps((embed or {}).get("errbacks")),
        "chain": json.dumps((embed or {}).get("chain")),
        "chord": json.dumps((embed or {}).get("chord")),
    }


def is_plain(value: Any) -> bool:
    """Tell whether json.dumps gives back what lay in the message: no Kombu types in it."""
    try:
        return bool(json.dumps(value) == kombu_json.dumps(value))
    except TypeError:
        return False


def write_seed(name: str, raw: str) -> None:
    """Write an envelope as the fuzzer takes it: a line for each part, then the body."""
    envelope = json.loads(raw)
    head = [json.dumps(envelope["headers"]), json.dumps(envelope["properties"])]
    text = "\n".join([*head, envelope["content-type"], ""])
    (SEEDS / name).write_bytes(text.encode() + body_of(envelope))


def main(paths: list[str]) -> None:
    """Write the file."""
    app = Celery("stand-in", set_as_current=False)

    @app.task(shared=False, name="stand.in")
    def stand_in() -> None:
        pass

    app.finalize()
    cases = []
    for path in paths:
        for name, raw in messages(Path(path)):
            expected = read(app, raw)
            if any(word in name for word in UNREADABLE):
                expected = {"fault": "left"}
            version, scenario, number = name.split()
            if scenario in SEEDED and number == "0":
                write_seed(f"{scenario}-{version}", raw)
            cases.append({"name": name, "envelope": raw, "expected": expected})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "messages.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1:])
