"""Thousands of Jobs in flight in one worker, beside Python workers that do the same.

The control plane is real and has no controllers and nodes: what happens to a Job is what the worker
under test and this measurement do. All are seen by the same watch (job_load.JobTally).
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import envelopes
from app import make_app
from cluster import Cluster
from job_load import Admin, JobTally, add_pods, finish_jobs, jobs_path, post_jobs
from kube_client import KubeClient
from kubernetes_worker import KubernetesWorker, worker_kubeconfig
from measure import META, OURS, RAW, SHARED, THREADS, Bench, Row, Scale, bench
from petiole_worker import TOP
from process_family import family
from program import Program, clean_environment
from waiting import wait_for

TENANT = "tenant-admin"
TASK = "app.tasks.training.train"
TEMPLATE = TOP / "k8s" / "samples" / "train-job.yaml"
KWARGS = {"config": {"experiment_name": "benchmark", "training": {"epochs": 3}}}
PARALLEL = 64  # as many requests as Petiole has on their way
REPORTS_PER_SECOND = 20.0
REST_S = 6.0
PATIENCE_S = 600.0
REPORT = json.dumps(
    {
        "v": 1,
        "state": "SUCCESS",
        "result": None,
        "traceback": None,
        "bytes": 4,
        "sha256": sha256(b"null").hexdigest(),
    }
)
# What the API server adds to a Job, and refuses in a new one or sets anew.
SET_BY_SERVER = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation")
POD_LABELS_BY_SERVER = ("controller-uid", "job-name")


class JobPeer(Program):
    """A Celery worker with a thread for each Job (job_peer.py)."""

    def __init__(self, site: Site, name: str, folder: Path, body: str, threads: int) -> None:
        """Start it; see wait_ready."""
        folder.mkdir()
        given = {
            "settings": site.on.settings(),
            "kubeconfig": str(worker_kubeconfig(site.cluster, TENANT, folder)),
            "namespace": TENANT,
            "body": body,
            "threads": threads,
            "shares_watch": name == SHARED,
        }
        command = [sys.executable, "-m", "celery", "-A", "job_peer", "worker", "-n", "peer@test"]
        command += ["-Q", TENANT, "-l", "INFO", "-P", "threads", "-c", str(threads)]
        command += ["--prefetch-multiplier", "1", "--without-gossip", "--without-mingle"]
        path = str(TOP / "benchmarks")
        environment = clean_environment({"JOB_PEER": json.dumps(given), "PYTHONPATH": path})
        super().__init__(command, folder / "peer.log", environment, cwd=folder)

    def wait_ready(self) -> None:
        """Wait until it consumes."""
        self.wait_log(r"\S+ ready\.", 60.0)


class Site:
    """A control plane, a Redis, and the messages of the tenant."""

    def __init__(self, cluster: Cluster, on: Bench) -> None:
        """Prepare the tenant as its manifests do."""
        self.cluster, self.on = cluster, on
        cluster.apply(TOP / "k8s" / "tenants" / "namespaces.yaml")
        kinds = ("ServiceAccount", "Role", "RoleBinding")
        cluster.apply(TOP / "k8s" / "overlays" / TENANT, kinds)
        cluster.wait(f"/api/v1/namespaces/{TENANT}/serviceaccounts/default", bool)
        cluster.kill_controllers()
        app = make_app(on.settings(), {})
        self.envelope = envelopes.template(on.broker, app, TENANT, TASK, kwargs=KWARGS)
        self.folder = on.folder / f"jobs-{uuid.uuid4().hex[:6]}"
        self.folder.mkdir()

    def petiole(self, count: int) -> KubernetesWorker:
        """Start Petiole with places for `count` Jobs and no limit of requests."""
        settings = {
            "kubernetes_max_jobs": count,
            "kubernetes_api_qps": 0,
            "broker_transport_options": {},
        }
        return KubernetesWorker(
            self.cluster,
            self.on.redis,
            self.folder,
            {"app.tasks.*": str(TEMPLATE)},
            tenant=TENANT,
            settings=settings,
            name=f"w{uuid.uuid4().hex[:6]}",
        )

    def push(self, count: int) -> None:
        """Put `count` messages into the queue."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        envelopes.push(self.on.broker, TENANT, envelopes.copies(self.envelope, ids))

    def body(self) -> str:
        """Return the Job that Petiole makes of a message, as JSON, with the name "NAME"."""
        worker = self.petiole(1)
        try:
            self.push(1)
            found = wait_for(lambda: self.cluster.client.request("GET", jobs_path(TENANT))["items"])
        finally:
            worker.stop()
        (job,) = found
        self.clear()
        for key in SET_BY_SERVER:
            job["metadata"].pop(key, None)
        pod_labels = job["spec"]["template"]["metadata"]["labels"]
        for key in list(pod_labels):
            if key.endswith(POD_LABELS_BY_SERVER):
                del pod_labels[key]
        del job["spec"]["selector"], job["status"]
        job["metadata"]["name"] = "NAME"
        return json.dumps(job, separators=(",", ":"))

    def clear(self) -> None:
        """Delete all Jobs and pods, and what is left of them in Redis."""
        for path in (jobs_path(TENANT), f"/api/v1/namespaces/{TENANT}/pods"):
            options = "propagationPolicy=Background&gracePeriodSeconds=0"
            self.cluster.client.patient("DELETE", f"{path}?{options}")
            wait_for(lambda path=path: not self._exists(path), PATIENCE_S, "all gone")
        self.on.broker.flushdb()
        self.on.backend.flushdb()

    def admin(self) -> Admin:
        """Return what a client with all rights is made of."""
        pki = self.cluster.directory / "pki"
        return self.cluster.url, self.cluster.ca, (pki / "admin.crt", pki / "admin.key")

    def _exists(self, path: str) -> bool:
        return bool(self.cluster.client.patient("GET", f"{path}?limit=1")["items"])


