from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from harness import TIMEOUT_S, Interpreter, read_until
from task_runner import ID, Outcome, Runner, eta_s, payload_of, sent


def test_success(runner: Runner) -> None:
    outcome = runner.task("runner_app.add", "a", "b")
    assert outcome.code == 0
    assert outcome.text == (
        b'{"v":1,"state":"SUCCESS","result":"ab","traceback":null,"bytes":4,"sha256":"'
        + hashlib.sha256(b'"ab"').hexdigest().encode()
        + b'"}'
    )
    assert outcome.stdout == ""


def test_request_is_the_messages(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.request",
        "x",
        kwargs={"b": [1]},
        headers={"retries": 2, "trace": "t", "root_id": "root"},
        embed={"callbacks": [], "errbacks": None, "chain": None, "chord": None},
    )
    seen = outcome.report["result"]
    assert seen.pop("hostname").startswith("petiole@")
    assert seen.pop("properties")["priority"] == 4
    assert seen == {
        "id": ID,
        "task": "runner_app.request",
        "retries": 2,
        "args": ["x"],
        "kwargs": {"b": [1]},
        "delivery_info": {
            "exchange": "",
            "routing_key": "tenant-a",
            "priority": 4,
            "redelivered": False,
        },
        "correlation_id": ID,
        "is_eager": False,
        "called_directly": False,
        "trace": "t",
        "headers": {"trace": "t"},
        "callbacks": [],
        "root_id": "root",
        "current": "runner_app.request",
    }


def test_task_with_a_call_of_its_own(runner: Runner) -> None:
    assert runner.task("runner_app.called", 5).report["result"] == [ID, 5]


def test_celery_app_variable(runner: Runner) -> None:
    runner.write("runner_app.add", 1, 2)
    outcome = runner.run(PETIOLE_APP="", CELERY_APP="runner_app:app")
    assert outcome.report["result"] == 3


@pytest.mark.parametrize("function", ["", "runner_app:add"])
def test_task_without_app(runner: Runner, function: str) -> None:
    runner.write("runner_app.add" if not function else "any.name", 1, 2)
    outcome = runner.run(PETIOLE_APP="", PETIOLE_FUNCTION=function)
    assert outcome.report["result"] == 3


def test_plain_function(runner: Runner) -> None:
    runner.write("os.path.join", "a", "b")
    assert runner.run(PETIOLE_APP="").report["result"] == "a/b"


@pytest.mark.parametrize(
    ("name", "function", "exception"),
    [
        ("nomodule", "", {"exc_type": "NotRegistered", "exc_message": ["nomodule"]}),
        ("x.y", "nothing", {"exc_type": "InvalidTaskError"}),
        ("x.y", "runner_app:NOT_A_FUNCTION", {"exc_type": "InvalidTaskError"}),
        ("runner_app.missing", "", {"exc_type": "AttributeError"}),
        ("no.such.module", "", {"exc_type": "ModuleNotFoundError"}),
    ],
)
def test_functions_that_are_not_there(
    newest_runner: Runner, name: str, function: str, exception: dict[str, Any]
) -> None:
    newest_runner.write(name)
    outcome = newest_runner.run(PETIOLE_APP="", PETIOLE_FUNCTION=function)
    assert outcome.code == 1
    assert exception.items() <= outcome.report["exception"].items()


def test_unregistered_task(runner: Runner) -> None:
    outcome = runner.task("nope.x")
    assert outcome.code == 1
    assert outcome.report["state"] == "FAILURE"
    assert outcome.report["traceback"] is None
    assert outcome.report["exception"] == {
        "exc_type": "NotRegistered",
        "exc_message": ["nope.x"],
        "exc_module": "celery.exceptions",
    }


@pytest.mark.parametrize("ends_with", ["", "\n"])
def test_large_result_goes_to_the_end_of_stdout(runner: Runner, ends_with: str) -> None:
    outcome = runner.task("runner_app.big", 100_000, kwargs={"ends_with": ends_with})
    assert outcome.code == 0
    assert set(outcome.report) == {"v", "state", "traceback", "bytes", "sha256"}
    assert outcome.stdout.startswith("no newline")
    payload = payload_of(outcome)
    assert json.loads(payload) == {"result": "x" * 100_000}


@pytest.mark.parametrize(("excess", "state"), [(0, "SUCCESS"), (1, "FAILURE")])
def test_result_limit(newest_runner: Runner, excess: int, state: str) -> None:
    size = 1024 * 1024 - len('{"result": ""}')
    outcome = newest_runner.task("runner_app.big", size + excess)
    assert outcome.report["state"] == state
    assert outcome.code == (0 if state == "SUCCESS" else 1)
    if state == "FAILURE":
        assert outcome.report["exception"]["exc_type"] == "ResultTooLarge"
        assert outcome.report["exception"]["exc_module"] == "petiole.exceptions"
        assert "::petiole-result" not in outcome.stdout


