"""A real app's settings and tasks, told by Python at the start or by a manifest beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from helpers import SEPARATOR, wait_stored
from petiole_worker import TENANT, TOP, PetioleWorker, petiole_binary, run_petiole, sample_plugin
from program import Program, clean_environment
from python_env import ensure
from redis_server import RedisServer

pytestmark = pytest.mark.petiole_only
ADD, FAIL = "petiole.sample.add", "petiole.sample.fail"
NO_PYTHON = {"PETIOLE_PYTHON": "/nonexistent/python"}
APP = """
from celery import Celery, signals

app = Celery("proj", broker={broker!r}, backend={backend!r})
app.conf.update(result_expires=4321, task_track_started=True, worker_concurrency=3)


@signals.worker_ready.connect
def on_ready(**_):
    pass


@app.task(name="petiole.sample.add", ignore_result=False)
def add(x, y):
    pass


@app.task(name="petiole.sample.fail", throws=(ValueError,))
def fail(text):
    pass
"""


@pytest.fixture
def project(redis_server: RedisServer, tmp_path: Path) -> Path:
    """Return a folder with the app `proj` in it, whose tasks are those of the sample plugin."""
    folder = tmp_path / "project"
    folder.mkdir()
    text = APP.format(broker=redis_server.url(0), backend=redis_server.url(1))
    (folder / "proj.py").write_text(text)
    (folder / "more.py").write_text(
        "from celery import shared_task\n\n\n@shared_task(name='more.task')\ndef f():\n    pass\n"
    )
    return folder


def python(name: str = "newest") -> dict[str, str]:
    """Return the environment of a worker beside a Python with Celery and the package."""
    executable = sys.executable if name == "newest" else str(ensure(name))
    return {"PETIOLE_PYTHON": executable, "PYTHONPATH": str(TOP / "python-shim" / "src")}


def native(folder: Path) -> dict[str, str]:
    """Return the environment of a worker that runs the app's tasks in the sample plugin."""
    return {
        "PETIOLE_TASKS": json.dumps({"petiole.sample.*": {"executor": "native"}}),
        "PETIOLE_PLUGINS": str(sample_plugin()),
        "PETIOLE_RUN_DIR": str(folder),
        "PETIOLE_WORKER_HTTP_ADDRESS": "",
    }


