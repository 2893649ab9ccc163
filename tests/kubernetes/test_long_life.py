"""What happens in a long life with the API server: credentials change, peers fall silent, versions
are gone, and later versions say more than is known today.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_proxy import ApiProxy, Asked
from bound_token import BoundToken, write_kubeconfig
from celery import Celery
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import SERVICE_ACCOUNT, KubernetesWorker
from waiting import wait_for

TENANT = "tenant-admin"
# Until it is noticed that a peer has died; what follows is a new connection and a list.
NOTICE_S = 45.0
QPS = 10
BURST = 5
StartWorker = Callable[..., KubernetesWorker]
MakeProxy = Callable[[int], GateProxy]
Json = dict[str, Any]


@pytest.fixture
def token(cluster: Cluster, kubelet: object, tmp_path: Path) -> Iterator[BoundToken]:
    bound = BoundToken(cluster, TENANT, SERVICE_ACCOUNT, tmp_path / "token")
    yield bound
    bound.close()


@pytest.fixture
def api_proxy(cluster: Cluster, tmp_path: Path) -> Iterator[ApiProxy]:
    proxy = ApiProxy(cluster, tmp_path / "api-proxy")
    yield proxy
    proxy.close()


@pytest.fixture
def behind_proxy(api_proxy: ApiProxy, token: BoundToken, tmp_path: Path) -> Path:
    """Return the kubeconfig of a worker behind `api_proxy`."""
    authority = tmp_path / "ca.crt"
    authority.write_bytes(api_proxy.ca.read_bytes())
    return write_kubeconfig(tmp_path / "kubeconfig", api_proxy.url, authority, token.path)


def quick_template(folder: Path) -> str:
    """Return the path of the template of a task that is done at once."""
    return write_template(folder, "quick", script=report_script(report("done")))


def run_one(client: Celery, timeout_s: float = 30.0) -> float:
    """Run a task and return how many seconds it took."""
    began = time.monotonic()
    assert client.send_task("pods.quick", queue=TENANT).get(timeout=timeout_s) == "done"
    return time.monotonic() - began


def test_a_peer_that_acknowledges_and_never_answers_is_noticed(
    start_worker: StartWorker,
    cluster: Cluster,
    client: Celery,
    make_proxy: MakeProxy,
    tmp_path: Path,
) -> None:
    proxy = make_proxy(int(cluster.url.rpartition(":")[2]))
    start_worker({"pods.quick": quick_template(tmp_path)}, api_port=proxy.port)
    run_one(client)
    proxy.mute()
    assert run_one(client, NOTICE_S + 10) < NOTICE_S


def test_a_token_that_has_ended_is_read_again(
    start_worker: StartWorker, cluster: Cluster, client: Celery, token: BoundToken, tmp_path: Path
) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", cluster.url, cluster.ca, token.path)
    worker = start_worker({"pods.quick": quick_template(tmp_path)}, kubeconfig=kubeconfig)
    run_one(client)
    token.wait_ended(token.rotate())
    run_one(client)
    assert worker.get("/readyz")[0] == 200


def test_a_new_authority_is_trusted_when_its_file_is_there(
    *,
    start_worker: StartWorker,
    client: Celery,
    api_proxy: ApiProxy,
    behind_proxy: Path,
    tmp_path: Path,
) -> None:
    worker = start_worker({"pods.quick": quick_template(tmp_path)}, kubeconfig=behind_proxy)
    run_one(client)
    authority = api_proxy.renew_authority()
    api_proxy.cut()
    last = len(api_proxy.asked())
    result = client.send_task("pods.quick", queue=TENANT)
    # Nothing is said to a server that cannot prove itself.
    wait_for(lambda: worker.log_count(r"Kubernetes: .*certificate.*Trying again"), what="distrust")
    assert len(api_proxy.asked()) == last
    (tmp_path / "ca.crt").write_bytes(authority.read_bytes())
    assert result.get(timeout=30) == "done"
    assert worker.log_count("Traceback|CRITICAL") == 0


class Amnesia:
    """An API server that lists by twos, forgets between the pages, and forgets what is watched."""

    def __init__(self, cluster: Cluster, proxy: ApiProxy) -> None:
        """Change what passes `proxy` from now on."""
        self._cluster = cluster
        self._is_over: set[str] = set()
        proxy.alter_path = self._alter

    def _alter(self, path: str) -> str:
        path = path.replace("limit=250", "limit=2")
        if "/jobs?" in path and "continue=" in path and self._is_first("page"):
            # The version of the first page is no longer the last one, and so can be forgotten.
            change = {"metadata": {"annotations": {"petiole.test/changed": path[-20:]}}}
            self._cluster.client.request("PATCH", "/api/v1/namespaces/default", change)
            self._cluster.compact()
            self._cluster.restart_apiserver()
        if "/jobs?watch=true" in path and self._is_first("watch"):
            return re.sub(r"resourceVersion=\d+", "resourceVersion=1", path)
        return path

    def _is_first(self, what: str) -> bool:
        is_first = what not in self._is_over
        self._is_over.add(what)
        return is_first


def make_leases(cluster: Cluster, count: int) -> None:
    """Make Leases of other workers."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{TENANT}/leases"
    labels = {"app.kubernetes.io/managed-by": "petiole"}
    for number in range(count):
        meta = {"name": f"petiole-other-{number}", "labels": labels}
        cluster.client.request("POST", path, {"metadata": meta})


