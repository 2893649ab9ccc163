"""The command line: Celery's options in click's spellings, and settings that are wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from petiole_worker import TENANT, PetioleWorker, petiole_binary, run_petiole, sample_plugin
from program import Program, clean_environment
from redis_server import RedisServer
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
ADD = "petiole.sample.add"
DEFAULT_PORT = 9808


def sentence(text: str) -> str:
    """Return the one line that says what is wrong; usage hints around it do not count."""
    lines = [line for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Usage:", "Try "))]
    assert len(told) == 1, text
    return told[0]


def native_settings(path: Path, redis_server: RedisServer, **changes: object) -> Path:
    """Write the settings of a worker of the sample plugin to `path`; return it."""
    settings = {
        "broker_url": redis_server.url(0),
        "result_backend": redis_server.url(1),
        "kubernetes_namespace": TENANT,
        "plugins": [str(sample_plugin())],
        "tasks": {"petiole.sample.*": {"executor": "native"}},
        "run_dir": str(path.parent),
    }
    path.write_text(json.dumps(settings | changes))
    return path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker", "--no-such-option"], "--no-such-option"),
        (["worker", "-Z"], "-Z"),
        (["--no-such-option", "worker"], "--no-such-option"),
        (["nonsense"], "nonsense"),
        (["worker", "-l", "LOUD"], "LOUD"),
        (["worker", "-l=INFO"], "=INFO"),
        (["worker", "-c", "many"], "many"),
        (["worker", "-Q"], "-Q"),
        (["worker", "stray"], "stray"),
        (["probe", "maybe"], "maybe"),
        (["worker", "-B"], "beat"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(arguments: list[str], words: str) -> None:
    """One sentence, exit code 2."""
    done = run_petiole(*arguments)
    assert done.returncode == 2
    assert words in sentence(done.stderr)
    assert done.stdout == ""


def test_version_and_help() -> None:
    done = run_petiole("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"petiole \d+\.\d+\.\d+\n", done.stdout)
    for arguments in (["--help"], ["worker", "--help"], ["probe", "--help"], ["check", "--help"]):
        done = run_petiole(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Usage: petiole")
    assert "--loglevel" in run_petiole("worker", "--help").stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worker_http_address: 7\nkubernetes_max_jobs: many\n", [":2", "kubernetes_max_jobs"]),
        ("\n\nno_such_setting: 1\n", [":3", "no_such_setting"]),
        ("tasks:\n  'a.*':\n    executor: magic\n", [":3", "executor", "kubernetes"]),
        ("tasks:\n  'a.*':\n    no_such_option: 1\n", [":3", "no_such_option"]),
        ("broker_url: http://example.com\n", [":1", "broker_url"]),
        ("result_backend: 'redis://h/x'\n", [":1", "result_backend"]),
        ("broker_transport_options: {visibility_timeout: soon}\n", ["visibility_timeout"]),
        ("broker_url: [\n", [":"]),
        ("task_acks_late: perhaps\n", [":1", "task_acks_late", "true"]),
        ("timezone: Mars/Olympus\n", [":1", "timezone"]),
        ("worker_http_address: nowhere\n", [":1", "worker_http_address"]),
        ("a: 1\na: 2\n", [":"]),
    ],
)  # fmt: skip
def test_bad_settings(text: str, words: list[str], tmp_path: Path) -> None:
    """File, line, name and what is allowed, before anything is connected."""
    config = tmp_path / "petiole.yaml"
    config.write_text(text)
    broker = () if "broker_url" in text else ("-b", "redis://127.0.0.1:1/0")
    done = run_petiole(*broker, "--config", str(config), "worker")
    assert done.returncode in {1, 2}
    told = sentence(done.stderr)
    assert "petiole.yaml" in told
    assert all(word in told for word in words), told


def test_bad_settings_elsewhere() -> None:
    """The environment and the command line are named as such."""
    done = run_petiole("worker", environment={"PETIOLE_KUBERNETES_MAX_JOBS": "many"})
    assert done.returncode in {1, 2}
    assert "PETIOLE_KUBERNETES_MAX_JOBS" in sentence(done.stderr)
    done = run_petiole("-b", "nonsense://", "worker", environment={"PETIOLE_RUN_DIR": "/tmp"})  # noqa: S108
    assert done.returncode in {1, 2}
    assert "-b" in sentence(done.stderr) or "--broker" in sentence(done.stderr)


def test_missing_settings_file(tmp_path: Path) -> None:
    done = run_petiole("--config", str(tmp_path / "none.yaml"), "worker")
    assert done.returncode in {1, 2}
    assert "none.yaml" in sentence(done.stderr)


def test_command_line_of_an_old_deployment(redis_server: RedisServer, tmp_path: Path) -> None:
    """`celery -A app.tasks worker --loglevel=info -P solo` goes on working by another name."""
    environment = {
        "CELERY_BROKER_URL": redis_server.url(0),
        "CELERY_RESULT_BACKEND": redis_server.url(1),
        "CELERY_PORT": "tcp://10.0.0.1:6379",
        "PETIOLE_SERVICE_HOST": "10.0.0.2",
        "PETIOLE_KUBERNETES_NAMESPACE": TENANT,
        "PETIOLE_TASKS": "petiole.sample.*: {executor: native}",
        "PETIOLE_PLUGINS": str(sample_plugin()),
        "PETIOLE_WORKER_HTTP_ADDRESS": "",
        "PETIOLE_RUN_DIR": str(tmp_path),
        "PYTHONPATH": "/app",
        "TZ": "Asia/Taipei",
    }
    words = ["-A", "app.tasks", "worker", "--loglevel=info", "-P", "solo"]
    worker = Program(
        [str(petiole_binary()), *words], tmp_path / "log", clean_environment(environment)
    )
    try:
        worker.wait_log(r"celery@\S+ ready\.")
        assert worker.log_count("WARNING.*(-P|--pool|solo)") == 1
        assert worker.log_count("WARNING.*(-A|--app|app.tasks)") == 1
        assert not worker.log_contains("CELERY_PORT")
        assert worker.log_contains(f".> {TENANT}")
        worker.terminate()
        assert worker.wait_exit() == 0
    finally:
        worker.stop()


@pytest.mark.parametrize(
    "arguments",
    [("-lINFO",), ("-l", "info"), ("--loglevel", "Info"), ("--loglevel=info",)],
    ids=" ".join,
)
def test_spellings_of_the_log_level(
    arguments: tuple[str, ...], start_petiole: Callable[..., PetioleWorker]
) -> None:
    worker = start_petiole(log_level="ERROR", arguments=arguments)
    worker.wait_log(r"INFO/MainProcess\] \S+ ready\.")


def test_sources_of_settings(
    start_petiole: Callable[..., PetioleWorker], client: Celery, redis_server: RedisServer
) -> None:
    """Command line over environment over file."""
    worker = start_petiole(
        settings={
            "broker_url": "redis://127.0.0.1:1/0",
            "result_backend": "redis://127.0.0.1:1/0",
            "result_expires": 10,
        },
        environment={
            "CELERY_BROKER_URL": "redis://127.0.0.1:2/0",
            "CELERY_RESULT_BACKEND": redis_server.url(1),
            "PETIOLE_RESULT_EXPIRES": "50",
        },
        global_arguments=("-b", redis_server.url(0)),
    )
    result = client.send_task(ADD, (1, 2))
    assert result.get(timeout=10) == 3
    assert 40 <= client.backend.client.ttl(f"celery-task-meta-{result.id}") <= 50
    assert worker.log_contains(redis_server.url(0))


def test_queues_option(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    """-Q takes those queues, -X leaves some of task_queues out."""
    headers = {"petiole_tenant": TENANT}
    first = start_petiole(queues=("a", "b"))
    assert client.send_task(ADD, (1, 2), queue="b", headers=headers).get(timeout=10) == 3
    first.terminate()
    first.wait_exit()
    start_petiole(settings={"task_queues": ["a", "b", "c"]}, arguments=("-X", "b,c"))
    client.send_task(ADD, (1, 2), queue="b", headers=headers)
    assert client.send_task(ADD, (1, 2), queue="a", headers=headers).get(timeout=10) == 3
    assert broker.llen("b") == 1


def test_pidfile(
    start_petiole: Callable[..., PetioleWorker], start_program: Callable[..., Any], tmp_path: Path
) -> None:
    """A live process' file keeps a second worker out with Celery's code; a stale one does not."""
    pidfile = tmp_path / "pid"
    pidfile.write_text("999999999\n")
    first = start_petiole(arguments=("--pidfile", str(pidfile)))
    assert pidfile.read_text() == f"{first.pid}\n"
    second = start_program(PetioleWorker, arguments=("--pidfile", str(pidfile)))
    assert second.wait_exit() == 73
    assert second.log_contains("already exists.")
    first.terminate()
    assert first.wait_exit() == 0
    assert not pidfile.exists()


def test_detach(redis_server: RedisServer, client: Celery, tmp_path: Path) -> None:
    """-D returns once the worker stands by itself; pidfile and logfile lead to it."""
    config = native_settings(tmp_path / "petiole.json", redis_server)
    pidfile, logfile = tmp_path / "pid", tmp_path / "log"
    words = ["worker", "-D", "--pidfile", str(pidfile), "-f", str(logfile), "-l", "INFO"]
    done = run_petiole("--config", str(config), *words)
    assert done.returncode == 0, done.stderr
    wait_for(pidfile.exists, 20, "pidfile")
    process = int(pidfile.read_text())
    try:
        assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
        assert os.getsid(process) != os.getsid(0)
    finally:
        os.kill(process, signal.SIGTERM)
    wait_for(lambda: not pidfile.exists(), 20, "the end")
    assert "ready." in logfile.read_text()


def test_nothing_to_run(redis_server: RedisServer, tmp_path: Path) -> None:
    """A worker that could only discard messages does not take them from the queue."""
    config = native_settings(tmp_path / "petiole.json", redis_server, tasks={}, plugins=[])
    done = run_petiole("--config", str(config), "worker")
    assert done.returncode == 1
    assert "No task can be run here" in sentence(done.stderr)


def test_rate_limit_is_told_apart(start_petiole: Callable[..., PetioleWorker]) -> None:
    worker = start_petiole(task_options={"petiole.sample.add": {"rate_limit": "10/m"}})
    assert worker.log_count(r"WARNING.*rate_limit of petiole.sample.add has no effect") == 1


def test_default_port_in_use(client: Celery, redis_server: RedisServer, tmp_path: Path) -> None:
    """A machine's second worker runs without a port that it did not ask for."""
    config = native_settings(tmp_path / "petiole.json", redis_server)
    command = [str(petiole_binary()), "--config", str(config), "worker", "-l", "INFO"]
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody has it: as good
            server.bind(("0.0.0.0", DEFAULT_PORT))
            server.listen()
        worker = Program(command, tmp_path / "log", clean_environment())
        try:
            worker.wait_log(r"WARNING.*worker_http_address: .*in use")
            assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
        finally:
            worker.stop()
        asked = {"PETIOLE_WORKER_HTTP_ADDRESS": f"0.0.0.0:{DEFAULT_PORT}"}
        done = run_petiole("--config", str(config), "worker", environment=asked)
        assert done.returncode == 1
        assert "in use. Set worker_http_address to another one" in sentence(done.stderr)


