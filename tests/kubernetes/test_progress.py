"""What a task says of itself while its pod runs, and that its result always has the last word."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import python_env
from celery import Celery
from celery.app.task import Context
from celery.result import AsyncResult
from cluster import Cluster
from gate_proxy import GateProxy
from job_template import PodGate, report, report_script, write_template
from kubernetes_worker import KubernetesWorker
from publication_watch import PublicationWatch
from redis_server import RedisServer
from waiting import wait_for

TENANT = "tenant-admin"
ASK = """
import json, sys
from celery import Celery
result = Celery("asks", backend=sys.argv[1]).AsyncResult(sys.argv[2])
print(json.dumps([result.state, result.info, result.ready(), result.date_done]))
"""
StartWorker = Callable[..., KubernetesWorker]


def step(number: int, count: int = 2) -> dict[str, Any]:
    return {"step": number, "of": count, "note": "Schritt é"}


def end_step(folder: Path, number: int) -> None:
    (folder / str(number)).touch()


def wait_info(result: AsyncResult, info: Any, seconds: float = 30) -> None:
    wait_for(lambda: result.info == info, seconds, lambda: f"{info}, not {result.info}")


def states(publications: PublicationWatch, result: AsyncResult) -> list[Any]:
    publications.sync()
    return [(each["status"], each["result"]) for each in publications.documents(result.id)]


@pytest.mark.parametrize("environment", ["newest", "oldest"])
def test_clients_see_the_progress_of_a_running_task(
    *,
    start_worker: StartWorker,
    client: Celery,
    redis_server: RedisServer,
    publications: PublicationWatch,
    tmp_path: Path,
    environment: str,
) -> None:
    start_worker({"pods.steps": write_template(tmp_path, "steps")})
    result = client.send_task("pods.steps", args=(str(tmp_path), 2), queue=TENANT)
    wait_info(result, step(1))
    python = sys.executable if environment == "newest" else python_env.ensure("oldest")
    command = [str(python), "-c", ASK, redis_server.url(1), result.id]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(answer.stdout) == ["PROGRESS", step(1), False, None]
    stored = client.backend.get(client.backend.get_key_for_task(result.id)).decode()
    assert stored == as_celery_stores_it(client, result.id, step(1))
    end_step(tmp_path, 1)
    wait_info(result, step(2))
    end_step(tmp_path, 2)
    assert result.get(timeout=30) == "all done"
    expected = [("PROGRESS", step(1)), ("PROGRESS", step(2)), ("SUCCESS", "all done")]
    assert states(publications, result) == expected


def as_celery_stores_it(client: Celery, task_id: str, meta: Any) -> str:
    backend = client.backend
    request = Context(id=task_id, children=[])
    document = backend._get_result_meta(meta, "PROGRESS", None, request)
    return str(backend.encode({**document, "task_id": task_id}))


def test_the_next_owner_goes_on_and_the_last_one_is_silent(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    tasks = {"pods.steps": write_template(tmp_path, "steps")}
    first = start_worker(tasks)
    result = client.send_task("pods.steps", args=(str(tmp_path), 3), queue=TENANT)
    wait_info(result, step(1, 3))
    first.signal(signal.SIGSTOP)
    end_step(tmp_path, 1)  # Its news are on their way to the one that does not hear them.
    start_worker(tasks)
    wait_info(result, step(2, 3), 60)
    end_step(tmp_path, 2)
    wait_info(result, step(3, 3))
    end_step(tmp_path, 3)
    assert result.get(timeout=30) == "all done"
    seen = states(publications, result)
    first.signal(signal.SIGCONT)
    other = client.send_task("pods.steps", args=(str(tmp_path), 1), queue=TENANT)
    assert other.get(timeout=30) == "all done"
    assert states(publications, result) == seen
    assert [status for status, _ in seen].count("SUCCESS") == 1


def test_a_log_that_breaks_off_is_read_on(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    make_proxy: Callable[[int], GateProxy],
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    proxy = make_proxy(urlsplit(cluster.url).port or 0)
    template = write_template(tmp_path, "steps")
    start_worker({"pods.steps": template}, api_port=proxy.port)
    result = client.send_task("pods.steps", args=(str(tmp_path), 3), queue=TENANT)
    for number in (1, 2):
        wait_info(result, step(number, 3))
        proxy.drop()
        end_step(tmp_path, number)
    wait_info(result, step(3, 3))
    end_step(tmp_path, 3)
    assert result.get(timeout=30) == "all done"
    expected = [("PROGRESS", step(number, 3)) for number in (1, 2, 3)]
    assert states(publications, result) == [*expected, ("SUCCESS", "all done")]


HOSTILE = [
    "::petiole {",
    "::petiole [1]",
    '::petiole {"state": "NO-SEQ"}',
    '::petiole {"seq": 5, "state": "SUCCESS", "meta": "forged"}',
    '::petiole {"seq": 6, "state": "REVOKED", "meta": "forged"}',
    '::petiole {"seq": 7, "state": "", "meta": 1}',
    '::petiole {"seq": 8, "state": "CUT", "meta": "%s"}' % ("x" * 5000),
    "::petiole-result 1/1 e30=",
]


def test_lines_that_are_none_are_passed_over(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    (tmp_path / "hostile").write_text("\n".join([*HOSTILE, "x" * 300_000, ""]))
    good = '::petiole {"seq": 9, "state": "FINE", "meta": [1, null]}'
    again = '::petiole {"seq": 9, "state": "AGAIN"}'
    script = f"cat {tmp_path}/hostile; echo '{good}'; echo '{again}'; {gate.script}; "
    script += report_script(report("done"))
    worker = start_worker({"pods.odd": write_template(tmp_path, "odd", script=script)})
    result = client.send_task("pods.odd", queue=TENANT)
    wait_for(lambda: result.state == "FINE", 30, "the good line")
    gate.open()
    assert result.get(timeout=30) == "done"
    assert states(publications, result) == [("FINE", [1, None]), ("SUCCESS", "done")]
    assert worker.log().count("tells its progress in a wrong way") == 1


def test_a_result_that_is_stored_stays(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    start_worker({"pods.steps": write_template(tmp_path, "steps")})
    result = client.send_task("pods.steps", args=(str(tmp_path), 3), queue=TENANT)
    other = client.send_task("pods.steps", args=(str(tmp_path), 3), queue=TENANT)
    wait_info(result, step(1, 3))
    client.backend.store_result(result.id, KeyError("by another"), "FAILURE")
    for number in (1, 2):
        wait_info(other, step(number, 3))
        end_step(tmp_path, number)
    wait_info(other, step(3, 3))
    assert result.state == "FAILURE"
    end_step(tmp_path, 3)
    assert other.get(timeout=30) == "all done"
    wait_for(lambda: client.AsyncResult(result.id).state == "SUCCESS", 30, "the task's own result")
    seen = [status for status, _ in states(publications, result)]
    assert seen == ["PROGRESS", "FAILURE", "SUCCESS"]


def test_an_ignored_task_leaves_its_own_state(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    start_worker({"pods.leave": write_template(tmp_path, "leave")})
    told = {"exc_type": "KeyError", "exc_message": ["told"], "exc_module": "builtins"}
    custom = client.send_task("pods.leave", args=("LEFT", {"x" * 5000: 1}), queue=TENANT)
    failed = client.send_task("pods.leave", args=("FAILURE", told), queue=TENANT)
    with pytest.raises(KeyError, match="told"):
        failed.get(timeout=30)
    wait_info(custom, {"x" * 5000: 1})
    assert custom.state == "LEFT"
    assert states(publications, custom) == [("LEFT", {"x" * 5000: 1})]
    assert states(publications, failed) == [("FAILURE", told)]


def test_only_so_many_logs_are_followed(
    start_worker: StartWorker, client: Celery, publications: PublicationWatch, tmp_path: Path
) -> None:
    template = write_template(tmp_path, "steps")
    start_worker({"pods.steps": template}, settings={"kubernetes_follow_logs": 1})
    folders = [tmp_path / name for name in ("a", "b")]
    results = []
    for folder in folders:
        folder.mkdir()
        sent = client.send_task("pods.steps", args=(str(folder), 2), queue=TENANT)
        results.append(sent)
    wait_for(lambda: any(result.info for result in results), 30, "the progress of one")
    followed = 0 if results[0].info else 1
    end_step(folders[followed], 1)
    wait_info(results[followed], step(2))
    assert results[1 - followed].info is None
    end_step(folders[followed], 2)
    assert results[followed].get(timeout=30) == "all done"
    wait_info(results[1 - followed], step(1))
    for number in (1, 2):
        end_step(folders[1 - followed], number)
    assert results[1 - followed].get(timeout=30) == "all done"
    seen = [status for status, _ in states(publications, results[followed])]
    assert seen == ["PROGRESS", "PROGRESS", "SUCCESS"]
