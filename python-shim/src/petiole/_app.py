"""Loading a Celery app as `celery -A APP worker` does, and telling it that a worker starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from celery import signals
from celery._state import get_current_app
from celery.app.utils import find_app
from celery.utils.dispatch.signal import logger as signal_logger


@dataclass(eq=False)
class Worker:
    """Stands for Celery's worker where handlers of signals get one; there is none in Python.

    It has what Celery's has by then and is true of this one, as `celery/fixups/django.py` reads.
    Handlers may give it more.

    Attributes:
        app: The app.
        hostname: The worker's name.
        pool_cls: Where Celery's pool of processes is.
        options: Those of the command line: none are told.
    """

    app: Any
    hostname: str
    pool_cls: str = "celery.concurrency.prefork:TaskPool"
    options: dict[str, Any] = field(default_factory=dict)


def load(
    name: str | None, include: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Any:
    """Return the Celery app called `name` with all of its tasks, and make it the current one.

    As `celery/bin/celery.py` and `celery/worker/worker.py: WorkController` do.

    Args:
        name: What `celery -A` takes: `module`, `module:attribute` or `package`. None is Celery's
            default app, which reads the config module that CELERY_CONFIG_MODULE names.
        include: Modules to import besides those that the app names, as `celery worker -I`.
        settings: What wins over the app's settings, by Celery's names.

    Raises:
        Exception: The app is not there, or any error of importing its modules.
    """
    sys.argv[:] = ["celery", *(["-A", name] if name else []), "worker"]  # apps look there
    app = find_app(name) if name else get_current_app()
    app.set_current()
    app.set_default()
    if settings:
        app.conf.update(settings)
    app.loader.init_worker()
    for module in include:
        app.loader.import_task_module(module)
    app.finalize()
    return app


def tell_start(app: Any, hostname: str, settings: Mapping[str, Any] | None = None) -> None:
    """Send the signals that Celery's main process sends before it forks its pool.

    `celeryd_init` and `worker_init` (celery/apps/worker.py: Worker.on_before_init,
    celery/worker/worker.py: WorkController.setup_instance). By the second Celery installs its
    support of Django. Errors of handlers go to stderr: logging is not set up yet, unless by the
    app.

    Args:
        app: The app, loaded.
        hostname: The worker's name.
        settings: What wins over the settings that handlers change.
    """
    worker = Worker(app, hostname)
    with _shown_errors():
        signals.celeryd_init.send(
            sender=hostname, instance=worker, conf=app.conf, options=worker.options
        )
        if settings:
            app.conf.update(settings)
        signals.worker_init.send(sender=worker)


@contextmanager
def _shown_errors() -> Iterator[None]:
    """Show what Celery logs of handlers that raise, which no handler of logging takes so early."""
    shown = logging.lastResort
    if logging.root.handlers or shown is None:
        yield
        return
    signal_logger.addHandler(shown)
    try:
        yield
    finally:
        signal_logger.removeHandler(shown)
