"""Kills workers and what they depend on, and counts by independent witnesses what became of tasks.

Every task must end in the state that its pod decides, with exactly one publication of it and
exactly one Job per attempt, whoever died when. `CrashHarness` has a method for each kind of
trouble; `problems` says what is wrong at the end, `report` prints the counts.
"""

from __future__ import annotations

import base64
import contextlib
import json
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis
from celery import Celery
from celery_client import close_app
from cluster import Cluster
from job_template import report, report_script, write_template
from job_watch import JobWatch
from kube_client import TRANSIENT_ERRORS, ApiError
from kubernetes_worker import KubernetesWorker, worker_kubeconfig
from publication_watch import HEAD, READY_STATES, PublicationWatch
from redis_server import RedisServer
from step_proxy import PHASES, ApiStepProxy, Phase, RedisStepProxy, Trap
from waiting import wait_for

TENANT = "tenant-admin"
RESTORE_S = 2  # visibility_timeout
LEASE_S = 15
STEP_TIMEOUT_S = 60.0
END_TIMEOUT_S = 300.0
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{TENANT}/leases"
OUTBOX = f"petiole:jobs:{TENANT}"
KEYS = (TENANT, "unacked", "unacked_index")
# Steps with Jobs of a dead worker whose message nobody has acknowledged.
OF_ORPHANS = ("PATCH jobs/* owner", "settle tag", "give back")
FAREWELL = "DELETE leases/*"  # the step of a worker that is told to end
# Steps that change something; the others only look.
CHANGES = re.compile(
    r"(POST|PATCH|PUT|DELETE) .*|pop|publish|acknowledge|give back|settle.*|store|leave outbox"
    r"|lock|unlock|renew"
)


@dataclass(frozen=True)
class Kind:
    """A kind of task: how it must end, after how many Jobs."""

    name: str
    state: str
    attempts: int


KINDS = (
    Kind("pods.work", "SUCCESS", 1),
    Kind("pods.fail", "FAILURE", 1),
    Kind("pods.again", "SUCCESS", 2),
    Kind("pods.resent", "SUCCESS", 2),
)


