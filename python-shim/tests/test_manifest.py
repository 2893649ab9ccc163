from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import Interpreter

APP = "manifest_app"
SECRETS = ("secret", "hidden", "behind", "beside")


def manifest(python: Interpreter, *arguments: str, **extra: str) -> dict[str, Any]:
    done = python.run("-m", "petiole.manifest", *arguments, **extra)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def document(python: Interpreter) -> dict[str, Any]:
    return manifest(python, "-A", APP)


# In the scope of the module, so that each app is loaded once.
@pytest.fixture(scope="module", params=["newest", "oldest"])
def python(request: pytest.FixtureRequest) -> Interpreter:
    interpreter: Interpreter = request.getfixturevalue(request.param)
    return interpreter


def warned(document: dict[str, Any], *words: str) -> list[str]:
    """Return the warnings that have all of `words` in them."""
    return [text for text in document["warnings"] if all(word in text for word in words)]


def test_head(document: dict[str, Any]) -> None:
    assert document["v"] == 1
    assert document["app"] == APP
    assert document["celery"][0] == "5"
    assert document["python"][0] == "3"


def test_options_of_a_task(document: dict[str, Any]) -> None:
    options = document["tasks"]["manifest.full"]
    expected = {
        "acks_late": False,
        "acks_on_failure_or_timeout": False,
        "reject_on_worker_lost": True,
        "ignore_result": True,
        "store_errors_even_if_ignored": True,
        "time_limit": 10,
        "soft_time_limit": 5.5,
        "rate_limit": "10/m",
        "max_retries": None,
        "default_retry_delay": 7,
        "retry_backoff": True,
        "retry_backoff_max": 60,
        "retry_jitter": False,
        "retry_kwargs": {"max_retries": 5, "countdown": 2},
        "track_started": True,
        "send_events": False,
        "serializer": "yaml",
        "expires": 60,
        "autoretry_for": ["manifest_app.ExpectedError", "builtins.OSError"],
        "dont_autoretry_for": ["builtins.FileNotFoundError"],
        "throws": ["builtins.KeyError", "manifest_app.ExpectedError"],
    }
    assert {name: options[name] for name in expected} == expected


def test_option_that_only_a_newer_celery_knows(document: dict[str, Any]) -> None:
    is_known = not document["celery"].startswith("5.2.")
    options = document["tasks"]["manifest.full"]
    assert options.get("retry_on_worker_lost") == (True if is_known else None)


def test_task_without_options(document: dict[str, Any]) -> None:
    options = document["tasks"]["manifest.bare"]
    assert options["acks_late"] is True  # task_acks_late
    assert options["max_retries"] == 3
    assert options["time_limit"] in {None, 90}  # from 5.7 on Celery fills in task_time_limit
    assert options["rate_limit"] is None
    assert options["throws"] == []
    assert "autoretry_for" not in options or options["autoretry_for"] == []


def test_annotations_are_in_the_tasks(document: dict[str, Any]) -> None:
    assert document["tasks"]["manifest.annotated"]["rate_limit"] == "7/s"
    assert "task_annotations" in document["settings"]


def test_built_in_tasks(document: dict[str, Any]) -> None:
    assert {"celery.chord", "celery.backend_cleanup"} <= document["tasks"].keys()


