"""A real node beside a Cluster: scheduler, kubelet, containerd and runc, with real containers.

Kubelet and containerd live in a PID and a mount namespace whose first process the kernel kills
with the program that started it: their containers and mounts go with it, whatever happened. Their
control groups are below one of this node's own, so that several nodes fit on a machine.

Needs root, Debian's packages `containerd` and `containernetworking-plugins`, and control groups of
version 1 or 2 with a memory controller.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cluster import Cluster
from image import write_pause_image
from kube_client import ApiError, Json
from processes import Spawner, free_port, kill_session

from build import REQUIRED_OF_A_NODE, binaries

NODE = "localhost"
_PAUSE = "localhost/pause:1"
_PLUGINS = "/usr/lib/cni"
_CGROUPS = Path("/sys/fs/cgroup")
_CONTAINERD_SECONDS = 30.0
_READY_SECONDS = 180.0
_EMPTY_SECONDS = 10.0
_NEEDED = ("containerd", "ctr", "runc", "unshare")
# The first process of the namespaces: it starts both, and reaps what their containers leave.
_INIT = """
containerd --config "$1/containerd.toml" >"$1/log/containerd.log" 2>&1 &
until ctr -a "$1/containerd.sock" version >/dev/null 2>&1; do sleep 0.1; done
"$2/kubelet" --kubeconfig="$3" --config="$1/kubelet.json" --root-dir="$1/kubelet" \
    --hostname-override=localhost >"$1/log/kubelet.log" 2>&1 &
