"""Results up to their limit, through the log; above it, or tampered with, they are failures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from job_template import report_script, write_template
from kubernetes_worker import KubernetesWorker
from petiole import exceptions

TENANT = "tenant-admin"
LIMIT = 1024 * 1024
AROUND = len('{"result": ""}')  # what the runner writes around a text
SIZE = 50_000
StartWorker = Callable[..., KubernetesWorker]


def test_a_result_of_one_mebibyte_comes_back_and_a_larger_one_fails(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    start_worker({"pods.same": write_template(tmp_path, "same")})
    sizes = (LIMIT - AROUND, LIMIT - AROUND + 1)
    results = [client.send_task("pods.same", args=(size,), queue=TENANT) for size in sizes]
    assert results[0].get(timeout=60) == "x" * sizes[0]
    with pytest.raises(exceptions.ResultTooLarge) as caught:
        results[1].get(timeout=60)
    assert f"over the limit of {LIMIT}" in str(caught.value)


def moved(change: str) -> str:
    """Return shell commands that report a large result after long lines of the task's own.

    The payload goes through `change` on its way into the log; the digest is of the whole one.
    """
    payload = json.dumps({"result": "y" * SIZE})
    digest = hashlib.sha256(payload.encode()).hexdigest()
    whole: dict[str, Any] = {"v": 1, "state": "SUCCESS", "traceback": None}
    left = json.dumps({**whole, "bytes": len(payload), "sha256": digest})
    lines = f"printf %s '{payload}' | {change} | base64 -w 3840"
    number = "awk '{ line[NR] = $0 } END { for (n = 1; n <= NR; n++) "
    number += 'print "::petiole-result " n "/" NR " " line[n] }\''
    own = "yes $(head -c 100000 /dev/zero | tr '\\0' x) | head -n 40"
    return f"{own}; {lines} | {number}; {report_script(left)}"


@pytest.mark.parametrize(
    ("change", "why"),
    [("cat", ""), ("tr y z", "SHA-256"), ("head -c 40000", "bytes")],
    ids=["whole", "changed", "cut"],
)
def test_a_large_result_is_believed_only_when_its_digest_fits(
    start_worker: StartWorker, client: Celery, tmp_path: Path, change: str, why: str
) -> None:
    start_worker({"pods.moved": write_template(tmp_path, "moved", script=moved(change))})
    result = client.send_task("pods.moved", queue=TENANT)
    if not why:
        assert result.get(timeout=30) == "y" * SIZE
        return
    with pytest.raises(exceptions.ResultLost, match=why):
        result.get(timeout=30)