def test_inline_limit_is_exact(newest_runner: Runner) -> None:
    frame = len(newest_runner.task("runner_app.big", 1000).text) - 1000
    fits = newest_runner.task("runner_app.big", 4096 - frame)
    assert len(fits.text) == 4096
    assert "result" in fits.report
    assert "result" not in newest_runner.task("runner_app.big", 4097 - frame).report


def test_result_without_json_form(runner: Runner) -> None:
    outcome = runner.task("runner_app.unencodable")
    assert outcome.code == 1
    assert outcome.report["exception"]["exc_type"] == "EncodeError"
    assert outcome.report["exception"]["exc_module"] == "kombu.exceptions"


def test_result_handle(runner: Runner) -> None:
    outcome = runner.task("runner_app.returns_result")
    assert outcome.report["result"] == [["22222222-2222-4222-8222-222222222222", None], None]


def test_exception(runner: Runner) -> None:
    runner.write("runner_app.fail", kwargs={"text": "no"})
    outcome = runner.run(PETIOLE_APP="")
    assert outcome.code == 1
    report = outcome.report
    assert report["state"] == "FAILURE"
    assert report["exception"] == {
        "exc_type": "ValueError",
        "exc_message": ["no", {"depth": 0}, "<class 'object'>"],
        "exc_module": "builtins",
    }
    text = json.dumps(report["exception"])
    assert report["bytes"] == len(text)
    assert report["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    first, frame, *_ = report["traceback"].splitlines()
    assert first == "Traceback (most recent call last):"
    assert "runner_app.py" in frame, "the runner's own frames are left out"
    assert report["traceback"] in outcome.stderr


def test_long_traceback_keeps_both_ends(runner: Runner) -> None:
    runner.write("runner_app.fail", 200)
    outcome = runner.run(PETIOLE_APP="")
    trace = outcome.report["traceback"]
    assert 3900 < len(outcome.text) <= 4096
    assert trace.startswith("Traceback (most recent call last):")
    assert " characters left out " in trace
    assert trace.rstrip().endswith("ValueError: ('no', {'depth': 0}, <class 'object'>)")


def test_long_message_is_cut(runner: Runner) -> None:
    runner.write("runner_app.fail", kwargs={"text": "\u00e9\n" * 50_000})
    outcome = runner.run(PETIOLE_APP="")
    exception = outcome.report["exception"]
    assert exception["exc_type"] == "ValueError"
    assert " characters left out " in exception["exc_message"][0]
    assert exception["exc_message"][1] == {"depth": 0}
    assert outcome.report["traceback"]


def test_ignore_and_reject(runner: Runner) -> None:
    ignored = runner.task("runner_app.ends", "ignore")
    assert (ignored.code, ignored.report["state"]) == (0, "IGNORED")
    assert ignored.report["exception"]["exc_type"] == "Ignore"
    rejected = runner.task("runner_app.ends", "reject")
    assert (rejected.code, rejected.report["state"]) == (0, "REJECTED")
    assert rejected.report["requeue"] is True


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("exit", "Worker exited prematurely: exitcode 3."),
        ("exit with text", "Worker exited prematurely: exitcode 1."),
        ("base", "Worker exited prematurely: GeneratorExit('odd')."),
        ("interrupt", "Worker exited prematurely: KeyboardInterrupt."),
    ],
)
def test_ends_that_would_end_a_worker(runner: Runner, how: str, sentence: str) -> None:
    outcome = runner.task("runner_app.ends", how)
    assert outcome.code == 1
    assert outcome.report["exception"] == {
        "exc_type": "WorkerLostError",
        "exc_message": [sentence],
        "exc_module": "billiard.exceptions",
    }
    assert "runner_app.py" in outcome.report["traceback"]


def test_soft_limit(runner: Runner) -> None:
    outcome = runner.task("runner_app.declared_too_slow")
    assert outcome.code == 1
    assert outcome.report["exception"] == {
        "exc_type": "SoftTimeLimitExceeded",
        "exc_message": [],
        "exc_module": "billiard.exceptions",
    }


def test_soft_limit_can_be_caught(runner: Runner) -> None:
    outcome = runner.task("runner_app.cleans_up", headers={"timelimit": [30, 1]})
    assert outcome.report["result"] == "cleaned up"


