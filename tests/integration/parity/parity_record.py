"""What an app under comparison notes of itself, in Redis: signals, handlers, steps.

Each note is a JSON object at the end of the list `records` of the database PARITY_RECORDS, and is
published on the channel `record:TASK_ID`. Without that variable nothing is noted.
"""

from __future__ import annotations

import json
import os
from typing import Any

import redis
from celery import current_task, signals
from celery.worker.request import Request

LIST = "records"
CHANNEL = "record:"
TASK_SIGNALS = (
    "task_received",
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_failure",
    "task_retry",
    "task_revoked",
    "task_rejected",
    "task_unknown",
    "task_internal_error",
    "before_task_publish",
    "after_task_publish",
)
WORKER_SIGNALS = (
    "celeryd_init",
    "celeryd_after_setup",
    "import_modules",
    "worker_init",
    "worker_before_create_process",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_ready",
    "worker_shutting_down",
    "worker_shutdown",
    "setup_logging",
    "after_setup_logger",
    "after_setup_task_logger",
)
_clients: dict[int, redis.Redis] = {}
_parent = os.getpid()


def _client() -> redis.Redis:
    """Return this process' own connection: one that was forked is of no use."""
    pid = os.getpid()
    if pid not in _clients:
        _clients.clear()
        _clients[pid] = redis.Redis.from_url(os.environ["PARITY_RECORDS"])
    return _clients[pid]


def record(kind: str, task_id: Any, **fields: Any) -> None:
    """Note something of a task, or with None of the worker."""
    if "PARITY_RECORDS" not in os.environ:
        return
    note = {
        "kind": kind,
        "id": task_id,
        "pid": os.getpid(),
        "in_child": os.getpid() != _parent or "PARITY_IS_CHILD" in os.environ,
        "node": os.environ.get("PARITY_NODE"),
        **fields,
    }
    pipe = _client().pipeline()
    pipe.rpush(LIST, json.dumps(note))
    pipe.publish(f"{CHANNEL}{task_id}", kind)
    pipe.execute()


def describe(value: Any, depth: int = 6) -> Any:
    """Return `value` as JSON can show it: the class of what is neither plain nor an exception."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    shown: Any = f"<{kind}>"
    if value is None or isinstance(value, (bool, int, float)):
        shown = value
    elif isinstance(value, str):
        shown = str(value).encode("utf-8", "backslashreplace").decode()
    elif depth == 0:
        shown = "<deeper>"
    elif isinstance(value, BaseException):
        args = [describe(each, depth - 1) for each in value.args]
        shown = {"exception": kind, "args": args}
    elif isinstance(value, dict):
        shown = {str(key): describe(each, depth - 1) for key, each in value.items()}
    elif isinstance(value, (list, tuple)):
        shown = [describe(each, depth - 1) for each in value]
    elif isinstance(value, (bytes, set)):
        shown = repr(value)
    return shown


def _task_id(sender: Any, values: dict[str, Any]) -> Any:
    request = values.get("request")
    if isinstance(request, Request) or hasattr(request, "id"):
        return request.id
    if values.get("task_id"):
        return values["task_id"]
    if values.get("id"):
        return values["id"]
    running = current_task._get_current_object() if current_task else None
    return running.request.id if running is not None else None


def _root_id(task_id: Any) -> Any:
    running = current_task._get_current_object() if current_task else None
    if running is not None and running.request.id == task_id:
        return running.request.root_id
    return None


def _on_task(name: str) -> Any:
    def note(sender: Any = None, signal: Any = None, **values: Any) -> None:
        task_id = _task_id(sender, values)
        shown = {key: describe(value) for key, value in values.items()}
        named = sender if isinstance(sender, str) else getattr(sender, "name", None)
        record(name, task_id, root_id=_root_id(task_id), sender=named, values=shown)

    return note


def _on_worker(name: str) -> Any:
    def note(sender: Any = None, signal: Any = None, **values: Any) -> None:
        record("worker_signal", None, signal=name, keys=sorted(values))

    return note


def connect() -> None:
    """Note every signal from now on, except of clients."""
    if "PARITY_RECORDS" not in os.environ:
        return
    for name in TASK_SIGNALS:
        getattr(signals, name).connect(_on_task(name), weak=False)
    for name in WORKER_SIGNALS:
        if (
            hasattr(signals, name) and name != "setup_logging"
        ):  # a receiver of it takes logging over
            getattr(signals, name).connect(_on_worker(name), weak=False)
