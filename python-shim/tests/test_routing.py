from __future__ import annotations

import json
from typing import Any

import pytest
import redis
from celery import Celery

from harness import TIMEOUT_S, Interpreter
from petiole.routing import InvalidTenantError, by_tenant

CONFIG = {"config": {"metadata": {"namespace": "tenant-a"}}}


def nothing() -> None:
    pass


@pytest.fixture
def task() -> Any:
    """A task of an app with no settings of its own."""
    return Celery("routing", set_as_current=False).task(nothing, name="some.task")


def route(task: Any, options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    return by_tenant("some.task", args, kwargs, options, task=task)


@pytest.mark.parametrize("how", ["delay", "apply_async", "signature", "send_task"])
def test_path_decides_queue_and_header(
    python: Interpreter, broker: redis.Redis, broker_url: str, how: str
) -> None:
    headers = send(python, broker, broker_url, how, "tenant-a", kwargs=CONFIG)
    assert headers["petiole_tenant"] == "tenant-a"


@pytest.mark.parametrize("how", ["apply_async", "signature", "send_task"])
def test_header_decides_without_path(
    python: Interpreter, broker: redis.Redis, broker_url: str, how: str
) -> None:
    options = {"headers": {"petiole_tenant": "tenant-b", "trace": "kept"}}
    headers = send(python, broker, broker_url, how, "tenant-b", options=options)
    assert headers["petiole_tenant"] == "tenant-b"
    assert headers["trace"] == "kept"


@pytest.mark.parametrize("how", ["delay", "send_task"])
def test_default_decides_last(
    python: Interpreter, broker: redis.Redis, broker_url: str, how: str
) -> None:
    headers = send(python, broker, broker_url, how, "tenant-user")
    assert headers["petiole_tenant"] == "tenant-user"


def test_path_wins_over_header(python: Interpreter, broker: redis.Redis, broker_url: str) -> None:
    options = {"headers": {"petiole_tenant": "tenant-b"}}
    headers = send(
        python, broker, broker_url, "apply_async", "tenant-a", kwargs=CONFIG, options=options
    )
    assert headers["petiole_tenant"] == "tenant-a"


def test_named_queue_stays(python: Interpreter, broker: redis.Redis, broker_url: str) -> None:
    options = {"queue": "tenant-c"}
    assert "petiole_tenant" not in send(
        python, broker, broker_url, "apply_async", "tenant-c", options=options
    )
    headers = send(
        python, broker, broker_url, "apply_async", "tenant-c", kwargs=CONFIG, options=options
    )
    assert headers["petiole_tenant"] == "tenant-a"


@pytest.mark.parametrize("where", ["conf", "env"])
def test_settings(python: Interpreter, broker: redis.Redis, broker_url: str, where: str) -> None:
    settings = {
        "petiole_tenant_path": "args.0.team",
        "petiole_tenant_header": "team",
        "petiole_tenant_default": "nobody",
    }
    extra = (
        {"CONF": json.dumps(settings)}
        if where == "conf"
        else {name.upper(): value for name, value in settings.items()}
    )
    headers = send(python, broker, broker_url, "delay", "red", args=[{"team": "red"}], extra=extra)
    assert headers["team"] == "red"
    assert "petiole_tenant" not in headers
    assert send(python, broker, broker_url, "delay", "nobody", extra=extra)["team"] == "nobody"


def test_invalid_tenant_sends_nothing(
    python: Interpreter, broker: redis.Redis, broker_url: str
) -> None:
    call = {"kwargs": {"config": {"metadata": {"namespace": "../etc"}}}}
    done = python.run("-m", "routed_app", "delay", json.dumps(call), BROKER_URL=broker_url)
    assert done.returncode == 1
    assert "InvalidTenantError: task routed.train cannot be routed: its tenant '../etc'" in (
        done.stderr
    )
    assert broker.keys("*") == []


def test_task_sent_by_a_task_inherits_the_header(
    python: Interpreter, broker: redis.Redis, broker_url: str
) -> None:
    with python.celery_worker("routed_app", "tenant-a", BROKER_URL=broker_url):
        app = Celery("client", broker=broker_url, set_as_current=False)
        headers = {"petiole_tenant": "tenant-a"}
        app.send_task("routed.parent", kwargs=CONFIG, queue="tenant-a", headers=headers)
        found = broker.blpop(["seen"], timeout=TIMEOUT_S)
    assert found is not None
    assert json.loads(found[1]) == {"queue": "tenant-a", "header": "tenant-a"}


def test_callers_headers_are_not_changed(task: Any) -> None:
    headers = {"trace": "1"}
    options = {"headers": headers}
    route(task, options, **CONFIG)
    assert headers == {"trace": "1"}
    assert options["headers"] == {"trace": "1", "petiole_tenant": "tenant-a"}


@pytest.mark.parametrize(
    "config",
    [None, "text", 7, [], {}, {"metadata": None}, {"metadata": "text"}, {"metadata": {}}],
)
def test_arguments_without_the_path_name_no_tenant(task: Any, config: Any) -> None:
    assert route(task, {}, config=config)["queue"] == "tenant-user"


@pytest.mark.parametrize("tenant", ["a", "0", "a-b", "a" * 63])
def test_valid_tenants(task: Any, tenant: str) -> None:
    assert route(task, {}, config={"metadata": {"namespace": tenant}})["queue"] == tenant


@pytest.mark.parametrize(
    "tenant",
    ["", "A", "-a", "a-", "a.b", "a_b", "a/b", "a\n", "a" * 64, "é", "٣", 7, True, ["a"], {"a": 1}],
)
@pytest.mark.parametrize("place", ["path", "header"])
def test_invalid_tenants(task: Any, place: str, tenant: Any) -> None:
    options = {"headers": {"petiole_tenant": tenant}} if place == "header" else {}
    kwargs = {"config": {"metadata": {"namespace": tenant}}} if place == "path" else {}
    with pytest.raises(InvalidTenantError, match=r"some\.task cannot be routed"):
        route(task, options, **kwargs)


def test_django_style_setting_names() -> None:
    app = Celery("django", set_as_current=False)
    settings = {"CELERY_PETIOLE_TENANT_DEFAULT": "from-django"}
    app.config_from_object(settings, namespace="CELERY")
    assert route(app.task(nothing, name="some.task"), {})["queue"] == "from-django"


def send(
    python: Interpreter,
    broker: redis.Redis,
    broker_url: str,
    how: str,
    queue: str,
    extra: dict[str, str] | None = None,
    **call: Any,
) -> dict[str, Any]:
    """Send a task and return the headers of the one message, which must be in `queue`."""
    broker.flushdb()
    done = python.run(
        "-m", "routed_app", how, json.dumps(call), BROKER_URL=broker_url, **(extra or {})
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == call.get("options"), "the caller's options were changed"
    lists = [key for key in broker.keys("*") if broker.type(key) == "list"]
    assert lists == [queue]
    (message,) = broker.lrange(queue, 0, -1)
    headers: dict[str, Any] = json.loads(message)["headers"]
    return headers
