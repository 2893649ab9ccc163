"""The warm parent as a program, and the processes that it forks, of both Celerys."""

from __future__ import annotations

import json

import pytest
import redis

from harness import Interpreter
from petiole import _frames
from pool_parent import ID, result, states, warm_parent


def test_signals_of_a_workers_start(python: Interpreter) -> None:
    """They are sent once, before the first fork; what the worker's settings say stays."""
    overrides = json.dumps({"settings": {"result_extended": False}})
    with warm_parent(python, "pooled_app", "-n", "celery@here", "--overrides", overrides) as parent:
        first, second = (result(parent.fork().run("pooled_app.who")) for _ in range(2))
    assert first["told"] == second["told"]
    assert first["told"] == [
        ["celeryd_init", "celery@here", True, {}, first["parent"]],
        ["worker_init", "celery@here", True, {}, first["parent"]],
    ]
    assert first["settings"] == [True, False]


def test_django_closes_its_connections(python: Interpreter) -> None:
    """Celery's support of Django does so when a process begins and around each task."""
    with warm_parent(python, "pooled_app", DJANGO_SETTINGS_MODULE="none") as parent:
        process = parent.fork()
        first, second = (result(process.run("pooled_app.count_closed")) for _ in range(2))
    assert (first, second) == (2, 4)


@pytest.mark.parametrize(
    ("how", "told", "last"),
    [("fail", ["FAILURE"], "EXPLAINED"), ("return", [], "SUCCESS")],
)
def test_states_of_handlers_of_the_end(
    python: Interpreter, how: str, told: list[str], last: str
) -> None:
    """What a handler of the failure stores stays, as with Celery; a success does itself."""
    with warm_parent(python, "pooled_app") as parent:
        frames = parent.fork().run("pooled_app.explained", how)
    assert states(frames) == told
    assert frames[-1][1][5] == last.encode()
    assert json.loads(frames[-1][1][6])["status"] == last


def test_states_of_a_process_that_a_task_has_forked(
    python: Interpreter, backend_url: str, results: redis.Redis
) -> None:
    """It stores them by a connection of its own: the worker's socket is not for it."""
    with warm_parent(python, "pooled_app", BACKEND=backend_url) as parent:
        frames = parent.fork().run("pooled_app.helped")
    assert [kind for kind, _ in frames] == [_frames.ACCEPTED, _frames.DONE]
    assert result(frames) == 0
    assert json.loads(results.get(f"celery-task-meta-{ID}"))["status"] == "HELPED"


def test_an_app_that_forks_when_it_is_imported(python: Interpreter) -> None:
    """As it does with a process for its log, or a multiprocessing.Manager."""
    with warm_parent(python, "pooled_app", HELPER="yes") as parent:
        assert result(parent.fork().run("pooled_app.count_closed")) == 0
