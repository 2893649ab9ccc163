"""What a tenant's worker may do in its own namespace, it may do in no other, whichever way round.

Every request is a real one, with the token of a worker's ServiceAccount. Both namespaces have the
same objects under the same names, and what is allowed at home shows that the request is a good one.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from cluster import Cluster
from fake_kubelet import FakeKubelet
from job_template import report, report_script, write_template
from job_watch import JobWatch
from kube_client import ApiError, KubeClient, client_of_kubeconfig
from kubernetes_worker import KubernetesWorker, worker_kubeconfig
from role_rights import EVERYWHERE, Request, Right, collection_path, each_right, request_of
from waiting import wait_for

TENANTS = ("tenant-admin", "tenant-user")
NAME = "isolation"
SECRET = "isolation-secret"
FINE, FORBIDDEN = range(200, 300), 403
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
ROLE = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles/petiole"
# What everybody may ask: what he may do, and who he is.
QUESTIONS = ("authorization.k8s.io", "authentication.k8s.io")
CLAIM = Path(__file__).resolve().parents[2] / "k8s/samples/results-pvc.yaml"
StartWorker = Callable[..., KubernetesWorker]
Json = dict[str, Any]


def other(tenant: str) -> str:
    """Return the other one of the two."""
    return TENANTS[1 - TENANTS.index(tenant)]


class Tenant:
    """One tenant's namespace with an object of each kind, and its worker's token.

    `job` prints `word` into its log and runs until it is deleted.
    """

    def __init__(self, cluster: Cluster, name: str, folder: Path) -> None:
        """Make the objects; `close` deletes them."""
        self.name = name
        self.word = f"log-of-{name}-{uuid.uuid4().hex}"
        self._admin = cluster.client
        self._stack = contextlib.ExitStack()
        self.worker = client_of_kubeconfig(
            worker_kubeconfig(cluster, name, folder), str(cluster.programs / "kubectl")
        )
        self.objects = {
            "jobs": self._make("batch", "jobs", self._job_spec()),
            "leases": self._make("coordination.k8s.io", "leases", {"holderIdentity": name}),
            "resourcequotas": self._make("", "resourcequotas", {"hard": {"services": "9"}}),
            "limitranges": self._make("", "limitranges", {"limits": []}),
            "secrets": self._make("", "secrets", {}),
        }
        self.objects["pods"] = self._running_pod()

    def close(self) -> None:
        """Delete what was made."""
        self._stack.close()
        self.worker.close()

    def answer(self, request: Request) -> tuple[int, str]:
        """Return what the API server answers the tenant's worker: status and text.

        A watch that it grants is ended at once.
        """
        collection, _, query = request.path.partition("?")
        if not query.startswith("watch=1"):
            return self.worker.raw(*request)
        try:
            with self.worker.watch(collection, "0"):
                return 200, ""
        except ApiError as error:
            return error.status, error.body

    def role(self) -> Json:
        """Return the worker's Role."""
        return self._admin.request("GET", ROLE.format(self.name))

    def found(self, right: Right) -> Json:
        """Return the object that a request for one such object is for."""
        nameless: Json = {"metadata": {"name": NAME}, "spec": {}}
        return self.objects.get(right.resource.partition("/")[0], nameless)

    def path(self, group: str, resource: str) -> str:
        """Return the path of the tenant's objects of a kind."""
        return collection_path(Right(group, resource, ""), self.name)

    def _job_spec(self) -> Json:
        container = {
            "name": "main",
            "image": "any:1",
            "command": ["sh", "-c", f"echo {self.word}; exec sleep 600"],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        }
        pod = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": [container],
        }
        return {"backoffLimit": 0, "template": {"spec": pod}}

    def _make(self, group: str, resource: str, spec: Json) -> Json:
        path = self.path(group, resource)
        body = {"metadata": {"name": NAME}, "spec": spec}
        if resource == "secrets":
            body = {"metadata": body["metadata"], "stringData": {"key": SECRET}}
        found = self._admin.request("POST", path, body)
        one = f"{path}/{NAME}?propagationPolicy=Background"
        self._stack.callback(self._admin.raw, "DELETE", one)
        return found

    def _running_pod(self) -> Json:
        path = f"{self.path('', 'pods')}?labelSelector=job-name={NAME}"

        def look() -> list[Json]:
            pods: list[Json] = self._admin.request("GET", path)["items"]
            return [pod for pod in pods if pod["status"]["phase"] == "Running"]

        return wait_for(look, 30, f"the pod of {self.name}")[0]


