"""Loading a Celery app as `celery -A` does (`celery/bin/celery.py`, `celery/worker/worker.py`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from celery._state import get_current_app
from celery.app.utils import find_app


def load(name: str | None, include: Sequence[str] = ()) -> Any:
    """Return the Celery app called `name` with all of its tasks, and make it the current one.

    Args:
        name: What `celery -A` takes: `module`, `module:attribute` or `package`. None is Celery's
            default app, which reads the config module that CELERY_CONFIG_MODULE names.
        include: Modules to import besides those that the app names, as `celery worker -I`.

    Raises:
        Exception: The app is not there, or any error of importing its modules.
    """
    show_command_line(name)
    app = find_app(name) if name else get_current_app()
    app.set_current()
    app.set_default()
    app.loader.import_default_modules()
    for module in include:
        app.loader.import_task_module(module)
    app.finalize()
    return app


def show_command_line(name: str | None) -> None:
    """Let `sys.argv` be that of a Celery worker: apps look there for what they are loaded by."""
    sys.argv[:] = ["celery", *(["-A", name] if name else []), "worker"]
