"""Every difference from Celery's prefork worker that is expected of containers alone, and why."""

from __future__ import annotations

from parity_compare import LOCAL, NEWEST, NOTHING, OLDEST, THERE, Difference, Where

HANDLERS = ("broken_handlers",)
LOST = ("lost", "lost_late", "chain_of_lost", "link_error_of_lost")
POOL_LINE = r"^\w+: \w+/\w+(-<number>)?] "

LOCAL_DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "where the log of a container is",
        "What a process of Celery's pool logs and prints is the container's output, as it stands; "
        "the worker's log has one line more of each end, and nothing of processes and limits",
        (
            Where(r"/log/\w+/MainProcess] (Task|Discarding revoked task)", NOTHING),
            Where("/log/(ERROR|WARNING)/MainProcess] (Hard|Soft) time limit", "", NOTHING),
            Where(
                rf"{POOL_LINE}(  File|Process|SystemExit|Traceback|TypeError|$|by print|to stderr|"
                "two$|Task handler raised error)",
                THERE,
                NOTHING,
                ("worker_log",),
            ),
        ),
        LOCAL,
    ),
    Difference(
        "signals of a process that runs one task",
        "A container is a process of its own, in which modules are imported, loggers set up, "
        "and `celeryd_init` and `worker_init` sent",
        (
            Where(
                "^(after_setup_|import_modules|celeryd_init|worker_init).* in a process of",
                NOTHING,
                "^sent$",
                ("worker_signals",),
            ),
            Where(
                r"^(after_setup_|celeryd_init\(|worker_init\().*\)$",
                "^sent$",
                NOTHING,
                ("worker_signals",),
            ),
        ),
        LOCAL,
    ),
    Difference(
        "names in a container",
        "`request.hostname` is that of the container. Messages that it sends have a header that "
        "names the tenant",
        (
            Where("hostname$", "@test$", "^petiole@", ("request", "eta", "queues", "protocol_1")),
            Where(
                r"/log/INFO/\w+-<number>] Task (parity_app\.request|shadowy)\[.*'hostname'",
                features=("request", "eta", "queues", "protocol_1"),
            ),
            Where("hostname$", "@test$", "^petiole@", HANDLERS, OLDEST),
            Where("headers/tenant_of_", NOTHING, "^(open|strict)$"),
        ),
        LOCAL,
    ),
    Difference(
        "containers that end without a report",
        "They are failures of their category (`CrashExit`, `Signalled` …) in place of "
        "WorkerLostError, whatever `reject_on_worker_lost` and `retry_on_worker_lost` say: "
        "`autoretry_for` takes these names. Errbacks are tasks of no group, to which the failed "
        "one's id is passed also when they take (request, exc, traceback); without `queue` they "
        "go where the failed task came from, and `exchange`, `routing_key`, `serializer`, "
        "`compression` and stamps of theirs are not carried out",
        (
            Where("", "WorkerLostError|Worker exited|^billiard.exceptions$", "", LOST),
            Where(
                "(seen|tasks)/.*(args|exc_message)/[01]$",
                NOTHING,
                "Job leave-|category",
                LOST,
            ),
            Where("group_id$", "<uuid>", NOTHING, ("link_error_of_lost",)),
            Where("(seen/[123]|tasks/leave_(late_back|retry).*)/", features=("lost_late",)),
        ),
        LOCAL,
    ),
    Difference(
        "a container that stops at its hard limit or by a BaseException",
        "It reports once: TimeLimitExceeded, or WorkerLostError with the traceback, for "
        "GeneratorExit too. Celery has no traceback, stores GeneratorExit itself, and "
        "TimeLimitExceeded twice",
        (
            Where("traceback$", "^null$", "SystemExit|Keyboard|Generator", ("base_exceptions",)),
            Where("(seen/3|tasks/GeneratorExit)/", features=("base_exceptions",)),
            Where(
                "tasks/(limit|hard_limit|stubborn|errback of limit)/",
                "",
                NOTHING,
                ("time_limits", "link_error_of_lost"),
            ),
            Where("runs/0/1$", "task_postrun", NOTHING, ("time_limits", "hard_limit_late")),
        ),
        LOCAL,
    ),
    Difference(
        "handlers of failures that Celery's main process tells",
        "Handlers of `task_failure` and `task_retry` are not called for containers that were lost "
        "or exceeded their hard limit, nor for `Reject`",
        (
            Where(
                r"outside/\d+$",
                "task_failure",
                NOTHING,
                ("base_exceptions", "time_limits", "hard_limit_late", *LOST),
            ),
            Where(r"outside/\d+$", "task_failure", NOTHING, ("reject",), NEWEST),
            Where(r"outside/\d+$", "task_failure", NOTHING, ("broken_handlers",)),
            Where(r"outside/\d+$", "task_retry", NOTHING, ("lost_late",), NEWEST),
        ),
        LOCAL,
    ),
    Difference(
        "ends of a container are stored once",
        "Where Celery stores FAILURE over FAILURE, as when `on_failure` raises, the last with "
        "a traceback is stored",
        (Where("broken_on_failure|^seen/2/", features=("broken_handlers",)),),
        LOCAL,
    ),
    Difference(
        "states on the way",
        "A state that is followed at once by another one, or by the end, is passed over",
        (Where("documents/[12]$", '"(PROGRESS|LAST)"', NOTHING, ("update_state",)),),
        LOCAL,
    ),
    Difference(
        "failures of more than 4096 bytes",
        "The report's room: traceback and arguments lose their middle",
        (Where("traceback|exc_message", "zzz", "left out", ("representations",)),),
        LOCAL,
    ),
    Difference(
        "frames and characters in tracebacks of containers",
        "A traceback through the result backend or the soft limit shows Petiole's module there; "
        "half a surrogate pair is its escape, as strict JSON asks",
        (
            Where(
                "traceback|/log/ERROR/.* raised unexpected: EncodeError",
                "celery/backends/base.py",
                "petiole/_",
                ("unserializable", "odd_results"),
            ),
            Where(
                "traceback|/log/ERROR/.* raised unexpected: SoftTimeLimitExceeded",
                "soft_timeout_sighandler",
                "_raise_soft_limit",
                ("time_limits",),
            ),
            Where("(seen|tasks)/unicode/.*traceback$", features=("odd_errors",)),
            Where("/log/ERROR/.* raised unexpected: <Unrepresentable", features=("odd_errors",)),
        ),
        LOCAL,
    ),
    Difference(
        "`replace` by a group",
        "It is a chord: FAILURE `CanvasUnsupported`. Chords that are not compared leave no counts",
        (
            Where(
                r"^seen/2/|tasks/group/|tasks/parity_app.(add\(1, 2\) 2|slow_add)",
                features=("replace",),
            ),
            Where("^celery-taskset-meta-", THERE, NOTHING, ("broker_at_end",)),
        ),
        LOCAL,
    ),
    Difference(
        "Celery 5.2.7: what is in containers as in Celery 5.7",
        "`ignore_result` of a message wins over the task's; a task that raises Reject is FAILURE; "
        "headers of one's own are in `request.headers` and outlive a retry; the sentence of a "
        "SystemExit names no number of a pool's process",
        (
            Where("", features=("ignore_result", "user_headers", "reject"), celeries=OLDEST),
            Where("headers$", NOTHING, "meth|x_user", ("request", "protocol_1"), OLDEST),
            Where("", "Worker exited prematurely: exitcode", "", ("base_exceptions",), OLDEST),
        ),
        LOCAL,
    ),
    Difference(
        "Celery 5.2.7: errbacks that raise, in containers",
        "The task's failure is stored as that of the errback, where Celery's worker logs 'Pool "
        "callback raised exception' and stores no more",
        (
            Where("seen/1/|tasks/errback_broken/", features=("link_error",), celeries=OLDEST),
            Where("Pool callback raised exception", THERE, NOTHING, ("worker_log",), OLDEST),
        ),
        LOCAL,
    ),
)