@pytest.fixture(scope="module")
def tenants(
    cluster: Cluster, kubelet: FakeKubelet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Tenant]]:
    """Return the two of them by their names."""
    folder = tmp_path_factory.mktemp("tenants")
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(contextlib.closing(Tenant(cluster, name, folder)))
            for name in TENANTS
        }


@pytest.mark.parametrize("name", TENANTS)
def test_each_right_holds_at_home_and_nowhere_else(tenants: dict[str, Tenant], name: str) -> None:
    home, foreign = tenants[name], tenants[other(name)]
    rights = each_right(home.role())
    assert len(rights) > 20
    wrong = {}
    for right in rights:
        found = foreign.found(right)
        at_home = home.answer(request_of(right, name, home.found(right)))
        if at_home[0] not in FINE:
            wrong[right, "at home"] = at_home
        abroad = home.answer(request_of(right, foreign.name, found))
        if abroad[0] != FORBIDDEN or f'in the namespace \\"{foreign.name}\\"' not in abroad[1]:
            wrong[right, "abroad"] = abroad
        if right.verb in ("list", "watch"):
            all_of_them = home.answer(request_of(right, EVERYWHERE, found))
            if all_of_them[0] != FORBIDDEN:
                wrong[right, "everywhere"] = all_of_them
    assert wrong == {}


@pytest.mark.parametrize("name", TENANTS)
@pytest.mark.parametrize("account", ["petiole", "default"])
def test_no_rule_of_any_other_namespace_is_for_it(
    cluster: Cluster, name: str, account: str, tmp_path: Path
) -> None:
    places = ["default", "kube-system", "kube-public", other(name)]
    # A Job's pod would be `default`, without a token: at home it may do nothing either.
    places += [name] if account == "default" else []
    token = client_of_kubeconfig(
        cluster.kubeconfig_for(name, account), str(cluster.programs / "kubectl")
    )
    with contextlib.closing(token):
        rules = {place: rules_of(token, place) for place in places}
    assert rules == {place: [] for place in places}


def rules_of(token: KubeClient, namespace: str) -> list[Json]:
    """Return what the owner of a token may do there, but for questions about himself."""
    status = token.request("POST", RULES, {"spec": {"namespace": namespace}})["status"]
    assert not status["incomplete"]
    assert {verb for rule in status["nonResourceRules"] for verb in rule["verbs"]} == {"get"}
    return [rule for rule in status["resourceRules"] if set(rule["apiGroups"]) - {*QUESTIONS}]


