"""Where Jobs run: on this machine, or in a cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from build import BuildError
from cluster import Cluster, ClusterError
from fake_kubelet import NODE, FakeKubelet
from kube_client import TRANSIENT_ERRORS, ApiError

from programs import DemoError

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
KUBERNETES = TOP / "k8s"
WORKER = "petiole"  # of k8s/base/deployment.yaml
ACCOUNT = "petiole"  # of k8s/base/serviceaccount.yaml
CONFIG_MAP = "petiole-config"  # of k8s/base/configmap.yaml
# What is left when the demo is stopped half-way. Finished Jobs go by themselves.
UNFINISHED = (
    *("--selector", "app.kubernetes.io/managed-by=petiole"),
    *("--field-selector", "status.successful=0", "--cascade=foreground"),
)
DELETE_S = 30
TASK_LABEL = "petiole.dev/task-id"


@dataclass(frozen=True)
class Job:
    """What a task became."""

    namespace: str
    name: str


class Place(Protocol):
    """A place where Jobs run."""

    def worker_environment(self, tenant: str) -> dict[str, str]:
        """Return what a tenant's worker needs in its environment to run Jobs here."""

    def find_job(self, tenant: str, task_id: str) -> Job:
        """Return the Job of a task; raise DemoError unless there is exactly one."""

    def show(self) -> str:
        """Return what there is to see at the end, may be empty."""


class Machine:
    """Jobs are processes of this machine."""

    def __init__(self, folder: Path) -> None:
        """Keep their output below `folder`."""
        self._folder = folder

    def worker_environment(self, tenant: str) -> dict[str, str]:
        """Return the variables for the local executor."""
        return {
            "PETIOLE_CONFIG": str(HERE / "petiole.yaml"),
            "PETIOLE_KUBERNETES_NAMESPACE": tenant,
            "PETIOLE_LOCAL_LOG_DIR": str(self._log_folder(tenant)),
        }

    def find_job(self, tenant: str, task_id: str) -> Job:
        """Return the Job whose output is kept in the tenant's folder."""
        found = [path.stem for path in self._log_folder(tenant).glob(f"*{task_id}*.log")]
        return Job(tenant, _only(found, task_id))

    def show(self) -> str:
        """Return nothing."""
        return ""

    def _log_folder(self, tenant: str) -> Path:
        return self._folder / f"jobs-{tenant}"


class Kubernetes:
    """Jobs run in a cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Keep the settings of the tenants below `folder`."""
        self._cluster = cluster
        self._folder = folder

    def worker_environment(self, tenant: str) -> dict[str, str]:
        """Return the variables for the executor kubernetes: the ServiceAccount's credentials.

        The settings and the template are those of the tenant's ConfigMap, as in its Deployment.
        """
        text = self.kubectl("get", "configmap", CONFIG_MAP, "-n", tenant, "--output", "json")
        folder = self._folder / f"config-{tenant}"
        folder.mkdir(exist_ok=True)
        for name, content in json.loads(text)["data"].items():
            (folder / name).write_text(content)
        return {
            "PETIOLE_CONFIG": str(folder / "petiole.yaml"),
            "KUBECONFIG": str(self._cluster.kubeconfig_for(tenant, ACCOUNT)),
        }

    def find_job(self, tenant: str, task_id: str) -> Job:
        """Return the Job with the task's label, wherever in the cluster it is."""
        selector = f"{TASK_LABEL}={task_id}"
        text = self.kubectl("get", "jobs", "-A", "--selector", selector, "--output", "json")
        found = [each["metadata"] for each in json.loads(text)["items"]]
        name = _only([each["name"] for each in found], task_id)
        return Job(found[0]["namespace"], name)

    def show(self) -> str:
        """Return what kubectl shows of Jobs and pods."""
        return "$ kubectl get jobs,pods -A\n" + self.kubectl("get", "jobs,pods", "-A").rstrip()

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Return what kubectl prints; raise DemoError when it fails."""
        try:
            return self._cluster.kubectl(*arguments, stdin=stdin)
        except ClusterError as error:
            raise DemoError(str(error)) from error

    def is_running(self, tenant: str, task_id: str) -> bool:
        """Return whether the task has a pod that runs."""
        chosen = (f"--selector={TASK_LABEL}={task_id}", "--field-selector=status.phase=Running")
        return bool(self.kubectl("get", "pods", "-n", tenant, *chosen, "--output", "name"))

    def check_is_free(self, tenant: str) -> None:
        """Raise DemoError when the tenant has a worker: its settings would be overwritten."""
        text = self.kubectl("get", "deployments", "-n", tenant, "--output", "name")
        if f"/{WORKER}\n" in text:
            raise DemoError(f"{tenant} has a worker in this cluster: the demo needs another one")

    def prepare(self, tenants: tuple[str, ...]) -> None:
        """Apply the project's own files: namespaces, quota, rights, settings, volume claim."""
        for path in sorted((KUBERNETES / "tenants").glob("*.yaml")):
            self.kubectl("apply", "-f", path)
        for tenant in tenants:
            overlay = self.kubectl("kustomize", KUBERNETES / "overlays" / tenant)
            # The worker itself runs on this machine, beside the queue.
            objects = overlay.split("\n---\n")
            objects = [each for each in objects if "\nkind: Deployment\n" not in each]
            self.kubectl("apply", "-f", "-", stdin="\n---\n".join(objects))
            claim = KUBERNETES / "samples" / "results-pvc.yaml"
            self.kubectl("apply", "-n", tenant, "-f", claim)


@contextmanager
def kubernetes(
    folder: Path, tenants: tuple[str, ...], python: Path, pythonpath: str
) -> Iterator[Place]:
    """Let Jobs run in the cluster of KUBECONFIG, else in one that is there while the block runs.

    A cluster without nodes gets a kubelet that runs containers as processes of this machine, by
    the interpreter `python` and with `pythonpath`. In somebody else's cluster the tenants'
    namespaces stay, with what `prepare` applies.

    Raises:
        DemoError: The cluster cannot be started or used.
    """
    with ExitStack() as stack:
        try:
            directory = folder / "cluster"
            directory.mkdir()
            if kubeconfig := os.environ.get("KUBECONFIG"):
                cluster = Cluster.of_kubeconfig(Path(kubeconfig), directory)
            else:
                cluster = stack.enter_context(Cluster(directory))
            place = Kubernetes(cluster, folder)
            if not cluster.client.request("GET", "/api/v1/nodes")["items"]:
                stack.callback(_delete, cluster, "node", NODE)
                kubelet = FakeKubelet(cluster, python=str(python), pythonpath=pythonpath)
                stack.enter_context(kubelet)
        except (ClusterError, BuildError, ApiError, *TRANSIENT_ERRORS) as error:
            raise DemoError(f"the cluster cannot be used: {error}") from error
        for tenant in tenants:
            place.check_is_free(tenant)
            stack.callback(_delete, cluster, "jobs", "-n", tenant, *UNFINISHED)
        place.prepare(tenants)
        yield place


def _delete(cluster: Cluster, *what: str) -> None:
    """Delete objects from somebody's cluster; ours goes as a whole. Tells what resists."""
    if cluster.is_owned:
        return
    try:
        cluster.kubectl("delete", *what, "--ignore-not-found", f"--timeout={DELETE_S}s")
    except ClusterError as error:
        print(f"demo: {error}", file=sys.stderr)


def _only(found: list[str], task_id: str) -> str:
    if len(found) != 1:
        raise DemoError(f"task {task_id} has {len(found)} Jobs: {', '.join(found)}")
    return found[0]
