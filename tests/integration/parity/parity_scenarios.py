"""The scenarios of tasks by themselves; parity_scenarios_canvas.py has those of several."""

from __future__ import annotations

import datetime
import time
from typing import Any

from parity_scene import OPEN, STRICT, Scene, scenario

ODD_RESULTS = [
    "set",
    "tuple",
    "bytes",
    "nan",
    "keys",
    "unicode",
    "surrogate",
    "large",
    "exception",
    "generator",
]
ODD_ERRORS = [
    "picky",
    "unshowable",
    "inner",
    "lambda",
    "args",
    "nested",
    "local",
    "unicode",
    "os",
    "decode",
    "stop",
    "recursion",
    "cause",
]


@scenario
def signals(scene: Scene) -> Any:
    """Send tasks that succeed and that fail."""
    return [
        scene.run("add", 2, 3),
        scene.run("add", kwargs={"x": 1.5, "y": 2}, label="add kwargs"),
        scene.run("fail", "öffentlich"),
        scene.run("add", "a", "b", queue=STRICT, label="add strict"),
        scene.run("fail", queue=STRICT, label="fail strict"),
    ]


@scenario
def task_class(scene: Scene) -> Any:
    """Call the handlers of a Task class."""
    return [
        scene.run("watched", 5),
        scene.run("watched", 0, label="watched fails"),
        scene.run("watched_retry"),
        scene.run("curious"),
    ]


@scenario
def broken_handlers(scene: Scene) -> Any:
    """Have handlers that raise."""
    results = [
        scene.send(f"broken_{name}")
        for name in ("before_start", "on_success", "on_failure", "after_return")
    ]
    for result in results:
        scene.noted(result, "task_postrun")
    if not scene.is_once:
        scene.ended(results[2], 3)  # by the task, its handler, and whoever hears that it broke
    return [scene.seen(result) for result in results]


@scenario
def request(scene: Scene) -> Any:
    """Look at the whole request."""
    return [
        scene.run("request", 1, kwargs={"a": "b"}),
        scene.run(
            "request",
            label="request options",
            priority=3,
            shadow="shadowy",
            expires=1000,
            headers={"x_user": {"deep": [1]}},
            time_limit=60,
            soft_time_limit=50,
            reply_to="somewhere",
            correlation_id="correlated",
            argsrepr="<hidden>",
            kwargsrepr="<hidden too>",
            ignore_result=False,
        ),
        scene.run("request", label="request strict", queue=STRICT),
    ]


@scenario
def autoretry(scene: Scene) -> Any:
    """Retry by autoretry_for, until it succeeds, or not."""
    results = [
        scene.send("autoretry", 1),
        scene.send("autoretry", 9, label="autoretry in vain"),
        scene.send("autoretry_but", "KeyError"),
        scene.send("autoretry_but", "OSError"),
    ]
    return [scene.seen(result) for result in results]


@scenario
def retry_changed(scene: Scene) -> Any:
    """Retry with other arguments and options."""
    return scene.run("retry_changed", 1, kwargs={"k": 1})


@scenario
def retry_too_often(scene: Scene) -> Any:
    """Retry until that is enough."""
    results = [
        scene.send("retry_always"),
        scene.send("retry_always", "why", label="with cause"),
        scene.send("retry_always", throw=False, label="thrown"),
    ]
    return [scene.seen(result) for result in results]


@scenario
def retry_without_throw(scene: Scene) -> Any:
    """Go on after self.retry(throw=False), which sends the same task again."""
    result = scene.send("retry_always", kwargs={"throw": False})
    scene.noted(result, "task_postrun", 2)
    return scene.seen(result)


@scenario
def ignore(scene: Scene) -> Any:
    """Raise Ignore."""
    result = scene.send("ignore")
    scene.noted(result, "task_postrun")
    scene.told(result, "STARTED")  # Petiole stores it while the task runs
    return result.state


@scenario
def update_state(scene: Scene) -> Any:
    """Set states of one's own."""
    result = scene.send("own_state_ignore")
    scene.noted(result, "task_postrun")
    return [scene.run("own_state"), result.state, result.info]


@scenario
def reject(scene: Scene) -> Any:
    """Raise Reject."""
    states = []
    for name in ("reject_early", "reject_late"):
        result = scene.send(name)
        scene.noted(result, "task_postrun")
        states.append(result)
    return [scene.run("reject_requeue"), [result.state for result in states]]


@scenario
def time_limits(scene: Scene) -> Any:
    """Exceed limits of the task and of the message."""
    results = [
        scene.send("soft_limit", True, label="soft, caught"),
        scene.send("soft_limit", False, label="soft"),
        scene.send("hard_limit"),
        scene.send("wait", 30, soft_time_limit=1.1, label="soft of the message"),
        scene.send("wait", 30, time_limit=10, soft_time_limit=1.2, label="both"),
        scene.send("stubborn", time_limit=1.1),
    ]
    return [scene.seen(result) for result in results]


