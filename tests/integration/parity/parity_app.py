"""A Celery app as a team has it, with a task for each feature that is compared.

It runs under Celery 5.2.7 and newer and Python 3.9 and newer, and knows nothing of the worker that
runs it. The environment configures it: PARITY_URL is the URL of broker and backend, PARITY_SETTINGS
a JSON object of Celery's settings.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import logging
import os
import signal
import sys
import time
import warnings
from typing import Any

import parity_odd
import parity_record
from billiard import einfo
from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.result import allow_join_result
from celery.utils.log import get_task_logger
from parity_record import describe, record

logger = get_task_logger(__name__)
app = Celery("parity_app", broker=os.environ["PARITY_URL"], backend=os.environ["PARITY_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_create_missing_queues=True,
    task_routes={"parity_app.routed": {"queue": "strict"}},
    **json.loads(os.environ.get("PARITY_SETTINGS", "{}")),
)
parity_record.connect()
if not hasattr(einfo._Code, "co_positions"):
    # Celery 5.2.7 cannot show a traceback under Python 3.11: its billiard is older.
    einfo._Code.co_positions = lambda _: itertools.repeat((None, None, None, None))
soon = {"countdown": 1}


class Expected(Exception):
    """What a task may raise."""


class Watched(Task):
    """A Task class of one's own, whose handlers tell that they were called."""

    def _tell(self, hook: str, *values: Any) -> None:
        record("hook", self.request.id, hook=hook, values=[describe(value) for value in values])

    def before_start(self, *values: Any) -> None:
        """Tell."""
        self._tell("before_start", *values)

    def on_success(self, *values: Any) -> None:
        """Tell."""
        self._tell("on_success", *values)

    def on_failure(self, *values: Any) -> None:
        """Tell."""
        self._tell("on_failure", *values)

    def on_retry(self, *values: Any) -> None:
        """Tell."""
        self._tell("on_retry", *values)

    def after_return(self, *values: Any) -> None:
        """Tell."""
        self._tell("after_return", *values)


class Fragile(Task):
    """A Task class whose handler `broken_in` raises."""

    broken_in = ""

    def before_start(self, *_: Any) -> None:
        """Raise, perhaps."""
        self._break("before_start")

    def on_success(self, *_: Any) -> None:
        """Raise, perhaps."""
        self._break("on_success")

    def on_failure(self, *_: Any) -> None:
        """Raise, perhaps."""
        self._break("on_failure")

    def after_return(self, *_: Any) -> None:
        """Raise, perhaps."""
        self._break("after_return")

    def _break(self, where: str) -> None:
        if where == self.broken_in:
            raise RuntimeError(f"{where} is broken")


@app.task
def add(x: Any, y: Any = 0) -> Any:
    """Return the sum."""
    return x + y


@app.task
def slow_add(x: Any, y: Any) -> Any:
    """Return the sum, later than `add`: which member of a chord is the last is known then."""
    time.sleep(1)
    return x + y


@app.task
def slow_fail() -> None:
    """Raise ValueError, later than `add`."""
    time.sleep(1)
    raise ValueError("slow")


@app.task
def fail(text: str = "no") -> None:
    """Raise ValueError."""
    raise ValueError(text)


class Curious(Task):
    """A Task class whose handler looks at the task's own result."""

    def on_success(self, _retval: Any, task_id: str, *_: Any) -> None:
        """Note the state that a client sees by now."""
        record("hook", task_id, hook="on_success", values=[self.AsyncResult(task_id).state])


@app.task(base=Curious)
def curious() -> str:
    """Return when STARTED is stored."""
    deadline = time.monotonic() + 60
    while curious.AsyncResult(curious.request.id).state == "PENDING":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return "done"


@app.task(base=Watched)
def watched(x: int) -> int:
    """Return ten divided by `x`."""
    return 10 // x


@app.task(base=Watched, bind=True, max_retries=1)
def watched_retry(self: Any) -> None:
    """Retry once, then fail."""
    try:
        raise KeyError("gone")
    except KeyError as error:
        raise self.retry(exc=error, **soon) from error


@app.task(base=Fragile, broken_in="before_start")
def broken_before_start() -> str:
    """Return."""
    return "done"


@app.task(base=Fragile, broken_in="on_success")
def broken_on_success() -> str:
    """Return."""
    return "done"


@app.task(base=Fragile, broken_in="on_failure")
def broken_on_failure() -> None:
    """Fail."""
    raise ValueError("first")


@app.task(base=Fragile, broken_in="after_return")
def broken_after_return() -> str:
    """Return."""
    return "done"


