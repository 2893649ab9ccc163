"""The end of the runner's process is not the task's to put off."""

from __future__ import annotations

import time

import pytest

from harness import Interpreter
from task_runner import Runner

HEAD = """
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
from petiole import _leaving
_leaving.THREADS_S_MAX, _leaving.EXIT_FUNCTIONS_S_MAX = {seconds}
print("unfinished line", end="")
"""
STUCK_S_MAX = 30  # without the bounds it would take a minute, or for ever


@pytest.mark.parametrize(
    ("seconds", "script", "output"),
    [
        ("60, 60", "atexit.register(print, 'flushed'); _leaving.leave(7)", "flushed"),
        ("60, 60", "_leaving.leave(7, lambda: print('closed'))", "closed"),
        ("60, 60", "_leaving.leave(7, lambda: 1 / 0)", ""),
        (
            "60, 60",
            "threading.Timer(0.2, print, ['in time']).start(); _leaving.leave(7)",
            "in time",
        ),
        (
            "60, 60",
            "pool = ThreadPoolExecutor(1); pool.submit(print, 'idle'); _leaving.leave(7)",
            "idle",
        ),
        (
            "0.5, 60",
            "threading.Timer(60, print).start(); atexit.register(print, 'flushed'); "
            "_leaving.leave(7)",
            "flushed",
        ),
        (
            "0.5, 60",
            "atexit.register(print, 'flushed'); _leaving.leave(7, lambda: time.sleep(60))",
            "flushed",
        ),
        ("0.5, 0.5", "atexit.register(time.sleep, 60); print(); _leaving.leave(7)", ""),
    ],
)
def test_what_a_task_leaves(python: Interpreter, seconds: str, script: str, output: str) -> None:
    begun = time.monotonic()
    done = python.run("-c", HEAD.format(seconds=seconds) + script)
    assert (done.returncode, output in done.stdout) == (7, True)
    assert time.monotonic() - begun < STUCK_S_MAX


@pytest.mark.parametrize("how", ["thread", "handler"])
def test_task_that_leaves_something_behind(runner: Runner, how: str) -> None:
    runner.write("runner_app.leaves", how)
    begun = time.monotonic()
    script = "from petiole import _leaving, run; _leaving.THREADS_S_MAX = 0.5; run.main()"
    done = runner.python.run("-c", script, **runner.variables())
    assert (done.returncode, "flushed" in done.stdout) == (0, True)
    assert b'"result":' in runner.result_file.read_bytes()
    assert time.monotonic() - begun < STUCK_S_MAX