POD_SPEC = {"containers": [{"name": "main", "image": "any:1"}]}
EMPTY: Json = {"metadata": {"name": "intruder"}}
RULE = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
BINDING = {
    **EMPTY,
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
    "subjects": [{"kind": "ServiceAccount", "name": "petiole"}],
}
DENIED = {
    "read Secrets": ("GET", "{core}/secrets"),
    "read a Secret": ("GET", f"{{core}}/secrets/{NAME}"),
    "watch Secrets": ("GET", "{core}/secrets?watch=1&timeoutSeconds=1"),
    "make a Secret": ("POST", "{core}/secrets", EMPTY),
    "read ConfigMaps": ("GET", "{core}/configmaps"),
    "change a ConfigMap": ("PATCH", "{core}/configmaps/kube-root-ca.crt", {"data": {}}),
    "make a pod": ("POST", "{core}/pods", {**EMPTY, "spec": POD_SPEC}),
    "change a pod": ("PATCH", "{core}/pods/{pod}", {"metadata": {}}),
    "delete a pod": ("DELETE", "{core}/pods/{pod}"),
    "delete all pods": ("DELETE", "{core}/pods"),
    "evict a pod": ("POST", "{core}/pods/{pod}/eviction", {"metadata": {"name": "x"}}),
    "bind a pod": ("POST", "{core}/pods/{pod}/binding", {"target": {"name": "x"}}),
    "run something in a pod": ("POST", "{core}/pods/{pod}/exec?command=env&stdout=1"),
    "run something by GET": ("GET", "{core}/pods/{pod}/exec?command=env&stdout=1"),
    "attach to a pod": ("POST", "{core}/pods/{pod}/attach?stdout=1"),
    "reach a pod's port": ("POST", "{core}/pods/{pod}/portforward?ports=80"),
    "ask a pod through the API server": ("GET", "{core}/pods/{pod}/proxy/"),
    "add a container to a pod": ("PATCH", "{core}/pods/{pod}/ephemeralcontainers", {}),
    "change a pod's status": ("PATCH", "{core}/pods/{pod}/status", {"status": {}}),
    "forge an event": ("POST", "{core}/events", {**EMPTY, "involvedObject": {}}),
    "read claims": ("GET", "{core}/persistentvolumeclaims"),
    "make a claim": ("POST", "{core}/persistentvolumeclaims", EMPTY),
    "raise the quota": ("PATCH", f"{{core}}/resourcequotas/{NAME}", {"spec": {"hard": {}}}),
    "delete the quota": ("DELETE", f"{{core}}/resourcequotas/{NAME}"),
    "delete a limit": ("DELETE", f"{{core}}/limitranges/{NAME}"),
    "read ServiceAccounts": ("GET", "{core}/serviceaccounts"),
    "get a token": ("POST", "{core}/serviceaccounts/petiole/token", {"spec": {}}),
    "make a ServiceAccount": ("POST", "{core}/serviceaccounts", EMPTY),
    "make a Service": ("POST", "{core}/services", {**EMPTY, "spec": {"ports": [{"port": 1}]}}),
    "replace a Job": ("PUT", f"{{batch}}/jobs/{NAME}", EMPTY),
    "delete all Jobs": ("DELETE", "{batch}/jobs"),
    "change a Job's status": ("PATCH", f"{{batch}}/jobs/{NAME}/status", {"status": {}}),
    "make a CronJob": ("POST", "{batch}/cronjobs", EMPTY),
    "make a Deployment": ("POST", "{apps}/deployments", EMPTY),
    "read a Deployment": ("GET", "{apps}/deployments/petiole"),
    "patch a Lease": ("PATCH", f"{{leases}}/leases/{NAME}", {"metadata": {}}),
    "delete all Leases": ("DELETE", "{leases}/leases"),
    "read its Role": ("GET", "{rbac}/roles/petiole"),
    "widen its Role": ("PATCH", "{rbac}/roles/petiole", {"rules": [RULE]}),
    "make a Role": ("POST", "{rbac}/roles", {**EMPTY, "rules": [RULE]}),
    "bind a greater Role": ("POST", "{rbac}/rolebindings", BINDING),
}
CLUSTER_WIDE = {
    "namespaces": ("GET", "/api/v1/namespaces"),
    "its own namespace": ("GET", "/api/v1/namespaces/{home}"),
    "its namespace's labels": ("PATCH", "/api/v1/namespaces/{home}", {"metadata": {"labels": {}}}),
    "the other namespace": ("DELETE", "/api/v1/namespaces/{other}"),
    "nodes": ("GET", "/api/v1/nodes"),
    "a node's own API": ("GET", "/api/v1/nodes/fake-node/proxy/containerLogs"),
    "volumes": ("GET", "/api/v1/persistentvolumes"),
    "Secrets": ("GET", "/api/v1/secrets"),
    "pods": ("GET", "/api/v1/pods"),
    "Jobs": ("GET", "/apis/batch/v1/jobs"),
    "events": ("GET", "/api/v1/events"),
    "events of the newer kind": ("GET", "/apis/events.k8s.io/v1/events"),
    "Leases": ("GET", "/apis/coordination.k8s.io/v1/leases"),
    "ClusterRoles": ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    "a ClusterRoleBinding": (
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        BINDING,
    ),
    "what others may do": (
        "POST",
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {"spec": {"user": "admin", "resourceAttributes": {"verb": "get"}}},
    ),
    "metrics of the API server": ("GET", "/metrics"),
    "logs of the API server": ("GET", "/logs/"),
}


