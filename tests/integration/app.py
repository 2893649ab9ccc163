"""The Celery app of clients, and of Celery's own worker where one runs beside ours.

TEST_APP in the environment is a JSON object: `settings` of the app, and for each of `tasks` the
options of its decorator. The tasks are those of the sample plugin, in Python; they run under
Celery 5.2.7 and later.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery

EXCEPTIONS = {"ValueError": ValueError, "TypeError": TypeError}
TASKS = ("add", "echo", "sleep", "fail")


def make_app(settings: dict[str, Any], task_options: dict[str, dict[str, Any]]) -> Celery:
    """Return an app with the sample tasks; `task_options` maps full task names to options."""
    app = Celery("integration", set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, **settings)
    for function in (add, echo, sleep, fail):
        name = f"petiole.sample.{function.__name__}"
        options = dict(task_options.get(name, {}))
        if "autoretry_for" in options:
            options["autoretry_for"] = tuple(EXCEPTIONS[key] for key in options["autoretry_for"])
        app.task(name=name, shared=False, **options)(function)
    return app


def add(x: Any, y: Any) -> Any:
    """Return the sum."""
    return x + y


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def sleep(seconds: float) -> None:
    """Return after that time."""
    time.sleep(seconds)


def fail(message: Any = None) -> None:
    """Raise ValueError, with the message when there is one."""
    raise ValueError(*([] if message is None else [message]))


if "TEST_APP" in os.environ:
    _text = json.loads(os.environ["TEST_APP"])
    app = make_app(_text["settings"], _text["tasks"])