def check(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `petiole check` in the project's folder."""
    return run_petiole("--workdir", str(project), *arguments, environment=environment)


@pytest.mark.parametrize("celery", ["newest", "oldest"])
def test_python_tells_of_the_app(
    celery: str, project: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    environment = {**native(tmp_path), **python(celery)}
    done = check(project, "-A", "proj", "check", "-I", "more", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "app proj: 12 tasks" in done.stdout, "two, that of -I, and Celery's nine"
    assert f"broker         {redis_server.url(0)}" in done.stdout
    assert done.stdout.count("on_ready") == 1


def test_worker_of_an_app(
    project: Path, client: Celery, backend: redis.Redis, tmp_path: Path
) -> None:
    """Nothing but -A: broker, backend and the tasks' options are the app's."""
    worker = Program(
        [str(petiole_binary()), "-A", "proj", "worker", "-l", "INFO", "-Q", TENANT],
        tmp_path / "log",
        clean_environment({**native(tmp_path), **python(), "PETIOLE_TENANT_DEFAULT": TENANT}),
        cwd=project,
    )
    try:
        worker.wait_log(r"celery@\S+ ready\.", timeout_s=30)
        assert worker.log_count(rf"^  \. {ADD}$") == 1
        assert not worker.log_contains("  . celery."), "Celery's own are for who debugs"
        result = client.send_task(ADD, (1, 2))
        assert result.get(timeout=10) == 3
        assert 4300 <= backend.ttl(f"celery-task-meta-{result.id}") <= 4321
        failed = client.send_task(FAIL, ("no",))
        worker.wait_log(
            rf"INFO/\S+\] Task {FAIL}\[{failed.id}\] raised expected: ValueError\('no'\)$"
        )
        assert worker.log_count("WARNING.*app proj: The handler proj.on_ready") == 1
        assert not worker.log_contains("Traceback")
    finally:
        worker.stop()


QUEUES = """
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

app.conf.task_queues = [
    Queue("lo", Exchange("shop"), routing_key="k"),
    Queue("two", [binding(Exchange("events", type="topic"), routing_key="a.*")]),
    Queue("bare"),
    Broadcast("news"),
]
"""


@pytest.mark.parametrize("celery", ["newest", "oldest"])
def test_queues_of_an_app_are_bound(
    celery: str,
    project: Path,
    start_petiole: Callable[..., PetioleWorker],
    broker: redis.Redis,
) -> None:
    with (project / "proj.py").open("a") as file:
        file.write(QUEUES)
    worker = start_petiole(
        global_arguments=("--workdir", str(project), "-A", "proj"), environment=python(celery)
    )
    for line in (
        r"\.> lo +exchange=shop\(direct\) key=k$",
        r"\.> bcast\.[-0-9a-f]+ +exchange=news\(fanout\) key=celery$",
        r"WARNING.*Queue bcast\.[-0-9a-f]+ has the fanout exchange news",
    ):
        worker.wait_log(line)
    tables = {key.decode(): broker.smembers(key) for key in broker.keys("_kombu.binding.*")}
    assert {
        key: [str(each, "ascii").split(SEPARATOR) for each in tables[key]] for key in tables
    } == {
        "_kombu.binding.shop": [["k", "", "lo"]],
        "_kombu.binding.events": [["a.*", r"^a\.[^\.]+$", "two"]],
        "_kombu.binding.celery": [["celery", "", "bare"]],
    }


def test_settings_file_wins(
    project: Path,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    backend: redis.Redis,
) -> None:
    start_petiole(
        settings={"result_expires": 99},
        task_options={"*": {}},
        global_arguments=("--workdir", str(project), "-A", "proj"),
        environment=python(),
    )
    result = client.send_task(ADD, (1, 2))
    assert result.get(timeout=10) == 3
    assert 80 <= backend.ttl(f"celery-task-meta-{result.id}") <= 99


def test_manifest_needs_no_python(project: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    path = tmp_path / "manifest.json"
    subprocess.run(
        [sys.executable, "-m", "petiole.manifest", "-A", "proj", "-o", str(path)],
        cwd=project,
        env=clean_environment(python()),
        check=True,
        capture_output=True,
    )
    environment = {**native(tmp_path), **NO_PYTHON}
    for arguments in (["--manifest", str(path), "-A", "proj", "check"], ["check"]):
        own = {} if len(arguments) > 1 else {"PETIOLE_MANIFEST": str(path)}
        done = run_petiole(*arguments, environment={**environment, **own})
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert f"broker         {redis_server.url(0)}" in done.stdout
        assert "Python" not in done.stdout


def test_worker_with_a_manifest_and_no_python(
    project: Path,
    tmp_path: Path,
    start_petiole: Callable[..., PetioleWorker],
    client: Celery,
    backend: redis.Redis,
) -> None:
    """Native tasks run with the app's options; those that need Python are told, once."""
    path = tmp_path / "manifest.json"
    made = subprocess.run(
        [sys.executable, "-m", "petiole.manifest", "-A", "proj", "-I", "more"],
        cwd=project,
        env=clean_environment(python()),
        check=True,
        capture_output=True,
        text=True,
    )
    path.write_text(made.stdout)
    worker = start_petiole(
        global_arguments=("--manifest", str(path)),
        environment={"PATH": "/nonexistent"},
    )
    result = client.send_task(ADD, (1, 2))
    assert result.get(timeout=10) == 3
    assert 4300 <= backend.ttl(f"celery-task-meta-{result.id}") <= 4321
    assert worker.log_count("WARNING.*Tasks of .*manifest.json that no row") == 1
    missing = client.send_task("more.task")
    worker.wait_log(
        r"Received unregistered task of type 'more.task'.*: \S+/manifest.json has no such task\. "
        r"Did you remember to import the module containing this task\?$"
    )
    assert wait_stored(backend, missing.id)["result"]["exc_type"] == "NotRegistered"
    checked = run_petiole(
        "--manifest",
        str(path),
        "check",
        environment={**native(tmp_path), "PATH": "/nonexistent"},
    )
    assert checked.stdout.count("no row of `tasks` names are not run here") == 1


def test_credentials_come_from_elsewhere(
    make_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """A manifest has none, so its worker gets them by Celery's variables; logs show none."""
    server = make_redis(options=(("requirepass", "hunter2"),))
    broker, backend = (server.url(db, password="hunter2") for db in (0, 1))
    (tmp_path / "proj.py").write_text(APP.format(broker=broker, backend=backend))
    made = subprocess.run(
        [sys.executable, "-m", "petiole.manifest", "-A", "proj"],
        cwd=tmp_path,
        env=clean_environment(python()),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "hunter2" not in made.stdout + made.stderr
    (tmp_path / "m.json").write_text(made.stdout)
    environment = {**native(tmp_path), **NO_PYTHON}
    urls = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": backend}
    arguments = ["--manifest", str(tmp_path / "m.json"), "check"]
    without = run_petiole(*arguments, environment=environment)
    assert without.returncode == 1
    assert "CELERY_BROKER_URL" in without.stdout
    with_urls = run_petiole(*arguments, environment={**environment, **urls})
    assert with_urls.returncode == 0, with_urls.stdout
    told = check(tmp_path, "-A", "proj", "check", **native(tmp_path), **python())
    assert told.returncode == 0, told.stdout + told.stderr
    assert "hunter2" not in with_urls.stdout + told.stdout + told.stderr


def test_without_python_there_is_one_warning(
    start_petiole: Callable[..., PetioleWorker], client: Celery
) -> None:
    """The tasks of the settings file must do then."""
    worker = start_petiole(global_arguments=("-A", "no.such.app"), environment=NO_PYTHON)
    assert worker.log_count("WARNING.*no.such.app") == 1
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


def test_without_the_package_there_is_one_warning(tmp_path: Path) -> None:
    environment = {**native(tmp_path), "PETIOLE_PYTHON": sys.executable}
    done = run_petiole("-A", "proj", "-b", "redis://127.0.0.1:1", "check", environment=environment)
    assert done.stdout.count("no package petiole") == 1


def test_app_that_is_not_read_is_the_error() -> None:
    """Without a broker nothing else can be: it is what the app would have named."""
    for environment in (NO_PYTHON, {"PETIOLE_PYTHON": sys.executable}):
        done = run_petiole("-A", "proj", "worker", "-Q", "celery", environment=environment)
        assert done.returncode == 1
        told = done.stderr.splitlines()[-1]
        assert told.startswith("Error: The settings and tasks of the app proj are not read: ")
        assert "broker_url" not in done.stderr


@pytest.mark.parametrize(
    ("text", "app", "words"),
    [
        ("", "no_such_app", "The module no_such_app was not found."),
        ("1 / 0\n", "broken", "ZeroDivisionError"),
        ("import no_such_module\n", "broken", "No module named 'no_such_module'"),
        ("def f(:\n", "broken", "SyntaxError"),
        ("raise SystemExit(1)\n", "broken", "SystemExit: 1"),
    ],
)
def test_app_that_cannot_be_loaded(text: str, app: str, words: str, tmp_path: Path) -> None:
    """As `celery -A`: what is wrong, once, and the exit code 2."""
    (tmp_path / "broken.py").write_text(text)
    done = check(tmp_path, "-A", app, "worker", **python())
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("Error: Unable to load celery application") == 1
    assert "petiole.manifest ended" not in done.stderr
    done = check(tmp_path, "-A", app, "check", **python())
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL app ")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"v": 2}, ["m.json: v: ", "not 2"]),
        ({"v": 1, "tasks": {"a": {"time_limit": "x"}}}, ["m.json: tasks: a: time_limit: "]),
        ({"v": 1, "settings": {"timezone": "Mars/Olympus"}}, ["m.json: timezone: "]),
        ([], ["m.json: "]),
    ],
    ids=str,
)
def test_bad_manifest(document: Any, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps(document))
    done = run_petiole("--manifest", str(tmp_path / "m.json"), "worker")
    assert done.returncode == 1
    assert all(word in done.stderr for word in words), done.stderr
