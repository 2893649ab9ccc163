"""Tasks and functions that the runner's tests run."""

from __future__ import annotations

import atexit
import datetime
import os
import signal
import sys
import threading
import time
from pathlib import Path

from billiard import current_process
from celery import Celery, Task, chord, group, signals
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.result import ResultSet, allow_join_result
from celery.utils.log import get_task_logger

COMMAND_LINE = list(sys.argv)
app = Celery("runner")


class WithCall(Task):
    """A task with a call of its own around the body."""

    def __call__(self, *args, **kwargs):
        """Add to what the body returns."""
        return [self.request.id, self.run(*args, **kwargs)]


@app.task
def command_line():
    """Return what the app saw of its program when it was imported."""
    return COMMAND_LINE


@app.task
def add(a, b):
    """Return the sum."""
    return a + b


@app.task(base=WithCall)
def called(a):
    """Return the argument."""
    return a


@app.task(bind=True)
def request(self, a, b=None):
    """Return what the body sees of its request."""
    names = ("id", "task", "retries", "args", "kwargs", "delivery_info", "correlation_id")
    names += ("headers", "hostname", "is_eager", "called_directly", "trace", "callbacks", "root_id")
    seen = {name: self.request.get(name) for name in names}
    return {**seen, "current": app.current_task.name, "properties": self.request.properties}


@app.task
def number():
    """Return the number of the pool's process."""
    return current_process().index


@app.task(bind=True)
def typed_headers(self):
    """Return what became of a header, and send it on."""
    when = self.request.get("x_when") or self.request.headers["x_when"]
    add.apply_async((1, 2), headers={"x_when": when})
    return [type(when).__name__, getattr(when, "year", None)]


@app.task
def big(size, ends_with=""):
    """Return a text of a size, printing something without a line's end before."""
    print("no newline", end=ends_with)
    return "x" * size


@app.task
def unencodable():
    """Return what JSON cannot say."""
    return object()


@app.task
def returns_result():
    """Return the handle of another task."""
    return app.AsyncResult("22222222-2222-4222-8222-222222222222")


def fail(depth=0, text="no"):
    """Raise from deep down."""
    if depth:
        fail_further(depth, text)
    raise ValueError(text, {"depth": depth}, object)


def fail_further(depth, text):
    """Alternate with `fail`: a traceback shortens repetitions of one line by itself."""
    fail(depth - 1, text)


@app.task(bind=True, autoretry_for=(KeyError, SoftTimeLimitExceeded), max_retries=2)
def flaky(self):
    """Fail in a way that is worth another try."""
    raise KeyError("key")


@app.task(bind=True, autoretry_for=(SoftTimeLimitExceeded,), retry_backoff=3, retry_jitter=False)
def too_slow(self):
    """Run into the soft limit."""
    signal.pause()


@app.task(soft_time_limit=1)
def declared_too_slow():
    """Run into the soft limit of the declaration."""
    signal.pause()


@app.task(soft_time_limit=0.5)
def sets_alarms():
    """Use the process' own timer, then run into the soft limit."""
    previous = signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    signal.pause()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    signal.pause()


@app.task
def cleans_up():
    """Return although the soft limit came."""
    try:
        signal.pause()
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task
def stuck():
    """Ignore the soft limit."""
    while True:
        try:
            signal.pause()
        except SoftTimeLimitExceeded:
            print("ignored", flush=True)


@app.task(bind=True)
def again(self, how):
    """Ask for a retry in one of the ways that there are."""
    if how == "changed":
        self.retry(args=(), kwargs={"how": "other"}, countdown=7, queue="slow", priority=3)
    if how == "eta":
        self.retry(eta=datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc))
    if how == "unthrown":
        self.retry(countdown=1, throw=False)
        return "not the end"
    if how == "swallowed":
        try:
            self.retry(countdown=1)
        except Retry:
            raise ValueError("something else") from None
    if how == "raised":
        raise Retry("by hand", exc=KeyError("k"), when=9)
    return self.retry(args=("x" * 10_000,), countdown=1)


