"""Servers, workers and clients for the tests of this folder; each test has its own.

With `--worker=celery` the tests run against Celery's own worker instead of ours: that is how one
sees that a test asks for Celery's behaviour and not for something that we made up. Those marked
`petiole_only` are left out then.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import app as app_module
import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from celery_client import client_app, close_app
from celery_worker import CeleryWorker
from certificates import make_certificates
from helpers import interpreter
from latency_proxy import LatencyProxy
from petiole_worker import TENANT, TOP, PetioleWorker
from program import Program
from redis_server import RedisServer

Worker = PetioleWorker | CeleryWorker
LOG_TAIL = 6000
PROGRAMS = pytest.StashKey[list[Program]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --worker."""
    parser.addoption("--worker", choices=("petiole", "celery"), default="petiole")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out that say nothing about the program under test.

    Those are the ones that do not hold for Celery's worker when it is the one, and speed when the
    build is one with instruments in it.
    """
    left_out = set()
    if config.getoption("--worker") == "celery":
        left_out.add("petiole_only")
    if os.environ.get("PETIOLE_VARIANT", "release") not in {"release", "clang"}:
        left_out.add("speed")
    items[:] = [item for item in items if not any(map(item.get_closest_marker, left_out))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Show the end of each program's log with a failure."""
    report = yield
    if report.failed:
        for program in item.stash.get(PROGRAMS, []):
            report.sections.append((program.log_path.name, program.log()[-LOG_TAIL:]))
    return report


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a redis-server that keeps nothing."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that starts a redis-server with options of RedisServer."""
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> RedisServer:
            server = RedisServer(tmp_path / f"redis-{id(options)}", **options)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate for 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[LatencyProxy]:
    """Run a proxy in front of the test's Redis."""
    proxy = LatencyProxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Return a client of database 0, where messages are."""
    with contextlib.closing(redis_server.client(0)) as client:
        yield client


@pytest.fixture
def backend(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Return a client of database 1, where results are."""
    with contextlib.closing(redis_server.client(1)) as client:
        yield client


@pytest.fixture
def start_program(
    request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a worker of a class, by default on the test's Redis.

    At the end all workers are stopped; a Petiole that runs until then must end with exit code 0.
    """
    programs: list[Program] = []
    request.node.stash[PROGRAMS] = programs
    urls = {"broker_url": redis_server.url(0), "result_backend": redis_server.url(1)}

    def start(kind: type[Worker], *, settings: dict[str, Any] | None = None, **rest: Any) -> Worker:
        rest.setdefault("name", f"w{len(programs)}")
        worker = kind(tmp_path, settings={**urls, **(settings or {})}, **rest)
        programs.append(worker)
        return worker

    yield start
    endings = []
    for program in programs:
        was_running = program.is_running()
        program.stop()
        if was_running and isinstance(program, PetioleWorker):
            endings.append((program.log_path.name, program.process.returncode))
    assert not [ending for ending in endings if ending[1] != 0], f"exit codes {endings}"


@pytest.fixture
def start_petiole(start_program: Callable[..., Any]) -> Callable[..., PetioleWorker]:
    """Return a function that starts a Petiole and waits until it is ready."""
    return lambda **options: start_program(PetioleWorker, **options).wait_ready()


@pytest.fixture
def start_celery(start_program: Callable[..., Any]) -> Callable[..., CeleryWorker]:
    """Return a function that starts a Celery worker and waits until it is ready."""
    return lambda **options: start_program(CeleryWorker, **options).wait_ready()


@pytest.fixture
def start_worker(
    pytestconfig: pytest.Config, start_program: Callable[..., Any]
) -> Callable[..., Worker]:
    """Return a function that starts the worker under test and waits until it is ready."""
    kind = CeleryWorker if pytestconfig.getoption("--worker") == "celery" else PetioleWorker
    return lambda **options: start_program(kind, **options).wait_ready()


@pytest.fixture
def make_client(redis_server: RedisServer) -> Iterator[Callable[..., Celery]]:
    """Return a function that makes a client app; keyword arguments are its settings."""
    with contextlib.ExitStack() as stack:

        def make(task_options: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Celery:
            defaults = {
                "broker_url": redis_server.url(0),
                "result_backend": redis_server.url(1),
                "task_default_queue": TENANT,
            }
            app = app_module.make_app({**defaults, **settings}, task_options or {})
            stack.callback(close_app, app)
            return app

        yield make


@pytest.fixture
def client(make_client: Callable[..., Celery]) -> Celery:
    """Return a client app of the test's Redis, whose tasks go to the queue of the tenant."""
    return make_client()


@pytest.fixture(params=["newest", "oldest"])
def python(request: pytest.FixtureRequest) -> str:
    """Return an interpreter with the newest Celery that we serve, and one with the oldest."""
    return interpreter(request.param)


@pytest.fixture
def start_pool(
    redis_server: RedisServer, start_petiole: Callable[..., PetioleWorker]
) -> Callable[..., PetioleWorker]:
    """Return a function that starts a worker of the app; `count` is its -c."""

    def start(
        count: int = 2,
        *arguments: str,
        accept: str = "json",
        environment: dict[str, str] | None = None,
        **settings: Any,
    ) -> PetioleWorker:
        variables = {
            "PETIOLE_PYTHON": sys.executable,
            "PYTHONPATH": f"{TOP / 'python-shim' / 'src'}:{TOP / 'tests' / 'integration'}",
            "POOL_URL": redis_server.url(0),
            "POOL_ACCEPT": accept,
            "C_FORCE_ROOT": "1",
            **(environment or {}),
        }
        return start_petiole(
            settings={"tasks": {}, "plugins": [], **settings},
            queues=("celery",),
            global_arguments=("-A", "pool_app"),
            arguments=("-c", str(count), *arguments),
            environment=variables,
        )

    return start


@pytest.fixture
def send(redis_server: RedisServer) -> Iterator[Callable[..., AsyncResult]]:
    """Return a function that sends a task of the app by its name."""
    with client_app(redis_server) as app:

        def call(name: str, *args: Any, **options: Any) -> AsyncResult:
            return app.send_task(f"pool_app.{name}", args, queue="celery", **options)

        yield call
