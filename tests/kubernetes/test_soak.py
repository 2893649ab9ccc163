"""A day in minutes: credentials, connections and watches that end all the time, and small tasks.

One worker speaks HTTP/2 with the API server, and its connections are cut; the other speaks HTTP/1.1
with a proxy that lets its watches end after seconds and changes its authority. The tokens of both
are replaced and the old ones ended, and the API server is killed now and then.
PETIOLE_SOAK_SECONDS says for how long (`make soak`).
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import redis
from api_proxy import ApiProxy
from bound_token import BoundToken, write_kubeconfig
from celery import Celery
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import SERVICE_ACCOUNT, KubernetesWorker
from ports import HOST
from publication_watch import PublicationWatch
from resources import Sample, sample
from waiting import wait_for

TENANT = "tenant-admin"
SECONDS = float(os.environ.get("PETIOLE_SOAK_SECONDS", "60"))
# Tables and allocators find their size, and a heap keeps what its busiest moment needed. So that
# comes first: an outage with more tasks than any later one has, and a part of the day.
BURST_TASKS = 60
WARM_UP = 0.4
TASKS_EVERY_S = 0.35
TOKENS_EVERY_S = 11.0
CUTS_EVERY_S = 5.0
AUTHORITIES_EVERY_S = 17.0
RESTARTS_EVERY_S = 20.0
WATCHES_LAST_S = 2
SETTLE_S = 120.0
REST_S = 3.0
# By which a worker at rest may hold more after the rest of the day, however long that is. Its heap
# has holes of some hundred KiB then, as the last tasks left it: a leak of each connection shows in
# a minute, one of each task in ten.
MOST_GROWTH_BYTES = 1024 * 1024
MOST_GROWTH_DESCRIPTORS = 2
StartWorker = Callable[..., KubernetesWorker]


class Routine:
    """Calls `action` every so often in a thread of its own, from each `start` to `stop`."""

    def __init__(self, every_s: float, action: Callable[[], Any]) -> None:
        """Get ready."""
        self.count = 0
        self._every_s = every_s
        self._action = action
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; raise what the action raised."""
        self._ended.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._action()
            except BaseException as error:  # It belongs to the test, which hears of it in `stop`.
                self._error = error
                return
            self.count += 1


class Trouble:
    """Everything that ends during a day, for one worker of each kind."""

    def __init__(self, cluster: Cluster, folder: Path, stack: contextlib.ExitStack) -> None:
        """Put the proxies up; nothing happens by itself."""
        self._cluster = cluster
        self._lock = threading.Lock()  # of those who ask the API server and do not ask again
        self.gate = GateProxy(int(cluster.url.rpartition(":")[2]))
        stack.callback(self.gate.close)
        self.proxy = ApiProxy(cluster, folder / "api-proxy")
        stack.callback(self.proxy.close)
        self.proxy.alter_path = self._shorten
        self.tokens = []
        for name in ("cut", "proxied"):
            token = BoundToken(cluster, TENANT, SERVICE_ACCOUNT, folder / f"token-{name}")
            stack.callback(token.close)
            self.tokens.append(token)
        self._ca = folder / "ca.crt"
        self._ca.write_bytes(self.proxy.ca.read_bytes())
        direct = f"https://{HOST}:{self.gate.port}"
        self.kubeconfigs = [
            write_kubeconfig(folder / "config-cut", direct, cluster.ca, self.tokens[0].path),
            write_kubeconfig(folder / "config-2", self.proxy.url, self._ca, self.tokens[1].path),
        ]

    def replace_tokens(self) -> None:
        """Write new tokens and end the old ones."""
        with self._lock:
            for token in self.tokens:
                token.rotate()

    def restart_server(self) -> None:
        """Kill the API server and start another: watches break, and versions are gone."""
        with self._lock:
            self._cluster.restart_apiserver()

    def begin_with_the_worst(self, send: Callable[[], None]) -> None:
        """Let tasks come while the API server is away."""
        self._cluster.kill_apiserver()
        for _ in range(BURST_TASKS):
            send()
        self._cluster.start_apiserver()

    def replace_authority(self) -> None:
        """Let the proxy's certificate and the file of its authority be others."""
        self._ca.write_bytes(self.proxy.renew_authority().read_bytes())
        self.proxy.cut()

    @staticmethod
    def _shorten(path: str) -> str:
        return re.sub(r"timeoutSeconds=\d+", f"timeoutSeconds={WATCHES_LAST_S}", path)