def test_alarms_are_the_tasks_own(runner: Runner) -> None:
    outcome = runner.task("runner_app.sets_alarms")
    assert outcome.report["exception"]["exc_type"] == "SoftTimeLimitExceeded"
    assert outcome.stdout == "alarm\n"


def test_signal_of_the_soft_limit(runner: Runner) -> None:
    """It means the same when it comes from outside, as with Celery."""
    marker = runner.folder / "marker"
    runner.write("runner_app.waits", str(marker))
    process = runner.python.start("-m", "petiole.run", **runner.variables())
    read_until(process, "waiting")
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, marker.read_text()) == (1, "cleaned up")
    assert b"SoftTimeLimitExceeded" in runner.result_file.read_bytes()


def test_soft_limit_is_retried(runner: Runner) -> None:
    outcome = runner.task("runner_app.too_slow", headers={"timelimit": [None, 1]})
    assert outcome.report["state"] == "RETRY"
    assert outcome.report["exception"]["exc_type"] == "SoftTimeLimitExceeded"
    assert 0 < eta_s(sent(outcome.report)[0]["eta"]) <= 3


def test_limits_of_the_workers_settings(runner: Runner) -> None:
    runner.write("runner_app.cleans_up")
    assert runner.run(PETIOLE_SOFT_TIME_LIMIT="1").report["result"] == "cleaned up"
    runner.write("runner_app.stuck")
    outcome = runner.run(PETIOLE_TIME_LIMIT="2", PETIOLE_SOFT_TIME_LIMIT="1")
    assert outcome.report["exception"]["exc_type"] == "TimeLimitExceeded"
    assert b'"exc_message": [1]' in runner.run(PETIOLE_TIME_LIMIT="1").text, "as Celery tells it"
    runner.write("runner_app.cleans_up", headers={"timelimit": [30, 1]})
    assert runner.run(PETIOLE_SOFT_TIME_LIMIT="60").report["result"] == "cleaned up"
    runner.write("runner_app.cleans_up")
    outcome = runner.run(PETIOLE_TIME_LIMIT="soon")
    assert outcome.report["exception"]["exc_type"] == "InvalidTaskError"


