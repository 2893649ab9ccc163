"""A Celery app for tasks in containers: it has no address of a broker or result backend at all."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, Task, chain, signals
from petiole_worker import TENANT

app = Celery("container_app", broker="redis://nowhere.invalid", backend="redis://nowhere.invalid")
app.conf.update(task_default_queue=TENANT, task_routes={"container_app.elsewhere": "elsewhere"})
fired: list[str] = []


@signals.task_prerun.connect
@signals.task_postrun.connect
def on_signal(signal: Any, **_: Any) -> None:
    """Note the signal."""
    fired.append(signal.name)


class Noting(Task):
    """A task class whose handler leaves a trace."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Note it."""
        fired.append("before_start")


@app.task
def add(x: Any, y: Any) -> Any:
    """Return the sum."""
    return x + y


@app.task(base=Noting)
def notes() -> list[str]:
    """Return what has fired so far."""
    return fired


@app.task
def tell(what: Any) -> list[Any]:
    """Return the argument: as a callback a result, as an errback the id of the task that failed."""
    return ["told", what]


@app.task
def fail() -> None:
    """Fail."""
    raise ValueError("failed")


@app.task
def elsewhere() -> None:
    """Be routed to a queue that this worker does not consume."""


@app.task(bind=True)
def sends(self: Task, how: str, child: str = "") -> Any:
    """Send other tasks."""
    if how == "delay":
        return add.apply_async((1, 2), task_id=child).id
    if how == "replace":
        return self.replace(add.si(3, 4))
    if how == "replace by chain":
        return self.replace(chain(add.si(3, 4), add.s(5)))
    if how == "elsewhere":
        return elsewhere.apply_async(task_id=child).id
    raise ValueError(how)


@app.task(bind=True, max_retries=3)
def again(self: Task, text: str) -> Any:
    """Retry with another argument and an option, then tell what came of it."""
    request = self.request
    if request.retries == 0:
        self.retry(args=(text + "!",), countdown=0.1, priority=5, exc=KeyError("why"))
    return [text, request.retries, request.delivery_info["priority"], request.headers["mine"]]


@app.task(bind=True, autoretry_for=(ValueError,), retry_backoff=True, max_retries=2)
def flaky(self: Task) -> int:
    """Fail twice."""
    if self.request.retries < 2:
        raise ValueError("not yet")
    return int(self.request.retries)


@app.task
def environment(names: list[str]) -> dict[str, Any]:
    """Return variables of this process."""
    return {name: os.environ.get(name) for name in names}


@app.task
def dies() -> None:
    """End the process without a word."""
    os._exit(3)