def at_rest(worker: KubernetesWorker) -> Sample:
    """Return the least that a worker holds in a while in which it has no task."""
    ends = time.monotonic() + REST_S
    seen = [sample(worker.pid)]
    while time.monotonic() < ends:
        time.sleep(0.1)
        seen.append(sample(worker.pid))
    return Sample(*(min(each) for each in zip(*map(astuple, seen), strict=True)))


def assert_flat(name: str, before: Sample, after: Sample) -> str:
    """Check that a process at rest does not hold more than before; return its figures in words."""
    words = (
        f"{name}: at rest {after.rss >> 10} KiB RSS, {after.pss >> 10} KiB PSS, "
        f"{after.anonymous >> 10} KiB anonymous, {after.descriptors} descriptors; after the "
        f"warm-up {before.anonymous >> 10} KiB anonymous, {before.descriptors} descriptors"
    )
    # A sanitizer keeps what is freed; what RSS has more are pages of files, which the kernel moves.
    if os.environ.get("PETIOLE_VARIANT", "release") in {"release", "clang"}:
        assert after.anonymous - before.anonymous < MOST_GROWTH_BYTES, words
    assert after.descriptors - before.descriptors <= MOST_GROWTH_DESCRIPTORS, words
    return words


def assert_one_each(sent: list[str], jobs: JobWatch, publications: PublicationWatch) -> None:
    """Check that no task was lost and none was done twice."""
    wait_for(lambda: publications.tasks() >= set(sent), SETTLE_S, "every result")
    publications.sync()
    jobs.sync()
    made = Counter(job.task_id for job in jobs.all(TENANT))
    assert {each: made[each] for each in sent} == dict.fromkeys(sent, 1)
    assert [publications.results(each) for each in sent] == [["SUCCESS"]] * len(sent)


def test_a_day_in_minutes(
    *,
    start_worker: StartWorker,
    own_cluster: Cluster,
    own_kubelet: object,
    client: Celery,
    broker: redis.Redis,
    publications: PublicationWatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    sent: list[str] = []
    template = write_template(tmp_path, "small", script=report_script(report("done")))
    with contextlib.ExitStack() as stack:
        jobs = JobWatch(own_cluster.client)
        stack.callback(jobs.stop)
        trouble = Trouble(own_cluster, tmp_path, stack)
        workers = [
            start_worker({"pods.small": template}, kubeconfig=each) for each in trouble.kubeconfigs
        ]

        def send() -> None:
            sent.append(client.send_task("pods.small", queue=TENANT).id)

        routines = {
            "tasks": Routine(TASKS_EVERY_S, send),
            "replacements of tokens": Routine(TOKENS_EVERY_S, trouble.replace_tokens),
            "cuts": Routine(CUTS_EVERY_S, trouble.gate.drop),
            "authorities": Routine(AUTHORITIES_EVERY_S, trouble.replace_authority),
            "kills of the API server": Routine(RESTARTS_EVERY_S, trouble.restart_server),
        }

        def live(seconds: float) -> list[Sample]:
            for routine in routines.values():
                routine.start()
            time.sleep(seconds)
            for routine in routines.values():
                routine.stop()
            assert_one_each(sent, jobs, publications)
            return [at_rest(each) for each in workers]

        trouble.begin_with_the_worst(send)
        before = live(WARM_UP * SECONDS)
        after = live(SECONDS - WARM_UP * SECONDS)
    wait_for(lambda: not broker.keys("unacked*"), SETTLE_S, "nothing unacknowledged")
    assert not broker.exists(TENANT)
    figures = [
        assert_flat(each.node_name, *seen)
        for each, *seen in zip(workers, before, after, strict=True)
    ]
    watches = sum(each.is_watch for each in trouble.proxy.asked())
    refused = len(trouble.proxy.refused(401))
    assert watches > SECONDS / WATCHES_LAST_S
    assert refused > 0
    counts = ", ".join(f"{routine.count} {name}" for name, routine in routines.items())
    with capsys.disabled():
        print(f"\nsoak of {SECONDS:.0f} s: {counts};")
        print(f"  of one worker {watches} watches, {refused} requests refused with 401;")
        print("  each task was one Job and has one result;", *figures, sep="\n  ")