@contextmanager
def tallied(site: Site) -> Iterator[JobTally]:
    """Watch the Jobs of the block, and delete them behind it."""
    tally = JobTally(KubeClient(*site.admin()), TENANT)
    try:
        yield tally
    finally:
        tally.stop()
        site.clear()


def creation_rate(tally: JobTally, count: int) -> float:
    """Wait for `count` Jobs; return how many a second were made from the first to the last."""
    tally.wait(lambda: len(tally.added) >= count, PATIENCE_S, f"{count} Jobs")
    times = sorted(tally.added.values())
    return (count - 1) / (times[-1] - times[0])


def anonymous_bytes(pid: int) -> float:
    """Return the memory of a worker and its children that is no file's."""
    total = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
    return float(total)


def report_delays(site: Site, tally: JobTally, count: int) -> list[float]:
    """End `count` Jobs; return seconds from the watch's event to the published result, sorted."""
    names = list(tally.added)[:count]
    published: dict[str, float] = {}

    def note(message: dict[str, Any]) -> None:
        published.setdefault(message["channel"].decode().removeprefix(META), time.perf_counter())

    listener = site.on.redis.client(1).pubsub(ignore_subscribe_messages=True)
    listener.psubscribe(**{f"{META}*": note})
    thread = listener.run_in_thread(sleep_time=0.05, daemon=True)
    add_pods(site.cluster.client, TENANT, names)
    arguments = (site.admin(), TENANT, names, REPORT, REPORTS_PER_SECOND)
    driver = multiprocessing.get_context("spawn").Process(target=finish_jobs, args=arguments)
    driver.start()
    wait_for(lambda: len(published) >= count, PATIENCE_S, "all publications")
    driver.join()
    thread.stop()
    thread.join()
    ids = {name: name.removeprefix("train-").removesuffix("-0") for name in names}
    return sorted(published[ids[name]] - tally.finished[name] for name in names)