@scenario
def hard_limit_late(scene: Scene) -> Any:
    """Exceed the hard limit with a late acknowledgement."""
    result = scene.send("hard_limit_late")
    scene.ended(result)
    return scene.seen(result, 2 if scene.is_newest else 1)


@scenario
def throws(scene: Scene) -> Any:
    """Raise what the task says it throws."""
    return scene.run("throws")


@scenario
def track_started(scene: Scene) -> Any:
    """Store STARTED, or not."""
    return [
        scene.run("tracked"),
        scene.run("untracked"),
        scene.run("tracked", queue=STRICT, label="tracked strict"),
        scene.run("add", 1, queue=STRICT),
    ]


@scenario
def ignore_result(scene: Scene) -> Any:
    """Store no result, and errors perhaps."""
    results = [
        scene.send(name, text, label=f"{name} {text}")
        for name in ("ignored", "ignored_but_errors")
        for text in (None, "no")
    ]
    results += [
        scene.send("add", 1, ignore_result=True),
        scene.send("fail", ignore_result=True),
        scene.send("ignored", None, ignore_result=False, label="ignored, but not this time"),
    ]
    for result in results:
        scene.noted(result, "task_postrun")
    # Of what the message says, Celery 5.2.7 heeds only that a success is ignored.
    for result in (results[3], results[6 if scene.is_newest else 5]):
        scene.ended(result)
    return [result.state for result in results]


@scenario
def serializers(scene: Scene) -> Any:
    """Send bodies that are not JSON, to a worker that accepts them."""
    value = {"when": datetime.date(2026, 11, 28), "n": [1, 2.5, None], "t": "ö"}
    plain = {key: each for key, each in value.items() if key != "when"}
    return [
        scene.run("types", plain if name == "msgpack" else value, serializer=name, label=name)
        for name in ("json", "pickle", "msgpack", "yaml")
    ] + [
        scene.run("types", (1, 2), serializer="pickle", compression="zlib", label="zlib"),
        scene.run("types", "text", serializer="pickle", compression="bzip2", label="bzip2"),
    ]


@scenario
def serializers_refused(scene: Scene) -> Any:
    """Send bodies that are not JSON, to a worker that does not accept them."""
    for name in ("pickle", "msgpack", "yaml"):
        scene.send("add", 1, 2, serializer=name, queue=STRICT, label=name)
    return scene.run("add", 1, 2, queue=STRICT, label="accepted")


@scenario
def acks_late(scene: Scene) -> Any:
    """Acknowledge late, in its forms."""
    return [
        scene.run(name, text, label=f"{name} {text}")
        for name in ("late", "late_no_ack")
        for text in (None, "no")
    ]


@scenario
def lost(scene: Scene) -> Any:
    """Lose the process."""
    return [
        scene.run("leave", 3, label="exit"),
        scene.run("leave", 0, label="exit 0"),
        scene.run("leave", -9, label="kill"),
        scene.run("leave", -11, label="segv"),
        scene.run("leave", -15, label="term"),
        scene.run("leave", 3, queue=STRICT, label="exit strict"),
    ]


@scenario
def lost_late(scene: Scene) -> Any:
    """Lose the process with a late acknowledgement."""
    return [
        scene.run("leave_late", -9),
        scene.run("leave_late_back", -9),
        scene.run("leave_late_back", 3, label="leave_late_back by exit"),
        scene.run("leave_retry", -9),
    ]


@scenario
def base_exceptions(scene: Scene) -> Any:
    """Raise what is no Exception."""
    return [
        scene.run("raise_base", name, label=name)
        for name in ("SystemExit", "SystemExit text", "KeyboardInterrupt", "GeneratorExit")
    ]


@scenario
def unserializable(scene: Scene) -> Any:
    """Return what cannot be stored."""
    return [
        scene.run("unserializable"),
        scene.run("unserializable", queue=STRICT, label="unserializable strict"),
    ]


@scenario
def odd_results(scene: Scene) -> Any:
    """Return unusual things."""
    return {which: scene.run("odd_results", which, label=which) for which in ODD_RESULTS}


@scenario
def odd_errors(scene: Scene) -> Any:
    """Raise unusual things."""
    return {which: scene.run("odd_errors", which, label=which) for which in ODD_ERRORS}


@scenario
def unknown(scene: Scene) -> Any:
    """Send a task that is not there."""
    return [
        scene.run("nobody.knows.this", 1, kwargs={"k": "v"}, is_full=True),
        scene.run("nobody.knows.this", is_full=True, queue=STRICT, label="unknown strict"),
    ]