@pytest.mark.parametrize("what", DENIED)
def test_what_the_role_does_not_name_is_refused_at_home_too(
    tenants: dict[str, Tenant], what: str
) -> None:
    method, path, *body = DENIED[what]
    for name in TENANTS:
        for place in TENANTS:
            pod = tenants[place].objects["pods"]["metadata"]["name"]
            heads = {
                "core": f"/api/v1/namespaces/{place}",
                "batch": f"/apis/batch/v1/namespaces/{place}",
                "apps": f"/apis/apps/v1/namespaces/{place}",
                "leases": f"/apis/coordination.k8s.io/v1/namespaces/{place}",
                "rbac": f"/apis/rbac.authorization.k8s.io/v1/namespaces/{place}",
            }
            request = Request(method, path.format(pod=pod, **heads), *body)
            status, text = tenants[name].answer(request)
            assert status == FORBIDDEN, (name, place, text)
            assert SECRET not in text


@pytest.mark.parametrize("what", CLUSTER_WIDE)
def test_nothing_of_the_cluster_is_for_it(tenants: dict[str, Tenant], what: str) -> None:
    method, path, *body = CLUSTER_WIDE[what]
    for name in TENANTS:
        request = Request(method, path.format(home=name, other=other(name)), *body)
        status, text = tenants[name].answer(request)
        assert status == FORBIDDEN, (name, text)


LOGS = {
    "as it is": "",
    "followed": "follow=true",
    "before a restart": "previous=true",
    "of its container": "container=main&tailLines=1",
}


@pytest.mark.parametrize("how", LOGS)
def test_a_log_is_its_tenants_alone(tenants: dict[str, Tenant], how: str) -> None:
    for name in TENANTS:
        home, foreign = tenants[name], tenants[other(name)]
        pod = foreign.objects["pods"]["metadata"]["name"]
        log = f"{foreign.path('', 'pods')}/{pod}/log"
        # It is there to be read: the other one reads it.
        wait_for(
            lambda log=log, owner=foreign: owner.word in owner.answer(Request("GET", log))[1],
            what="the line",
        )
        status, text = home.answer(Request("GET", f"{log}?{LOGS[how]}"))
        assert status == FORBIDDEN
        assert foreign.word not in text


EVENTS = {
    "all": "/api/v1/namespaces/{place}/events?limit=500",
    "of the newer kind": "/apis/events.k8s.io/v1/namespaces/{place}/events",
    "of one Job": "/api/v1/namespaces/{place}/events?fieldSelector=involvedObject.kind%3DJob",
    "as they come": "/api/v1/namespaces/{place}/events?watch=1&timeoutSeconds=1",
    "by the old watch": "/api/v1/watch/namespaces/{place}/events?timeoutSeconds=1",
    "everybody's": "/api/v1/events?fieldSelector=metadata.namespace%3D{place}",
}


@pytest.mark.parametrize("which", EVENTS)
def test_events_are_their_tenants_alone(tenants: dict[str, Tenant], which: str) -> None:
    for name in TENANTS:
        home, foreign = tenants[name], tenants[other(name)]
        pod = foreign.objects["pods"]["metadata"]["name"]
        # The Job controller has said that it made the pod; the other one is told.
        theirs = foreign.answer(Request("GET", f"{foreign.path('', 'events')}"))
        assert theirs[0] in FINE
        assert pod in theirs[1]
        status, text = home.answer(Request("GET", EVENTS[which].format(place=foreign.name)))
        assert status == FORBIDDEN
        assert pod not in text


DETOURS = {
    "parent": "/api/v1/namespaces/{home}/pods/../../{other}/pods/{pod}/log",
    "encoded parent": "/api/v1/namespaces/{home}/pods/..%2f..%2f{other}%2fpods%2f{pod}/log",
    "encoded namespace": "/api/v1/namespaces/{home}%2f..%2f{other}/pods/{pod}/log",
    "two slashes": "/api/v1/namespaces/{home}/pods//../../{other}/pods/{pod}/log",
    "its own namespace in front": "/api/v1/namespaces/{home}/namespaces/{other}/pods/{pod}/log",
    "another's pod as its own": "/api/v1/namespaces/{home}/pods/{pod}/log",
    "selected": "/api/v1/namespaces/{home}/pods?fieldSelector=metadata.namespace%3D{other}",
    "a parameter": "/api/v1/namespaces/{home}/pods?namespace={other}",
}


