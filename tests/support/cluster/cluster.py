#!/usr/bin/env python3
"""A real Kubernetes control plane on this machine: etcd, API server and controller manager.

As a library: ``with Cluster() as cluster: cluster.kubectl("get", "namespaces")``. Everything
listens on free ports of 127.0.0.1, runs in sessions of its own and dies with the program that
started it. There is no kubelet: pods stay pending unless a FakeKubelet runs (fake_kubelet.py).

As a command (exit code 0, or 1 with a sentence on standard error):

    cluster.py up --dir DIR [--fake-kubelet ...]   start in the background, print the kubeconfig
    cluster.py down --dir DIR                      stop it and delete what it kept in etcd
    cluster.py run --dir DIR [--fake-kubelet ...]  the same in the foreground until Ctrl-C

With ``--owner-pid PID`` a cluster in the background ends by itself when that process has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from fake_kubelet import add_kubelet_options, kubelet_of_options
from kube_client import TRANSIENT_ERRORS, ApiError, Json, KubeClient, client_of_kubeconfig
from pki import make_cluster_pki
from processes import Spawner, free_port, kill_session, stop_process, wait_for_exit

from build import BuildError, binaries

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
# Neither the node lifecycle controller (fake nodes send no heartbeats) nor anything that needs a
# cloud or a disk.
CONTROLLERS = (
    "job-controller",
    "cronjob-controller",
    "deployment-controller",
    "replicaset-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "resourcequota-controller",
    "ttl-after-finished-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "disruption-controller",
)


class ClusterError(RuntimeError):
    """The cluster cannot be started or used; the text says why in a sentence."""


class Cluster:
    """One control plane. Its attributes hold from start() on.

    ``directory`` (state and logs), ``kubeconfig`` (the admin's), ``ca``, ``url``, ``client`` (a
    KubeClient of the admin), ``is_owned`` (False: somebody else's, it cannot be restarted).
    """

    def __init__(
        self,
        directory: Path | None = None,
        apiserver_arguments: Sequence[str] = (),
        programs: Path | None = None,
    ) -> None:
        """State goes to DIRECTORY, else to a temporary folder that stop() deletes.

        PROGRAMS is a folder as build.binaries() gives it, and is asked for there by default.
        """
        self._is_temporary = directory is None
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="petiole-cluster-"))).resolve()
        self.programs = programs or binaries()
        self.is_owned = True
        self.kubeconfig = self.directory / "kubeconfig"
        self.ca = self.directory / "pki" / "ca.crt"
        self.url = ""
        self.client: KubeClient
        self._apiserver_arguments = tuple(apiserver_arguments)
        self._spawner = Spawner()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def of_kubeconfig(cls, kubeconfig: Path, directory: Path | None = None) -> Cluster:
        """Return a Cluster, ready to use, for a control plane that somebody else runs."""
        cluster = cls(directory)
        cluster.directory.mkdir(parents=True, exist_ok=True)
        cluster.is_owned = False
        cluster.kubeconfig = kubeconfig.resolve()
        cluster.client = client_of_kubeconfig(kubeconfig, str(cluster.programs / "kubectl"))
        cluster.url = cluster.client.url
        cluster.ca = cluster.directory / "ca.crt"
        cluster.ca.write_text(cluster._published_ca())
        return cluster

    def __enter__(self) -> Cluster:
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
        """Start everything and wait until pods can be created. Raises ClusterError.

        The state of an earlier cluster in the same directory is deleted.
        """
        for name in ("pki", "log", "etcd"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(parents=True)
        pki = self.directory / "pki"
        make_cluster_pki(pki)
        self._etcd_port, self._port = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.client = KubeClient(self.url, self.ca, (pki / "admin.crt", pki / "admin.key"))
        credentials = f"client-certificate: {pki}/admin.crt\n    client-key: {pki}/admin.key"
        self._write_kubeconfig(self.kubeconfig, "default", credentials)
        try:
            self._start_etcd()
            self.start_apiserver()
            self._start_controller_manager()
            self.wait("/api/v1/namespaces/default/serviceaccounts/default", bool, READY_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything at once; nothing is worth keeping. A temporary directory goes too.

        Nothing happens to a control plane that is not owned. May be called again.
        """
        # SIGTERM would make the API server wait a minute for its open watches.
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._kill(name)
        self._spawner.close()
        if self.is_owned:
            shutil.rmtree(self.directory / "etcd", ignore_errors=True)
        if self._is_temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill_apiserver(self) -> None:
        """Kill the API server with SIGKILL; etcd keeps all objects."""
        self._must_be_owned()
        self._kill("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start the API server on its old port and wait until it is ready."""
        self._must_be_owned()
        pki = self.directory / "pki"
        self._spawn(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            *("--bind-address=127.0.0.1", f"--secure-port={self._port}"),
            *("--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"),
            *(f"--tls-cert-file={pki}/server.crt", f"--tls-private-key-file={pki}/server.key"),
            f"--client-ca-file={self.ca}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            *("--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC"),
            # For pods/log. Certificates of nodes are not checked, so that any kubelet can join.
            "--kubelet-preferred-address-types=Hostname,InternalIP",
            "--profiling=false",
            *self._apiserver_arguments,
        )
        self._wait_until_ready("kube-apiserver")

    def kill_controllers(self) -> None:
        """Kill the controller manager for good: objects stay as the API server got them."""
        self._must_be_owned()
        self._kill("kube-controller-manager")

    def restart_apiserver(self) -> None:
        """Kill the API server and start it again: watches break, old versions are gone."""
        self.kill_apiserver()
        self.start_apiserver()

    def compact(self) -> None:
        """Let etcd forget all old versions. The API server's memory of them ends with a restart."""
        self._must_be_owned()
        now = self._ask_etcd("range", {"key": "AA=="})["header"]["revision"]
        self._ask_etcd("compaction", {"revision": now, "physical": True})

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run kubectl as the admin and return its output. Raises ClusterError with its errors."""
        answer = subprocess.run(
            [str(self.programs / "kubectl"), *map(str, arguments)],
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.directory)},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: {answer.stderr.strip()}")
        return answer.stdout

    def apply(self, path: Path, kinds: Collection[str] = ()) -> str:
        """Apply the manifest at PATH, or the kustomization when it is a folder that has one.

        KINDS, when given, are the only ones that are applied.
        """
        option = "-k" if (path / "kustomization.yaml").is_file() else "-f"
        if not kinds:
            return self.kubectl("apply", option, path)
        rendered = self.kubectl("apply", "--dry-run=client", "-o", "json", option, path)
        wanted = [each for each in json.loads(rendered)["items"] if each["kind"] in kinds]
        chosen = {"apiVersion": "v1", "kind": "List", "items": wanted}
        return self.kubectl("apply", "-f", "-", stdin=json.dumps(chosen))

    def token(self, namespace: str, serviceaccount: str, seconds: int = 3600) -> str:
        """Return a new token of a ServiceAccount; the API server grants no less than 600 s."""
        answer = self.client.patient(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{serviceaccount}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        return str(answer["status"]["token"])

    def kubeconfig_for(self, namespace: str, serviceaccount: str, seconds: int = 3600) -> Path:
        """Write a kubeconfig of a ServiceAccount, with its token in a file beside it."""
        token = self.directory / f"token-{namespace}-{serviceaccount}"
        token.touch(mode=0o600)
        token.write_text(self.token(namespace, serviceaccount, seconds))
        path = self.directory / f"kubeconfig-{namespace}-{serviceaccount}"
        self._write_kubeconfig(path, namespace, f"tokenFile: {token}")
        return path

    def wait(
        self, path: str, until: Callable[[Json | None], bool], seconds: float = 30.0
    ) -> Json | None:
        """As KubeClient.wait(); the TimeoutError also names programs that have died."""
        try:
            return self.client.wait(path, until, seconds)
        except TimeoutError as error:
            dead = [name for name, each in self._processes.items() if each.poll() is not None]
            if dead:
                raise ClusterError(f"{', '.join(dead)} died; see {self.directory}/log") from error
            raise

    def _must_be_owned(self) -> None:
        if not self.is_owned:
            raise ClusterError("this control plane was started by somebody else")

    def _published_ca(self) -> str:
        path = "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"
        return str(self.client.request("GET", path)["data"]["ca.crt"])

    def _ask_etcd(self, what: str, question: Json) -> Json:
        url = f"http://127.0.0.1:{self._etcd_port}/v3/kv/{what}"
        request = urllib.request.Request(url, json.dumps(question).encode())
        with urllib.request.urlopen(request) as answer:
            found: Json = json.load(answer)
        return found

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            self._processes[name] = self._spawner.start([self.programs / name, *arguments], log)

    def _kill(self, name: str) -> None:
        if process := self._processes.pop(name, None):
            kill_session(process)
            process.wait()

    def _start_etcd(self) -> None:
        peers = f"http://127.0.0.1:{free_port()}"
        clients = f"http://127.0.0.1:{self._etcd_port}"
        self._spawn(
            "etcd",
            f"--data-dir={self.directory}/etcd",
            *(f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}"),
            *(f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}"),
            f"--initial-cluster=default={peers}",
            *("--log-level=warn", "--unsafe-no-fsync"),
        )

    def _start_controller_manager(self) -> None:
        self._spawn(
            "kube-controller-manager",
            *(f"--kubeconfig={self.kubeconfig}", "--leader-elect=false"),
            *("--bind-address=127.0.0.1", "--secure-port=0"),
            f"--service-account-private-key-file={self.directory}/pki/sa.key",
            *(f"--root-ca-file={self.ca}", "--use-service-account-credentials=false"),
            f"--controllers={','.join(CONTROLLERS)}",
            # The defaults (20 and 30) would make many Jobs wait for the test machine's sake.
            *("--kube-api-qps=200", "--kube-api-burst=400", "--concurrent-job-syncs=20"),
        )

    def _wait_until_ready(self, name: str) -> None:
        process = self._processes[name]
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if self.client.raw("GET", "/readyz") == (200, "ok"):
                    return
            except TRANSIENT_ERRORS:
                pass
            wait_for_exit(process.pid, 0.1)
        raise ClusterError(f"{name} did not become ready; see {self.directory}/log/{name}.log")

    def _write_kubeconfig(self, path: Path, namespace: str, credentials: str) -> None:
        path.touch(mode=0o600)
        path.write_text(
            f"""apiVersion: v1
kind: Config
clusters:
- name: test
  cluster:
    server: {self.url}
    certificate-authority: {self.ca}
users:
- name: test
  user:
    {credentials}
contexts:
- name: test
  context:
    cluster: test
    user: test
    namespace: {namespace}
current-context: test
"""
        )


def run(options: argparse.Namespace) -> None:
    """Run a cluster until SIGTERM, SIGINT or the end of the owner; print one line when ready."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cluster = Cluster(options.dir)
    cluster.directory.mkdir(parents=True, exist_ok=True)
    record = cluster.directory / "supervisor.pid"
    record.write_text(str(os.getpid()))
    with cluster, ExitStack() as stack:
        if options.fake_kubelet:
            stack.enter_context(kubelet_of_options(cluster, options))
        if options.owner_pid:
            threading.Thread(
                target=_set_when_gone, args=(options.owner_pid, stop), daemon=True
            ).start()
        print(f"export KUBECONFIG={cluster.kubeconfig}", flush=True)
        stop.wait()
    record.unlink()


def _set_when_gone(pid: int, stop: threading.Event) -> None:
    wait_for_exit(pid)
    stop.set()


def up(options: argparse.Namespace) -> None:
    """Start `run` in the background and wait until it is ready. Raises ClusterError."""
    down(options)
    options.dir.mkdir(parents=True, exist_ok=True)
    binaries()
    arguments = ["run" if word == "up" else word for word in sys.argv[1:]]
    log = options.dir / "supervisor.log"
    with log.open("wb") as errors:
        supervisor = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        line = _first_line(supervisor)
    except BaseException:
        stop_process(supervisor.pid, STOP_SECONDS)
        raise
    if not line:
        raise ClusterError(f"the cluster did not start: {log.read_text().strip()[-2000:]}")
    print(line)


def _first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    select.select([process.stdout], [], [], 2 * READY_SECONDS)
    return process.stdout.readline().decode().strip()


def down(options: argparse.Namespace) -> None:
    """Stop the cluster of the directory, if there is one."""
    record = options.dir / "supervisor.pid"
    try:
        pid = int(record.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    # The number may belong to another program by now.
    if Path(__file__).name.encode() in command:
        stop_process(pid, STOP_SECONDS)
    record.unlink(missing_ok=True)


def main() -> int:
    """Do what the command line says; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(required=True, metavar="up|down|run")
    for action in (up, run, down):
        command = commands.add_parser(action.__name__, help=(action.__doc__ or "").split(".")[0])
        command.set_defaults(action=action)
        command.add_argument("--dir", type=Path, required=True, help="folder for state and logs")
        if action is not down:
            command.add_argument("--owner-pid", type=int, help="end when this process ends")
            command.add_argument("--fake-kubelet", action="store_true", help="really run pods")
            add_kubelet_options(command)
    options = parser.parse_args()
    options.dir = options.dir.resolve()
    try:
        options.action(options)
    except (ClusterError, BuildError, ApiError, OSError, TimeoutError) as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
