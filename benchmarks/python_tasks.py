"""Python tasks, unchanged: our pool of processes beside Celery's prefork pool.

Both run the same function of the same app (tests/integration/app.py) in the same number of
processes, with results in Redis.
"""

from __future__ import annotations

import sys
import time
import uuid

from celery_worker import APP_FOLDER, CeleryWorker, app_environment
from measure import (
    CORES,
    OURS,
    PATIENCE_S,
    PREFORK,
    Bench,
    Row,
    Scale,
    after_tasks,
    bench,
    best_prefetch,
)
from petiole_worker import TOP, PetioleWorker
from process_family import processor_s
from waiting import wait_for

OURS_TIMES = 5  # so many messages for one of prefork's, so that both run for about as long


def start(on: Bench, name: str, prefetch: int, idle_s: float = 0) -> PetioleWorker | CeleryWorker:
    """Start a worker with the app; our pool is kept for `idle_s`, 0 for ever."""
    if name != OURS:
        return on.worker(name, prefetch)
    settings = on.settings() | {
        "plugins": [],
        "tasks": {"petiole.sample.*": {"executor": "process"}},
        "process_idle_timeout": idle_s,
    }
    environment = app_environment(on.settings()) | {
        "PETIOLE_PYTHON": sys.executable,
        "PYTHONPATH": f"{TOP / 'python-shim' / 'src'}:{APP_FOLDER}",
    }
    return PetioleWorker(
        on.folder / f"{name}-{uuid.uuid4().hex[:6]}",
        settings=settings,
        global_arguments=("-A", "app"),
        arguments=("-c", str(CORES)),
        environment=environment,
        log_level="WARNING",
    )


def load(on: Bench, name: str, count: int, prefetch: int) -> tuple[float, float]:
    """Return tasks per second, and processor seconds per task, after the first tenth."""
    ids = on.push(count)
    worker = start(on, name, prefetch)
    try:
        wait_for(lambda: on.backend.dbsize() >= count // 10, PATIENCE_S, "a tenth")
        used_then = processor_s(worker.pid)
        begun, done_then = time.perf_counter(), on.backend.dbsize()
        wait_for(lambda: on.backend.dbsize() >= count, PATIENCE_S, "all results")
        elapsed_s, used_s = time.perf_counter() - begun, processor_s(worker.pid) - used_then
        on.check(ids)
    finally:
        worker.stop()
    return (count - done_then) / elapsed_s, used_s / (count - done_then)


def python_tasks(scale: Scale) -> list[Row]:
    """Measure speed, processor time and memory of no-op tasks in Python."""
    prefetch = best_prefetch(scale)
    what = f"the same Python task; {CORES} processes each, prefork with prefetch {prefetch}"
    rate = Row("python-throughput", "tasks_per_second", "1/s", what)
    used = Row("python-cpu", "cpu_seconds_per_task", "s", what)
    for _ in range(scale.runs):
        for name in (OURS, PREFORK):
            count = scale.messages[PREFORK] * (OURS_TIMES if name == OURS else 1)
            with bench() as on:
                values = load(on, name, count, prefetch)
            rate.add(name, values[0])
            used.add(name, values[1])
    reaped = Row("python-memory-reaped", "pss_bytes", "B", "after tasks; our pool has ended")
    warm = Row("python-memory-warm", "pss_bytes", "B", "after tasks, our pool waits for more")
    for row, idle_s in ((reaped, 0.5), (warm, 0)):
        for name in (OURS, PREFORK):
            with bench() as on:
                row.add(name, after_tasks(on, scale, start(on, name, prefetch, idle_s))[0])
    return [rate, used, reaped, warm]