@app.task(bind=True)
def request(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Return all of the request."""
    known = {key: describe(value) for key, value in vars(self.request).items() if key[0] != "_"}
    known["task"] = self.name
    return known


@app.task(
    bind=True,
    autoretry_for=(ZeroDivisionError,),
    max_retries=2,
    retry_backoff=1,
    retry_jitter=False,
)
def autoretry(self: Any, good_at: int) -> int:
    """Divide by zero until there were `good_at` retries."""
    if self.request.retries < good_at:
        return 1 // 0
    return int(self.request.retries)


@app.task(
    bind=True,
    autoretry_for=(Exception,),
    dont_autoretry_for=(KeyError,),
    max_retries=1,
    default_retry_delay=1,
)
def autoretry_but(self: Any, name: str) -> None:
    """Raise the named exception; retries are not for KeyError."""
    raise {"KeyError": KeyError, "OSError": OSError}[name](self.request.retries)


@app.task(bind=True, max_retries=3)
def retry_changed(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Retry with other arguments and options, and return what then came."""
    if self.request.retries == 0:
        raise self.retry(
            args=("new", *args),
            kwargs={"k": 2},
            **soon,
            priority=3,
            queue="strict",
            time_limit=50,
            soft_time_limit=40,
            expires=600,
            shadow="other name",
            headers={"added": "yes"},
        )
    delivery = self.request.delivery_info
    return {
        "args": args,
        "kwargs": kwargs,
        "routing_key": delivery["routing_key"],
        "priority": delivery["priority"],
        "timelimit": self.request.timelimit,
        "shadow": self.request.shadow,
        "added": getattr(self.request, "added", None),
    }


@app.task(bind=True, max_retries=1)
def retry_always(self: Any, exc: str | None = None, throw: bool = True) -> Any:
    """Retry for ever."""
    cause = Expected(exc) if exc else None
    self.retry(exc=cause, throw=throw, **soon)
    return "went on"


@app.task(bind=True)
def retry_headers(self: Any) -> dict[str, Any]:
    """Retry once, and return the headers of one's own."""
    if self.request.retries == 0:
        raise self.retry(**soon)
    return {"user": self.request.get("x_user"), "trace": self.request.get("traceparent")}


@app.task
def ignore() -> None:
    """Raise Ignore."""
    raise Ignore("not this")


@app.task(bind=True)
def own_state(self: Any) -> str:
    """Leave a state of one's own on the way, and one for another task."""
    self.update_state(state="PROGRESS", meta={"step": 1, "of": 2})
    self.update_state("another-task", "MINE", {"k": [1]})
    self.update_state(state="LAST", meta=None)
    return "done"


@app.task(bind=True)
def own_state_ignore(self: Any) -> None:
    """Leave a state of one's own for good."""
    self.update_state(state="MINE", meta={"k": 1})
    raise Ignore


@app.task
def reject_early() -> None:
    """Reject a message that is acknowledged already."""
    raise Reject("early", requeue=False)


@app.task(acks_late=True)
def reject_late() -> None:
    """Reject the message."""
    raise Reject("late", requeue=False)


@app.task(acks_late=True, bind=True, track_started=False)
def reject_requeue(self: Any) -> str:
    """Give the message back once."""
    if not self.request.delivery_info["redelivered"]:
        raise Reject("again", requeue=True)
    return "second time"


@app.task(bind=True)
def replace(self: Any, how: str) -> Any:
    """Become another task."""
    if how == "task":
        return self.replace(add.si(20, 1))
    if how == "chain":
        return self.replace(chain(add.si(1, 2), add.s(10)))
    return self.replace(group(add.si(1, 2), slow_add.si(3, 4)))


@app.task(bind=True)
def replace_linked(self: Any) -> Any:
    """Become another task, which has the callbacks."""
    return self.replace(add.si(20, 1))


@app.task(soft_time_limit=1)
def soft_limit(is_caught: bool) -> str:
    """Sleep beyond the soft limit."""
    try:
        signal.pause()
    except SoftTimeLimitExceeded:
        if not is_caught:
            raise
        return "cleaned up"
    return "slept"


@app.task(time_limit=1)
def hard_limit() -> None:
    """Sleep beyond the hard limit."""
    signal.pause()


@app.task(time_limit=1, acks_late=True, acks_on_failure_or_timeout=False, bind=True)
def hard_limit_late(self: Any) -> str:
    """Sleep beyond the hard limit, unless it is the second time."""
    if not self.request.delivery_info["redelivered"]:
        signal.pause()
    return "second time"


@app.task(throws=(Expected,))
def throws() -> None:
    """Raise what is expected."""
    raise Expected("as was said")


@app.task(track_started=True)
def tracked() -> str:
    """Return."""
    return "done"


@app.task(track_started=False)
def untracked() -> str:
    """Return."""
    return "done"


@app.task(ignore_result=True)
def ignored(text: str | None) -> str:
    """Return, or raise ValueError(text)."""
    if text:
        raise ValueError(text)
    return "done"


@app.task(ignore_result=True, store_errors_even_if_ignored=True)
def ignored_but_errors(text: str | None) -> str:
    """Return, or raise ValueError(text)."""
    return ignored.run(text)


@app.task
def errback_old(task_id: str) -> str:
    """Take the id of the task that failed."""
    return f"called for {task_id}"


@app.task
def errback_new(request: Any, exc: BaseException, traceback: Any) -> None:
    """Take request, exception and traceback, in the process of the task that failed."""
    record("errback", request.id, values=[describe(each) for each in (request, exc, traceback)])


@app.task
def errback_broken(request: Any, exc: BaseException, traceback: Any) -> None:
    """Raise."""
    raise RuntimeError("the errback is broken")


@app.task
def total(numbers: list[int]) -> int:
    """Return the sum."""
    return sum(numbers)


@app.task(bind=True)
def delay_inside(self: Any) -> dict[str, Any]:
    """Send tasks, wait for one, and be told that one should not."""
    child = add.delay(40, 2)
    other = add.apply_async((1, 1), queue="strict")
    try:
        child.get(timeout=60)
        refused = None
    except RuntimeError as error:
        refused = str(error).splitlines()[0]
    with allow_join_result():
        value = child.get(timeout=60)
    return {"value": value, "refused": refused, "other": other.id, "eager": add(1, 2)}


@app.task(bind=True)
def canvas_inside(self: Any) -> str:
    """Send a chord and a chain."""
    chord([add.si(1, 1), slow_add.si(2, 2)])(total.s())
    chain(add.si(1, 2), add.s(3)).apply_async()
    return "sent"


@app.task
def types(value: Any) -> Any:
    """Return how the argument looks here, and the argument."""
    return [type(value).__name__, value]


@app.task(acks_late=True)
def late(text: str | None) -> str:
    """Return, or raise ValueError(text)."""
    return ignored.run(text)


@app.task(acks_late=True, acks_on_failure_or_timeout=False)
def late_no_ack(text: str | None) -> str:
    """Return, or raise ValueError(text)."""
    return ignored.run(text)


@app.task(bind=True)
def leave(self: Any, code: int) -> str:
    """End the process by os._exit, or with a negative code by a signal; not a second time."""
    if self.request.delivery_info["redelivered"] or self.request.retries:
        return "second time"
    time.sleep(1)  # Celery gives a task again whose process ends before it is known to have begun
    if code < 0:
        os.kill(os.getpid(), -code)
        signal.pause()
    os._exit(code)


def named(name: str, **options: Any) -> Any:
    """Return another task that does what `leave` does."""
    return app.task(name=f"parity_app.{name}", bind=True, **options)(leave.run.__func__)


leave_late = named("leave_late", acks_late=True)
leave_late_back = named("leave_late_back", acks_late=True, reject_on_worker_lost=True)
leave_retry = named("leave_retry", retry_on_worker_lost=True, default_retry_delay=1, max_retries=2)


@app.task
def raise_base(name: str) -> None:
    """Raise what is no Exception."""
    if name == "SystemExit":
        sys.exit(7)
    if name == "SystemExit text":
        sys.exit("bye")
    raise {"KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}[name]("base")


@app.task
def unserializable() -> Any:
    """Return what JSON cannot show."""
    return object


@app.task
def odd_results(which: str) -> Any:
    """Return something unusual."""
    return parity_odd.result(which)


@app.task
def odd_errors(which: str) -> None:
    """Raise something unusual."""
    parity_odd.fail(which)


@app.task(resultrepr_maxsize=30)
def short_repr(value: Any) -> Any:
    """Return the argument."""
    return value


@app.task
def routed() -> str:
    """Return; a setting routes it."""
    return "routed"


@app.task(bind=True)
def send_routed(self: Any) -> str:
    """Send a task that a setting routes, and one with a priority."""
    routed.delay()
    add.apply_async((1, 2), priority=6, headers={"x_user": "inside"}, expires=1000)
    return "sent"


@app.task
def speak() -> None:
    """Write to the log in every way."""
    logger.info("by logger, at info")
    logger.warning("by logger")
    logging.getLogger("a.b").error("by another logger\nwith two lines")
    logging.getLogger("a.b").debug("not shown")
    print("by print")
    print("two\nlines")
    sys.stderr.write("to stderr\n")
    warnings.warn("a warning", stacklevel=1)
    try:
        raise ValueError("caught")
    except ValueError:
        logger.exception("with a traceback")


@app.task
def speak_raw() -> None:
    """Write to the descriptors."""
    os.write(1, b"raw output 1\n")
    os.write(2, b"raw output 2\n")
    ctypes.CDLL(None).puts(b"raw output by C")
    ctypes.CDLL(None).fflush(None)


@app.task
def wait(seconds: float) -> str:
    """Sleep."""
    record("waiting", wait.request.id)
    time.sleep(seconds)
    return "slept"


@app.task
def stubborn() -> None:
    """Sleep, and do not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    record("waiting", stubborn.request.id)
    signal.pause()


@app.task(name="a dotless name, with [brackets] and ünïcode")
def named_oddly() -> str:
    """Return."""
    return "done"


@app.task(bind=True)
def stamped(self: Any) -> Any:
    """Return the stamps."""
    return {"stamps": self.request.stamps, "headers": self.request.stamped_headers}