def test_hard_limit(runner: Runner) -> None:
    outcome = runner.task("runner_app.stuck", headers={"timelimit": [2, 1]})
    assert outcome.code == 1
    assert outcome.stdout == "ignored\n"
    assert outcome.report["traceback"] is None
    assert outcome.report["exception"] == {
        "exc_type": "TimeLimitExceeded",
        "exc_message": [2],
        "exc_module": "billiard.exceptions",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_termination_is_not_reported(runner: Runner, number: signal.Signals) -> None:
    marker = runner.folder / "marker"
    runner.write("runner_app.waits", str(marker))
    process = runner.python.start("-m", "petiole.run", **runner.variables())
    read_until(process, "waiting")
    process.send_signal(number)
    rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 143
    assert rest == "petiole.run: terminated\n"
    assert marker.read_text() == "cleaned up"
    assert not runner.result_file.exists()


def test_termination_while_celery_is_imported(runner: Runner) -> None:
    """A first process that handles no signal yet would ignore it, and be killed much later."""
    runner.write("runner_app.add", 1, 2)
    (runner.folder / "billiard.py").write_text(
        "import signal, sys; print('importing', file=sys.stderr, flush=True); signal.pause()"
    )
    path = os.pathsep.join([str(runner.folder), runner.python.environment({})["PYTHONPATH"]])
    process = runner.python.start("-m", "petiole.run", **runner.variables(PYTHONPATH=path))
    read_until(process, "importing")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 143
    assert rest == "petiole.run: terminated\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_forked_helper_ends_by_its_signal(runner: Runner, number: signal.Signals) -> None:
    assert runner.task("runner_app.forks", number).report["result"] == -number


@pytest.mark.parametrize("how", ["return", "raise", "exit", "exit late"])
def test_forked_helper_that_comes_back(runner: Runner, how: str) -> None:
    """The report stays the task's, and the lines on stdout and the ends of handlers, too."""
    outcome = runner.task("runner_app.comes_back", how)  # until both have closed their output
    assert (outcome.code, outcome.report["state"]) == (0, "SUCCESS")
    assert outcome.report["result"] == (None if how == "exit late" else 0)
    assert "::petiole-result" not in outcome.stdout
    assert outcome.stdout.count("flushed") == 1


def told(outcome: Outcome) -> list[tuple[str, Any]]:
    """Return the states that stdout tells, each line checked as a reader checks it."""
    head = "::petiole "
    lines = [line for line in outcome.stdout.splitlines() if line.startswith(head)]
    assert all(len(line) <= 4096 and line.isascii() for line in lines)
    states = [json.loads(line.removeprefix(head)) for line in lines]
    numbers = [state["seq"] for state in states]
    assert numbers == sorted(set(numbers))
    return [(state["state"], state["meta"]) for state in states]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plain"], [("PROGRESS", {"step": 1, "of": 2}), ("PROGRESS", {"step": 2, "of": 2})]),
        (
            ["kinds"],
            [
                ("EXOTIC é", float("inf")),
                ("RETRY", {"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}),
                ("LAST", None),
            ],
        ),
        (["thread"], [("PROGRESS", 1)]),
        (["large", 4000], [("PROGRESS", "x" * 4000)]),
        (["large", 4096], []),
        (["closed"], []),
    ],
    ids=["plain", "kinds", "thread", "large", "too large", "closed"],
)
def test_states_before_the_end_are_told(
    runner: Runner, arguments: list[Any], expected: list[Any]
) -> None:
    outcome = runner.task("runner_app.steps", *arguments)
    assert outcome.report["result"] == arguments[0]
    assert told(outcome) == expected
    assert ("over the limit of 4096" in outcome.stderr) == (arguments[-1] == 4096)


@pytest.mark.parametrize("how", ["tell", "send"])
def test_signal_while_something_is_told(runner: Runner, how: str) -> None:
    outcome = runner.task("runner_app.interrupts_itself", how, headers={"timelimit": [10, None]})
    assert outcome.report.get("result") == how
    if how == "tell":
        assert [state for state, _ in told(outcome)] == ["INNER", "OUTER"]
    else:
        assert [message["id"] for message in sent(outcome.report)] == ["inner", "outer"]


def test_what_an_ignored_task_told_stays(runner: Runner) -> None:
    report = runner.task("runner_app.steps", "failure and ignore").report
    told = {"exc_type": "E", "exc_message": ["m"], "exc_module": "m"}
    assert report["state"] == "IGNORED"
    assert report["told"] == {"state": "FAILURE", "meta": told}


@pytest.mark.parametrize(("how", "kind"), [("unencodable", "EncodeError"), ("no id", "ValueError")])
def test_states_that_celery_refuses(runner: Runner, how: str, kind: str) -> None:
    outcome = runner.task("runner_app.steps", how)
    assert outcome.report["exception"]["exc_type"] == kind
    assert told(outcome) == []


def test_states_of_another_task_are_the_apps_own_backends(
    newest_runner: Runner, backend_url: str
) -> None:
    newest_runner.write("runner_app.steps", "other")
    outcome = newest_runner.run(CELERY_RESULT_BACKEND=backend_url)
    assert outcome.report["result"] == 1
    assert told(outcome) == []


def test_closed_stdout(runner: Runner) -> None:
    assert runner.task("runner_app.closes_stdout").report["result"] == "closed"


@pytest.mark.parametrize(
    ("how", "kind"), [("stuck", "TimeLimitExceeded"), ("base", "WorkerLostError")]
)
def test_closed_stderr(runner: Runner, how: str, kind: str) -> None:
    outcome = runner.task("runner_app.closes_stderr", how, headers={"timelimit": [0.5, None]})
    assert outcome.report["exception"]["exc_type"] == kind
    assert ("hard time limit (0.5s) exceeded" in outcome.stderr) == (how == "stuck")


def test_closed_stderr_of_a_function(runner: Runner) -> None:
    runner.write("any.name")
    outcome = runner.run(PETIOLE_APP="", PETIOLE_FUNCTION="runner_app:fails_without_stderr")
    assert outcome.report["exception"]["exc_type"] == "ValueError"
    assert "ValueError: no" in outcome.stderr


def test_report_replaces_a_longer_one(newest_runner: Runner) -> None:
    newest_runner.result_file.write_text("x" * 5000)
    assert newest_runner.task("runner_app.add", 1, 2).report["result"] == 3


def test_report_that_cannot_be_written(newest_runner: Runner) -> None:
    newest_runner.write("runner_app.add", 1, 2)
    outcome = newest_runner.run(PETIOLE_RESULT_FILE=str(newest_runner.folder / "no" / "file"))
    assert outcome.code == 74
    assert "No such file or directory" in outcome.stderr


def corrupted(**changes: Any) -> Callable[[Runner], None]:
    return lambda runner: runner.write("runner_app.add", 1, 2, **changes)


def body(value: Any) -> Callable[[Runner], None]:
    return corrupted(body=base64.b64encode(json.dumps(value).encode()).decode())


@pytest.mark.parametrize(
    ("write", "kind", "words"),
    [
        (lambda _: None, "InvalidTaskError", "cannot be read: No such file"),
        (lambda r: (r.folder / "task.json").write_text("{"), "InvalidTaskError", "not JSON"),
        (lambda r: (r.folder / "task.json").write_text("[]"), "InvalidTaskError", "version 1"),
        (lambda r: (r.folder / "task.json").write_bytes(b"\xff"), "InvalidTaskError", "not JSON"),
        (corrupted(v=2), "InvalidTaskError", "version 1"),
        (corrupted(body_encoding="utf-8"), "InvalidTaskError", "body_encoding"),
        (corrupted(body="*"), "InvalidTaskError", "not base64"),
        (corrupted(body=7), "InvalidTaskError", "not base64"),
        (corrupted(headers={"id": None}), "InvalidTaskError", "no id"),
        (corrupted(headers={"task": ""}), "InvalidTaskError", "no task"),
        (corrupted(headers={"timelimit": "ab"}), "InvalidTaskError", "time limit"),
        (corrupted(headers={"timelimit": [1]}), "InvalidTaskError", "timelimit"),
        (corrupted(headers={"timelimit": [-1, None]}), "InvalidTaskError", "time limit"),
        (corrupted(properties=[]), "InvalidTaskError", "properties"),
        (corrupted(**{"content-type": "application/x-yaml"}), "ContentDisallowed", "yaml"),
        (corrupted(body="eA=="), "DecodeError", ""),
        (corrupted(body=""), "InvalidTaskError", "[args, kwargs, embed]"),
        (body([[], {}]), "InvalidTaskError", "[args, kwargs, embed]"),
        (body([1, {}, None]), "InvalidTaskError", "arguments"),
        (body([[], [], None]), "InvalidTaskError", "mapping"),
        (body([[], {}, []]), "InvalidTaskError", "canvas"),
        (body([[1], {}, None]), "TypeError", "missing 1 required positional argument"),
    ],
)
def test_messages_that_cannot_be_run(
    newest_runner: Runner, write: Callable[[Runner], None], kind: str, words: str
) -> None:
    write(newest_runner)
    outcome = newest_runner.run()
    assert outcome.code == 1
    exception = outcome.report["exception"]
    assert exception["exc_type"] == kind
    assert words in exception["exc_message"][0]


def typed(kind: str, value: Any) -> dict[str, Any]:
    return {"x_when": {"__type__": kind, "__value__": value}}


def test_headers_of_kombus_json_dialect(newest_runner: Runner, oldest: Interpreter) -> None:
    """Kombu reads them from 5.3 on, and writes them again."""
    when = typed("datetime", "2030-01-02T03:04:05+00:00")
    newest_runner.write("runner_app.typed_headers", headers=when)
    outcome = newest_runner.run()
    assert outcome.report["result"] == ["datetime", 2030]
    (message,) = sent(outcome.report)
    assert message["x_when"] == when["x_when"]
    assert Runner(oldest, newest_runner.folder).run().report["result"] == ["dict", None]


@pytest.mark.parametrize("header", [typed("unknown", 1), typed("datetime", 1), typed("uuid", "u")])
def test_headers_that_kombu_cannot_read(newest_runner: Runner, header: dict[str, Any]) -> None:
    outcome = newest_runner.task("runner_app.add", 1, 2, headers=header)
    assert outcome.report["exception"]["exc_type"] == "InvalidTaskError"


def test_task_file_is_required(newest_runner: Runner) -> None:
    outcome = newest_runner.run(PETIOLE_TASK_FILE="")
    assert outcome.report["exception"]["exc_message"] == ["PETIOLE_TASK_FILE is not set"]


def test_accepted_content_can_be_widened(newest_runner: Runner) -> None:
    raw = base64.b64encode(b"[[1, 2], {}, null]").decode()
    newest_runner.write("runner_app.add", body=raw, **{"content-type": "application/x-yaml"})
    outcome = newest_runner.run(PETIOLE_ACCEPT_CONTENT="json, yaml")
    assert outcome.report["result"] == 3


def test_command_line(runner: Runner) -> None:
    """An app that asks whether it is in a worker is told so."""
    outcome = runner.task("runner_app.command_line")
    assert outcome.report["result"] == ["celery", "-A", "runner_app", "worker"]


def test_arguments_are_refused(newest: Interpreter) -> None:
    done: subprocess.CompletedProcess[str] = newest.run("-m", "petiole.run", "argument")
    assert done.returncode == 2