class Rows:
    """The rows of this measurement."""

    def __init__(self, scale: Scale) -> None:
        """Make them, empty."""
        counts = ", ".join(f"{name} {count}" for name, count in scale.jobs.items())
        what = f"Jobs in flight: {counts}"
        self.creation = Row("jobs-creation", "jobs_per_second", "1/s", what)
        self.memory = Row("jobs-memory", "bytes_per_job", "B", f"anonymous; {what}")
        pace = f"from a watch's event to the publication, {REPORTS_PER_SECOND:g} Jobs end a second"
        self.delays = [
            Row("jobs-report", f"{name}_seconds", "s", f"{pace}; {what}") for name in ("p50", "p95")
        ]
        self.adoption = Row("jobs-adoption", "seconds", "s", "from the start of the next worker")

    def all(self) -> list[Row]:
        """Return them in order."""
        return [self.creation, self.memory, *self.delays, self.adoption]

    def note_delays(self, name: str, delays: list[float]) -> None:
        """Note what report_delays returned."""
        self.delays[0].add(name, median(delays))
        self.delays[1].add(name, delays[int(len(delays) * 0.95)])


def fill(
    site: Site, tally: JobTally, rows: Rows, *, worker: Program, name: str, count: int
) -> None:
    """Let a worker that is ready make `count` Jobs; note its rate and its memory."""
    before = anonymous_bytes(worker.pid)
    site.push(count)
    rows.creation.add(name, creation_rate(tally, count))
    time.sleep(REST_S)
    rows.memory.add(name, (anonymous_bytes(worker.pid) - before) / count)


def measure_ours(site: Site, rows: Rows, scale: Scale) -> None:
    """Measure Petiole, and the one that takes its Jobs over."""
    count = scale.jobs[OURS]
    with tallied(site) as tally:
        first = site.petiole(count).wait_ready()
        try:
            fill(site, tally, rows, worker=first, name=OURS, count=count)
            owner = tally.owner()
        finally:
            first.stop()
        begun = time.perf_counter()
        second = site.petiole(count)
        try:
            adopted = f"{count} Jobs adopted"
            tally.wait(lambda: tally.owned(but=owner) >= count, PATIENCE_S, adopted)
            rows.adoption.add(OURS, time.perf_counter() - begun)
            rows.note_delays(OURS, report_delays(site, tally, scale.job_reports))
        finally:
            second.stop()


def measure_peer(site: Site, rows: Rows, name: str, body: str, scale: Scale) -> None:
    """Measure a Python worker."""
    count = scale.jobs[name]
    with tallied(site) as tally:
        worker = JobPeer(site, name, site.folder / f"{name}-{uuid.uuid4().hex[:6]}", body, count)
        try:
            worker.wait_ready()
            fill(site, tally, rows, worker=worker, name=name, count=count)
            reports = min(scale.job_reports, count)
            rows.note_delays(name, report_delays(site, tally, reports))
        finally:
            worker.stop()


def measure_raw(site: Site, rows: Rows, body: str, count: int) -> None:
    """Measure plain requests of the same body."""
    bodies = (body.replace('"NAME"', f'"raw-{uuid.uuid4()}-0"') for _ in range(count))
    url = f"{site.cluster.url}{jobs_path(TENANT)}?fieldManager=petiole"
    token = site.cluster.token(TENANT, "petiole")
    with tallied(site) as tally:
        post_jobs(
            site.folder,
            url=url,
            token=token,
            ca=site.cluster.ca,
            bodies=bodies,
            parallel=PARALLEL,
        )
        rows.creation.add(RAW, creation_rate(tally, count))


def jobs(scale: Scale) -> list[Row]:
    """Measure creation, memory, reporting and adoption of Jobs."""
    rows = Rows(scale)
    for _ in range(scale.job_runs):
        with bench() as on, Cluster() as cluster:
            site = Site(cluster, on)
            body = site.body()
            measure_raw(site, rows, body, scale.jobs[RAW])
            for name in (SHARED, THREADS):
                measure_peer(site, rows, name, body, scale)
            measure_ours(site, rows, scale)
    return rows.all()