wait
"""


class NodeError(RuntimeError):
    """The node cannot be started; the text says why in a sentence."""


class Node:
    """One node, ready for pods from start() on."""

    def __init__(self, cluster: Cluster) -> None:
        """Give CLUSTER, which must be owned and have no other node, a node."""
        self._cluster = cluster
        self._programs = binaries(REQUIRED_OF_A_NODE)
        # Short, because a path of a socket may not be long.
        self.directory = Path(tempfile.mkdtemp(prefix="petiole-node-"))
        self._group = self.directory.name
        self._spawner = Spawner()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Node:
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
        """Start everything and wait until pods can be scheduled. Raises NodeError."""
        if missing := [name for name in _NEEDED if not shutil.which(name)]:
            raise NodeError(f"{', '.join(missing)} missing: apt-get install containerd")
        try:
            self._write_settings()
            for hierarchy in _hierarchies():
                (hierarchy / self._group).mkdir()
                _copy_cpuset(hierarchy / self._group)
            self._start_programs()
            self._wait_until_ready()
            pause = self.directory / "pause.tar"
            write_pause_image(pause, _PAUSE, self.directory)
            self.load(pause)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill everything, as when a node loses its power, and delete what it kept."""
        for process in reversed(self._processes):
            kill_session(process)
            process.wait()
        self._processes.clear()
        self._spawner.close()
        for hierarchy in _hierarchies():
            _delete_groups(hierarchy / self._group)
        shutil.rmtree(self.directory, ignore_errors=True)

    def load(self, archive: Path) -> None:
        """Give the node an image that image.write_image() wrote."""
        command = ["ctr", "-a", str(self._socket), "-n", "k8s.io", "images", "import"]
        done = subprocess.run([*command, str(archive)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NodeError(f"{archive.name} cannot be imported: {done.stderr.strip()}")

    def signal_kubelet(self, number: int) -> None:
        """Send a signal to the kubelet alone; SIGSTOP makes the node fall silent."""
        os.kill(self._find("kubelet"), number)

    @property
    def _socket(self) -> Path:
        return self.directory / "containerd.sock"

    def _find(self, name: str) -> int:
        """Return the number that a child of the first process of the namespaces has out here."""
        (child,) = _children(self._processes[0].pid)
        for pid in _children(child):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                return pid
        raise NodeError(f"{name} does not run; see {self.directory}/log")

    def _write_settings(self) -> None:
        for name in ("cni", "kubelet", "log", "logs"):
            (self.directory / name).mkdir()
        (self.directory / "containerd.toml").write_text(self._containerd_settings())
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{"type": "ptp", "ipam": self._addresses()}],
        }
        (self.directory / "cni" / "10-ptp.conflist").write_text(json.dumps(network))
        (self.directory / "kubelet.json").write_text(json.dumps(self._kubelet_settings()))

    def _addresses(self) -> Json:
        return {
            "type": "host-local",
            "dataDir": f"{self.directory}/cni/state",
            "ranges": [[{"subnet": "10.244.0.0/24"}]],
        }

    def _containerd_settings(self) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        return f"""
version = 2
root = "{self.directory}/root"
state = "{self.directory}/state"
[grpc]
  address = "{self._socket}"
[{cri}]
  sandbox_image = "{_PAUSE}"
  # Else it fails where even root may not make a process less likely to be killed.
  restrict_oom_score_adj = true
[{cri}.cni]
  bin_dir = "{_PLUGINS}"
  conf_dir = "{self.directory}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.directory}/opt"
"""

    def _kubelet_settings(self) -> Json:
        pki = self._cluster.directory / "pki"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": free_port(),
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group}",
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "podLogsDir": f"{self.directory}/logs",
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            # What this machine lacks is no reason to evict pods of a test.
            "evictionHard": {
                "memory.available": "0%",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "syncFrequency": "5s",
            # How old the use of a volume may be that the kubelet goes by; a minute by default.
            "volumeStatsAggPeriod": "2s",
            "tlsCertFile": f"{pki}/server.crt",
            "tlsPrivateKeyFile": f"{pki}/server.key",
        }

    def _start_programs(self) -> None:
        programs, kubeconfig = self._programs, self._cluster.kubeconfig
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        words = (self.directory, programs, kubeconfig)
        self._spawn("node", *namespaces, "sh", "-c", _INIT, "node", *map(str, words))
        self._spawn(
            "kube-scheduler",
            str(programs / "kube-scheduler"),
            *(f"--kubeconfig={kubeconfig}", "--leader-elect=false"),
            *("--bind-address=127.0.0.1", "--secure-port=0"),
        )

    def _spawn(self, name: str, *command: str) -> None:
        with (self.directory / "log" / f"{name}.log").open("ab") as log:
            self._processes.append(self._spawner.start(command, log))

    def _wait_until_ready(self) -> None:
        client, path = self._cluster.client, f"/api/v1/nodes/{NODE}"
        try:
            self._cluster.wait(path, _is_ready, _READY_SECONDS)
        except (TimeoutError, ApiError) as error:
            logs = self.directory / "log"
            tail = (logs / "kubelet.log").read_text()[-2000:] if logs.exists() else ""
            raise NodeError(f"the node did not become ready: {error}: {tail}") from error
        # New nodes are tainted until a controller, which does not run here, finds them ready.
        client.patient("PATCH", path, {"spec": {"taints": None}})


def _is_ready(node: Json | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _children(pid: int) -> list[int]:
    return [
        int(word)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]


def _hierarchies() -> Iterator[Path]:
    """Give the roots of the control groups: one, or with version 1 one for each controller."""
    if (_CGROUPS / "cgroup.controllers").exists():
        yield _CGROUPS
        return
    seen = set()
    for path in sorted(_CGROUPS.iterdir()):
        if path.is_dir() and (real := path.resolve()) not in seen:
            seen.add(real)
            yield real


def _copy_cpuset(group: Path) -> None:
    """Give a new group the processors of its parent, which version 1 does not do by itself."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(OSError):
            if not (group / name).read_text().strip():
                (group / name).write_text((group.parent / name).read_text())


def _delete_groups(top: Path) -> None:
    """Delete a control group with all below it, as soon as its processes are gone."""
    deadline = time.monotonic() + _EMPTY_SECONDS
    while top.exists() and time.monotonic() < deadline:
        for path in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()
            return
        time.sleep(0.05)
