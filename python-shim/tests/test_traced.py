"""A task in a container runs through Celery's own tracing; what it sends is in its report."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis

from task_runner import ID, Runner, eta_s, moved, payload_of, sent, signature


def test_autoretry(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.flaky",
        headers={"mine": ["kept"], "group": "g", "root_id": "r", "origin": "client"},
        embed={"callbacks": [signature("add", 1)], "errbacks": None, "chain": None, "chord": None},
    )
    assert outcome.code == 0
    assert outcome.report["state"] == "RETRY"
    assert outcome.report["exception"] == {
        "exc_type": "KeyError",
        "exc_message": ["key"],
        "exc_module": "builtins",
    }
    (message,) = sent(outcome.report)
    assert (message["task"], message["id"], message["retries"]) == ("runner_app.flaky", ID, 1)
    assert (message["mine"], message["group"], message["root_id"]) == (["kept"], "g", "r")
    assert message["queue"] == "tenant-a", "it goes where it came from"
    assert 170 < eta_s(message["eta"]) < 181
    assert message["embed"]["callbacks"][0]["task"] == "runner_app.add"
    assert outcome.report["children"] == [[[ID, None], None]]
    assert "KeyError: 'key'" in outcome.report["traceback"]


def test_last_retry_fails_with_the_cause(runner: Runner) -> None:
    outcome = runner.task("runner_app.flaky", headers={"retries": 2})
    assert outcome.code == 1
    assert outcome.report["state"] == "FAILURE"
    assert outcome.report["exception"]["exc_type"] == "KeyError"
    assert "frames" not in outcome.report


def test_retry_with_changes(runner: Runner) -> None:
    outcome = runner.task("runner_app.again", "changed")
    (message,) = sent(outcome.report)
    assert outcome.report["exception"] is None
    assert (message["args"], message["kwargs"]) == ([], {"how": "other"})
    assert (message["queue"], message["properties"]["priority"]) == ("slow", 3)
    assert 0 < eta_s(message["eta"]) < 8


def test_retry_at_a_time(runner: Runner) -> None:
    (message,) = sent(runner.task("runner_app.again", "eta").report)
    assert message["eta"] == "2030-01-02T03:04:05+00:00"
    assert (message["args"], message["retries"]) == (["eta"], 1)


def test_retry_that_the_body_goes_on_after(runner: Runner) -> None:
    outcome = runner.task("runner_app.again", "unthrown")
    assert outcome.report["result"] == "not the end"
    assert [message["retries"] for message in sent(outcome.report)] == [1]


def test_retry_that_the_body_swallows(runner: Runner) -> None:
    outcome = runner.task("runner_app.again", "swallowed")
    assert outcome.report["exception"]["exc_type"] == "ValueError"
    assert [message["retries"] for message in sent(outcome.report)] == [1]
    assert "after_failure" not in outcome.report["frames"][0]


def test_retry_that_is_raised_sends_nothing(runner: Runner) -> None:
    report = runner.task("runner_app.again", "raised").report
    assert (report["state"], report["frames"]) == ("RETRY", [])
    assert report["exception"]["exc_type"] == "KeyError"


def test_function_that_raises_retry(runner: Runner) -> None:
    runner.write("any.name", "seconds")
    report = runner.run(PETIOLE_APP="", PETIOLE_FUNCTION="runner_app:raises_retry").report
    assert (report["state"], report["countdown"], report["exception"]) == ("RETRY", 9, None)
    assert "frames" not in report
    runner.write("any.name", "time")
    report = runner.run(PETIOLE_APP="", PETIOLE_FUNCTION="runner_app:raises_retry").report
    assert 30 < report["countdown"] <= 60


def test_large_retry_goes_to_the_end_of_stdout(runner: Runner) -> None:
    outcome = runner.task("runner_app.again", "large")
    assert outcome.report["state"] == "RETRY"
    payload = json.loads(payload_of(outcome))
    assert payload["exception"] is None
    assert sent(payload)[0]["args"] == ["x" * 10_000]


@pytest.mark.parametrize(
    ("how", "state", "lines"),
    [
        ("well", "SUCCESS", ["before_start ('well',) {}", "on_success well"]),
        ("fail", "FAILURE", ["before_start ('fail',) {}", "on_failure KeyError('handled') True"]),
        ("retry", "RETRY", ["before_start ('retry',) {}", "on_retry KeyError('again')"]),
    ],
)
def test_handlers_of_a_task_class(runner: Runner, how: str, state: str, lines: list[str]) -> None:
    outcome = runner.task("runner_app.handled", how)
    assert outcome.report["state"] == state
    printed = [line for line in outcome.stdout.splitlines() if not line.startswith("::")]
    after = [] if how == "retry" else [f"after_return {state}"]
    assert [line.replace("['", "('").replace("']", "',)") for line in printed] == lines + after


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("fail", {"state": "CLEANED", "meta": "on_failure"}),
        ("retry", {"state": "CLEANED", "meta": "on_retry"}),
        ("odd", {"state": "FAILURE", "meta": {"reason": 1}}),
    ],
)
def test_state_that_a_handler_tells_stays(runner: Runner, how: str, told: dict[str, Any]) -> None:
    outcome = runner.task("runner_app.tells_late", how)
    assert (outcome.report["state"], outcome.report["told"]) == ("IGNORED", told)
    assert "::petiole" not in outcome.stdout
    assert len(outcome.report.get("frames", [])) == (how == "retry")


def test_failure_that_a_handler_tells(runner: Runner) -> None:
    report = runner.task("runner_app.tells_late", "other").report
    assert (report["state"], report["traceback"]) == ("FAILURE", None)
    assert report["exception"]["exc_type"] == "KeyError"


def test_success_stays_whatever_a_handler_tells(runner: Runner) -> None:
    report = runner.task("runner_app.tells_late", "well").report
    assert (report["state"], report["result"]) == ("SUCCESS", "well")


@pytest.mark.parametrize(
    ("how", "between"),
    [
        ("well", ["task_success "]),
        ("fail", ["task_failure "]),
        ("retry", ["before_task_publish ", "task_retry "]),
    ],
)
def test_signals(runner: Runner, how: str, between: list[str]) -> None:
    runner.write("runner_app.handled", how)
    outcome = runner.run(TELL_SIGNALS="1")
    fired = [
        line.removeprefix("signal ")
        for line in outcome.stdout.splitlines()
        if line.startswith("signal ")
    ]
    start = ["celeryd_init ", "worker_init ", "worker_process_init "]
    assert fired[:4] == [*start, "task_prerun "]
    assert fired[4:-2] == between
    assert fired[-2:] == [f"task_postrun {outcome.report['state']}", "worker_process_shutdown "]


def test_number_of_the_process(runner: Runner) -> None:
    assert runner.task("runner_app.number").report["result"] == 0


def test_log_lines_are_celerys(runner: Runner) -> None:
    outcome = runner.task("runner_app.add", 1, 2)
    assert f"Task runner_app.add[{ID}] succeeded in " in outcome.stderr
    outcome = runner.task("runner_app.logs")
    assert "runner_app.logs[" in outcome.stderr
    assert "told at INFO" in outcome.stderr
    runner.write("runner_app.logs")
    assert "told at INFO" not in runner.run(CELERY_LOG_LEVEL="WARNING").stderr


def test_log_line_of_a_failure(newest_runner: Runner) -> None:
    outcome = newest_runner.task("runner_app.fail_in_task")
    assert f"Task runner_app.fail_in_task[{ID}] raised unexpected: ValueError(" in outcome.stderr
    assert outcome.stderr.count("Traceback (most recent call last)") == 1


def test_callbacks_and_chain(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.add",
        1,
        2,
        headers={"root_id": "root"},
        embed={
            "callbacks": [signature("add", 10, task_id="callback")],
            "errbacks": [signature("add", 20, task_id="errback")],
            "chain": [signature("add", 40, task_id="last"), signature("add", 30, task_id="next")],
            "chord": None,
        },
    )
    assert outcome.report["result"] == 3
    callback, following = sent(outcome.report)
    assert (callback["id"], callback["args"]) == ("callback", [3, 10])
    assert (following["id"], following["args"]) == ("next", [3, 30])
    assert [link["options"]["task_id"] for link in following["embed"]["chain"]] == ["last"]
    for message in (callback, following):
        assert (message["parent_id"], message["root_id"]) == (ID, "root")
        assert message["queue"] == "celery"
    assert [child[0][0] for child in outcome.report["children"]] == ["callback", "next"]


def test_failure_fails_the_chain_and_calls_errbacks(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.handled",
        "fail",
        embed={
            "callbacks": [signature("add", 10, task_id="callback")],
            "errbacks": [signature("errback", task_id="errback")],
            "chain": [signature("add", 40, task_id="last"), signature("add", 30, task_id="next")],
            "chord": None,
        },
    )
    assert outcome.report["state"] == "FAILURE"
    frames = outcome.report["frames"] if "frames" in outcome.report else moved(outcome)["frames"]
    assert all(frame["after_failure"] for frame in frames)
    stored = [frame["store"] for frame in frames if "store" in frame]
    assert [(one["task_id"], one["state"]) for one in stored] == [
        ("last", "FAILURE"),
        ("next", "FAILURE"),
    ]
    document = json.loads(stored[0]["document"])
    assert (document["task_id"], document["result"]["exc_type"]) == ("last", "KeyError")
    (errback,) = sent({"frames": [frame for frame in frames if "publish" in frame]})
    assert (errback["id"], errback["args"], errback["parent_id"]) == ("errback", [ID], ID)


def test_failure_fails_the_chain_that_a_chord_counts(runner: Runner) -> None:
    member = signature("add", 30, task_id="member", group_id="g", chord=signature("add", 0))
    outcome = runner.task(
        "runner_app.fail_in_task",
        embed={
            "callbacks": None,
            "errbacks": [signature("errback", task_id="errback")],
            "chain": [member],
            "chord": None,
        },
    )
    assert outcome.report["exception"]["exc_type"] == "ValueError"
    stored, joined, errback = outcome.report["frames"]
    assert (stored["store"]["task_id"], stored["store"]["state"]) == ("member", "FAILURE")
    assert joined["join_chord"] == {"task_id": "member", "group": "g", "state": "FAILURE"}
    assert errback["publish"]["message"]["headers"]["id"] == "errback"


def test_tasks_that_a_body_sends(runner: Runner) -> None:
    outcome = runner.task("runner_app.sends", "delay", headers={"root_id": "root"})
    (message,) = sent(outcome.report)
    assert outcome.report["result"] == "child"
    assert (message["task"], message["args"], message["mine"]) == ("runner_app.add", [1, 2], 1)
    assert (message["parent_id"], message["root_id"]) == (ID, "root")
    assert message["properties"]["correlation_id"] == "child"
    assert outcome.report["children"] == [[["child", None], None]]


def test_group_that_a_body_sends(runner: Runner) -> None:
    messages = sent(runner.task("runner_app.sends", "group").report)
    assert [message["args"] for message in messages] == [[1, 1], [2, 2]]


def test_task_that_sends_where_it_may_wait(runner: Runner) -> None:
    """The result backend, which cannot be reached, is not asked for anything."""
    runner.write("runner_app.sends", "send where waiting is allowed")
    report = runner.run(CELERY_RESULT_BACKEND="redis://127.0.0.1:1").report
    assert [message["args"] for message in sent(report)] == [[1, 2], [1, 1], [2, 2]]


@pytest.mark.parametrize("backend", ["disabled", "redis://127.0.0.1:1"])
@pytest.mark.parametrize("how", ["task", "group", "set", "chain"])
def test_task_that_waits_for_what_it_sends(runner: Runner, how: str, backend: str) -> None:
    """It is told so at once, whether the app has a result backend or not."""
    runner.write("runner_app.waits_for", how)
    report = runner.run(CELERY_RESULT_BACKEND=backend).report
    assert report["exception"]["exc_type"] == "CanvasUnsupported"
    assert "its result cannot be waited for here" in report["exception"]["exc_message"][0]


def test_replace(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.sends",
        "replace",
        embed={"callbacks": [signature("add", 1)], "errbacks": None, "chain": None, "chord": None},
    )
    (message,) = sent(outcome.report)
    assert outcome.report["state"] == "IGNORED"
    assert (message["task"], message["id"], message["args"]) == ("runner_app.add", ID, [3, 4])
    assert message["embed"]["callbacks"][0]["task"] == "runner_app.add"


def test_what_was_sent_before_a_failure_is_sent(runner: Runner) -> None:
    outcome = runner.task("runner_app.sends", "then fail")
    assert outcome.report["exception"]["exc_type"] == "ValueError"
    assert [message["id"] for message in sent(outcome.report)] == ["child"]
    assert "after_failure" not in outcome.report["frames"][0]


def test_lost_body_calls_errbacks(runner: Runner) -> None:
    links = {
        "callbacks": None,
        "errbacks": [signature("errback", task_id="errback")],
        "chain": None,
        "chord": None,
    }
    outcome = runner.task("runner_app.sends", "exit", embed=links)
    assert outcome.report["exception"]["exc_type"] == "WorkerLostError"
    assert [message["id"] for message in sent(outcome.report)] == ["errback"]
    outcome = runner.task("runner_app.stuck", headers={"timelimit": [0.5, None]}, embed=links)
    assert outcome.report["exception"]["exc_type"] == "TimeLimitExceeded"
    assert [message["id"] for message in sent(outcome.report)] == ["errback"]


def test_body_that_ends_while_its_hard_limit_is_told(runner: Runner) -> None:
    links = {
        "callbacks": [signature("add", 10, task_id="callback")],
        "errbacks": [signature("errback_that_takes_long"), signature("errback", task_id="errback")],
        "chain": [signature("add", 30, task_id="next")],
        "chord": None,
    }
    outcome = runner.task("runner_app.nap", 1.0, headers={"timelimit": [0.5, None]}, embed=links)
    assert outcome.report["state"] == "FAILURE"
    payload = outcome.report if "frames" in outcome.report else moved(outcome)
    assert payload["exception"]["exc_type"] == "TimeLimitExceeded"
    published = [frame for frame in payload["frames"] if "publish" in frame]
    assert [message["id"] for message in sent({"frames": published})] == ["errback"]


@pytest.mark.parametrize(("name", "words"), [("raises", "the errback is broken"), ("hangs", "")])
def test_errbacks_of_a_lost_body_that_fail(runner: Runner, name: str, words: str) -> None:
    links = {
        "callbacks": None,
        "errbacks": [signature(f"errback_that_{name}")],
        "chain": None,
        "chord": None,
    }
    outcome = runner.task("runner_app.stuck", headers={"timelimit": [0.5, None]}, embed=links)
    assert outcome.report["exception"]["exc_type"] == "TimeLimitExceeded"
    assert words in outcome.stderr


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("chord", "CanvasUnsupported", "chord cannot be begun in a container"),
        ("topic", "OperationalError", "'logs'"),
        ("broadcast", "OperationalError", "cannot be sent from a container"),
    ],
)
def test_what_cannot_be_sent(runner: Runner, how: str, kind: str, words: str) -> None:
    outcome = runner.task("runner_app.sends", how)
    assert outcome.report["exception"]["exc_type"] == kind
    assert words in outcome.report["exception"]["exc_message"][0]


def test_member_of_a_chord_is_not_run(runner: Runner) -> None:
    outcome = runner.task(
        "runner_app.add",
        1,
        2,
        embed={"callbacks": None, "errbacks": None, "chain": None, "chord": signature("add", 3)},
    )
    assert outcome.report["exception"]["exc_type"] == "CanvasUnsupported"
    assert "member of a chord" in outcome.report["exception"]["exc_message"][0]


def test_events_are_not_sent(runner: Runner) -> None:
    outcome = runner.task("runner_app.sends", "event")
    assert outcome.report["result"] == "event"
    assert "frames" not in outcome.report


STORED_FOR_ANOTHER = {
    "update_state": "SUCCESS",
    "mark_as_done": "SUCCESS",
    "mark_as_failure": "FAILURE",
    "eager": "FAILURE",
    "unstored": None,
}


@pytest.mark.parametrize("how", STORED_FOR_ANOTHER)
def test_what_is_stored_for_another_task(
    runner: Runner, how: str, backend_url: str, results: redis.Redis
) -> None:
    runner.write("runner_app.stores_for_another", how)
    alone = runner.run()
    stored = runner.run(CELERY_RESULT_BACKEND=backend_url)
    for outcome in (alone, stored):
        assert outcome.report["exception"]["exc_message"] == ["mine"]
        assert "::petiole" not in outcome.stdout
    is_told = "a state of task another is not stored" in alone.stderr
    document = json.loads(results.get("celery-task-meta-another") or "{}")
    assert (document.get("status"), is_told) == (STORED_FOR_ANOTHER[how], how != "unstored")


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [("add", [1, 2], "3"), ("big", [1_100_000], "xxx"), ("unencodable", [], "<object object")],
)
def test_ignored_result_is_only_logged(
    runner: Runner, name: str, arguments: list[Any], shown: str
) -> None:
    outcome = runner.task(f"runner_app.{name}", *arguments, headers={"ignore_result": True})
    assert (outcome.report["state"], outcome.report["result"]) == ("SUCCESS", None)
    assert shown in outcome.stderr.partition(" succeeded in ")[2]