def test_lists_are_read_by_pages_and_again_when_a_version_is_gone(
    *,
    start_worker: StartWorker,
    own_cluster: Cluster,
    own_kubelet: object,
    client: Celery,
    tmp_path: Path,
) -> None:
    gate = PodGate(tmp_path)
    script = f"{gate.script}; {report_script(report('done'))}"
    tasks = {"pods.held": write_template(tmp_path, "held", script=script)}
    with contextlib.ExitStack() as stack:
        watch = JobWatch(own_cluster.client)
        stack.callback(watch.stop)
        token = BoundToken(own_cluster, TENANT, SERVICE_ACCOUNT, tmp_path / "token")
        stack.callback(token.close)
        proxy = ApiProxy(own_cluster, tmp_path / "api-proxy")
        stack.callback(proxy.close)
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", proxy.url, proxy.ca, token.path)
        first = start_worker(tasks, kubeconfig=kubeconfig)
        results = [client.send_task("pods.held", queue=TENANT) for _ in range(5)]
        watch.wait(lambda: watch.unfinished(TENANT) == 5, what="five Jobs")
        first.stop()
        make_leases(own_cluster, 3)
        Amnesia(own_cluster, proxy)
        last = len(proxy.asked("jobs"))
        second = start_worker(tasks, kubeconfig=kubeconfig)
        wait_for(lambda: len(proxy.refused(410, "jobs")) == 2, 90, "a page and a version gone")
        gate.open()
        assert [each.get(timeout=60) for each in results] == ["done"] * 5
        second.stop()
        gone = proxy.refused(410, "jobs")
        assert [each.is_watch for each in gone] == [False, True]
        lists = [each.path for each in proxy.asked("jobs")[last:] if "limit=2&" in each.path]
        assert sum("continue=" not in path for path in lists) == 3
        assert sum("continue=" in path for path in lists) >= 5
        assert any("continue=" in each.path for each in proxy.asked("leases"))
        watch.sync()
        assert all(len(watch.of_task(each.id)) == 1 for each in results)


def add_news(item: Json) -> None:
    """Say what a later Kubernetes might, around what is known today."""
    thing = item.get("object", item)
    item["news"] = {"type": "ERROR", "items": [None]}
    status = thing.get("status")
    if isinstance(status, dict):
        news = {"type": "Checkpointed", "status": "True", "weight": 1.5, "parts": [{}]}
        odd = {"type": "Complete", "status": "Nearly"}
        status["conditions"] = [news, *status.get("conditions", []), odd, 7]
        status["outlook"] = [{"phase": "Failed"}]
    thing.setdefault("metadata", {})["realm"] = {"name": "elsewhere", "labels": {}}


def test_what_a_later_version_adds_is_passed_over(
    *,
    start_worker: StartWorker,
    client: Celery,
    job_watch: JobWatch,
    api_proxy: ApiProxy,
    behind_proxy: Path,
    tmp_path: Path,
) -> None:
    api_proxy.alter_object = add_news
    worker = start_worker({"pods.quick": quick_template(tmp_path)}, kubeconfig=behind_proxy)
    results = [client.send_task("pods.quick", queue=TENANT) for _ in range(3)]
    assert [each.get(timeout=30) for each in results] == ["done"] * 3
    for each in results:
        job_watch.wait(lambda id=each.id: job_watch.of_task(id)[0].is_gone, what="the farewell")
    assert worker.log_count("Trying again|WARNING|ERROR") == 0


def busiest(asked: list[Asked], window_s: float) -> int:
    """Return the most requests in any window of that length."""
    times = [each.at_s for each in asked]
    return max(sum(0 <= other - at < window_s for other in times) for at in times)


def test_a_worker_keeps_to_its_budget_of_requests(
    *,
    start_worker: StartWorker,
    client: Celery,
    api_proxy: ApiProxy,
    behind_proxy: Path,
    tmp_path: Path,
) -> None:
    settings = {"kubernetes_api_qps": QPS, "kubernetes_api_burst": BURST}
    template = {"pods.quick": quick_template(tmp_path)}
    start_worker(template, kubeconfig=behind_proxy, settings=settings)
    results = [client.send_task("pods.quick", queue=TENANT) for _ in range(60)]
    assert [each.get(timeout=120) for each in results] == ["done"] * 60
    asked = [each for each in api_proxy.asked() if not each.is_watch]
    for window_s in (2.0, 4.0):
        # Those of two seconds may be late on their way here and the next ones not.
        assert busiest(asked, window_s) <= BURST + QPS * (window_s + 2)
    # It is the budget that bounds it, and it is used.
    assert busiest(asked, 4.0) >= 0.5 * QPS * 4.0
    # Our Lease, which ends after fifteen seconds, is renewed however many others wait.
    renewals = [each.at_s for each in asked if each.method == "PUT" and each.resource == "leases"]
    assert len(renewals) >= 2
    assert all(after - before < 11 for before, after in itertools.pairwise(renewals))