def test_settings(document: dict[str, Any]) -> None:
    settings = document["settings"]
    assert settings["task_acks_late"] is True
    assert settings["result_expires"] == 7200
    assert settings["task_time_limit"] == 90
    assert settings["worker_prefetch_multiplier"] == 2
    assert settings["tenant_header"] == "team"
    assert settings["broker_use_ssl"] == {
        "ssl_cert_reqs": "CERT_REQUIRED",
        "ssl_ca_certs": "/ca.pem",
    }
    assert settings["broker_transport_options"] == {"visibility_timeout": 600}
    assert [queue["name"] for queue in settings["task_queues"]] == ["feeds", "plain", "bound"]
    assert (
        settings["task_queues"][0].items()
        >= {
            "exchange": "feeds",
            "exchange_type": "topic",
            "routing_key": "feed.#",
        }.items()
    )
    assert "bindings" not in settings["task_queues"][0]
    assert settings["task_queues"][2]["bindings"] == [
        {"exchange": "events", "exchange_type": "topic", "routing_key": "a.*"},
        {"exchange": "shop", "exchange_type": "direct", "routing_key": "lo"},
    ]
    # Those that are Celery's defaults, and those that nobody can read.
    assert not {"accept_content", "timezone", "task_serializer", "beat_schedule"} & settings.keys()


def test_queues(document: dict[str, Any]) -> None:
    assert document["queues"]["feeds"] == {
        "exchange": "feeds",
        "exchange_type": "topic",
        "routing_key": "feed.#",
        "queue_arguments": None,
    }
    assert document["queues"]["plain"]["queue_arguments"] == {"x-max-priority": 5}


def test_routes(document: dict[str, Any]) -> None:
    assert document["routes"][:4] == [
        {"function": "petiole.routing.by_tenant"},
        {"task": "feeds.*", "route": {"queue": "feeds"}},
        {"task": "one", "route": {"queue": "plain"}},
        {"regex": "^re\\.", "route": {"queue": "plain", "priority": 3}},
    ]
    assert "lambda" in document["routes"][4]["function"]


