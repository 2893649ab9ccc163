"""A control plane with a real node, where the other tests have one whose containers are processes.

These fixtures take the place of those of the same name in the folder above. Tests here need root,
and Debian's packages for containers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import python_env
from cluster import Cluster
from image import Layer, add_python, write_image
from job_watch import JobWatch
from node import Node
from tenants import apply_tenants

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "docker.io/library/test:1"
PROGRAMS = ("cat", "dash", "env", "head", "sh", "sleep")
# What a pod imports, by PYTHONPATH.
MODULES = ("python-shim/src", "python-shim/demo", "tests/kubernetes/pod_tasks.py")


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with the tenants' namespaces, quota and worker ServiceAccounts."""
    with Cluster(tmp_path_factory.mktemp("node-cluster")) as own:
        apply_tenants(own)
        yield own


@pytest.fixture(scope="package")
def kubelet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run the node, with an image that has the oldest supported Celery and the tests' tasks."""
    archive = tmp_path_factory.mktemp("image") / "test.tar"
    write_test_image(archive)
    with Node(cluster) as running:
        running.load(archive)
        yield running


@pytest.fixture(scope="package")
def job_watch(cluster: Cluster) -> Iterator[JobWatch]:
    """Count the Jobs of all namespaces, from the first test that asks."""
    watch = JobWatch(cluster.client)
    yield watch
    watch.stop()


def write_test_image(archive: Path) -> None:
    """Write the image `test:1`."""
    python = python_env.ensure("oldest")
    layer = Layer()
    add_python(layer, python)
    for name in PROGRAMS:
        layer.add(Path("/usr/bin") / name)
    for each in MODULES:
        layer.add(ROOT / each)
    paths = {str((ROOT / each).parent if each.endswith(".py") else ROOT / each) for each in MODULES}
    env = {"PATH": f"{python.parent}:/usr/bin", "PYTHONPATH": ":".join(sorted(paths))}
    write_image(archive, IMAGE, layer, env)