def test_logfile(start_program: Callable[..., Any], client: Celery, tmp_path: Path) -> None:
    worker = start_program(PetioleWorker, name="w9", arguments=("-f", str(tmp_path / "%n.txt")))
    assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
    text = (tmp_path / "w9.txt").read_text()
    assert "ready." in text
    assert "ready." not in worker.log()


def test_hangup(start_program: Callable[..., Any], client: Celery, tmp_path: Path) -> None:
    """SIGHUP is for the log file, and says that it is nothing else."""
    path = tmp_path / "w9.txt"
    worker = start_program(PetioleWorker, name="w9", arguments=("-f", str(path)))
    wait_for(path.exists)
    assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
    path.rename(tmp_path / "old.txt")
    worker.signal(signal.SIGHUP)
    wait_for(lambda: path.exists() and "does not restart the worker" in path.read_text())
    assert client.send_task(ADD, (1, 2)).get(timeout=20) == 3
    assert path.read_text().count("received") == 1
    assert worker.is_running()


def test_purge(
    start_petiole: Callable[..., PetioleWorker], client: Celery, broker: redis.Redis
) -> None:
    for priority in (0, 5, 9):
        client.send_task(ADD, (1, 2), priority=priority)
    worker = start_petiole(arguments=("--purge",))
    worker.wait_log("purge: Erased 3 messages from the queue")
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3
    assert worker.log_count("] received") == 1


def test_check(redis_server: RedisServer, tmp_path: Path) -> None:
    """A line for each thing tried, exit code 0 or 1."""
    config = native_settings(tmp_path / "petiole.json", redis_server, worker_http_address="")
    done = run_petiole("--config", str(config), "check")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert any("broker" in line for line in lines)
    redis_server.stop()
    done = run_petiole("--config", str(config), "check")
    assert done.returncode == 1
    assert [
        line for line in done.stdout.splitlines() if line.startswith("FAIL") and "broker" in line
    ]
    redis_server.start()
