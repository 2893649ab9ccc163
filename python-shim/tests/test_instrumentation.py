"""Sentry's and OpenTelemetry's own instrumentation of Celery, in a container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from task_runner import ID, Outcome, Runner, sent

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
OF_SENTRY = "771a43a4192642f0b136d5159a501700"


@pytest.fixture
def instrumented(newest_runner: Runner) -> Runner:
    environ = {
        "PETIOLE_APP": "instrumented_app",
        "TOLD": str(newest_runner.folder / "told"),
        "OTEL_SDK_DISABLED": "false",
    }
    return Runner(newest_runner.python, newest_runner.folder, environ)


def run(runner: Runner, name: str, *args: Any) -> tuple[Outcome, list[dict[str, Any]]]:
    """Run a task that came with the headers of both; return what was told."""
    headers = {
        "traceparent": f"00-{TRACE}-{SPAN}-01",
        "sentry-trace": f"{OF_SENTRY}-{SPAN}-1",
        "headers": {"sentry-trace": f"{OF_SENTRY}-{SPAN}-1"},
    }
    outcome = runner.task(f"instrumented_app.{name}", *args, headers=headers)
    text = (runner.folder / "told").read_text()
    return outcome, [json.loads(line) for line in text.splitlines()]


def test_span_of_a_task_belongs_to_its_senders_trace(instrumented: Runner) -> None:
    outcome, told = run(instrumented, "add", 1, 2)
    assert outcome.report["result"] == 3
    (span,) = (each for each in told if "span" in each)
    assert (span["span"], span["trace"], span["parent"]) == (
        "run/instrumented_app.add",
        TRACE,
        SPAN,
    )
    assert span["attributes"]["celery.state"] == "SUCCESS"
    assert span["attributes"]["messaging.message.id"] == ID
    assert not span["is_error"]


def test_span_of_a_failure_says_so(instrumented: Runner) -> None:
    _, told = run(instrumented, "fail")
    (span,) = (each for each in told if "span" in each)
    assert span["attributes"]["celery.state"] == "FAILURE"
    assert span["is_error"]


def test_tasks_that_are_sent_carry_the_trace_on(instrumented: Runner) -> None:
    outcome, told = run(instrumented, "sends")
    (message,) = sent(outcome.report)
    spans = {each["span"]: each for each in told if "span" in each}
    assert set(spans) == {"run/instrumented_app.sends", "apply_async/instrumented_app.add"}
    assert message["traceparent"].split("-")[1] == TRACE
    assert message["sentry-trace"].startswith(OF_SENTRY)
    assert message["headers"]["sentry-trace"] == message["sentry-trace"]


def test_sentry_gets_transactions_and_errors(instrumented: Runner) -> None:
    _, told = run(instrumented, "add", 1, 2)
    (transaction,) = (each for each in told if "sentry" in each)
    assert (transaction["sentry"], transaction["transaction"]) == (
        "transaction",
        "instrumented_app.add",
    )
    assert transaction["trace"]["trace_id"] == OF_SENTRY
    assert transaction["trace"]["op"] == "queue.task.celery"


def test_sentry_gets_the_exception_of_a_task(instrumented: Runner) -> None:
    _, told = run(instrumented, "fail")
    (event,) = (each for each in told if each.get("sentry") == "event")
    assert event["exceptions"] == ["ValueError"]
    assert event["celery"]["task_name"] == "instrumented_app.fail"
    assert event["trace"]["trace_id"] == OF_SENTRY
