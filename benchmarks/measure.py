"""The measurements. Each is made of all workers in turn, several times, on one Redis at a time.

A worker runs the task petiole.sample.add, two integers in and one out: Petiole as native code,
Celery as a Python function. Messages are a real Celery client's (tests/support/envelopes.py). Every
result is read back and compared; a wrong or missing one ends the benchmark.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import envelopes
from app import make_app
from celery_worker import CeleryWorker
from cluster import Cluster
from latency_proxy import LatencyProxy
from petiole_worker import TENANT, TOP, PetioleWorker
from process_family import family
from redis_server import RedisServer
from waiting import wait_for

OURS = "petiole"
PREFORK = "celery-prefork"
SOLO = "celery-solo"
# Of Jobs: plain requests, and Celery workers with the package `kubernetes` (jobs.py).
RAW = "raw-posts"
SHARED = "python-shared-watch"
THREADS = "python-watch-per-job"
TASK = "petiole.sample.add"
META = "celery-task-meta-"
CORES = len(os.sched_getaffinity(0))
PATIENCE_S = 300.0
RTT_S = 0.002


@dataclass(frozen=True)
class Scale:
    """How much of everything; `slow_messages` are for 2 ms of round trip, `jobs` in flight."""

    runs: int
    messages: dict[str, int]
    slow_messages: dict[str, int]
    sweep_messages: int
    prefetch: tuple[int, ...]
    idle_tasks: int
    idle_s: float
    latency_samples: int
    job_runs: int
    jobs: dict[str, int]
    job_reports: int


FULL = Scale(
    runs=3,
    messages={OURS: 60_000, PREFORK: 4_000, SOLO: 4_000},
    slow_messages={OURS: 20_000, PREFORK: 600, SOLO: 600},
    sweep_messages=1_500,
    prefetch=(1, 4, 32, 128),
    idle_tasks=1_000,
    idle_s=60.0,
    latency_samples=200,
    job_runs=3,
    jobs={OURS: 10_000, RAW: 2_000, SHARED: 1_000, THREADS: 400},
    job_reports=200,
)
QUICK = Scale(
    runs=1,
    messages={OURS: 5_000, PREFORK: 300, SOLO: 300},
    slow_messages={OURS: 2_000, PREFORK: 50, SOLO: 50},
    sweep_messages=100,
    prefetch=(4, 32),
    idle_tasks=100,
    idle_s=2.0,
    latency_samples=20,
    job_runs=1,
    jobs={OURS: 300, RAW: 200, SHARED: 60, THREADS: 60},
    job_reports=40,
)


@dataclass
class Row:
    """One metric: `runs` maps a worker to its raw values."""

    benchmark: str
    metric: str
    unit: str
    what: str
    runs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note the value of one run."""
        self.runs.setdefault(name, []).append(value)


