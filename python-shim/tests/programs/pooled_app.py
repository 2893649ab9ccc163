"""An app for processes of the pool; with DJANGO_SETTINGS_MODULE, one of Django's."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
from types import ModuleType

from billiard import current_process
from billiard.common import _shutdown_cleanup
from celery import Celery, Task, signals
from celery.app.log import TaskFormatter
from celery.utils.log import get_task_logger

told = []
closed = []


class Connection:
    """A connection to a database."""

    connection = None
    alias = "default"

    def close(self):
        """Count it."""
        closed.append(os.getpid())

    close_if_unusable_or_obsolete = close


class Connections:
    """All of them."""

    @staticmethod
    def all(initialized_only=False):
        """Return them."""
        return [Connection()]


def take_over_logging(**_):
    """Set the root logger up."""
    logging.basicConfig(format="own: %(message)s", level=logging.INFO)


def change_handlers(logger, **_):
    """Give Celery's handler a format, a filter and a level."""
    for handler in logger.handlers:
        handler.setFormatter(TaskFormatter("own: %(task_id)s %(processName)s %(message)s"))
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        handler.setLevel(logging.ERROR)


def leave_helper():
    """Fork a process that ends with this one."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)


def make_django():
    """Make of Django what Celery's support of it uses."""
    parts = {
        "django": {"VERSION": (5, 2), "setup": lambda: None},
        "django.conf": {"settings": type("Settings", (), {"DATABASES": {}, "DEBUG": False})},
        "django.core": {},
        "django.core.cache": {"close_caches": lambda: None},
        "django.core.checks": {"run_checks": lambda: None},
        "django.db": {"connections": Connections, "DatabaseError": OSError, "transaction": None},
        "django.db.utils": {"InterfaceError": ValueError},
    }
    for name, members in parts.items():
        module = sys.modules[name] = ModuleType(name)
        vars(module).update(members, __path__=[])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


if "DJANGO_SETTINGS_MODULE" in os.environ:
    make_django()
if os.environ.get("LOGGING") == "setup_logging":
    signals.setup_logging.connect(take_over_logging)
if os.environ.get("LOGGING") == "after_setup_task_logger":
    signals.after_setup_task_logger.connect(change_handlers)
if "HELPER" in os.environ:
    leave_helper()
if "SOCKET_TIMEOUT" in os.environ:
    socket.setdefaulttimeout(float(os.environ["SOCKET_TIMEOUT"]))
app = Celery("pooled", backend=os.environ.get("BACKEND", "redis://127.0.0.1:1"))


@signals.celeryd_init.connect
def on_init(sender, instance, conf, options, **_):
    """Note what is told, and change a setting that the worker has, and one that it has not."""
    told.append(["celeryd_init", sender, instance.app is app, options, os.getpid()])
    conf.task_send_sent_event = True
    conf.result_extended = True


@signals.worker_init.connect
def on_worker_init(sender, **_):
    """Note what is told, and leave something with the worker."""
    sender.left = "by a handler"
    told.append(["worker_init", sender.hostname, sender.app is app, {}, os.getpid()])


@signals.worker_init.connect
def on_broken(**_):
    """Raise."""
    raise RuntimeError("broken on purpose")


@app.task
def who():
    """Tell what has been told, and which process this is."""
    settings = [app.conf.task_send_sent_event, app.conf.result_extended]
    return {"told": told, "parent": os.getppid(), "pid": os.getpid(), "settings": settings}


@app.task
def count_closed():
    """Return how many times this process has closed a connection."""
    return closed.count(os.getpid())


class Explaining(Task):
    """Its handlers store a state over that of the end."""

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        """Say why."""
        self.update_state(task_id=task_id, state="EXPLAINED", meta="because")

    def on_success(self, retval, task_id, args, kwargs):
        """Say what nobody hears."""
        self.update_state(task_id=task_id, state="EXPLAINED", meta="well done")


@app.task(base=Explaining)
def explained(how):
    """End as it is told to."""
    if how == "fail":
        raise KeyError("failed")
    return how


@app.task(bind=True)
def helped(self):
    """Have a process of its own store a state, and another one come back."""
    pid = os.fork()
    if pid == 0:
        self.update_state(state="HELPED", meta=os.getpid())
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return os.fork() and status


@app.task
def logs():
    """Log at some levels."""
    logger = get_task_logger("pooled_app")
    logger.warning("a warning")
    logger.error("a secret")
    logger.error("an error")


@app.task
def process():
    """Tell what billiard and multiprocessing know of this process."""
    both = current_process(), multiprocessing.current_process()
    return [[each.name, each.index, each.daemon] for each in both]


@app.task
def heeds():
    """Return the names of the signals that a handler of billiard's takes."""
    return [each.name for each in signal.Signals if signal.getsignal(each) is _shutdown_cleanup]


@app.task
def prints():
    """Print what no encoding has."""
    print("half of a pair: \ud800")
    print("another one: \ud800", file=sys.stderr)
    return "printed"
