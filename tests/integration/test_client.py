"""Clients of the oldest and the newest Celery get what Celery's worker gives them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from celery_worker import APP_FOLDER, app_environment
from conftest import Worker
from petiole_worker import TENANT
from redis_server import RedisServer

VALUES = {
    "delay": 5,
    "kwargs": 3.5,
    "text": 'é € \U0001f600 " \\ \n \x00',
    "nested": {"a": [1, None, True, {"b": -0.5}], "": []},
    "infinity": float("inf"),
    "sleep": None,
    "gzip": "z" * 5000,
    "countdown": 9,
    "expires": 13,
    "headers": 17,
    "protocol_1": 21,
}
ERRORS: dict[str, tuple[str, list[Any]]] = {
    "fail": ("builtins.ValueError", ["no way"]),
    "fail_unicode": ("builtins.ValueError", ["ö\n"]),
    "fail_empty": ("builtins.ValueError", []),
    "operand": ("builtins.TypeError", ["unsupported operand type(s) for +: 'int' and 'str'"]),
    "missing": ("builtins.TypeError", ["add() missing 1 required positional argument: 'y'"]),
    "unknown": ("celery.exceptions.NotRegistered", ["nobody.knows.this"]),
}


def run_client(python: str, server: RedisServer) -> dict[str, Any]:
    settings = {
        "broker_url": server.url(0),
        "result_backend": server.url(1),
        "task_default_queue": TENANT,
    }
    done = subprocess.run(
        [python, str(APP_FOLDER / "client_program.py")],
        env=app_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_round_trips(
    python: str, start_worker: Callable[..., Worker], redis_server: RedisServer
) -> None:
    worker = start_worker()
    answer = run_client(python, redis_server)
    outcomes, states = answer["outcomes"], answer["states"]
    assert {name: outcomes[name].get("value", outcomes[name]) for name in VALUES} == VALUES
    errors = {name: (outcomes[name].get("raises"), outcomes[name].get("args")) for name in ERRORS}
    assert errors == ERRORS
    assert {name for name, state in states.items() if state == "SUCCESS"} == set(VALUES)
    assert {name for name, state in states.items() if state == "FAILURE"} == set(ERRORS)
    assert answer["sums"] == [2 * number for number in range(100)]
    assert worker.is_running()
