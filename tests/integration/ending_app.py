"""A Celery app whose tasks end without a word, and those who wait for their ends.

ENDING_URL in the environment is the URL of its broker, and of the list `notes` of what was called.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import redis
from celery import Celery, Task, signals
from celery.exceptions import Reject

app = Celery("ending_app", broker=os.environ["ENDING_URL"])
app.conf.broker_connection_retry_on_startup = True


def note(*what: Any) -> None:
    """Remember that something was called."""
    with redis.Redis.from_url(os.environ["ENDING_URL"]) as client:
        client.rpush("notes", json.dumps(what))


@signals.task_failure.connect
def on_task_failure(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
    """Note the signal."""
    note("task_failure", sender.name, task_id, type(exception).__name__)


class Watched(Task):
    """A task that wants to hear of its failures."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, *_: Any) -> None:
        """Note the call."""
        note("on_failure", task_id, list(args), type(exc).__name__)

    def after_return(self, status: str, _retval: Any, task_id: str, *_: Any) -> None:
        """Note the call."""
        note("after_return", task_id, status)


@app.task
def add(x: Any, y: Any) -> Any:
    """Return the sum."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """Return the sum of a chord's header."""
    return sum(numbers)


@app.task(base=Watched)
def hang(*_: Any) -> None:
    """Do not end."""
    signal.pause()


@app.task(autoretry_for=(Exception,), default_retry_delay=0)
def hang_and_retry() -> None:
    """Do not end, and be tried again after what is raised."""
    signal.pause()


@app.task
def die(*_: Any) -> None:
    """End the process."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def refuse(*_: Any) -> None:
    """Reject the message."""
    raise Reject("no", requeue=False)


class Upset(Task):
    """A task that does not bear to be tried again."""

    def on_retry(self, _exc: BaseException, task_id: str, *_: Any) -> None:
        """Note the call, and raise."""
        note("on_retry", task_id)
        raise ValueError("upset")


@app.task(base=Upset, acks_late=True, reject_on_worker_lost=True, default_retry_delay=0)
def die_once() -> str:
    """End the process, but for the second time."""
    with redis.Redis.from_url(os.environ["ENDING_URL"]) as client:
        if client.incr("runs") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


class Fragile(Task):
    """A task whose processes do not survive that it is tried again."""

    def on_retry(self, *_: Any) -> None:
        """End the process."""
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Fragile, acks_late=True, default_retry_delay=0)
def die_once_and_on_retry() -> str:
    """End the process, but for the second time."""
    return str(die_once())


class Fatal(Task):
    """A task whose process does not survive its success."""

    def on_success(self, *_: Any) -> None:
        """End the process."""
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Fatal, acks_late=True, reject_on_worker_lost=True)
def succeed_and_die(x: int) -> int:
    """Return, and end the process."""
    return x


class Leaving(Task):
    """A task that leaves its process when it has succeeded."""

    def on_success(self, *_: Any) -> None:
        """Leave."""
        sys.exit(3)


@app.task(base=Leaving)
def succeed_and_leave(x: int) -> int:
    """Return, and leave the process."""
    return x


@app.task
def on_error(task_id: str) -> None:
    """Be an errback that is a task."""
    note("errback", task_id)


@app.task
def on_error_at_once(request: Any, exc: BaseException, traceback: Any) -> None:
    """Be an errback that is called where the task failed."""
    note("errback at once", request.id, request.task, type(exc).__name__, traceback)


@app.task
def break_errback(_request: Any, _exc: BaseException, _traceback: Any) -> None:
    """Be an errback that ends the process."""
    os.kill(os.getpid(), signal.SIGKILL)
