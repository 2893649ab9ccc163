"""One task, one Job: what it looks like, how its result comes back, and how failures are told."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from cluster import Cluster
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from petiole import exceptions
from pod_tasks import UnluckyError, big
from publication_watch import PublicationWatch
from waiting import wait_for

TENANT = "tenant-admin"
StartWorker = Callable[..., KubernetesWorker]
JOBS = f"/apis/batch/v1/namespaces/{TENANT}/jobs"


def send(client: Celery, task: str, *args: Any, **options: Any) -> AsyncResult:
    return client.send_task(task, args=args, queue=TENANT, **options)


def failure_of(result: AsyncResult, timeout_s: float = 30.0) -> Exception:
    """Return what the client's get() raises."""
    with pytest.raises(Exception) as caught:
        result.get(timeout=timeout_s)
    assert not isinstance(caught.value, TimeoutError), "no result"
    return caught.value


def test_a_task_is_one_job_and_its_result_comes_back(
    *,
    start_worker: StartWorker,
    client: Celery,
    broker: redis.Redis,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    worker = start_worker({"pods.add": write_template(tmp_path, "add")})
    result = send(client, "pods.add", 20, 22)
    assert result.get(timeout=30) == 42
    job = job_watch.wait_job(result.id)
    job_watch.wait(lambda: job.is_reported and job.is_gone, what="the farewell")
    job_watch.sync()
    publications.sync()
    assert len(job_watch.of_task(result.id)) == 1
    assert publications.results(result.id) == ["SUCCESS"]
    wait_for(lambda: not broker.keys("unacked*"), what="nothing unacknowledged")
    assert not broker.exists(f"petiole:jobs:{TENANT}", TENANT)
    assert worker.log_count(r"Task pods\.add\[.*\] succeeded in .*s: 42") == 1


def test_the_job_is_named_labelled_and_annotated_after_its_task(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    script = f"{gate.script}; {report_script(report(1))}"
    template = write_template(tmp_path, "named", script=script)
    start_worker({"app.tasks.train_lora_with_care": template})
    known = send(client, "app.tasks.train_lora_with_care")
    odd = send(client, "app.tasks.train_lora_with_care", task_id="An Id/of my OWN")
    job = job_watch.wait_job(known.id)
    assert (job.namespace, job.name) == (TENANT, f"train-lora-w-{known.id}-0")
    assert job_watch.wait_job(odd.id).name == (
        f"train-lora-w-{hashlib.sha256(odd.id.encode()).hexdigest()[:32]}-0"
    )
    expected = {
        "app.kubernetes.io/managed-by": "petiole",
        "app.kubernetes.io/name": "app.tasks.train_lora_with_care",
        "app.kubernetes.io/component": "task",
        "petiole.dev/task-id": known.id,
        "petiole.dev/task-name": "app.tasks.train_lora_with_care",
        "petiole.dev/queue": TENANT,
        "petiole.dev/tenant": TENANT,
    }
    assert expected.items() <= job.labels.items()
    assert job.labels["petiole.dev/owner"]
    assert job_watch.wait_job(odd.id).labels["petiole.dev/task-id"] == "An-Id-of-my-OWN"
    assert job.annotations["petiole.dev/retries"] == "0"
    assert job.annotations["petiole.dev/delivery-tag"]
    assert len(job.annotations["petiole.dev/digest"]) == 64
    spec = job.object["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 86400)
    pod = spec["template"]["metadata"]
    assert expected.items() <= pod["labels"].items()
    message = json.loads(pod["annotations"]["petiole.dev/message"])
    assert (message["headers"]["id"], message["queue"]) == (known.id, TENANT)
    gate.open()
    assert (known.get(timeout=30), odd.get(timeout=30)) == (1, 1)


def test_the_ttl_is_short_only_after_the_report(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    script = f"{gate.script}; {report_script(report('done'))}"
    settings = {"kubernetes_result_ttl": 2}
    start_worker({"pods.wait": write_template(tmp_path, "wait", script=script)}, settings=settings)
    result = send(client, "pods.wait")
    job = job_watch.wait_job(result.id)
    assert job.object["spec"]["ttlSecondsAfterFinished"] == 86400
    gate.open()
    assert result.get(timeout=30) == "done"
    job_watch.wait(lambda: job.is_reported, what="the mark")
    assert job.object["spec"]["ttlSecondsAfterFinished"] == 2
    job_watch.wait(lambda: job.is_gone, what="the end of the TTL")


def test_an_exception_of_the_body_is_raised_as_its_own_class(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    start_worker({"pods.*": write_template(tmp_path, "fail")})
    unlucky = send(client, "pods.fail", "no luck today")
    builtin = send(client, "pods.add", 1, "one")
    unknown = send(client, "pods.no_such_task")
    error = failure_of(unlucky)
    assert (type(error), error.args) == (UnluckyError, ("no luck today",))
    assert "raise UnluckyError(message)" in str(unlucky.traceback)
    assert isinstance(failure_of(builtin), TypeError)
    assert type(failure_of(unknown)).__name__ == "NotRegistered"


def test_an_exit_without_a_report_names_the_exit_code(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    start_worker({"pods.crash": write_template(tmp_path, "crash", container=fallback)})
    error = failure_of(send(client, "pods.crash", 7))
    assert isinstance(error, exceptions.CrashExit)
    assert (error.category, error.exit_code, error.container) == ("CrashExit", 7, "main")
    assert "exit code 7" in str(error)
    assert "about to crash" in error.details["log"]


def test_a_signal_is_told_as_one(start_worker: StartWorker, client: Celery, tmp_path: Path) -> None:
    command = ["python", "-c", "import os; os.kill(os.getpid(), 11)"]
    start_worker({"pods.kill": write_template(tmp_path, "kill", command=command)})
    error = failure_of(send(client, "pods.kill"))
    assert isinstance(error, exceptions.Signalled)
    assert "SIGSEGV" in str(error)


def test_too_much_memory_is_oom_killed_and_retried_as_a_second_job(
    start_worker: StartWorker,
    client: Celery,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    limit = {"resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "120Mi"}}}
    template = write_template(tmp_path, "hog", container=limit)
    retried = {"job_template": template, "autoretry_for": ["OOMKilled"], "default_retry_delay": 0}
    start_worker({"pods.hog": template, "pods.hog_once": retried})
    hopeless = send(client, "pods.hog")
    lucky = send(client, "pods.hog_once")
    error = failure_of(hopeless)
    assert isinstance(error, exceptions.OOMKilled)
    assert (error.subreason, error.exit_code) == ("OOMKilled", 137)
    assert lucky.get(timeout=30) == 1
    job_watch.sync()
    assert [job.name for job in job_watch.of_task(lucky.id)] == [
        f"hog-once-{lucky.id}-0",
        f"hog-once-{lucky.id}-1",
    ]
    publications.sync()
    states = [each["status"] for each in publications.documents(lucky.id)]
    assert states == ["RETRY", "SUCCESS"]


def test_a_deadline_ends_the_pod(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    slow = "sleep 60"
    start_worker(
        {
            "pods.pod": write_template(
                tmp_path, "p", script=slow, pod={"activeDeadlineSeconds": 1}
            ),
            "pods.job": write_template(
                tmp_path, "j", script=slow, job={"activeDeadlineSeconds": 1}
            ),
            "pods.limit": {
                "job_template": write_template(tmp_path, "l", script=slow),
                "time_limit": 90,
            },
        }
    )
    by_pod, by_job = send(client, "pods.pod"), send(client, "pods.job")
    limited = send(client, "pods.limit", time_limit=70)
    for result in (by_pod, by_job):
        assert isinstance(failure_of(result), exceptions.DeadlineExceeded)
    # Celery measures from the start of the body: the runner ends it, the pod's deadline is later.
    spec = job_watch.wait_job(limited.id).object["spec"]
    assert spec["template"]["spec"]["activeDeadlineSeconds"] > 70
    assert spec["activeDeadlineSeconds"] > spec["template"]["spec"]["activeDeadlineSeconds"]


def test_an_image_that_cannot_be_pulled_fails_the_task_and_the_job_is_deleted(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    missing = {"image": "petiole.test/missing:1"}
    start_worker({"pods.image": write_template(tmp_path, "image", container=missing)})
    result = send(client, "pods.image")
    error = failure_of(result, 60)
    assert isinstance(error, exceptions.ImagePullError)
    job = job_watch.wait_job(result.id)
    job_watch.wait(lambda: job.is_gone, what="the Job to be deleted")


def test_a_container_that_refers_to_what_is_missing_fails_at_once(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    source = {"configMapRef": {"name": "no-such-config"}}
    template = write_template(tmp_path, "config", script="true", container={"envFrom": [source]})
    start_worker({"pods.config": template})
    result = send(client, "pods.config")
    assert isinstance(failure_of(result), exceptions.ContainerConfigError)
    job = job_watch.wait_job(result.id)
    job_watch.wait(lambda: job.is_gone, what="the Job to be deleted")


def test_a_large_result_comes_through_the_log(
    start_worker: StartWorker, client: Celery, tmp_path: Path
) -> None:
    start_worker({"pods.big": write_template(tmp_path, "big")})
    result = send(client, "pods.big", 100_000)
    assert result.get(timeout=30) == big(100_000)


@pytest.mark.parametrize(
    ("left", "why"),
    [
        (report(1, result=2), "SHA-256"),
        (report(1, sha256="0" * 64), "SHA-256"),
        (report(1, bytes=9), "length"),
        (report(1, state="PERFECT"), "PERFECT"),
        ('{"v":1,"state":"SUCCESS","bytes":9,"sha256":""}', "not complete"),
        ("", "cannot be read"),
        ("it went well", "cannot be read"),
    ],
    ids=["value", "digest", "length", "state", "moved", "empty", "text"],
)
def test_a_report_that_cannot_be_believed_is_a_lost_result(
    start_worker: StartWorker, client: Celery, tmp_path: Path, left: str, why: str
) -> None:
    template = write_template(tmp_path, "lost", script=report_script(left))
    start_worker({"pods.lost": template})
    error = failure_of(send(client, "pods.lost"))
    assert isinstance(error, exceptions.ResultLost)
    assert why in str(error)


def test_a_message_that_no_job_can_carry_is_too_large(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    start_worker({"pods.where": write_template(tmp_path, "where")})
    result = send(client, "pods.where", kwargs={"data": "x" * 300_000})
    error = failure_of(result)
    assert isinstance(error, exceptions.MessageTooLarge)
    assert "200 KiB" in str(error)
    near = send(client, "pods.where", kwargs={"data": "x" * 120_000})
    assert len(near.get(timeout=30)["values"]["data"]) == 120_000
    job_watch.sync()
    assert not job_watch.of_task(result.id)


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"epochs": "three"}, "kwargs.epochs"),
        ({"epochs": {"a": 1}}, "kwargs.epochs"),
        ({}, "kwargs.epochs"),
        ({"epochs": 3, "memory": "a lot"}, "kwargs.memory"),
    ],
)
def test_a_bad_value_fails_its_task_without_a_job(
    *,
    start_worker: StartWorker,
    client: Celery,
    job_watch: JobWatch,
    tmp_path: Path,
    kwargs: dict[str, Any],
    what: str,
) -> None:
    requests = {"memory": "${kwargs.memory:quantity=16Mi}"}
    template = write_template(
        tmp_path, "value", env={"EPOCHS": "${kwargs.epochs:int}"}, requests=requests
    )
    start_worker({"pods.where": template})
    result = send(client, "pods.where", kwargs=kwargs)
    error = failure_of(result)
    assert isinstance(error, exceptions.TemplateError)
    assert what in str(error)
    job_watch.sync()
    assert not job_watch.of_task(result.id)


def test_values_of_the_message_stand_in_the_job_with_their_types(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    template = write_template(
        tmp_path,
        "typed",
        script=report_script(report(None)),
        env={"EPOCHS": "${kwargs.epochs:int=3}", "NAME": "run of ${kwargs.name}", "PRICE": "5 $$"},
        requests={"memory": "${kwargs.memory:quantity=16Mi}"},
    )
    start_worker({"pods.where": template})
    kwargs = {"epochs": 7, "name": "A & $(B)", "memory": "32Mi"}
    result = send(client, "pods.where", kwargs=kwargs)
    assert result.get(timeout=30) is None
    spec = job_watch.wait_job(result.id).object["spec"]["template"]["spec"]
    env = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
    # Kubernetes would expand $(B); the doubled dollar keeps it as it was sent.
    assert (env["EPOCHS"], env["NAME"], env["PRICE"]) == ("7", "run of A & $$(B)", "5 $")
    assert spec["containers"][0]["resources"]["requests"]["memory"] == "32Mi"


def test_a_job_of_somebody_else_under_the_same_name_is_a_conflict(
    start_worker: StartWorker, client: Celery, cluster: Cluster, job_watch: JobWatch, tmp_path: Path
) -> None:
    start_worker({"pods.add": write_template(tmp_path, "add")})
    task_id = str(uuid.uuid4())
    container = {"name": "main", "image": "any:1", "command": ["sleep", "1"]}
    pod = {"restartPolicy": "Never", "containers": [container]}
    foreign = {
        "metadata": {"name": f"add-{task_id}-0"},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    cluster.client.request("POST", JOBS, foreign)
    result = send(client, "pods.add", 1, 2, task_id=task_id)
    error = failure_of(result)
    assert isinstance(error, exceptions.JobNameConflict)
    assert f"add-{task_id}-0" in str(error)
    job_watch.sync()
    assert not job_watch.of_task(task_id)
    left = cluster.client.request("GET", f"{JOBS}/add-{task_id}-0")
    assert "petiole.dev/owner" not in left["metadata"]["labels"]
    cluster.client.request("DELETE", f"{JOBS}/add-{task_id}-0?propagationPolicy=Background")


def test_another_message_with_the_same_id_is_a_conflict(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    script = f"{gate.script}; {report_script(report('first'))}"
    start_worker({"pods.add": write_template(tmp_path, "add", script=script)})
    first = send(client, "pods.add", 1, 2)
    job_watch.wait_job(first.id)
    other = send(client, "pods.add", 3, 4, task_id=first.id)
    assert isinstance(failure_of(other), exceptions.JobNameConflict)
    gate.open()
    job = job_watch.wait_finished(first.id)
    job_watch.wait(lambda: job.is_reported, what="the report")
    assert len(job_watch.of_task(first.id)) == 1


def test_started_is_stored_when_it_is_tracked(
    start_worker: StartWorker,
    client: Celery,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    gate = PodGate(tmp_path)
    template = write_template(tmp_path, "t", script=f"{gate.script}; {report_script(report(5))}")
    start_worker(
        {"pods.tracked": {"job_template": template, "track_started": True}, "pods.quiet": template}
    )
    tracked, quiet = send(client, "pods.tracked"), send(client, "pods.quiet")
    wait_for(lambda: publications.documents(tracked.id), 30, "STARTED")
    assert tracked.state == "STARTED"
    gate.open()
    assert (tracked.get(timeout=30), quiet.get(timeout=30)) == (5, 5)
    publications.sync()
    for result, states in ((tracked, ["STARTED", "SUCCESS"]), (quiet, ["SUCCESS"])):
        assert [each["status"] for each in publications.documents(result.id)] == states


def test_a_task_that_has_expired_gets_no_job(
    start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    start_worker({"pods.add": write_template(tmp_path, "add")})
    past = datetime.now(UTC) - timedelta(minutes=1)
    expired = send(client, "pods.add", 1, 2, expires=past)
    in_time = send(client, "pods.add", 1, 2, expires=60)
    assert isinstance(failure_of(expired), TaskRevokedError)
    assert in_time.get(timeout=30) == 3
    job_watch.sync()
    assert not job_watch.of_task(expired.id)


def test_a_job_that_somebody_deletes_fails_its_task(
    start_worker: StartWorker, client: Celery, cluster: Cluster, job_watch: JobWatch, tmp_path: Path
) -> None:
    gate = PodGate(tmp_path)
    template = write_template(tmp_path, "gone", script=gate.script)
    worker = start_worker({"pods.gone": template})
    result = send(client, "pods.gone")
    job = job_watch.wait_job(result.id)
    worker.stop()
    cluster.client.request("DELETE", f"{JOBS}/{job.name}?propagationPolicy=Background")
    job_watch.wait(lambda: job.is_gone, what="the Job to be gone")
    gate.open()
    start_worker({"pods.gone": template})
    error = failure_of(result)
    assert isinstance(error, exceptions.JobDeleted)
    assert job.name in str(error)


def test_the_end_of_a_worker_leaves_jobs_alone_and_the_next_one_reports_them(
    *,
    start_worker: StartWorker,
    client: Celery,
    cluster: Cluster,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    gates = [PodGate(tmp_path, name) for name in ("early", "late")]
    tasks = {
        f"pods.{index}": write_template(
            tmp_path, str(index), script=f"{gate.script}; {report_script(report(index))}"
        )
        for index, gate in enumerate(gates)
    }
    worker = start_worker(tasks)
    results = [send(client, name) for name in tasks]
    jobs = [job_watch.wait_job(result.id) for result in results]
    began = time.monotonic()
    worker.terminate()
    assert worker.wait_exit() == 0
    assert time.monotonic() - began < 5.0
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{TENANT}/leases"
    wait_for(lambda: not cluster.client.request("GET", leases)["items"], 10, "the Lease to be gone")
    gates[0].open()
    job_watch.wait_finished(results[0].id)
    assert not jobs[1].is_finished
    start_worker(tasks)
    assert results[0].get(timeout=30) == 0
    gates[1].open()
    assert results[1].get(timeout=30) == 1
    job_watch.sync()
    publications.sync()
    for result in results:
        assert len(job_watch.of_task(result.id)) == 1
        assert publications.results(result.id) == ["SUCCESS"]
