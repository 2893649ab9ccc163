#!/usr/bin/env python3
"""Record what a real Celery worker stores and publishes: tests/data/results.json, retries.json.

    "$(python3 tests/support/python_env.py newest)" tests/data/capture_results.py

Starts a redis-server on a free loopback port and, per configuration, a solo worker of the Celery
that this interpreter has; sends every task of capture_tasks.py; and writes down, in the form that
the unit tests read, each message as it lay in the queue, each document as it was published on
celery-task-meta-<id>, and each message that a retry published. Paths of this machine in tracebacks
are replaced. Exits 0, or 1 when a task did not end as its scenario says.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import capture_tasks
import celery
import redis

HERE = Path(__file__).resolve().parent
NODE = "celery@golden"
WAIT_S = 60
PACKAGES = Path(celery.__file__).resolve().parents[1]
CONFIGURATIONS = (
    {"timezone": "UTC", "result_extended": False},
    {"timezone": "Asia/Taipei", "result_extended": True},
)


def free_port() -> int:
    """Return a TCP port of the loopback address that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a program for the length of the block, its output in `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=output, cwd=HERE
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(WAIT_S)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """Run a redis-server for the length of the block; give its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([*command, "--dir", str(folder)], {}, folder / "redis.log"):
        client = redis.Redis(port=port)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port


def clean(text: str) -> str:
    """Return `text` without paths of this machine."""
    for path, name in ((PACKAGES, "/python"), (HERE, "/app")):
        text = text.replace(str(path), name)
    return text


def send(app: celery.Celery, client: redis.Redis) -> dict[str, dict[str, Any]]:
    """Send every scenario; return by task id what was sent, in the form of a case."""
    cases: dict[str, dict[str, Any]] = {}
    parent = "5b1cbb64-6f0f-4d5b-9b1e-0f0ae2a4a0aa"
    for scenario in capture_tasks.SCENARIOS:
        options = dict(scenario.options)
        if scenario.is_member:
            options |= {"group_id": "group-1", "group_index": 2, "root_id": parent}
            options |= {"parent_id": parent}
        if scenario.is_expired:
            options["expires"] = datetime.now(UTC) - timedelta(seconds=5)
        result = app.send_task(scenario.task, args=scenario.args, kwargs=scenario.kwargs, **options)
        queues = ["celery", *(f"celery\x06\x16{step}" for step in (3, 6, 9))]
        raw = next(
            text for queue in queues for text in client.lrange(queue, 0, 0) if result.id in text
        )
        cases[result.id] = {
            "name": scenario.name,
            "states": scenario.states,
            "envelope": raw,
            "documents": [],
        }
    return cases


def collect(subscriber: Any, cases: dict[str, dict[str, Any]]) -> None:
    """Wait until each case has the documents that its scenario expects."""
    deadline = time.monotonic() + WAIT_S
    while any(len(case["documents"]) < len(case["states"]) for case in cases.values()):
        if time.monotonic() > deadline:
            break
        item = subscriber.get_message(timeout=1)
        if item and item["type"] == "pmessage":
            task_id = item["channel"].removeprefix("celery-task-meta-")
            if task_id in cases:
                cases[task_id]["documents"].append(clean(item["data"]))


def collect_retries(client: redis.Redis, cases: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages of second tries, which the worker holds until their ETA."""
    retries = []
    for value in client.hvals("unacked"):
        envelope = json.loads(value)[0]
        headers = envelope["headers"]
        if headers["retries"] > 0 and headers["id"] in cases:
            case = cases[headers["id"]]
            retries.append(
                {
                    "name": case["name"],
                    "first": case["envelope"],
                    "next": json.dumps(envelope),
                }
            )
    return sorted(retries, key=lambda retry: str(retry["name"]))


def record(configuration: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run every scenario under one configuration; return its cases and its retries."""
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as port:
        folder = Path(name)
        url = f"redis://127.0.0.1:{port}/0"
        client = redis.Redis(port=port, decode_responses=True)
        subscriber = client.pubsub()
        subscriber.psubscribe("celery-task-meta-*")
        app = capture_tasks.make_app(url, configuration)
        cases = send(app, client)
        environment = {"CAPTURE_URL": url, "CAPTURE_CONFIGURATION": json.dumps(configuration)}
        command = [sys.executable, "-m", "celery", "-A", "capture_tasks", "worker", "-P", "solo"]
        command += ["-n", NODE, "-l", "INFO", "--without-mingle", "--without-gossip"]
        with running(command, environment, folder / "worker.log"):
            collect(subscriber, cases)
            time.sleep(1)  # for a document too many, and for retries to be taken
            collect(subscriber, {})
            retries = collect_retries(client, cases)
        report(cases, folder / "worker.log")
    for case in cases.values():
        case["configuration"] = configuration
        del case["states"]
    return list(cases.values()), retries


def report(cases: dict[str, dict[str, Any]], log: Path) -> None:
    """Exit with 1 when the states of a case are not those that its scenario expects."""
    bad = False
    for case in cases.values():
        states = [json.loads(document)["status"] for document in case["documents"]]
        if states != list(case["states"]):
            print(f"{case['name']}: {states} is not {case['states']}", file=sys.stderr)
            bad = True
    if bad:
        print(log.read_text(), file=sys.stderr)
        sys.exit(1)


def main() -> None:
    """Write both files."""
    cases: list[dict[str, Any]] = []
    retries: list[dict[str, Any]] = []
    for configuration in CONFIGURATIONS:
        more_cases, retries = record(configuration)
        cases += more_cases
    for name, rows in (("results", cases), ("retries", retries)):
        document = {"celery": celery.__version__, "node": NODE, "cases": rows}
        (HERE / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
