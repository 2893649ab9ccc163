from __future__ import annotations

import base64
import importlib
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import redis
from fastapi.testclient import TestClient

from app.celery_app import celery_app
from harness import TIMEOUT_S, Interpreter, free_port

SECRET = "a secret of at least thirty-two bytes"
ALGORITHM = "HS256"


@pytest.fixture(scope="session")
def api(broker_url: str, backend_url: str) -> Iterator[TestClient]:
    """The API, on the tests' Redis."""
    celery_app.conf.update(broker_url=broker_url, result_backend=backend_url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JWT_SECRET", SECRET)
        # Only now: the module refuses to be imported without the secret.
        main = importlib.import_module("app.main")
        with TestClient(main.app) as client:
            yield client


def log_in(api: TestClient, username: str, password: str = "any") -> dict[str, str]:
    answer = api.post("/auth/login", json={"username": username, "password": password})
    assert answer.status_code == 200
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def bearer(**claims: Any) -> dict[str, str]:
    claims = {"user_id": "ann", "role": "user", "exp": int(time.time()) + 60, **claims}
    token = jwt.encode(
        {key: value for key, value in claims.items() if value is not None}, SECRET, ALGORITHM
    )
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("username", "password", "role", "tenant"),
    [("admin", "admin", "admin", "tenant-admin"), ("ann", "any", "user", "tenant-user")],
)
def test_login(api: TestClient, username: str, password: str, role: str, tenant: str) -> None:
    answer = api.post("/auth/login", json={"username": username, "password": password}).json()
    assert set(answer) == {"token", "user_id", "role"}
    assert (answer["user_id"], answer["role"]) == (username, role)
    claims = jwt.decode(answer["token"], SECRET, [ALGORITHM])
    assert 1790 < claims.pop("exp") - time.time() <= 1800
    assert claims == {"user_id": username, "role": role, "tenant": tenant}


def test_admins_name_needs_the_password(api: TestClient) -> None:
    answer = api.post("/auth/login", json={"username": "admin", "password": "wrong"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {"password": "hunter2"},
        {"username": "", "password": "hunter2"},
        {"username": ["hunter2"], "password": "hunter2"},
        {"username": "x", "password": {"p": "hunter2"}},
    ],
)
def test_refused_logins_do_not_repeat_the_input(api: TestClient, body: dict[str, Any]) -> None:
    answer = api.post("/auth/login", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][0] == "body"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        bearer(exp=int(time.time()) - 10),
        bearer(exp=None),
        bearer(user_id=None),
        bearer(user_id=7),
        bearer(role=None),
        bearer(tenant=["tenant-admin"]),
        {"Authorization": "Bearer " + jwt.encode({"user_id": "x"}, "k" * 32, ALGORITHM)},
    ],
)
@pytest.mark.parametrize("call", [("POST", "/train"), ("GET", "/task/x")])
def test_unauthorized(api: TestClient, call: tuple[str, str], headers: dict[str, str]) -> None:
    answer = api.request(*call, json={"config": {}}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("claims", "tenant"),
    [
        ({"tenant": "tenant-user"}, "tenant-user"),
        ({"tenant": "tenant-seven"}, "tenant-seven"),
        ({}, "tenant-user"),
        ({"role": "guest"}, "tenant-user"),
        ({"role": "admin"}, "tenant-admin"),
        ({"role": "admin", "tenant": ""}, "tenant-admin"),
    ],
)
def test_train_sends_to_the_tokens_tenant(
    api: TestClient, broker: redis.Redis, claims: dict[str, Any], tenant: str
) -> None:
    config = {
        "experiment_name": "digits",
        "user_id": "somebody-else",
        "training": {"epochs": 1},
        "metadata": {"namespace": "tenant-other", "note": "kept"},
    }
    answer = api.post("/train", json={"config": config}, headers=bearer(**claims))
    assert answer.status_code == 200
    (message,) = broker.lrange(tenant, 0, -1)
    headers = json.loads(message)["headers"]
    assert answer.json() == {"task_id": headers["id"]}
    assert headers["task"] == "app.tasks.training.train_lora"
    assert headers["petiole_tenant"] == tenant
    assert headers["timelimit"] == [None, 3600]
    body = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert body[1] == {
        "config": {
            "experiment_name": "digits",
            "user_id": "ann",
            "training": {"epochs": 1},
            "metadata": {"namespace": tenant, "note": "kept"},
        }
    }


@pytest.mark.parametrize(
    "body", [{}, {"config": None}, {"config": []}, {"config": {"metadata": "tenant-admin"}}]
)
def test_train_needs_a_config(api: TestClient, broker: redis.Redis, body: Any) -> None:
    assert api.post("/train", json=body, headers=bearer()).status_code == 422
    assert broker.keys("*") == []


def store(results: redis.Redis, status: str, result: Any, kwargs: Any = None) -> None:
    """Store a state as a worker of an app with `result_extended` does."""
    meta = {"status": status, "result": result, "traceback": None, "children": []}
    meta.update(name="train", args=[], kwargs=kwargs, task_id="some-id")
    results.set("celery-task-meta-some-id", json.dumps(meta))


ANNS = {"config": {"user_id": "ann"}}
ANNS_RESULT = {"status": "success", "config": {"experiment_name": None, "user_id": "ann"}}
OOM = {
    "exc_type": "OOMKilled",
    "exc_module": "petiole.exceptions",
    "exc_message": ["The container ran out of memory.", {"exit_code": 137}],
}


