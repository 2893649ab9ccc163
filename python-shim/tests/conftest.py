"""Servers and interpreters that the tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from harness import ROOT, Interpreter, redis_server
from task_runner import Runner


@pytest.fixture(scope="session")
def newest() -> Interpreter:
    return Interpreter(sys.executable)


@pytest.fixture(scope="session")
def oldest() -> Interpreter:
    """Return the interpreter with the oldest Celery."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "support" / "python_env.py"), "oldest"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Interpreter(done.stdout.strip())


@pytest.fixture(scope="session", params=["newest", "oldest"])
def python(request: pytest.FixtureRequest) -> Interpreter:
    """Each test that uses this runs with both Celerys."""
    interpreter: Interpreter = request.getfixturevalue(request.param)
    return interpreter


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(scope="session")
def broker_url(redis_port: int) -> str:
    return f"redis://127.0.0.1:{redis_port}/0"


@pytest.fixture(scope="session")
def backend_url(redis_port: int) -> str:
    return f"redis://127.0.0.1:{redis_port}/1"


@pytest.fixture
def broker(broker_url: str) -> Iterator[redis.Redis]:
    """Give a client of the broker's database, empty at the start."""
    with redis.Redis.from_url(broker_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def results(backend_url: str) -> Iterator[redis.Redis]:
    """Give a client of the results' database, empty at the start."""
    with redis.Redis.from_url(backend_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def runner(python: Interpreter, tmp_path: Path) -> Runner:
    return Runner(python, tmp_path)


@pytest.fixture
def newest_runner(newest: Interpreter, tmp_path: Path) -> Runner:
    return Runner(newest, tmp_path)
