"""The app and the scenarios of capture_results.py; the worker it starts loads this too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject

RETRY_S = 300


class CustomError(Exception):
    """An exception of the app's own module."""


@dataclass(frozen=True)
class Scenario:
    """One task to send, and the states that are published about it, in order."""

    name: str
    task: str
    states: tuple[str, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    is_member: bool = False
    is_expired: bool = False


VALUES = {
    "null": None,
    "true": True,
    "text": "plain",
    "unicode": 'é€ \U0001f600 \x7f \x00 "quoted" back\\slash / \n',
    "numbers": [0, -1, 2**70, 0.1, 1e16, 1e-5, 1.5e300, float("inf"), float("-inf")],
    "nested": {"a": [1, {"b": [None, True, {"c": "d"}]}], "ü": {}, "empty": []},
}

SCENARIOS = (
    *(
        Scenario(f"success {name}", "cap.echo", ("SUCCESS",), (value,), {"name": name})
        for name, value in VALUES.items()
    ),
    Scenario("success in a group", "cap.echo", ("SUCCESS",), (1,), is_member=True),
    Scenario("success with priority", "cap.echo", ("SUCCESS",), (1,), options={"priority": 5}),
    Scenario("success with a shadow", "cap.echo", ("SUCCESS",), (1,), options={"shadow": "other"}),
    Scenario(
        "success with stamps",
        "cap.echo",
        ("SUCCESS",),
        (1,),
        options={"stamped_headers": ["who", "why"], "who": "mé", "why": ["a", 1]},
    ),
    Scenario("ignored by the task", "cap.ignored", ()),
    Scenario("ignored by the message", "cap.echo", (), (1,), options={"ignore_result": True}),
    Scenario("kept by the message", "cap.ignored", ("SUCCESS",), options={"ignore_result": False}),
    Scenario("failure of a builtin", "cap.fail", ("FAILURE",), ("ValueError", ["é€", 1, None])),
    Scenario("failure without arguments", "cap.fail", ("FAILURE",), ("KeyError", [])),
    Scenario("failure of an own class", "cap.fail", ("FAILURE",), ("CustomError", ["a", {"b": 1}])),
    Scenario("failure in a group", "cap.fail", ("FAILURE",), ("ValueError", []), is_member=True),
    Scenario("failure ignored", "cap.ignored_fail", ()),
    Scenario("failure kept although ignored", "cap.errors_kept", ("FAILURE",)),
    Scenario("wrong arguments", "cap.echo", ("FAILURE",), (1, 2, 3, 4)),
    Scenario("started", "cap.tracked", ("STARTED", "SUCCESS"), (1,)),
    Scenario("started in a group", "cap.tracked", ("STARTED", "SUCCESS"), (1,), is_member=True),
    Scenario("expired", "cap.echo", ("REVOKED",), (1,), is_expired=True),
    Scenario("expired in a group", "cap.echo", ("REVOKED",), (1,), is_expired=True, is_member=True),
    Scenario("expired and ignored", "cap.ignored", (), is_expired=True),
    Scenario("not registered", "other.unknown", ("FAILURE",), (1,), {"k": 2}),
    Scenario("not registered in a group", "other.unknown", ("FAILURE",), is_member=True),
    Scenario(
        "not registered and ignored",
        "other.unknown",
        ("FAILURE",),
        options={"ignore_result": True},
    ),
    Scenario("asked for a retry", "cap.retry", ("RETRY",), (1,), {"k": "é"}),
    Scenario("asked for a retry without a cause", "cap.retry_plain", ("RETRY",), (1,)),
    Scenario("autoretry", "cap.autoretry", ("RETRY",), ("x",)),
    Scenario("autoretry in a group", "cap.autoretry", ("RETRY",), ("x",), is_member=True),
    Scenario(
        "autoretry with everything",
        "cap.autoretry",
        ("RETRY",),
        ("x",),
        options={
            "expires": 7200,
            "time_limit": 60,
            "soft_time_limit": 45,
            "shadow": "other",
            "priority": 5,
            "headers": {"x-custom": "v", "petiole_tenant": "tenant-user"},
            "reply_to": "some-queue",
        },
    ),
    Scenario(
        "autoretry with stamps",
        "cap.autoretry",
        ("RETRY",),
        ("x",),
        options={"stamped_headers": ["who"], "who": "me"},
    ),
    Scenario(
        "autoretry compressed",
        "cap.autoretry",
        ("RETRY",),
        ("x" * 99,),
        {},
        {"compression": "gzip"},
    ),
    Scenario("rejected", "cap.reject", ("FAILURE",)),
    Scenario("said to be ignored", "cap.ignore", ()),
)


def make_app(url: str, configuration: Mapping[str, Any]) -> Celery:
    """Return the app on the Redis at `url`."""
    app = Celery("cap", broker=url, backend=url, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, **configuration)
    add_endings(app)
    add_retries(app)
    app.finalize()
    return app


def add_endings(app: Celery) -> None:
    """Register the tasks that end."""

    @app.task(shared=False, name="cap.echo")
    def echo(value: Any, name: str = "") -> Any:
        return value

    @app.task(shared=False, name="cap.tracked", track_started=True)
    def tracked(value: Any) -> Any:
        return value

    @app.task(shared=False, name="cap.ignored", ignore_result=True)
    def ignored() -> int:
        return 1

    @app.task(shared=False, name="cap.ignored_fail", ignore_result=True)
    def ignored_fail() -> None:
        raise ValueError(1)

    @app.task(
        shared=False, name="cap.errors_kept", ignore_result=True, store_errors_even_if_ignored=True
    )
    def errors_kept() -> None:
        raise ValueError(1)

    @app.task(shared=False, name="cap.fail")
    def fail(name: str, arguments: list[Any]) -> None:
        classes = {"ValueError": ValueError, "KeyError": KeyError, "CustomError": CustomError}
        raise classes[name](*arguments)

    @app.task(shared=False, name="cap.reject", acks_late=True)
    def reject() -> None:
        raise Reject("why", requeue=False)

    @app.task(shared=False, name="cap.ignore")
    def ignore() -> None:
        raise Ignore


def add_retries(app: Celery) -> None:
    """Register the tasks that are tried again."""

    @app.task(shared=False, name="cap.retry", bind=True, default_retry_delay=RETRY_S)
    def retry(self: Task, value: Any, k: str = "") -> None:
        try:
            raise CustomError("é", value)
        except CustomError as error:
            raise self.retry(exc=error) from error

    @app.task(shared=False, name="cap.retry_plain", bind=True, default_retry_delay=RETRY_S)
    def retry_plain(self: Task, value: Any) -> None:
        raise self.retry()

    @app.task(
        shared=False,
        name="cap.autoretry",
        autoretry_for=(ValueError,),
        default_retry_delay=RETRY_S,
    )
    def autoretry(value: str) -> None:
        raise ValueError(value)


if "CAPTURE_URL" in os.environ:
    app = make_app(os.environ["CAPTURE_URL"], json.loads(os.environ["CAPTURE_CONFIGURATION"]))