class Handled(Task):
    """A task class that prints each of its handlers' calls."""

    def before_start(self, task_id, args, kwargs):
        """Print that the body begins."""
        print("before_start", args, kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        """Print what the body returned."""
        print("on_success", retval)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        """Print what the body raised."""
        print("on_failure", repr(exc), "handled" in einfo.traceback)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        """Print why the body is to run again."""
        print("on_retry", repr(exc))

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        """Print that all is over."""
        print("after_return", status)


@app.task(bind=True, base=Handled)
def handled(self, how):
    """End in a way that the class has a handler for."""
    if how == "retry":
        self.retry(exc=KeyError("again"), countdown=1)
    if how == "fail":
        raise KeyError("handled")
    return how


class Telling(Task):
    """A task class whose handlers tell states once the end is stored."""

    def on_success(self, retval, task_id, args, kwargs):
        """Tell a state that does not count any more."""
        self.update_state(state="CLEANED", meta="on_success")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        """Tell a state of one's own."""
        self.update_state(state="CLEANED", meta="on_retry")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        """Tell a state of one's own, or another failure."""
        told = {
            "other": ("FAILURE", KeyError("other")),
            "odd": ("FAILURE", {"reason": 1}),
        }
        state, meta = told.get(args[0], ("CLEANED", "on_failure"))
        self.update_state(state=state, meta=meta)


@app.task(bind=True, base=Telling)
def tells_late(self, how):
    """End in a way that the class has a handler for."""
    if how == "retry":
        self.retry(countdown=1)
    if how != "well":
        raise ValueError("told")
    return how


@signals.celeryd_init.connect
@signals.worker_init.connect
@signals.worker_process_init.connect
@signals.worker_process_shutdown.connect
@signals.task_prerun.connect
@signals.task_postrun.connect
@signals.task_success.connect
@signals.task_failure.connect
@signals.task_retry.connect
@signals.before_task_publish.connect
def on_signal(signal, **arguments):
    """Print the signal's name, when a test asks for it."""
    if os.environ.get("TELL_SIGNALS"):
        print("signal", signal.name, arguments.get("state", ""))


@app.task(bind=True)
def sends(self, how):
    """Send other tasks in one of the ways that there are."""
    if how == "delay":
        return add.apply_async((1, 2), task_id="child", headers={"mine": 1}).id
    if how == "replace":
        self.replace(add.si(3, 4))
    if how == "group":
        group(add.si(1, 1), add.si(2, 2)).apply_async()
    if how == "send where waiting is allowed":
        with allow_join_result():
            add.delay(1, 2)
            group(add.si(1, 1), add.si(2, 2)).apply_async()
    if how == "chord":
        chord([add.s(1, 1), add.s(2, 2)])(add.s(0))
    if how == "topic":
        app.send_task("any.name", exchange="logs", exchange_type="topic", routing_key="a.b")
    if how == "broadcast":
        app.control.revoke("some id")
    if how == "event":
        with app.events.default_dispatcher() as dispatcher:
            dispatcher.send("task-custom", uuid=self.request.id)
    if how == "then fail":
        add.apply_async((1, 2), task_id="child")
        raise ValueError("failed")
    if how == "exit":
        raise SystemExit(4)
    return how


@app.task
def waits_for(how):
    """Wait for the result of what it sends."""
    with allow_join_result():
        if how == "task":
            add.delay(1, 2).get()
        if how == "group":
            group(add.si(1, 1), add.si(2, 2)).apply_async().get()
        if how == "set":
            ResultSet([add.delay(1, 2), add.delay(3, 4)]).get()
        if how == "chain":
            (add.s(1, 2) | add.s(3)).apply_async().get()


@app.task
def errback(task_id):
    """Stand for a task that is told of a failure."""


@app.task
def errback_that_raises(request, exc, traceback):
    """Fail in turn."""
    raise RuntimeError("the errback is broken")


@app.task
def errback_that_takes_long(request, exc, traceback):
    """Take longer than the task that has failed."""
    time.sleep(2)


@app.task
def nap(seconds):
    """Sleep."""
    time.sleep(seconds)
    return 42


@app.task
def errback_that_hangs(request, exc, traceback):
    """Come to no end."""
    signal.pause()


@app.task
def fail_in_task():
    """Fail."""
    raise ValueError("no")


@app.task
def logs():
    """Log a line."""
    get_task_logger(__name__).info("told at INFO")


def raises_retry(when):
    """Ask to be called again, without a Celery around."""
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    raise Retry("again", when=9 if when == "seconds" else later)


@app.task
def ends(how):
    """End in one of the ways that there are."""
    endings = {
        "ignore": Ignore("ignored"),
        "reject": Reject("rejected", requeue=True),
        "exit": SystemExit(3),
        "exit with text": SystemExit("text"),
        "base": GeneratorExit("odd"),
        "interrupt": KeyboardInterrupt(),
    }
    raise endings[how]


@app.task(bind=True)
def steps(self, how, size=0):
    """Tell states in one of the ways that there are, with text without a line's end around."""
    print("no newline", end="")
    if how == "plain":
        for step in (1, 2):
            self.update_state(state="PROGRESS", meta={"step": step, "of": 2})
    if how == "kinds":
        self.update_state(state="EXOTIC \u00e9", meta=float("inf"))
        self.update_state(state="RETRY", meta=KeyError("k"))
        self.update_state(state="FAILURE", meta={"exc_type": "E"})
        app.current_task.update_state(state="LAST")
    if how == "large":
        self.update_state(state="PROGRESS", meta="x" * size)
    if how == "thread":
        arguments = {"task_id": self.request.id, "state": "PROGRESS", "meta": 1}
        thread = threading.Thread(target=self.update_state, kwargs=arguments)
        thread.start()
        thread.join()
    if how == "unencodable":
        self.update_state(state="PROGRESS", meta=object())
    if how == "no id":
        self.backend.store_result(None, 1, "PROGRESS")
    if how == "other":
        self.update_state(task_id="another", state="PROGRESS", meta=1)
        return self.backend.get_result("another")
    if how == "failure and ignore":
        self.update_state(state="PROGRESS")
        meta = {"exc_type": "E", "exc_message": ["m"], "exc_module": "m"}
        self.update_state(state="FAILURE", meta=meta)
        raise Ignore
    if how == "closed":
        os.close(1)
        self.update_state(state="PROGRESS")
    return how


@app.task(bind=True)
def interrupts_itself(self, how):
    """Tell a state, or send a task, in a handler of a signal that comes while one does that."""

    def on_signal(*_):
        if how == "tell":
            self.update_state(state="INNER")
        else:
            add.apply_async((1, 2), task_id="inner")

    class Lock:
        """A lock after which the signal comes, once."""

        def __init__(self, lock):
            self.lock = lock

        def __enter__(self):
            self.lock.__enter__()
            holder._lock = self.lock
            signal.raise_signal(signal.SIGUSR2)

        def __exit__(self, *error):
            self.lock.__exit__(*error)

    signal.signal(signal.SIGUSR2, on_signal)
    holder = self.backend._outbox.teller if how == "tell" else self.backend._outbox
    holder._lock = Lock(holder._lock)
    if how == "tell":
        self.update_state(state="OUTER")
    else:
        add.apply_async((1, 2), task_id="outer")
    return how


@app.task(bind=True)
def stores_for_another(self, how):
    """Store for another task in one of the ways that there are."""
    if how == "update_state":
        self.update_state("another", "SUCCESS", "its own")
    if how == "mark_as_done":
        self.backend.mark_as_done("another", "its own")
    if how == "mark_as_failure":
        self.backend.mark_as_failure("another", KeyError("its own"))
    if how == "eager":
        app.conf.task_always_eager = again.store_eager_result = True
        again.apply_async(("swallowed",), task_id="another")
    if how == "unstored":
        again.apply(("swallowed",), task_id="another")
    raise ValueError("mine")


@app.task
def waits(marker):
    """Say that it runs, wait to be ended, and say that it was."""
    try:
        print("waiting", flush=True)
        signal.pause()
    finally:
        Path(marker).write_text("cleaned up")


@app.task
def comes_back(how):
    """Have a forked helper come back from the task before this process does, or after it."""
    atexit.register(print, "flushed")
    helper = os.fork()
    if helper == 0:
        if how == "exit late":
            time.sleep(1)
        if how.startswith("exit"):
            sys.exit(3)
        if how == "raise":
            raise ValueError("the helper's")
        return "the helper's" * 1000
    return None if how == "exit late" else os.waitpid(helper, 0)[1]


@app.task
def forks(number):
    """Return how a forked helper ends when its parent sends it signal `number`."""
    reader, writer = os.pipe()
    helper = os.fork()
    if helper == 0:
        os.write(writer, b"ready")
        signal.pause()
        os._exit(0)
    os.read(reader, 5)
    os.kill(helper, number)
    return os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])


@app.task
def closes_stdout():
    """Close what the runner flushes."""
    sys.stdout.close()
    return "closed"


@app.task
def leaves(how):
    """Leave something behind that goes on for a minute, and something to do at the end."""
    atexit.register(print, "flushed")
    if how == "thread":
        threading.Thread(target=time.sleep, args=(60,)).start()
    else:
        signals.worker_process_shutdown.connect(lambda **_: time.sleep(60), weak=False)
    return how


@app.task
def closes_stderr(how):
    """Close what the runner's own lines would go to, and end in one of the ways that there are."""
    sys.stderr.close()
    if how == "stuck":
        signal.pause()
    if how == "base":
        raise GeneratorExit("odd")
    return how


def fails_without_stderr():
    """Fail, without a Celery around, when nothing can be told."""
    sys.stderr.close()
    raise ValueError("no")


NOT_A_FUNCTION = 1