@pytest.mark.parametrize(
    "words",
    [
        ("manifest.custom", "Request", "OwnRequest"),
        ("manifest.custom", "Strategy", "elsewhere:strategy"),
        ("manifest.custom", "result backend"),
        ("bootstep manifest_app.Step", "of the consumer"),
        ("bootstep manifest_app.Step", "of the worker"),
        ("user_options", "worker"),
        ("worker_consumer", "own.worker:Consumer"),
        ("worker_autoscaler", "own.worker:Autoscaler"),
        ("worker_timer", "own.worker:Timer"),
        ("manifest_app.configure", " celeryd_init ", "not for the worker"),
        ("manifest_app.on_others", " celeryd_after_setup "),
        ("manifest_app.on_others", " worker_shutting_down "),
        ("manifest_app.on_others", " worker_shutdown "),
        ("manifest_app.on_others", " task_received "),
        ("manifest_app.on_others", " task_revoked "),
        ("manifest_app.on_ready", "worker_ready"),
        ("remote control", "own_command"),
        ("task_routes", "lambda"),
        ("manifest.unlimited", "max_retries", "inf"),
        ("task_publish_retry_policy",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_carried_over(document: dict[str, Any], words: tuple[str, ...]) -> None:
    assert len(warned(document, *words)) == 1


def test_what_can_is_no_warning(document: dict[str, Any]) -> None:
    # The worker itself tells what becomes of worker_pool, wherever that comes from.
    assert document["settings"]["worker_pool"] == "gevent"
    for word in (
        "worker_pool",
        "on_prerun",
        "on_start",
        "by_tenant",
        "beat_schedule",
        "manifest.bare",
        "task_annotations",
    ):
        assert not warned(document, word)
    assert not warned(document, "worker_ready", "celery.")


def test_own_serializers_are_told_by_their_types(python: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "codec_app.py").write_text(
        "from celery import Celery\nfrom kombu.serialization import register\n"
        "register('own', repr, eval, content_type='application/x-own')\n"
        "app = Celery('codec')\napp.conf.accept_content = ('own', 'pickle', 'application/x-yaml')\n"
    )
    document = manifest(python, "--workdir", str(tmp_path), "-A", "codec_app")
    accepted = document["settings"]["accept_content"]
    assert accepted == ["application/x-own", "pickle", "application/x-yaml"]


def test_plain_app_has_no_warnings(python: Interpreter) -> None:
    document = manifest(python, "-A", "runner_app")
    assert document["warnings"] == []
    assert document["settings"] == {}
    assert list(document["queues"]) == ["celery"]
    assert document["routes"] == []


def test_credentials_stay_out(python: Interpreter, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    done = python.run("-m", "petiole.manifest", "-A", APP, "-o", str(path))
    assert done.returncode == 0
    text = path.read_text()
    assert not [secret for secret in SECRETS if secret in text + done.stderr]
    document = json.loads(text)
    for name, variable in (
        ("broker_url", "CELERY_BROKER_URL"),
        ("result_backend", "CELERY_RESULT_BACKEND"),
        ("redis_password", "PETIOLE_REDIS_PASSWORD"),
        ("result_backend_transport_options", "PETIOLE_RESULT_BACKEND_TRANSPORT_OPTIONS"),
    ):
        assert name not in document["settings"]
        assert len(warned(document, f"{name} has", f"{variable} ")) == 1
        assert variable in done.stderr


def test_credentials_on_request(python: Interpreter) -> None:
    settings = manifest(python, "-A", APP, "--with-credentials")["settings"]
    assert settings["broker_url"] == "redis://user:secret@broker/0"
    assert settings["result_backend"] == "redis://:hidden@results/1"
    assert settings["redis_password"] == "beside"


def test_environment_is_the_workers_to_read(python: Interpreter) -> None:
    document = manifest(
        python, "-A", APP, "--with-credentials", CELERY_BROKER_URL="redis://elsewhere"
    )
    assert document["settings"]["broker_url"] == "redis://user:secret@broker/0"


def test_include(python: Interpreter) -> None:
    assert "manifest.more" in manifest(python, "-A", APP, "--include", "manifest_more")["tasks"]


def test_config_module(python: Interpreter) -> None:
    document = manifest(python, "--config", "manifest_config")
    assert document["app"] is None
    assert document["settings"]["task_default_queue"] == "configured"
    assert "manifest.more" in document["tasks"]
    assert list(document["queues"]) == ["configured"]


def test_app_from_the_environment(python: Interpreter) -> None:
    assert manifest(python, CELERY_APP=APP)["app"] == APP


def test_working_folder(python: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "hidden_app.py").write_text(
        "from celery import Celery\nfrom pathlib import Path\n"
        "app = Celery('away', broker='redis://' + Path.cwd().name)\n"
    )
    document = manifest(python, "--workdir", str(tmp_path / "away"), "-A", "hidden_app")
    assert document["settings"]["broker_url"] == "redis://away"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-A", "no_such_app"), "The module no_such_app was not found."),
        (("-A", "no_such_app:app"), "The module no_such_app was not found."),
        (("-A", "no_such.app"), "The module no_such was not found."),
        (("-A", "manifest_app:missing"), "manifest_app:missing was not found."),
        ((), "'-A' / '--app'"),
        (("--frobnicate",), "--frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage_errors(newest: Interpreter, arguments: tuple[str, ...], words: str) -> None:
    done = newest.run("-m", "petiole.manifest", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_dependency\n", "no_such_dependency"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import os\nos.no_such_thing\n", "no_such_thing"),
    ],
)
def test_app_that_cannot_be_imported(
    python: Interpreter, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "broken_app.py").write_text(text)
    done = python.run("-m", "petiole.manifest", "--workdir", str(tmp_path), "-A", "broken_app")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" in done.stderr
    assert words in done.stderr
    assert "Unable to load celery application" in done.stderr.splitlines()[-1]


def test_threads_of_the_app_are_not_awaited(newest: Interpreter, tmp_path: Path) -> None:
    (tmp_path / "threads_app.py").write_text(
        "import threading, time\nfrom celery import Celery\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\napp = Celery('threads')\n"
    )
    document = manifest(newest, "--workdir", str(tmp_path), "-A", "threads_app")
    assert document["app"] == "threads_app"
