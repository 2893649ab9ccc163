"""Run one task and report how it ended: the command of a task's container.

    python -m petiole.run

Environment:
    PETIOLE_TASK_FILE       the task; see `petiole._message` for the format
    PETIOLE_RESULT_FILE     where the report goes, default /dev/termination-log; see
                            `petiole._report` for the format
    PETIOLE_APP             the Celery app whose task it is, as `celery -A` takes it; else
                            CELERY_APP
    PETIOLE_FUNCTION        without an app, the function to call, as `module:function`; else the
                            task's name is taken as `module.function`
    PETIOLE_TIME_LIMIT      seconds after which the body is ended, when the message has no limit of
                            its own; the worker sets it from its settings
    PETIOLE_SOFT_TIME_LIMIT seconds after which SoftTimeLimitExceeded is raised in it, likewise
    PETIOLE_ACCEPT_CONTENT  serializers that a message may use, with commas between them; else the
                            app's `accept_content`, else json
    CELERY_LOG_LEVEL        from which level on Celery's loggers write to stderr, default INFO

With an app the task runs through Celery's own tracing, in a process that the app sees as one of a
worker's pool: signals, handlers of custom Task classes, `autoretry_for`, `self.retry()`,
`self.replace()`, limits of the message or the task. The runner needs neither broker nor result
backend: what the task sends is part of the report (`petiole._outbox`), and the worker sends it
when the task has ended. Without an app a function is called, and nothing is around it.

Exits with 0 when SUCCESS, RETRY, IGNORED or REJECTED was reported, with 1 when FAILURE was, with 74
when no report could be written, and with 143, without a report, after SIGTERM or SIGINT. Threads
that the task has left may go on for at most ten seconds. A process that the app has forked and
that comes back from its task, whether it returns, raises or calls sys.exit, tells nothing and ends
with 0.
"""

from __future__ import annotations

import os
import signal
from typing import Any, NoReturn

from petiole import _leaving


def _exit(*_arguments: Any) -> None:
    """End at once: nothing of the task has begun."""
    os.write(2, b"petiole.run: terminated\n")
    os._exit(_leaving.EXIT_TERMINATED)


def main() -> NoReturn:
    """Run the task that the environment names and end the process."""
    # A container's first process ignores a signal that it does not handle, and what the runner
    # needs, Celery above all, takes long to import.
    signal.signal(signal.SIGTERM, _exit)
    from petiole import _runner  # noqa: PLC0415

    _runner.main()


if __name__ == "__main__":
    main()
