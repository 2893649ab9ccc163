"""The Celery app inside the pods, and of the clients that send its tasks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, SoftTimeLimitExceeded


class UnluckyError(Exception):
    """A class of the app's own."""


app = Celery("pods", set_as_current=False)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="pods.add")
def add(x: int, y: int) -> int:
    """Return the sum."""
    return x + y


@app.task(name="pods.fail")
def fail(message: str) -> None:
    """Raise the app's own exception."""
    raise UnluckyError(message)


@app.task(name="pods.big")
def big(size: int) -> str:
    """Return a text of that many characters, of every printable kind."""
    print("a line of the task's own")
    return "".join(chr(33 + index * 7 % 90) for index in range(size))


@app.task(name="pods.same")
def same(size: int) -> str:
    """Return a text of that many characters, all the same."""
    return "x" * size


@app.task(name="pods.crash")
def crash(code: int) -> None:
    """End the process with this exit code, without a word."""
    print("about to crash", flush=True)
    os._exit(code)


@app.task(name="pods.hog")
def hog() -> None:
    """Take more memory than the container may, on the first try."""
    held = bytearray(b"x") * (200 << 20)
    signal.pause()
    del held


@app.task(name="pods.hog_once", bind=True)
def hog_once(self: Task) -> int:
    """Do so on the first try alone; return which try it is."""
    if self.request.retries == 0:
        hog()
    return int(self.request.retries)


@app.task(name="pods.where", bind=True)
def where(self: Task, **values: Any) -> dict[str, Any]:
    """Return what the task knows about itself, and the keyword arguments."""
    return {"id": self.request.id, "tenant": os.environ.get("TENANT"), "values": values}


@app.task(name="pods.told")
def told(task_id: str) -> str:
    """Return what an errback is told: which task failed."""
    return f"{task_id} failed"


@app.task(name="pods.environment")
def environment(names: list[str]) -> list[str | None]:
    """Return the values of variables of the container."""
    return [os.environ.get(name) for name in names]


@app.task(name="pods.nap")
def nap(seconds: float, manner: str = "") -> str:
    """Sleep; a careful one tidies up at its soft limit, and any tells TIDY how it ended."""
    mark = os.environ.get("TIDY")
    if mark:
        Path(f"{mark}.begun").touch()
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        if manner != "careful":
            raise
        return "tidied up after the soft limit"
    except BaseException:
        if mark:
            Path(mark).write_text("SIGTERM")
        raise
    return "slept"


@app.task(name="pods.short_nap")
def short_nap(seconds: float) -> str:
    """Sleep, under limits that only the worker's settings have."""
    time.sleep(seconds)
    return "slept"


@app.task(name="pods.steps", bind=True)
def steps(self: Task, folder: str, count: int) -> str:
    """Tell of each step, and end it when somebody has put its file into `folder`."""
    for step in range(1, count + 1):
        self.update_state(state="PROGRESS", meta={"step": step, "of": count, "note": "Schritt é"})
        while not Path(folder, str(step)).exists():
            time.sleep(0.02)
    return "all done"


@app.task(name="pods.count", bind=True)
def count_up(self: Task, seconds: float) -> str:
    """Count to two, among text without a line's end on both streams; take so long for each."""
    for number in (1, 2):
        for stream in (sys.stdout, sys.stderr):
            print("\r50 %", end="", file=stream, flush=True)
        self.update_state(state="COUNTING", meta={"number": number})
        time.sleep(seconds)
    return "counted"


@app.task(name="pods.leave", bind=True)
def leave(self: Task, state: str, meta: Any) -> None:
    """Set a state by itself, and keep the worker from setting another."""
    self.update_state(state=state, meta=meta)
    raise Ignore