@pytest.mark.parametrize("detour", DETOURS)
def test_no_path_leads_around(tenants: dict[str, Tenant], detour: str) -> None:
    for name in TENANTS:
        home, foreign = tenants[name], tenants[other(name)]
        pod = foreign.objects["pods"]["metadata"]["name"]
        path = DETOURS[detour].format(home=name, other=foreign.name, pod=pod)
        _, text = home.answer(Request("GET", path))
        assert foreign.word not in text
        assert foreign.objects["pods"]["metadata"]["uid"] not in text


@pytest.fixture
def claim(cluster: Cluster) -> Iterator[str]:
    """Return the name of a claim that neither tenant has; at the end neither has it again."""
    name = f"results-{uuid.uuid4().hex[:8]}"
    yield name
    for tenant in TENANTS:
        path = f"/api/v1/namespaces/{tenant}/persistentvolumeclaims/{name}"
        # No controller runs here that would take the protecting finalizer away.
        cluster.client.raw("PATCH", path, {"metadata": {"finalizers": None}})
        cluster.client.raw("DELETE", path)


def make_claim(cluster: Cluster, tenant: str, name: str) -> None:
    """Make the sample claim under another name."""
    text = CLAIM.read_text().replace("name: results-pvc", f"name: {name}")
    assert name in text
    cluster.kubectl("-n", tenant, "apply", "-f", "-", stdin=text)


def mounting_template(folder: Path, name: str, claim: str, script: str) -> str:
    """Write a Job template that runs `script` with the claim at /results."""
    volume = {"name": "results", "persistentVolumeClaim": {"claimName": claim}}
    mount = {"name": "results", "mountPath": "/results"}
    return write_template(
        folder, name, script=script, container={"volumeMounts": [mount]}, pod={"volumes": [volume]}
    )


def pod_that_waits(cluster: Cluster, job_watch: JobWatch, task_id: str) -> Json:
    """Return the pod of the task's Job, when its node has looked for its volumes."""
    job = job_watch.wait_job(task_id)
    path = f"/api/v1/namespaces/{job.namespace}/pods?labelSelector=job-name%3D{job.name}"

    def look() -> list[Json]:
        pods: list[Json] = cluster.client.request("GET", path)["items"]
        return [pod for pod in pods if "containerStatuses" in pod["status"]]

    return wait_for(look, 30, "a pod that its node knows")[0]


@pytest.mark.parametrize("owner", TENANTS)
@pytest.mark.parametrize("spelling", ["{claim}", "{owner}/{claim}", "../{owner}/{claim}"])
def test_a_job_never_gets_the_others_claim(
    *,
    cluster: Cluster,
    start_worker: StartWorker,
    client: Celery,
    job_watch: JobWatch,
    tmp_path: Path,
    claim: str,
    owner: str,
    spelling: str,
) -> None:
    thief = other(owner)
    done = report_script(report("done"))
    keep = mounting_template(tmp_path, "keep", claim, f"echo {SECRET} > /results/file; {done}")
    take = mounting_template(
        tmp_path,
        "take",
        spelling.format(claim=claim, owner=owner),
        f"if test -e /results/file; then exit 3; fi; {done}",
    )
    make_claim(cluster, owner, claim)
    start_worker({"pods.keep": keep}, tenant=owner)
    start_worker({"pods.take": take}, tenant=thief)
    assert client.send_task("pods.keep", queue=owner).get(timeout=30) == "done"
    taken = client.send_task("pods.take", queue=thief)
    pod = pod_that_waits(cluster, job_watch, taken.id)
    (status,) = pod["status"]["containerStatuses"]
    assert pod["metadata"]["namespace"] == thief
    assert status["state"]["waiting"]["reason"] == "ContainerCreating"
    assert "not found" in status["state"]["waiting"]["message"]
    if spelling == "{claim}":
        # One of its own by that name is another one, with nothing in it.
        make_claim(cluster, thief, claim)
        assert taken.get(timeout=30) == "done"