def next_try() -> dict[str, object]:
    """Return the frame of a pod that sends its own next try; ID stands for the task's id."""
    message = {
        "body": base64.b64encode(b"[[], {}, null]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "pods.resent", "id": "ID", "retries": 1},
        "properties": {"correlation_id": "ID", "body_encoding": "base64"},
    }
    return {"publish": {"queue": TENANT, "message": message}}


def write_templates(folder: Path) -> dict[str, str]:
    """Write a quick pod for each kind, and return their paths by task name."""
    done = report_script(report("done"))
    again = report_script(report(None, state="RETRY", exception=None, countdown=0))
    either = f"if test $RETRIES = 0; then {again}; else {done}; fi"
    env = {"RETRIES": "${retries:int}", "TASK_ID": "${id}"}
    frames = report(None, state="RETRY", exception=None, frames=[next_try()])
    send = f"printf %s '{frames}' | sed s/ID/$TASK_ID/g > /dev/termination-log"
    resent = f"if test $RETRIES = 0; then {send}; else {done}; fi"
    return {
        "pods.work": write_template(folder, "work", script=done),
        "pods.fail": write_template(folder, "fail", script="exit 3"),
        "pods.again": write_template(folder, "again", script=either, env=env),
        "pods.resent": write_template(folder, "resent", script=resent, env=env),
    }


class CrashHarness:
    """Tasks, workers that die, and servers that go away."""

    def __init__(
        self,
        cluster: Cluster,
        redis_server: RedisServer,
        job_watch: JobWatch,
        publications: PublicationWatch,
        folder: Path,
    ) -> None:
        """Put up the proxies; `redis_server` must keep what it has (appendonly)."""
        self.cluster = cluster
        self.server = redis_server
        self.jobs = job_watch
        self.publications = publications
        self.trap = Trap()
        self.api = ApiStepProxy(
            int(cluster.url.rpartition(":")[2]), self.trap, folder / "tls", cluster.ca
        )
        self.redis = RedisStepProxy(redis_server.port, self.trap)
        self.events: Counter[str] = Counter()
        self.tasks: dict[str, Kind] = {}
        self.workers: list[KubernetesWorker] = []
        self.unreached: list[str] = []
        self._folder = folder
        self._templates = write_templates(folder)
        self._kubeconfig = worker_kubeconfig(cluster, TENANT, folder)
        self._behind = worker_kubeconfig(
            cluster, TENANT, folder, port=self.api.port, ca=self.api.ca
        )
        self._sender = Celery("sender", broker=redis_server.url(0), set_as_current=False)
        self._sender.conf.broker_transport_options = {"socket_timeout": 5}

    def close(self) -> None:
        """Stop all workers and proxies."""
        for worker in self.workers:
            worker.stop()
        self.api.close()
        self.redis.close()
        close_app(self._sender)

    # Tasks and workers

    def send(self, kinds: Sequence[Kind] = KINDS) -> None:
        """Send one task of each of these kinds."""
        for kind in kinds:
            result = self._sender.send_task(kind.name, queue=TENANT, retry=True)
            self.tasks[result.id] = kind

    def start(self, *, proxied: bool = True, wait: bool = True, jobs: int = 8) -> KubernetesWorker:
        """Start a worker."""
        worker = KubernetesWorker(
            self.cluster,
            self.server,
            self._folder,
            self._templates,
            name=f"w{len(self.workers)}",
            kubeconfig=self._behind if proxied else self._kubeconfig,
            redis_port=self.redis.port if proxied else None,
            settings={
                "broker_transport_options": {
                    "visibility_timeout": RESTORE_S,
                    "unacked_mutex_expire": 1,
                },
                "kubernetes_max_jobs": jobs,
            },
        )
        self.workers.append(worker)
        return worker.wait_ready() if wait else worker

    def kill(self, worker: KubernetesWorker) -> None:
        """Kill the only worker (-9), and end its Lease as if its fifteen seconds were over."""
        worker.kill()
        self.events["worker killed"] += 1
        self.end_leases()

    def end_leases(self) -> None:
        """Delete all Leases; no worker may be alive."""
        for lease in self.cluster.client.patient("GET", LEASES)["items"]:
            with contextlib.suppress(ApiError):
                path = f"{LEASES}/{lease['metadata']['name']}"
                self.cluster.client.patient("DELETE", path)

    # What is done to workers

    def learn_steps(self, *, only_changes: bool) -> list[tuple[str, Phase]]:
        """Let a worker do everything it does, also for a dead one, and name the steps."""
        self.send()
        worker = self.start()
        self.wait_end()
        self.kill_at("acknowledge", "before", worker)
        worker = self.start()
        self.wait_end()
        worker.stop()
        names = sorted(self.trap.seen)
        steps = [step for step in names if not only_changes or CHANGES.fullmatch(step)]
        return [(step, phase) for step in steps for phase in PHASES]

    def kill_at(self, step: str, phase: Phase, worker: KubernetesWorker | None = None) -> bool:
        """Kill the worker, by default a new one, when it comes to the step."""
        killed: list[KubernetesWorker] = []
        started = threading.Event()

        def strike() -> None:
            started.wait(STEP_TIMEOUT_S)
            killed[0].process.kill()

        self.trap.set(step, phase, strike)
        killed.append(worker or self.start(wait=False))
        started.set()
        self.send()
        if step == FAREWELL:
            killed[0].wait_ready()
            killed[0].terminate()
        was_hit = self.trap.wait(STEP_TIMEOUT_S)
        self.trap.clear()
        self.kill(killed[0])
        self.events["steps killed at"] += was_hit
        return was_hit

    def kill_at_steps(self, steps: Sequence[tuple[str, Phase]]) -> None:
        """Kill a worker at each step; one that is not reached is noted."""
        for step, phase in steps:
            if step in OF_ORPHANS:
                self.kill_at("acknowledge", "before")
            if not self.kill_at(step, phase):
                self.unreached.append(f"{phase} {step}")

    def kill_at_instants(self, count: int, chance: random.Random) -> None:
        """Kill `count` workers, each at some instant between its start and a second later."""
        for _ in range(count):
            self.send([chance.choice(KINDS)])
            worker = self.start(proxied=False, wait=False)
            time.sleep(chance.uniform(0.0, 1.0))  # the instant is the point
            self.kill(worker)
            self.events["random instants"] += 1

    def kill_of_many(self, count: int, kills: int, chance: random.Random) -> float:
        """Keep `count` workers on one queue, of which one after the other is killed.

        Their Leases are left to run out. Returns the seconds from the last kill to the end of all
        tasks.
        """
        crew = [self.start(proxied=False, jobs=3) for _ in range(count)]
        for number in range(kills):
            self.send((*KINDS[:2], KINDS[2 + number % 2]))
            time.sleep(chance.uniform(0.0, 0.5))  # the instant is the point
            crew.pop(chance.randrange(len(crew))).kill()
            self.events["worker killed"] += 1
            crew.append(self.start(proxied=False, wait=False, jobs=3))
        begun = time.monotonic()
        self.wait_end()
        took_s = time.monotonic() - begun
        for worker in crew:
            worker.stop()
        return took_s

    @contextlib.contextmanager
    def stopped(self, worker: KubernetesWorker) -> Iterator[None]:
        """Stop the worker (SIGSTOP) while the block runs."""
        worker.signal(signal.SIGSTOP)
        self.events["worker stopped"] += 1
        try:
            yield
        finally:
            worker.signal(signal.SIGCONT)

    def stop_at(self, step: str, phase: Phase, seconds: float) -> None:
        """Stop a worker at a step, with another one beside it, and let it go on later."""
        victim = self.start()
        # The answer that the trap keeps is lost with its connection, as after a long pause.
        self.trap.set(step, phase, lambda: victim.signal(signal.SIGSTOP))
        self.send()
        was_hit = self.trap.wait(STEP_TIMEOUT_S)
        self.trap.clear()
        if not was_hit:
            self.unreached.append(f"stop {phase} {step}")
        other = self.start(proxied=False)
        self.send()
        with self.stopped(victim):
            time.sleep(seconds)  # how long is the point
        self.send()
        self.wait_end()
        victim.stop()
        other.stop()

    # What is done to the servers

    def trouble_redis(self, chance: random.Random, rounds: int = 1) -> None:
        """Cut, stop, kill and restart Redis under a worker."""
        worker = self.start()
        for _ in range(rounds):
            self._work_a_little(chance)
            self.redis.cut()
            self.events["Redis cut off"] += 1
            self._work_a_little(chance)
            self.server.freeze()
            self.events["Redis stopped"] += 1
            time.sleep(RESTORE_S + 1)  # how long is the point
            self.server.thaw()
            self._work_a_little(chance)
            # Nobody may publish before the subscriber is back.
            self.server.kill()
            self.redis.cut(refuse=True)
            self.events["Redis killed"] += 1
            self.server.start()
            self.publications.wait_subscribed()
            self.redis.flow()
        self.wait_end()
        worker.stop()

    def trouble_api(self, chance: random.Random, rounds: int = 1) -> None:
        """Cut off and hold up the API server, and kill it when it is ours, under a worker."""
        worker = self.start()
        for _ in range(rounds):
            self._work_a_little(chance)
            self.api.cut()
            self.events["API server cut off"] += 1
            self._work_a_little(chance)
            self.api.stall()
            self.events["API server held up"] += 1
            time.sleep(RESTORE_S + 1)  # how long is the point
            self.api.flow()
            self._work_a_little(chance)
            self.api.cut(refuse=True)
            self.events["API server away"] += 1
            time.sleep(chance.uniform(0.2, 1.0))
            self.api.flow()
            self._work_a_little(chance)
            self.cluster.restart_apiserver()
            self.events["API server killed"] += 1
        self.wait_end()
        worker.stop()

    def _work_a_little(self, chance: random.Random) -> None:
        self.send()
        time.sleep(chance.uniform(0.1, 1.0))

    # The end

    def wait_end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """Wait until no message, Job or entry waits for anything; a worker must run."""
        store = self.server.client(1)

        def is_over() -> bool:
            with contextlib.suppress(redis.ConnectionError, *TRANSIENT_ERRORS):
                return not self._missing(store) and not self._left()
            return False

        def what_is_left() -> str:
            missing = {each: self._describe(each) for each in self._missing(store)}
            return f"the end of all tasks: left {self._left()}, without result {missing}"

        with contextlib.closing(store):
            wait_for(is_over, timeout_s, what_is_left)

    def finish(self) -> None:
        """Let a last worker bring everything to its end."""
        worker = self.start(proxied=False)
        self.wait_end()
        self.jobs.wait(lambda: not self._unreported(), what="all farewells")
        worker.stop()
        self.jobs.sync()
        self.publications.sync()

    def problems(self) -> list[str]:
        """Return what is wrong with the tasks that were sent, in words."""
        found = [f"never came to: {step}" for step in self.unreached]
        with contextlib.closing(self.server.client(1)) as store:
            for task_id, kind in self.tasks.items():
                names = [job.name for job in self.jobs.of_task(task_id)]
                slug = kind.name.rpartition(".")[2]
                wanted = [f"{slug}-{task_id}-{retry}" for retry in range(kind.attempts)]
                published = self.publications.results(task_id)
                stored = json.loads(store.get(HEAD + task_id) or "{}").get("status")
                if sorted(names) != wanted:
                    found.append(f"{kind.name} {task_id}: Jobs {names}")
                if stored != kind.state:
                    found.append(f"{kind.name} {task_id}: stored {stored}")
                if published != [kind.state] and not self._may_be_unheard(published):
                    found.append(f"{kind.name} {task_id}: published {published}")
        return found

    def report(self) -> str:
        """Return the counts of what was done and seen."""
        results = [len(self.publications.results(task_id)) for task_id in self.tasks]
        jobs = [len(self.jobs.of_task(task_id)) for task_id in self.tasks]
        wanted = sum(kind.attempts for kind in self.tasks.values())
        lines = [f"{count:6} {event}" for event, count in sorted(self.events.items())]
        lines += [
            f"{len(self.tasks):6} tasks sent",
            f"{sum(results):6} results published, {results.count(1)} tasks with exactly one",
            f"{results.count(0):6} results stored whose publication died with Redis",
            f"{sum(jobs):6} Jobs made, of {wanted} attempts",
        ]
        return "\n".join(lines)

    def _may_be_unheard(self, published: list[str]) -> bool:
        """Return whether a publication may have been lost between Redis's file and its socket."""
        return not published and self.events["Redis killed"] > 0

    def _missing(self, store: redis.Redis) -> list[str]:
        """Return the tasks without a final result."""
        ids = list(self.tasks)
        found = store.mget([HEAD + each for each in ids]) if ids else []
        return [
            each
            for each, text in zip(ids, found, strict=True)
            if json.loads(text or "{}").get("status") not in READY_STATES
        ]

    def _unreported(self) -> list[str]:
        jobs = [job for task_id in self.tasks for job in self.jobs.of_task(task_id)]
        return [job.name for job in jobs if not job.is_reported]

    def _left(self) -> list[str]:
        with contextlib.closing(self.server.client(0)) as broker:
            entries = [each.decode() for each in broker.hkeys(OUTBOX)]
            return [key for key in KEYS if broker.exists(key)] + entries

    def _describe(self, task_id: str) -> list[object]:
        return [(job.name, job.is_gone, job.is_reported) for job in self.jobs.of_task(task_id)]