class Bench:
    """A fresh Redis, and workers on it."""

    def __init__(self, folder: Path, delay_s: float = 0.0) -> None:
        """Start Redis; `delay_s` is added to each direction between it and the workers."""
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.proxy = LatencyProxy(self.redis.port, delay_s) if delay_s else None
        self.broker, self.backend = self.redis.client(0), self.redis.client(1)
        app = make_app({"broker_url": self.redis.url(0), "result_backend": self.redis.url(1)}, {})
        self.envelope = envelopes.template(self.broker, app, TENANT, TASK, args=(2, 3))

    def close(self) -> None:
        """Stop what was started."""
        if self.proxy:
            self.proxy.close()
        self.redis.stop()

    def settings(self) -> dict[str, object]:
        """Return broker and backend as a worker is to reach them; the rest are defaults."""
        end = self.proxy or self.redis
        return {"broker_url": end.url(0), "result_backend": end.url(1)}

    def worker(
        self, name: str, prefetch: int = 4, settings: dict[str, object] | None = None, **more: Any
    ) -> PetioleWorker | CeleryWorker:
        """Start a worker; it is not waited for."""
        folder = self.folder / f"{name}-{uuid.uuid4().hex[:6]}"
        own = self.settings() | (settings or {})
        if name == OURS:
            return PetioleWorker(folder, settings=own, log_level="WARNING", **more)
        pool = "solo" if name == SOLO else "prefork"
        arguments = ["--prefetch-multiplier", str(prefetch)]
        return CeleryWorker(
            folder,
            settings=own,
            pool=pool,
            concurrency=CORES,
            arguments=arguments,
            log_level="WARNING",
        )

    def push(self, count: int) -> list[str]:
        """Put `count` messages into the queue; return their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        envelopes.push(self.broker, TENANT, envelopes.copies(self.envelope, ids))
        return ids

    def check(self, ids: list[str]) -> None:
        """Read every result back and compare it."""
        for start in range(0, len(ids), 1000):
            part = ids[start : start + 1000]
            for task_id, text in zip(
                part, self.backend.mget([META + one for one in part]), strict=True
            ):
                meta = json.loads(text or "{}")
                if (meta.get("status"), meta.get("result")) != ("SUCCESS", 5):
                    raise RuntimeError(f"wrong result of {task_id}: {text!r}")
        wait_for(lambda: self.broker.hlen("unacked") == 0, 10.0, "all acknowledged")
        self.backend.flushdb()


@contextmanager
def bench(delay_s: float = 0.0) -> Iterator[Bench]:
    """Give a Bench in a folder of its own."""
    with TemporaryDirectory(prefix="petiole-bench-") as folder:
        made = Bench(Path(folder), delay_s)
        try:
            yield made
        finally:
            made.close()


def rate(on: Bench, name: str, count: int, prefetch: int = 4) -> float:
    """Return tasks per second from the first tenth of the results to the last one.

    The queue is full before the worker starts, and the start is not counted.
    """
    ids = on.push(count)
    worker = on.worker(name, prefetch)
    try:
        first = wait_for(lambda: on.backend.dbsize() >= count // 10, PATIENCE_S, "a tenth")
        assert first
        begun, done_then = time.perf_counter(), on.backend.dbsize()
        wait_for(lambda: on.backend.dbsize() >= count, PATIENCE_S, "all results")
        elapsed_s = time.perf_counter() - begun
        on.check(ids)
    finally:
        worker.stop()
    return (count - done_then) / elapsed_s


def best_prefetch(scale: Scale) -> int:
    """Return the prefetch multiplier with which prefork is fastest here."""
    with bench() as on:
        rates = {one: rate(on, PREFORK, scale.sweep_messages, one) for one in scale.prefetch}
    return max(rates, key=lambda one: rates[one])


def throughput(scale: Scale) -> list[Row]:
    """Measure no-op tasks per second, with Redis beside the worker and 2 ms away."""
    prefetch = best_prefetch(scale)
    what = f"native C task against Python task; prefork: {CORES} processes, prefetch {prefetch}"
    rows = []
    for benchmark, counts, delay_s in (
        ("throughput-redis", scale.messages, 0.0),
        ("throughput-redis-2ms", scale.slow_messages, RTT_S / 2),
    ):
        row = Row(benchmark, "tasks_per_second", "1/s", what)
        for _ in range(scale.runs):
            for name in (OURS, PREFORK, SOLO):
                with bench(delay_s) as on:
                    row.add(name, rate(on, name, counts[name], prefetch))
        rows.append(row)
    return rows


def memory(pid: int, key: str) -> float:
    """Return `key` (Pss, Rss) of a worker and its children in bytes."""
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{key}:"):
                total += int(line.split()[1]) * 1024
    return float(total)


def after_tasks(on: Bench, scale: Scale, worker: PetioleWorker | CeleryWorker) -> tuple[float, ...]:
    """Return PSS and RSS of a worker after tasks and a rest."""
    try:
        ids = on.push(scale.idle_tasks)
        wait_for(lambda: on.backend.dbsize() >= scale.idle_tasks, PATIENCE_S, "all results")
        on.check(ids)
        time.sleep(scale.idle_s)
        return memory(worker.pid, "Pss"), memory(worker.pid, "Rss")
    finally:
        worker.stop()


def kubernetes_settings(cluster: Cluster) -> dict[str, object]:
    """Return settings with which the worker watches Jobs, pods and quotas over TLS."""
    template = str(TOP / "k8s" / "samples" / "train-job.yaml")
    return {
        "tenant_default": TENANT,
        "kubernetes_namespace": TENANT,
        "tasks": {
            "petiole.sample.*": {"executor": "native"},
            "app.tasks.*": {"executor": "kubernetes", "job_template": template},
        },
    }


def idle_memory(scale: Scale) -> list[Row]:
    """Measure a worker that has worked and rests, one at a time, children included."""
    rows = []
    for benchmark, what in (
        ("idle-memory", "kubernetes executor with its watches open over TLS, HTTP on"),
        ("idle-memory-redis", "Redis only, HTTP on"),
    ):
        pss = Row(benchmark, "pss_bytes", "B", what)
        rss = Row(benchmark, "rss_bytes", "B", what)
        with ExitStack() as stack:
            on = stack.enter_context(bench())
            more: dict[str, Any] = {}
            if benchmark == "idle-memory":
                cluster = stack.enter_context(Cluster())
                cluster.kubectl("create", "namespace", TENANT)
                more["settings"] = kubernetes_settings(cluster)
                more["environment"] = {"KUBECONFIG": str(cluster.kubeconfig)}
            for name in (OURS, PREFORK, SOLO):
                own = more if name == OURS else {}
                values = after_tasks(on, scale, on.worker(name, **own))
                pss.add(name, values[0])
                rss.add(name, values[1])
        rows += [pss, rss]
    return rows


def start_to_first_result(scale: Scale) -> list[Row]:
    """Measure the time from starting the program to the first stored result."""
    row = Row("start-to-first-result", "seconds", "s", "one message waits in the queue")
    for _ in range(scale.runs):
        for name in (OURS, PREFORK, SOLO):
            with bench() as on:
                ids = on.push(1)
                begun = time.perf_counter()
                worker = on.worker(name)
                try:
                    wait_for(lambda: on.backend.dbsize() >= 1, PATIENCE_S, "a result")
                    row.add(name, time.perf_counter() - begun)
                    on.check(ids)
                finally:
                    worker.stop()
    return [row]


def round_trips(on: Bench, count: int) -> list[float]:
    """Return seconds from LPUSH to the published result, one task after the other."""
    times = []
    for _ in range(count):
        task_id = str(uuid.uuid4())
        (element,) = envelopes.copies(on.envelope, [task_id])
        listener = on.redis.client(1).pubsub(ignore_subscribe_messages=True)
        listener.subscribe(META + task_id)
        listener.get_message(timeout=1.0)
        begun = time.perf_counter()
        on.broker.lpush(TENANT, element)
        while not (message := listener.get_message(timeout=30.0)):
            pass
        times.append(time.perf_counter() - begun)
        if json.loads(message["data"])["result"] != 5:
            raise RuntimeError(f"wrong result of {task_id}: {message!r}")
        listener.close()
    return times


def latency(scale: Scale) -> list[Row]:
    """Measure one task at a time on an idle worker."""
    rows = [
        Row("latency", f"{name}_seconds", "s", "LPUSH to published result, one task at a time")
        for name in ("p50", "p95")
    ]
    for _ in range(scale.runs):
        for name in (OURS, PREFORK, SOLO):
            with bench() as on:
                worker = on.worker(name)
                try:
                    round_trips(on, 3)
                    times = sorted(round_trips(on, scale.latency_samples))
                finally:
                    worker.stop()
            rows[0].add(name, median(times))
            rows[1].add(name, times[int(len(times) * 0.95)])
    return rows


Measurement = Callable[[Scale], list[Row]]
MEASUREMENTS: dict[str, Measurement] = {
    "throughput": throughput,
    "idle-memory": idle_memory,
    "start": start_to_first_result,
    "latency": latency,
}


def measure_all(measurements: dict[str, Measurement], scale: Scale, only: list[str]) -> list[Row]:
    """Make the measurements named in `only`, or all."""
    rows: list[Row] = []
    for name, function in measurements.items():
        if not only or name in only:
            print(f"bench: {name}", flush=True)
            rows += function(scale)
    return rows
