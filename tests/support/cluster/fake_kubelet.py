#!/usr/bin/env python3
"""A kubelet without containers: it binds every pending pod and really runs its containers.

A container is a process of this machine that runs the container's command with its environment,
volumes, memory limit and deadline; its exit code, termination message and log are what the
process made them. What is not here: images (commands ``python`` and ``python3`` run the
interpreter that is given, any other command is looked up on PATH), mount namespaces
(pod_files.py says how paths are rewritten), users (everything runs as the kubelet's own), init
containers, probes, lifecycle hooks, CPU limits, networks of pods (podIP is 127.0.0.1).

An image whose name starts with ``petiole.test/missing`` cannot be pulled. There is no scheduler:
nodeSelector, taints and affinities are not looked at. ``kubectl logs`` works.

As a library: ``with FakeKubelet(cluster): ...``. As a command, until Ctrl-C:

    fake_kubelet.py --kubeconfig FILE --dir DIR [--python PATH] [--env KEY=VALUE] [--pythonpath P]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Protocol

from container_log import ContainerLog
from kube_client import (
    TRANSIENT_ERRORS,
    ApiError,
    Json,
    KubeClient,
    Watch,
    client_of_kubeconfig,
)
from kubelet_api import LogServer
from pki import make_node_pki
from pod_files import Machine
from pod_run import Host, PodRun
from processes import Spawner

NODE = "fake-node"
_PODS = "/api/v1/pods"
_RETRY_SECONDS = 0.2
_STOP_SECONDS = 10.0
_CONFLICT = 409


class ControlPlane(Protocol):
    """What a kubelet needs of a Cluster."""

    @property
    def client(self) -> KubeClient:
        """The administrator's client."""

    @property
    def directory(self) -> Path:
        """Where state may be kept."""


class FakeKubelet:
    """One node and its pods. Logs stay in ``directory/logs/NAMESPACE_POD_UID/CONTAINER/N.log``."""

    def __init__(
        self,
        cluster: ControlPlane,
        directory: Path | None = None,
        python: str = sys.executable,
        env: Mapping[str, str] | None = None,
        pythonpath: str = "",
    ) -> None:
        """DIRECTORY defaults to ``kubelet`` in the cluster's own.

        PYTHON stands for the images' interpreter; ENV is every container's, unless it sets the
        same name itself; PYTHONPATH goes before a container's own.
        """
        self.directory = (directory or cluster.directory / "kubelet").resolve()
        self._client = cluster.client
        self._stopping = threading.Event()
        self._spawner = Spawner()
        machine = Machine(python, dict(env or {}), pythonpath)
        self._host = Host(
            self._client, NODE, self.directory, machine, self._spawner, self._stopping
        )
        pki = self.directory / "pki"
        make_node_pki(pki)
        self._server = LogServer(self._find_log, pki / "server.crt", pki / "server.key")
        self._thread = threading.Thread(target=self._serve, name="fake-kubelet", daemon=True)
        self._lock = threading.Lock()
        self._pods: dict[str, PodRun] = {}
        self._uids: dict[tuple[str, str], str] = {}
        self._watch: Watch | None = None

    def __enter__(self) -> FakeKubelet:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    def start(self) -> None:
        """Register the node and begin to run pods. Raises what KubeClient.patient() does.

        A pod that an earlier kubelet was running has lost its processes, and fails.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._server.start()
        self._register()
        self._thread.start()

    def stop(self) -> None:
        """Kill all pods without a report, as when a node loses its power."""
        self._stopping.set()
        with self._lock:
            pods = list(self._pods.values())
            if self._watch:
                self._watch.close()
        for pod in pods:
            pod.vanish()
        for pod in pods:
            pod.join(_STOP_SECONDS)
        self._thread.join(_STOP_SECONDS)
        self._server.stop()
        self._spawner.close()

    def _register(self) -> None:
        labels = {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": labels}}
        try:
            self._client.patient("POST", "/api/v1/nodes", node)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        room = {"cpu": str(os.cpu_count()), "memory": str(memory_bytes), "pods": "1000"}
        status = {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._server.port}},
            "capacity": room,
            "allocatable": room,
        }
        path = f"/api/v1/nodes/{NODE}"
        self._client.patient("PATCH", f"{path}/status", {"status": status})
        # New nodes are tainted until a controller, which does not run here, finds them ready.
        self._client.patient("PATCH", path, {"spec": {"taints": None}})

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow(self._list())
            except (ApiError, *TRANSIENT_ERRORS):
                self._stopping.wait(_RETRY_SECONDS)

    def _list(self) -> str:
        """Bring everything in line with the server's pods, and return their resourceVersion."""
        found = self._client.request("GET", _PODS)
        there = {pod["metadata"]["uid"] for pod in found["items"]}
        for uid in set(self._pods) - there:
            self._forget(uid)
        for pod in found["items"]:
            self._handle(pod)
        return str(found["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        """Handle events until the watch ends, whyever."""
        with self._client.watch(_PODS, version) as watch:
            with self._lock:
                self._watch = watch
            for event in watch:
                if self._stopping.is_set() or event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    self._forget(event["object"]["metadata"]["uid"])
                elif event["type"] != "BOOKMARK":
                    self._handle(event["object"])

    def _handle(self, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if known := self._pods.get(uid):
            known.update(pod)
        elif pod["spec"].get("nodeName", NODE) == NODE and not pod["spec"].get("schedulingGates"):
            run = PodRun(pod, self._host)
            with self._lock:
                if self._stopping.is_set():
                    return
                self._pods[uid] = run
                self._uids[pod["metadata"]["namespace"], pod["metadata"]["name"]] = uid
                run.start()

    def _forget(self, uid: str) -> None:
        with self._lock:
            run = self._pods.pop(uid, None)
            self._uids = {name: each for name, each in self._uids.items() if each != uid}
        if run:
            run.vanish()

    def _find_log(
        self, namespace: str, pod: str, container: str, is_previous: bool
    ) -> ContainerLog | None:
        with self._lock:
            run = self._pods.get(self._uids.get((namespace, pod), ""))
        found = run.container(container) if run else None
        which = -2 if is_previous else -1
        return found.logs[which] if found and len(found.logs) >= -which else None


def add_kubelet_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that kubelet_of_options() reads."""
    parser.add_argument("--python", default=sys.executable, help="runs `python` and `python3`")
    parser.add_argument(
        "--env", action="append", default=[], metavar="KEY=VALUE", help="env of every container"
    )
    parser.add_argument("--pythonpath", default="", help="goes before every PYTHONPATH")


def kubelet_of_options(
    cluster: ControlPlane, options: argparse.Namespace, directory: Path | None = None
) -> FakeKubelet:
    """Return a kubelet as the command line wants it."""
    env = dict(entry.split("=", 1) for entry in options.env)
    return FakeKubelet(cluster, directory, options.python, env, options.pythonpath)


def main() -> int:
    """Run until SIGTERM or SIGINT; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="folder for volumes and logs")
    add_kubelet_options(parser)
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    client = client_of_kubeconfig(options.kubeconfig)
    plane = SimpleNamespace(client=client, directory=options.dir.resolve())
    with kubelet_of_options(plane, options, plane.directory):
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
