"""The warm parent as a program, and the processes that it forks, of both Celerys."""

from __future__ import annotations

import json
import os
import signal

import pytest
import redis

from harness import Interpreter
from petiole import _frames
from pool_parent import ID, logged, result, states, warm_parent


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


def test_handlers_of_a_workers_start_that_raise(python: Interpreter) -> None:
    """What they raise stands once in the output of the parent, which the worker's log shows."""
    with warm_parent(python, "pooled_app") as parent:
        pass
    assert parent.output.count("RuntimeError: broken on purpose\n") == 1


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


def test_an_app_that_gives_sockets_a_timeout(python: Interpreter) -> None:
    """It is not that of the worker's sockets: a process waits for its next task as long as ever."""
    with warm_parent(python, "pooled_app", SOCKET_TIMEOUT="0.001") as parent:
        waiting = parent.fork()
        for number in range(2, 6):  # which takes longer than that
            assert result(parent.fork(number).run("pooled_app.count_closed")) == 0
        assert result(waiting.run("pooled_app.count_closed")) == 0


def test_log_lines_are_the_workers(python: Interpreter) -> None:
    """Without the time, level and process that its own lines have."""
    with warm_parent(python, "pooled_app", "-l", "WARNING") as parent:
        process = parent.fork()
        lines = logged(process.run("pooled_app.logs"))
        assert process.printed() == ""
    of_task = f"pooled_app.logs[{ID}]: "
    texts = ((2, "a warning"), (3, "a secret"), (3, "an error"))
    assert lines == [(level, of_task + text) for level, text in texts]


def test_an_app_that_sets_logging_up(python: Interpreter) -> None:
    """Its handlers stay; what they write to stderr is output of the process."""
    with warm_parent(python, "pooled_app", LOGGING="setup_logging") as parent:
        process = parent.fork()
        assert logged(process.run("pooled_app.logs")) == []
        written = process.printed().splitlines()
    assert [line for line in written if "Task " not in line] == [
        "own: a warning",
        "own: a secret",
        "own: an error",
    ]


def test_an_app_that_changes_celerys_handlers(python: Interpreter) -> None:
    """Its formatter, filter and level stay."""
    with warm_parent(python, "pooled_app", LOGGING="after_setup_task_logger") as parent:
        lines = logged(parent.fork().run("pooled_app.logs"))
    assert lines == [(3, f"own: {ID} ForkPoolWorker-1 an error")]


def test_names_and_indices_of_processes(python: Interpreter) -> None:
    """Numbers are not used again; an index is, of a process that has ended."""

    def names(number: int) -> list[list[object]]:
        return result(parent.fork(number).run("pooled_app.process"))

    with warm_parent(python, "pooled_app") as parent:
        for number in range(1, 4):
            assert names(number) == [[f"ForkPoolWorker-{number}", number - 1, True]] * 2
        parent.end(parent.processes[1])
        assert names(4) == [["ForkPoolWorker-4", 1, True]] * 2
        assert names(5) == [["ForkPoolWorker-5", 3, True]] * 2


def test_index_of_a_process_that_is_to_end(python: Interpreter) -> None:
    """The one in its place has it: none is above those of the processes that get tasks."""
    with warm_parent(python, "pooled_app") as parent:
        first = parent.fork()
        os.kill(first.pid, signal.SIGSTOP)
        first.peer.close()
        ((_, index, _), _) = result(parent.fork(2).run("pooled_app.process"))
        os.kill(first.pid, signal.SIGCONT)
    assert index == 0


def test_signals_that_run_finally_blocks(python: Interpreter) -> None:
    """They are those of Celery's pool; others, such as that of `signal.alarm`, are left alone.

    So is SIGQUIT where it is ignored, as shells have it of what runs in the background.
    """
    is_ignored = signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN
    expected = {"SIGHUP", "SIGTERM"} | (set() if is_ignored else {"SIGQUIT"})
    with warm_parent(python, "pooled_app") as parent:
        heeded = set(result(parent.fork().run("pooled_app.heeds")))
    assert heeded - {"SIGUSR2"} == expected  # older ones have that, too


def test_texts_that_cannot_be_encoded(python: Interpreter) -> None:
    """They are printed with escapes, as Celery's worker does."""
    with warm_parent(python, "pooled_app", PYTHONIOENCODING="utf-8:strict") as parent:
        process = parent.fork()
        assert result(process.run("pooled_app.prints")) == "printed"
        printed = process.printed()
    assert "half of a pair: \\ud800\n" in printed
    assert "another one: \\ud800\n" in printed