@scenario
def wrong_arguments(scene: Scene) -> Any:
    """Send arguments that the function does not take."""
    return [
        scene.run("add", label="none"),
        scene.run("add", 1, 2, 3, label="three"),
        scene.run("add", 1, kwargs={"z": 3}, label="named"),
    ]


@scenario
def expired(scene: Scene) -> Any:
    """Send what is too late already."""
    now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017 - UTC is Python 3.11's
    past = now - datetime.timedelta(seconds=10)
    return [
        scene.run("add", 1, expires=past),
        scene.run("add", 1, expires=past, queue=STRICT, label="strict"),
        scene.run("add", 1, countdown=0.7, expires=0.3, label="while it waits"),
    ]


@scenario
def eta(scene: Scene) -> Any:
    """Send for later."""
    begin = time.monotonic()
    seen = scene.run("add", 1, countdown=1)
    zone = datetime.timezone(datetime.timedelta(hours=8))
    when = datetime.datetime.now(zone) + datetime.timedelta(seconds=1)
    again = scene.run("request", eta=when)
    past = scene.run("add", 2, eta=when, label="past")
    return [seen, again, past, time.monotonic() - begin > 1.9]


@scenario
def revoked(scene: Scene) -> Any:
    """Revoke what waits."""
    first = scene.new_id("revoked before it is sent")
    scene.app.control.revoke(first, reply=True, timeout=5)
    unborn = scene.send("add", 1, task_id=first)
    late = scene.send("add", 1, countdown=4, label="revoked while it waits")
    # Celery stores it again when it is due, which is over after this wait for answers.
    scene.app.control.revoke(late.id, reply=True, timeout=9)
    return [scene.seen(unborn), scene.seen(late)]


@scenario
def terminated(scene: Scene) -> Any:
    """End what runs."""
    seen = []
    for name in ("SIGTERM", "SIGKILL"):
        result = scene.send("wait", 30, label=name)
        scene.noted(result, "waiting")
        result.revoke(terminate=True, signal=name)
        seen.append(scene.seen(result))
    return seen


@scenario
def user_headers(scene: Scene) -> Any:
    """Keep headers of one's own over a retry."""
    headers = {"x_user": {"id": 7}, "traceparent": "00-1-2-01", "x-dashed": "yes"}
    return scene.run("retry_headers", headers=headers)


@scenario
def queues(scene: Scene) -> Any:
    """Send by priority and by route, also inside a task."""
    result = scene.send("send_routed")
    seen = scene.seen(result)
    for child in result.children:
        scene.ended(child)
    return [
        seen,
        scene.run("request", priority=0, label="priority 0"),
        scene.run("request", priority=9, label="priority 9"),
        scene.run("request", queue=STRICT, priority=5, label="strict"),
    ]


@scenario
def representations(scene: Scene) -> Any:
    """Show long and hidden arguments and results in the log."""
    long = {"key": ["value " * 20] * 30, "n": list(range(300))}
    return [
        scene.run("short_repr", "y" * 100)["state"],
        scene.run("types", long, label="long")["state"],
        scene.run("fail", "z" * 3000, label="long error")["state"],
        scene.run("add", "secret", "", argsrepr="('***',)", label="hidden"),
        scene.run("fail", "f", argsrepr="('***',)", shadow="shadowy", label="hidden failure"),
        scene.run("add", 1, shadow="a shadow", label="shadow"),
        scene.run("a dotless name, with [brackets] and ünïcode", is_full=True, label="odd name"),
        scene.run("types", "\x1b[31m\n\t'\"\u2028", label="control characters"),
    ]


@scenario
def output(scene: Scene) -> Any:
    """Write to stdout, stderr and loggers."""
    return [scene.run("speak"), scene.run("speak", queue=STRICT, label="strict")]


@scenario
def raw_output(scene: Scene) -> Any:
    """Write to the descriptors."""
    return scene.run("speak_raw")


@scenario
def protocol_1(scene: Scene) -> Any:
    """Send messages of protocol 1."""
    headers: dict[str, Any] = {}
    body = {
        "task": "parity_app.request",
        "id": scene.new_id("protocol 1"),
        "args": [1],
        "kwargs": {"a": "b"},
        "retries": 0,
        "eta": None,
        "expires": None,
        "utc": True,
        "timelimit": [None, None],
        "callbacks": None,
        "errbacks": None,
        "taskset": None,
        "chord": None,
    }
    with scene.app.producer_pool.acquire(block=True) as producer:
        producer.publish(body, routing_key=OPEN, exchange="", headers=headers, serializer="json")
    return scene.seen(scene.app.AsyncResult(body["id"]))
