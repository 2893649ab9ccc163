"""A Celery app as a team has it, for the pool of Python processes; it knows nothing of the worker.

POOL_URL in the environment is the URL of its broker and backend.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from kombu.serialization import register

register("own", json.dumps, json.loads, content_type="application/x-own", content_encoding="utf-8")
logger = get_task_logger(__name__)
COMMAND_LINE = list(sys.argv)
app = Celery("pool_app", broker=os.environ["POOL_URL"], backend=os.environ["POOL_URL"])
app.conf.update(
    accept_content=os.environ.get("POOL_ACCEPT", "json").split(","),
    broker_connection_retry_on_startup=True,
    task_track_started=True,
)
if "POOL_IMPORTS" in os.environ:
    with Path(os.environ["POOL_IMPORTS"]).open("a") as imports:
        imports.write(f"{sys.modules['__main__'].__spec__.name}\n")
if "POOL_BREAKS" in os.environ and Path(os.environ["POOL_BREAKS"]).exists():
    raise RuntimeError("broken on purpose")
if "POOL_NO_FORK" in os.environ:
    really_fork = os.fork

    def fork() -> int:
        """Fork, unless there is no room."""
        if Path(os.environ["POOL_NO_FORK"]).exists():
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return really_fork()

    os.fork = fork
other_app = Celery(
    "other", broker="redis://elsewhere/0", backend="redis://elsewhere/1", set_as_current=False
)
ballast = ["".join(("x", str(number))) for number in range(200_000)]
kept: list[bytes] = []
prepared: list[int] = []


@signals.worker_process_init.connect
def on_process_init(**_: Any) -> None:
    """Count that this process was prepared."""
    prepared.append(os.getpid())
    if "POOL_MEMORY" in os.environ:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = size + int(os.environ["POOL_MEMORY"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


@signals.worker_process_shutdown.connect
def on_process_shutdown(**_: Any) -> None:
    """Take the time that the environment says."""
    if "POOL_END_S" in os.environ:
        Path(os.environ["POOL_ENDS"]).touch()
        time.sleep(float(os.environ["POOL_END_S"]))
        Path(os.environ["POOL_ENDS"]).write_text("done")


@app.task
def chatter(count: int) -> None:
    """Write to the log, to stdout, to stderr and by another program, in turns."""
    for number in range(0, 4 * count, 4):
        logger.warning("chatter %d", number)
        print("chatter", number + 1)
        print("chatter", number + 2, file=sys.stderr)
        logger.warning("chatter %d", number + 3)
        if number == 0:
            subprocess.run(["echo", "chatter by another program"], check=True)


@app.task
def urls() -> list[Any]:
    """Return where two apps of this process lead, and the variables that say it of all apps."""
    names = [each for each in os.environ if each.endswith(("BROKER_URL", "RESULT_BACKEND"))]
    confs = [each.conf for each in (app, other_app)]
    return [*((each.broker_url, each.result_backend) for each in confs), names]


@app.task
def add(x: Any, y: Any) -> Any:
    """Return the sum."""
    return x + y


@app.task
def who() -> dict[str, Any]:
    """Tell which process runs this, and what the app took it for."""
    process = {"pid": os.getpid(), "parent": os.getppid(), "inits": len(prepared)}
    return {**process, "command_line": COMMAND_LINE}


@app.task
def sleep(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "slept"


@app.task
def hold(path: str) -> str:
    """Wait until the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
    return "let go"


hold_late = app.task(name="pool_app.hold_late", acks_late=True)(hold.run)


@app.task(ignore_result=True)
def fail_unheard() -> None:
    """Raise ValueError, of which nothing is stored."""
    raise ValueError("unheard")


@app.task
def careful(seconds: float) -> str:
    """Sleep, and clean up when the soft limit comes."""
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "slept"


@app.task
def leave(code: int) -> None:
    """End the process by os._exit, or with a negative code by a signal."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


@app.task
def leave_nicely() -> None:
    """End the process by SystemExit."""
    sys.exit(7)


@app.task
def keep(size: int) -> int:
    """Keep so many bytes in memory."""
    kept.append(b"x" * size)
    return os.getpid()


@app.task
def speak() -> None:
    """Write to the log in every way."""
    logger.warning("by logger")
    print("by print")
    ctypes.CDLL(None).puts(b"by C")
    ctypes.CDLL(None).fflush(None)
    sys.stderr.write("without an end")


@app.task(bind=True, max_retries=3)
def again(self: Any, left: int) -> int:
    """Retry until nothing is left."""
    if left:
        raise self.retry(args=(left - 1,), countdown=0)
    return int(self.request.retries)


@app.task
def refuse(requeue: bool) -> None:
    """Reject the message."""
    raise Reject("no", requeue=requeue)


@app.task(bind=True)
def own_state(self: Any) -> None:
    """Leave a state of its own."""
    self.update_state(state="MINE", meta={"k": 1})
    raise Ignore


class Explaining(Task):
    """Its handler stores a state over that of the failure."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Say why."""
        self.update_state(task_id=task_id, state="EXPLAINED", meta="because")


@app.task(base=Explaining)
def explained() -> None:
    """Fail."""
    raise KeyError("failed")


@app.task
def break_in() -> None:
    """Write what is no frame to the worker's socket, as broken native code may."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff" * 64)
        except OSError:
            continue


@app.task
def fork_and_log() -> str:
    """Log from a forked process of the task's own."""
    pid = os.fork()
    if pid == 0:
        logger.warning("from the fork")
        os._exit(0)
    os.waitpid(pid, 0)
    return "done"


@app.task
def stubborn() -> None:
    """Ignore SIGTERM, with a child that does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"])  # keeps what is ignored
    print("no signal ends this")
    child.wait()


@app.task
def send_another(x: int, y: int) -> str:
    """Send a task from a task."""
    return str(add.delay(x, y).id)


@app.task
def large(size: int) -> str:
    """Return a large text."""
    return "x" * size


@app.task
def half_a_frame(size: int) -> None:
    """Die within a frame, as a process does that is killed while it writes."""
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            peer = socket.socket(fileno=os.dup(descriptor))
            if peer.family == socket.AF_UNIX:
                peer.sendall(struct.pack("<IB", size, 4) + b"\0" * (size // 2))
                break
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def close_all() -> str:
    """Close every descriptor, as careless code that makes a daemon does."""
    os.closerange(3, 256)
    return "closed"


@app.task
def come_back_twice() -> int:
    """Return in two processes."""
    os.fork()
    return os.getpid()


@app.task
def leave_daemon() -> int:
    """Leave a process behind that has a session of its own and all descriptors; return its id."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            signal.pause()
        os._exit(0)
    os.wait()
    return int(os.read(reader, 32))


@app.task
def print_later(path: str) -> str:
    """Print from a thread after the task's end, when the file is there."""

    def wait() -> None:
        while not Path(path).exists():
            time.sleep(0.01)
        print("printed later")

    threading.Thread(target=wait).start()
    return "returned"


@app.task
def tidy_up() -> None:
    """Log when a signal ends the process."""
    try:
        print("begun what is to be tidied up")
        signal.pause()
    finally:
        logger.warning("tidying up")


@app.task
def leave_chatter() -> int:
    """Leave a process behind that writes without end; return its id."""
    return subprocess.Popen(["yes"]).pid


@app.task
def change_signals() -> None:
    """Take the handlers of signals over."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


@app.task(acks_late=True, time_limit=5)
def late(seconds: float) -> str:
    """Sleep, acknowledged at the end, for five seconds at most."""
    time.sleep(seconds)
    return "slept"
