"""What of an app a worker that is no Python program cannot carry out, one sentence each."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Iterator
from typing import Any

from celery import Task, signals

from petiole._manifest_values import class_name

# Sent in the master process alone (celery/apps/worker.py, celery/worker/); those that a process of
# the pool sends, and those before it is forked, reach their handlers as ever.
MASTER_SIGNALS = (
    "celeryd_after_setup",
    "worker_before_create_process",
    "worker_ready",
    "worker_shutting_down",
    "worker_shutdown",
    "heartbeat_sent",
    "task_received",
    "task_rejected",
    "task_unknown",
    "task_revoked",
)
_CLASS_SETTINGS = {
    "worker_agent": None,
    "worker_autoscaler": "celery.worker.autoscale:Autoscaler",
    "worker_consumer": "celery.worker.consumer:Consumer",
    "worker_timer": None,
}
_CELERY_CLASSES = {
    "Request": "celery.worker.request:Request",
    "Strategy": "celery.worker.strategy:default",
}


def of_app(app: Any) -> Iterator[str]:
    """Yield a sentence for each thing of `app` that is left out."""
    for name in sorted(app.tasks):
        yield from _of_task(name, app.tasks[name])
    for blueprint, steps in sorted(app.steps.items()):
        for step in sorted(map(class_name, steps)):
            yield f"The bootstep {step} of the {blueprint} is not run: this worker has none."
    yield from _of_settings(app.conf)
    for program in ("preload", "worker"):
        if app.user_options.get(program):
            yield f"The app's own command line options (user_options, {program}) are not taken."
    yield from _of_signals()
    yield from _of_commands()


def _of_task(name: str, task: Any) -> Iterator[str]:
    for attribute, usual in _CELERY_CLASSES.items():
        custom = getattr(task, attribute, usual)
        if _spelled(custom) != usual:
            yield (
                f"Task {name}: its {attribute} class {_spelled(custom)} is not used: the worker "
                "is no Python program."
            )
    if _has_own_backend(task):
        yield f"Task {name}: its own result backend is used by Python processes only."


def _spelled(reference: Any) -> str:
    """Return a class or function as Celery's settings spell it: `module:name`."""
    if isinstance(reference, str):
        return reference
    module, _, name = class_name(reference).rpartition(".")
    return f"{module}:{name}"


def _has_own_backend(task: Any) -> bool:
    """Return whether the task has another backend than the app's, without making one.

    It is an attribute in place of the property of `celery/app/task.py: Task`, or set behind it.
    """
    usual = inspect.getattr_static(Task, "backend", None)
    own = inspect.getattr_static(type(task), "backend", usual)
    return (own is not usual and own is not None) or getattr(task, "_backend", None) is not None


def _of_settings(conf: Any) -> Iterator[str]:
    for name, usual in _CLASS_SETTINGS.items():
        custom = conf.get(name)
        if custom and _spelled(custom) != usual:
            yield f"{name}: {_spelled(custom)} is not used: the worker is no Python program."


def _of_signals() -> Iterator[str]:
    for name in MASTER_SIGNALS:
        signal = getattr(signals, name, None)  # None: a Celery without it
        for handler in _handlers(signal) if signal is not None else ():
            yield f"The handler {handler} of the signal {name} is not called by this worker."
    for name, handler in _handlers(signals.celeryd_init).items():
        if _takes(handler, "conf"):
            yield (
                f"The handler {name} of the signal celeryd_init is called in Python processes: "
                "settings that it changes hold there, and not for the worker."
            )


def _takes(function: Any, argument: str) -> bool:
    """Return whether a function asks for an argument by its name."""
    try:
        return argument in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False  # it is no function of Python's


def _handlers(signal: Any) -> dict[str, Any]:
    """Return the functions that an app has connected to `signal`, by name."""
    found = {}
    for _, reference in signal.receivers or ():
        handler = reference() if isinstance(reference, weakref.ReferenceType) else reference
        if handler is not None:
            function = inspect.unwrap(handler)
            name = class_name(function)
            if not name.startswith(("celery.", "kombu.")):
                found[name] = function
    return dict(sorted(found.items()))


def _of_commands() -> Iterator[str]:
    """Yield the commands of remote control that an app has registered."""
    control = sys.modules.get("celery.worker.control")
    commands = control.Panel.data if control is not None else {}
    for name in sorted(commands):
        if not commands[name].__module__.startswith("celery."):
            yield f"The remote control command {name} is not answered by this worker."
