"""Every difference from Celery's prefork worker that is expected, and why; the README has them."""

from __future__ import annotations

from parity_compare import (
    BOTH,
    LOCAL,
    NEWEST,
    NOTHING,
    OLDEST,
    THERE,
    Difference,
    LeftOut,
    Where,
)

MAIN_SIGNALS = "task_(received|revoked|rejected|unknown)"
WORKER_SIGNALS = (
    "celeryd_after_setup|worker_before_create_process|worker_ready|worker_shutting_down|"
    "worker_shutdown"
)
PROCESS = r"\w+(-<number>)?]"

LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut(
        "not compared: chords",
        "A container cannot count their members: they end in FAILURE `CanvasUnsupported`, by "
        "tests/integration/test_container.py",
        ("chords", "chord_retry", "chord_error", "chord_of_lost"),
        LOCAL,
    ),
    LeftOut(
        "not compared: tasks that wait for tasks that they send",
        "These leave when the task has ended: `get()` of one raises `CanvasUnsupported`",
        ("inside",),
        LOCAL,
    ),
    LeftOut(
        "not compared: pickle, msgpack and yaml",
        "A container takes JSON alone: what `accept_content` allows besides ends in FAILURE "
        "`MessageUnsupported`, and what it does not allow is refused as by Celery",
        ("serializers",),
        LOCAL,
    ),
)

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "signals of the main process",
        "The worker has no Python: `task_received`, `task_revoked`, `task_rejected`, "
        "`task_unknown` and the signals of the worker's own start and end are not sent, but for "
        "`celeryd_init` and `worker_init`: the parent of the processes sends these when it has "
        "loaded the app. Handlers of the others are named in a warning at start",
        (
            Where(r"/outside/\d+$", f'"kind": "{MAIN_SIGNALS}"', NOTHING),
            Where(rf"^({WORKER_SIGNALS})\(", "^sent$", NOTHING, ("worker_signals",)),
            Where("app parity_app: The handler .* is not called", NOTHING, THERE, ("worker_log",)),
        ),
        BOTH,
    ),
    Difference(
        "ends that a process cannot tell",
        "What Celery's main process reports of lost and stopped tasks (errbacks, chords, "
        "`task_failure`, retries), a process of the pool reports: log lines have its name, "
        "tracebacks its frames",
        (
            Where(
                rf"/log/ERROR/{PROCESS} Hard time limit",
                features=("time_limits", "hard_limit_late", "link_error_of_lost"),
            ),
            Where(rf"/log/ERROR/{PROCESS} Chord '.*' raised", features=("chord_of_lost",)),
            Where(
                rf"/log/INFO/{PROCESS} .* retry: Retry in 1s: WorkerLostError",
                features=("lost_late",),
                celeries=NEWEST,
            ),
            Where(r"/outside/\d+/values/traceback", "", "_endings.py|builtins.traceback"),
            Where(
                r"leave_retry/documents/1/traceback",
                "mark_as_worker_lost",
                "_endings.py",
                ("lost_late",),
                NEWEST,
            ),
            Where("traceback", "mark_as_worker_lost", features=("chord_of_lost",), celeries=OLDEST),
            Where(rf"ERROR/{PROCESS} Task handler raised error: ", features=("worker_log",)),
        ),
    ),
    Difference(
        "hard time limits are reported once",
        "Celery 5.7 reports TimeLimitExceeded twice: two FAILUREs, and errbacks are called twice",
        (
            Where(
                "tasks/(limit|hard_limit|hard_limit_late|stubborn|errback of limit)/",
                "",
                NOTHING,
                ("time_limits", "link_error_of_lost"),
            ),
        ),
    ),
    Difference(
        "results and handlers",
        "The worker stores a result when the process is done with the task: `on_success`, "
        "`after_return` and `task_postrun` run before clients see it, in Celery after",
        (Where("tasks/curious/runs/0/.*values", "SUCCESS", "STARTED", ("task_class",)),),
        BOTH,
    ),
    Difference(
        "frames in tracebacks",
        "A traceback that leads through the result backend or the soft time limit shows Petiole's "
        "module there",
        (
            Where(
                "traceback|/log/ERROR/.* raised unexpected: EncodeError",
                "celery/backends/base.py",
                "petiole/_tracing.py",
                ("unserializable", "odd_results"),
            ),
            Where(
                "traceback|/log/ERROR/.* raised unexpected: SoftTimeLimitExceeded",
                "soft_timeout_sighandler",
                "_on_soft_limit",
                ("time_limits",),
            ),
            Where(
                "/log/ERROR/.* raised unexpected: <Unrepresentable",
                features=("odd_errors",),
            ),
        ),
    ),
    Difference(
        "what tasks print",
        "Lines of stdout and stderr have the task's name and id, those of descriptors 1 and 2 too, "
        "which Celery does not log at all",
        (
            Where(r"/log/WARNING/.* parity_app.speak\[", NOTHING, "", ("output",)),
            Where(r"/log/WARNING/.* parity_app.speak_raw\[", NOTHING, "", ("raw_output",)),
            Where(rf"WARNING/{PROCESS} (by print|to stderr|two)$", THERE, NOTHING, ("worker_log",)),
        ),
    ),
    Difference(
        "control characters in the log",
        "They are shown as escapes. Line breaks of a record or a result stay, as in Celery: what "
        "stands below a line may look like another one",
        (Where("/log/INFO/.*control characters", features=("representations",)),),
    ),
    Difference(
        "reports of messages that cannot be run",
        "They are shorter than Celery's, and name the task's id",
        (
            Where("Received unregistered task of type", features=("unknown", "link_error_unknown")),
            Where(
                "Received invalid task message: Refusing to deserialize",
                features=("serializers_refused", "worker_log"),
            ),
        ),
        BOTH,
    ),
    Difference(
        "what the worker says of its decisions",
        "One line more each: of a late task that goes back to its queue, and of a task that was "
        "terminated",
        (
            Where("/log/INFO/MainProcess] .* given back to its queue", NOTHING, "", ("lost_late",)),
            Where("/log/INFO/MainProcess] Discarding revoked task", NOTHING, "", ("terminated",)),
        ),
    ),
    Difference(
        "revoked tasks that wait",
        "REVOKED is stored once, in full, when the command comes, and the message is acknowledged "
        "then; Celery 5.7 stores it at once without details and again when the task is due. "
        "`petiole:revoked:NAMESPACE` keeps the ids for workers that start later",
        (
            Where(
                "^tasks/revoked .*/documents/0/(args|kwargs|name|queue|retries|worker)$",
                NOTHING,
                features=("revoked",),
                celeries=NEWEST,
            ),
            Where("^tasks/revoked .*/documents/0/children$", "^null$", "", ("revoked",), NEWEST),
            Where(
                "^tasks/revoked .*/documents/[12]$",
                '"status": "REVOKED"',
                NOTHING,
                ("revoked",),
                NEWEST,
            ),
            Where("^petiole:revoked:", NOTHING, "", ("broker_at_end",)),
        ),
        BOTH,
    ),
    Difference(
        "Celery 5.2.7: what the worker itself makes",
        "It is as in Celery 5.7: `date_done` has an offset, `delivery_info.redelivered` of a first "
        "delivery is false and not null, a late task that exceeds its hard limit with "
        "`acks_on_failure_or_timeout` off goes back to its queue, and bindings of queues are in "
        "`_kombu.binding_permanent.*`, too",
        (
            Where("date_done", r"^<time>$", r"^<time>\+00:00$", celeries=OLDEST),
            Where("redelivered", "^null$", "^false$", celeries=OLDEST),
            Where(
                r"/log/INFO/.* (parity_app\.request|shadowy)\[.*redelivered",
                "",
                "",
                ("request", "eta", "queues", "protocol_1"),
                OLDEST,
            ),
            Where("tasks/hard_limit_late/", features=("hard_limit_late",), celeries=OLDEST),
            Where(r"^_kombu\.binding_permanent\.", NOTHING, THERE, ("broker_at_end",), OLDEST),
        ),
        BOTH,
    ),
    Difference(
        "Celery 5.2.7: exceptions that cannot be pickled",
        "They are told as they are; Celery's process cannot send them to its parent, which stores "
        "MaybeEncodingError over them",
        (
            Where(
                "", "MaybeEncodingError|PicklingError|ExceptionInfo:", "", ("odd_errors",), OLDEST
            ),
            Where("(tasks|seen)/(lambda|local|picky)/", "", "", ("odd_errors",), OLDEST),
        ),
        BOTH,
    ),
    Difference(
        "Celery 5.2.7: errbacks that raise",
        "The task's failure is stored as that of the errback, with its traceback, and that of a "
        "lost task is logged; Celery's worker logs 'Pool callback raised exception' and stores no "
        "more",
        (
            Where("seen/1/|tasks/errback_broken/", features=("link_error",), celeries=OLDEST),
            Where("Pool callback raised exception", THERE, NOTHING, ("worker_log",), OLDEST),
            Where("the end of a task cannot be told", NOTHING, THERE, ("worker_log",), OLDEST),
        ),
    ),
    Difference(
        "ends of processes",
        "A process that ends after its task's SystemExit writes no traceback, and is not called "
        "lost",
        (
            Where(
                rf"{PROCESS} (  File|Process Fork|Process 'Fork.* exited with|SystemExit|Traceback|"
                "TypeError|$)",
                features=("worker_log",),
            ),
        ),
    ),
)