def test_unknown_task_is_pending_for_everybody(api: TestClient, results: redis.Redis) -> None:
    answer = api.get("/task/some-id", headers=bearer())
    assert answer.status_code == 200
    assert answer.json() == {"task_id": "some-id", "status": "PENDING"}


@pytest.mark.parametrize(
    ("status", "result", "kwargs", "expected"),
    [
        ("SUCCESS", ANNS_RESULT, None, {"result": ANNS_RESULT}),
        ("STARTED", {"pid": 1, "hostname": "h"}, ANNS, {}),
        (
            "FAILURE",
            OOM,
            ANNS,
            {
                "error": {
                    "type": "OOMKilled",
                    "message": "The container ran out of memory.",
                    "details": {"exit_code": 137},
                }
            },
        ),
        (
            "RETRY",
            {"exc_type": "KeyError", "exc_module": "builtins", "exc_message": ["k"]},
            ANNS,
            {"error": {"type": "KeyError", "message": "'k'"}},
        ),
        ("RETRY", None, ANNS, {}),
    ],
)
def test_owner_and_admin_read_a_task(
    api: TestClient,
    results: redis.Redis,
    status: str,
    result: Any,
    kwargs: Any,
    expected: dict[str, Any],
) -> None:
    store(results, status, result, kwargs)
    for caller in (bearer(), bearer(user_id="root", role="admin")):
        answer = api.get("/task/some-id", headers=caller)
        assert answer.status_code == 200
        assert answer.json() == {"task_id": "some-id", "status": status, **expected}
    assert api.get("/task/some-id", headers=bearer(user_id="bob")).status_code == 403


@pytest.mark.parametrize(
    ("status", "result", "kwargs"),
    [
        ("SUCCESS", "a text", ANNS),
        ("SUCCESS", {"config": None}, ANNS),
        ("SUCCESS", {"config": {"user_id": None}}, ANNS),
        ("FAILURE", OOM, None),
        ("FAILURE", OOM, {"config": "ann"}),
        ("STARTED", None, None),
        ("PENDING", None, {"config": {"user_id": "bob"}}),
    ],
)
def test_state_without_owner_is_the_admins(
    api: TestClient, results: redis.Redis, status: str, result: Any, kwargs: Any
) -> None:
    store(results, status, result, kwargs)
    assert api.get("/task/some-id", headers=bearer()).status_code == 403
    admin = bearer(role="admin")
    assert api.get("/task/some-id", headers=admin).json()["status"] == status


def test_healthz(api: TestClient) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}


def test_real_worker_runs_the_training(
    api: TestClient,
    newest: Interpreter,
    broker: redis.Redis,
    results: redis.Redis,
    broker_url: str,
    backend_url: str,
) -> None:
    settings = {"CELERY_BROKER_URL": broker_url, "CELERY_RESULT_BACKEND": backend_url}
    callers = {"tenant-user": log_in(api, "ann"), "tenant-admin": log_in(api, "admin", "admin")}
    good, bad = {"experiment_name": "good"}, {"training": {"epochs": 0}}
    with newest.celery_worker("app.tasks", "tenant-user,tenant-admin", **settings):
        for tenant, caller in callers.items():
            answer = finish(api, caller, good)
            assert answer["status"] == "SUCCESS"
            assert answer["result"]["eval"]["accuracy"] > 0.9
            assert answer["result"]["metadata"] == {"namespace": tenant}
        answer = finish(api, callers["tenant-user"], bad)
    assert answer["error"] == {
        "type": "ValueError",
        "message": "config.training.epochs must be a whole number from 1 to 1000",
    }
    other = api.get(f"/task/{answer['task_id']}", headers=log_in(api, "bob"))
    assert other.status_code == 403


def finish(api: TestClient, caller: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
    """Train with `config` and return the last answer."""
    submitted = api.post("/train", json={"config": config}, headers=caller).json()
    celery_app.AsyncResult(submitted["task_id"]).get(timeout=TIMEOUT_S, propagate=False)
    answer: dict[str, Any] = api.get(f"/task/{submitted['task_id']}", headers=caller).json()
    return answer


def test_unreachable_servers_are_503(newest: Interpreter) -> None:
    address = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    program = """
import json, sys
from fastapi.testclient import TestClient
from app import auth, main
headers = {"Authorization": "Bearer " + auth.issue(auth.log_in("ann", ""))}
main.celery_app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1}}
client = TestClient(main.app)
train = client.post("/train", json={"config": {}}, headers=headers)
task = client.get("/task/x", headers=headers)
print(json.dumps([train.status_code, task.status_code, train.text + task.text]))
"""
    done = newest.run(
        "-c",
        program,
        JWT_SECRET=SECRET,
        CELERY_BROKER_URL=address,
        CELERY_RESULT_BACKEND=address,
    )
    assert done.returncode == 0, done.stderr
    train, task, text = json.loads(done.stdout)
    assert (train, task) == (503, 503)
    assert "hunter2" not in text


def test_secret_is_required(newest: Interpreter) -> None:
    done = newest.run("-c", "import app.main", JWT_SECRET="")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("RuntimeError: JWT_SECRET is not set")
