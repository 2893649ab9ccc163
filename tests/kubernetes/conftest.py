"""A real control plane and a node for all tests of this folder, and for each test its own Redis.

KUBECONFIG is used when it names a control plane without nodes of its own, as `cluster.py up` makes
one: a test never touches a cluster where somebody's pods run. Else a control plane is started.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery_client import client_app
from cluster import Cluster
from fake_kubelet import NODE, FakeKubelet
from gate_proxy import GateProxy
from job_watch import JobWatch
from kube_client import TRANSIENT_ERRORS, ApiError
from kubernetes_worker import KubernetesWorker
from program import Program
from publication_watch import PublicationWatch
from redis_server import RedisServer
from tenants import TENANTS, apply_tenants, clear_tenant

ROOT = Path(__file__).resolve().parents[2]
LOG_TAIL = 6000
PROGRAMS = pytest.StashKey[list[Program]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the crash harness is told by hand."""
    parser.addoption("--instants", type=int, default=40, help="random instants to kill workers at")
    parser.addoption("--all-steps", action="store_true", help="also those that only look")
    parser.addoption("--seed", type=int, help="repeat what chance decided")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Show the end of each program's log with a failure."""
    report = yield
    if report.failed:
        for program in item.stash.get(PROGRAMS, []):
            report.sections.append((program.log_path.name, program.log()[-LOG_TAIL:]))
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with the tenants' namespaces, quota and worker ServiceAccounts (petiole)."""
    folder = tmp_path_factory.mktemp("cluster")
    if found := _given_cluster(folder):
        apply_tenants(found)
        yield found
        found.stop()
        return
    with Cluster(folder) as own:
        apply_tenants(own)
        yield own


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that a test may kill and restart; mostly the same one as `cluster`."""
    if cluster.is_owned:
        yield cluster
        return
    with Cluster(tmp_path_factory.mktemp("own-cluster")) as own:
        apply_tenants(own)
        yield own


@pytest.fixture(scope="session")
def kubelet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeKubelet]:
    """A node that really runs the pods of `cluster`, with the tests' own Python."""
    parts = (ROOT / "python-shim/src", ROOT / "python-shim/demo", Path(__file__).parent)
    shim = ":".join(map(str, parts))
    folder = tmp_path_factory.mktemp("kubelet")
    with FakeKubelet(cluster, folder, pythonpath=shim) as running:
        yield running


@pytest.fixture(scope="session")
def own_kubelet(
    own_cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeKubelet]:
    """The node of `own_cluster`; mostly the same one as `kubelet`."""
    if own_cluster is request.getfixturevalue("cluster"):
        yield request.getfixturevalue("kubelet")
        return
    with FakeKubelet(own_cluster, tmp_path_factory.mktemp("own-kubelet")) as running:
        yield running


@pytest.fixture(scope="session")
def job_watch(cluster: Cluster) -> Iterator[JobWatch]:
    """Count the Jobs of all namespaces, from the first test that asks."""
    watch = JobWatch(cluster.client)
    yield watch
    watch.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a redis-server that keeps nothing."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Return a client of database 0, where messages are."""
    with contextlib.closing(redis_server.client(0)) as client:
        yield client


@pytest.fixture
def publications(broker: redis.Redis) -> Iterator[PublicationWatch]:
    """Count the publications of results on the test's Redis."""
    watch = PublicationWatch(broker)
    yield watch
    watch.stop()


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], GateProxy]]:
    """Return a function that starts a proxy in front of a port."""
    with contextlib.ExitStack() as stack:

        def make(port: int) -> GateProxy:
            proxy = GateProxy(port)
            stack.callback(proxy.close)
            return proxy

        yield make


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Celery]:
    """Return a client app of the test's Redis."""
    with client_app(redis_server) as app:
        yield app


@pytest.fixture
def start_worker(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    kubelet: FakeKubelet,
    redis_server: RedisServer,
    tmp_path: Path,
) -> Iterator[Callable[..., KubernetesWorker]]:
    """Return a function that starts a worker of a tenant and waits until it is ready.

    At the end a worker that still runs must end with exit code 0, and what the workers left in the
    tenants' namespaces is deleted.
    """
    workers: list[Program] = []
    request.node.stash[PROGRAMS] = workers

    def start(tasks: dict[str, Any], *, wait: bool = True, **rest: Any) -> KubernetesWorker:
        rest.setdefault("name", f"w{len(workers)}")
        worker = KubernetesWorker(cluster, redis_server, tmp_path, tasks, **rest)
        workers.append(worker)
        return worker.wait_ready() if wait else worker

    yield start
    endings = []
    for worker in workers:
        was_running = worker.is_running()
        worker.stop()
        if was_running and worker.process.returncode != 0:
            endings.append((worker.log_path.name, worker.process.returncode))
    for tenant in TENANTS:
        clear_tenant(cluster, tenant)
    assert not endings, f"exit codes {endings}"


def _given_cluster(folder: Path) -> Cluster | None:
    """Return the cluster of KUBECONFIG, or None, with a line why, when it cannot be used."""
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig:
        return None
    try:
        found = Cluster.of_kubeconfig(Path(kubeconfig), folder)
        nodes = found.client.request("GET", "/api/v1/nodes")["items"]
    except (ApiError, ValueError, *TRANSIENT_ERRORS) as error:
        print(f"KUBECONFIG is not used: {error}", file=sys.stderr)
        return None
    if any(node["metadata"]["name"] != NODE for node in nodes):
        print("KUBECONFIG is not used: the cluster has nodes of its own", file=sys.stderr)
        return None
    return found
