"""A tenant's worker serves its tenant alone, whatever a message says, and whatever others do."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult
from cluster import Cluster
from envelopes import Envelope, copies, push, template
from fake_kubelet import FakeKubelet
from job_template import PodGate, report, report_script, write_template
from job_watch import JobWatch
from kubernetes_worker import KubernetesWorker
from petiole.exceptions import AdmissionDenied, TemplateError, TenantMismatch
from publication_watch import PublicationWatch
from tenant_scene import (
    CONTAINER,
    HEADER,
    MEMORY,
    OTHER,
    RETRIED,
    SECOND_TRY,
    SHARED,
    TASK,
    TENANT,
    TenantScene,
    config_of,
)
from waiting import wait_for

Json = dict[str, Any]
PATH = "kwargs.config.metadata.namespace"
POD = "/spec/template/spec"
FLOOD = 200
FITS = 2  # of the other tenant's three pods one is kept for its worker's own
DONE = report("done")
StartWorker = Callable[..., KubernetesWorker]


def flood(broker: redis.Redis, app: Celery, counts: dict[str, int]) -> dict[str, list[str]]:
    """Push so many messages of each task to the other tenant's queue; return their ids."""
    ids = {task: [str(uuid.uuid4()) for _ in range(count)] for task, count in counts.items()}
    for task, own in ids.items():
        envelope = template(broker, app, OTHER, task, kwargs=config_of(OTHER))
        push(broker, OTHER, copies(envelope, own))
    return ids


def serve(client: Celery, job_watch: JobWatch, count: int) -> None:
    """Let the tenant have so many tasks done, within seconds, in its own namespace."""
    results = [client.send_task(TASK, kwargs=config_of(TENANT), queue=TENANT) for _ in range(count)]
    assert [result.get(timeout=15) for result in results] == ["done"] * count
    for result in results:
        assert job_watch.wait_job(result.id).namespace == TENANT


def namespaces(job_watch: JobWatch, ids: list[str]) -> set[str]:
    """Return where there have been Jobs of these tasks."""
    return {job.namespace for job in job_watch.all() if job.task_id in ids}


def test_a_tenant_is_served_while_another_floods_and_crashes(
    *,
    start_worker: StartWorker,
    client: Celery,
    broker: redis.Redis,
    job_watch: JobWatch,
    publications: PublicationWatch,
    tmp_path: Path,
) -> None:
    gate = PodGate(tmp_path)
    abort = ["python", "-c", "import os; os.abort()"]
    own = start_worker({TASK: write_template(tmp_path, "work", script=report_script(DONE))})
    foreign = start_worker(
        {
            "pods.exit": write_template(tmp_path, "exit", script="exit 3"),
            "pods.abort": write_template(tmp_path, "abort", command=abort),
            "pods.stuck": write_template(tmp_path, "stuck", script=f"{gate.script}; exit 3"),
        },
        tenant=OTHER,
    )
    job_watch.begin_peak(OTHER)
    ids = flood(broker, client, {"pods.exit": 10, "pods.abort": 10, "pods.stuck": 80})
    crashing = {*ids["pods.exit"], *ids["pods.abort"]}
    wait_for(lambda: publications.tasks() & crashing, 15, "the first crash")
    serve(client, job_watch, 10)
    wait_for(lambda: crashing <= publications.tasks(), 60, "all crashes")
    job_watch.wait(lambda: job_watch.unfinished(OTHER) == FITS, 15, "Jobs that are stuck")
    wait_for(lambda: broker.llen(OTHER) + broker.hlen("unacked") == 80 - FITS, 15, "all others")
    serve(client, job_watch, 10)
    job_watch.sync()
    everything = [task_id for each in ids.values() for task_id in each]
    assert namespaces(job_watch, everything) == {OTHER}
    assert job_watch.peak(OTHER) == FITS
    assert (own.is_running(), own.metric("celery_task_failed_total")) == (True, 0)
    for category, task in (("CrashExit", "pods.exit"), ("Signalled", "pods.abort")):
        assert foreign.metric("celery_task_failed_total", exception=category, name=task) == 10


def test_what_a_killed_worker_held_goes_back_to_its_own_tenant(
    *,
    start_worker: StartWorker,
    client: Celery,
    broker: redis.Redis,
    job_watch: JobWatch,
    tmp_path: Path,
) -> None:
    gate = PodGate(tmp_path)
    own = start_worker({TASK: write_template(tmp_path, "work", script=report_script(DONE))})
    stuck = write_template(tmp_path, "stuck", script=gate.script)
    foreign = start_worker({"pods.stuck": stuck}, tenant=OTHER)
    ids = flood(broker, client, {"pods.stuck": 40})["pods.stuck"]
    wait_for(lambda: broker.hlen(f"petiole:jobs:{OTHER}") == FITS, 30, "Jobs that are stuck")
    wait_for(lambda: broker.hlen("unacked") > 0, 15, "messages that wait in the worker")
    foreign.kill()
    serve(client, job_watch, 5)
    # The one that lives restores them for the dead one; they are not for it to run or to refuse.
    what = lambda: f"a queue with all that is left, not {broker.llen(OTHER)}"  # noqa: E731
    wait_for(lambda: broker.llen(OTHER) == 40 - FITS, 30, what)
    job_watch.sync()
    with_job = {job.task_id for job in job_watch.all() if job.task_id in ids}
    left = {json.loads(element)["headers"]["id"] for element in broker.lrange(OTHER, 0, -1)}
    assert (with_job | left, len(with_job), len(left)) == (set(ids), FITS, 40 - FITS)
    assert namespaces(job_watch, ids) == {OTHER}
    assert own.metric("petiole_tenant_mismatches_total") == 0
    serve(client, job_watch, 5)


def test_the_tenant_is_read_where_the_settings_say(
    *, start_worker: StartWorker, client: Celery, job_watch: JobWatch, tmp_path: Path
) -> None:
    path = write_template(tmp_path, "work", script=report_script(DONE))
    settings = {"tenant_path": "args.1.owner.0", "tenant_header": "x-owner"}
    worker = start_worker({TASK: path}, settings=settings, queues=[TENANT, SHARED])

    def send(*args: Any, queue: str = TENANT, **headers: Any) -> AsyncResult:
        return client.send_task(TASK, args=args, queue=queue, headers=headers)

    taken = [
        send(0, {"owner": [TENANT]}, queue=SHARED),
        send(queue=SHARED, **{"x-owner": TENANT}),
        send(0, {"owner": [TENANT]}, **{"x-owner": TENANT, HEADER: OTHER}),
    ]
    refused = {
        send(0, {"owner": [OTHER]}): "args.1.owner.0",
        send(0, {"owner": [TENANT]}, **{"x-owner": OTHER}): "header x-owner",
        send(0, {"owner": [[TENANT]]}): "args.1.owner.0",
        send({"owner": [TENANT]}, queue=SHARED): "neither args.1.owner.0 nor header x-owner",
        send(queue=SHARED, **{HEADER: TENANT}): "neither args.1.owner.0 nor header x-owner",
    }
    assert [result.get(timeout=15) for result in taken] == ["done"] * len(taken)
    for result, words in refused.items():
        with pytest.raises(TenantMismatch) as error:
            result.get(timeout=15)
        assert words in str(error.value)
    job_watch.sync()
    assert namespaces(job_watch, [result.id for result in refused]) == set()
    assert worker.metric("petiole_tenant_mismatches_total") == len(refused)


@pytest.fixture(scope="module")
def running(
    cluster: Cluster,
    kubelet: FakeKubelet,
    job_watch: JobWatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[TenantScene]:
    """Start the one worker that all messages of this file are for."""
    with contextlib.closing(
        TenantScene(cluster, job_watch, tmp_path_factory.mktemp("scene"))
    ) as scene:
        yield scene
        scene.assert_all_done()


@pytest.fixture
def scene(running: TenantScene) -> Iterator[TenantScene]:
    """Return it; what it logs during the test is shown when that fails."""
    began = len(running.worker.log())
    yield running
    print(running.worker.log()[began:])


NAMES = {
    "another tenant": OTHER,
    "the shared plane": "lora-system",
    "the system": "kube-system",
    "empty": "",
    "parent": f"../{OTHER}",
    "roundabout": f"{TENANT}/../{OTHER}",
    "absolute": f"/{OTHER}",
    "here": f"./{TENANT}",
    "slash at the end": f"{TENANT}/",
    "encoded slash": f"{TENANT}%2f..%2f{OTHER}",
    "query": f"{TENANT}?dryRun=All",
    "NUL": f"{TENANT}\0",
    "NUL within": f"{TENANT}\0/../{OTHER}",
    "line break": f"{TENANT}\n{OTHER}",
    "space": f" {TENANT}",
    "upper case": TENANT.upper(),
    "another dash": TENANT.replace("-", "\u2010"),
    "any": "*",
    "list of names": f"{TENANT},{OTHER}",
    "longer": f"{TENANT}s",
    "overlong": TENANT * 5000,
}
TYPES = {
    "number": 7,
    "zero": 0,
    "float": 1.5,
    "true": True,
    "false": False,
    "list": [TENANT],
    "empty list": [],
    "object": {"name": TENANT},
}


@pytest.mark.parametrize("place", ["path", "header"])
@pytest.mark.parametrize("name", [*NAMES, *TYPES])
def test_any_name_but_its_own_is_refused(scene: TenantScene, place: str, name: str) -> None:
    value = {**NAMES, **TYPES}[name]
    forged = {"kwargs": config_of(value)} if place == "path" else {"headers": {HEADER: value}}
    field = PATH if place == "path" else f"header {HEADER}"
    shown = json.dumps(value)[:60]
    reason = f"this worker serves {TENANT}" if name in NAMES else "not a tenant's name in a string"
    scene.assert_refused(TenantMismatch, (field, shown, reason), **forged)


@pytest.mark.parametrize(
    ("path", "header", "field"),
    [
        (TENANT, OTHER, f"header {HEADER}"),
        (OTHER, TENANT, PATH),
        (OTHER, OTHER, PATH),
        (TENANT, [TENANT], f"header {HEADER}"),
        ({}, TENANT, PATH),
    ],
    ids=["header", "path", "both", "type of the header", "type in the path"],
)
def test_path_and_header_must_both_be_right(
    scene: TenantScene, path: Any, header: Any, field: str
) -> None:
    forged = {"kwargs": config_of(path), "headers": {HEADER: header}}
    scene.assert_refused(TenantMismatch, (field,), **forged)


@pytest.mark.parametrize("queue", [SHARED, OTHER])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        config_of(None),
        {"config": None},
        {"config": TENANT},
        {"config": [{"metadata": {"namespace": TENANT}}]},
        {"config": {"metadata": TENANT}},
        {"config.metadata.namespace": TENANT},
    ],
    ids=["nothing", "null", "no config", "text", "list", "text below", "one key"],
)
def test_a_message_without_a_tenant_must_come_from_the_tenants_queue(
    scene: TenantScene, queue: str, kwargs: Json
) -> None:
    words = ("names no tenant", PATH, f"header {HEADER}", f"from queue {queue}")
    scene.assert_refused(TenantMismatch, words, queue=queue, kwargs=kwargs)
    scene.assert_taken(kwargs=kwargs)


@pytest.mark.parametrize("queue", [SHARED, OTHER])
def test_a_tenants_message_may_come_from_any_queue(scene: TenantScene, queue: str) -> None:
    scene.assert_taken(queue=queue, headers={HEADER: TENANT})
    scene.assert_taken(queue=queue, kwargs=config_of(TENANT))


def protocol_1(envelope: Envelope) -> None:
    """Make it a message as Celery 3 sent it: all in the body."""
    task_id = envelope["headers"]["id"]
    envelope["headers"] = {}
    body = {"task": TASK, "id": task_id, "args": [], "kwargs": config_of(OTHER), "retries": 0}
    envelope["body"] = json.dumps(body)
    del envelope["properties"]["body_encoding"]


def says_otherwise_where_it_lay(envelope: Envelope) -> None:
    """Let it claim that it comes from the worker's own queue."""
    envelope["properties"]["delivery_info"] = {"exchange": "", "routing_key": TENANT}
    envelope["properties"]["petiole_tenant"] = TENANT
    envelope["petiole_tenant"] = TENANT


TWICE = json.dumps(config_of(TENANT))[:-3] + f', "n\\u0061mespace": "{OTHER}"}}}}}}'
SPELLED = '{"config": {"metadata": {"namespace": "tenant\\u002dadmin"}}}'
DETOURS: dict[str, tuple[str, Json]] = {
    "protocol 1": (PATH, {"change": protocol_1}),
    "a key twice": (PATH, {"body": f"[[], {TWICE}, {{}}]"}),
    "its name spelled oddly": (PATH, {"body": f"[[], {SPELLED}, {{}}]"}),
    "in the far future": (PATH, {"countdown": 1e6, "kwargs": config_of(OTHER)}),
    "expired": (PATH, {"expires": datetime.now(UTC) - timedelta(1), "kwargs": config_of(OTHER)}),
    "on its last retry": (PATH, {"retries": 10**9, "kwargs": config_of(OTHER)}),
    "a task that is retried": (PATH, {"task": RETRIED, "kwargs": config_of(OTHER)}),
    "an id that is a path": (PATH, {"task_id": f"../{OTHER}/x", "kwargs": config_of(OTHER)}),
    "a long id": (PATH, {"task_id": "x" * 500, "kwargs": config_of(OTHER)}),
    "as if from its queue": (
        "names no tenant",
        {"queue": SHARED, "change": says_otherwise_where_it_lay},
    ),
}


@pytest.mark.parametrize("detour", DETOURS)
def test_there_is_no_way_around(scene: TenantScene, detour: str) -> None:
    word, forged = DETOURS[detour]
    scene.assert_refused(TenantMismatch, (word,), **forged)


def test_what_is_refused_is_counted_also_when_nobody_wants_its_result(scene: TenantScene) -> None:
    before = scene.counted("TenantMismatch")
    silent = scene.forge(headers={HEADER: OTHER}, ignore_result=True)
    scene.worker.wait_log(rf"{silent.id}\] raised unexpected: TenantMismatch")
    scene.assert_works()
    assert silent.state == "PENDING"
    assert scene.jobs.of_task(silent.id) == []
    assert scene.counted("TenantMismatch")["mismatches"] == before["mismatches"] + 1


def test_a_flood_of_forged_messages_holds_nobody_up(scene: TenantScene) -> None:
    before = scene.counted("TenantMismatch")
    forged = scene.forge_many(FLOOD, headers={HEADER: OTHER})
    scene.assert_works()
    scene.wait_settled()
    assert {result.state for result in forged} == {"FAILURE"}
    more = {"mismatches": FLOOD, "job failures": FLOOD, "failed tasks": FLOOD}
    more |= {"created Jobs": 1, "seen Jobs": 1}
    assert scene.counted("TenantMismatch") == {key: before[key] + more[key] for key in before}


SECRET = {"name": "stolen", "secret": {"secretName": "lora-secrets"}}
HOST = {"name": "host", "hostPath": {"path": "/"}}
REFERENCE = {"secretKeyRef": {"name": "lora-secrets", "key": "JWT_SECRET"}}
OVERRIDES: dict[str, Json] = {
    "namespace": {"/metadata/namespace": OTHER},
    "name": {"/metadata/name": "mine"},
    "owner": {"/metadata/labels/petiole.dev~1owner": "me"},
    "finalizers": {"/metadata/finalizers": ["me/forever"]},
    "service account": {f"{POD}/serviceAccountName": "petiole"},
    "old service account": {f"{POD}/serviceAccount": "petiole"},
    "token": {f"{POD}/automountServiceAccountToken": True},
    "hostPath": {f"{POD}/volumes/0/hostPath": {"path": "/"}},
    "path of a hostPath": {f"{POD}/volumes/0/hostPath/path": "/"},
    "hostPath volume": {f"{POD}/volumes/-": HOST},
    "Secret volume": {f"{POD}/volumes/0": SECRET},
    "all volumes": {f"{POD}/volumes": [SECRET, HOST]},
    "claim": {f"{POD}/volumes/0/persistentVolumeClaim/claimName": "theirs"},
    "Secret in env": {f"{CONTAINER}/env/0/valueFrom": REFERENCE},
    "envFrom": {f"{CONTAINER}/envFrom": [{"secretRef": {"name": "lora-secrets"}}]},
    "securityContext": {f"{CONTAINER}/securityContext": {"privileged": True}},
    "privileged": {f"{CONTAINER}/securityContext/privileged": True},
    "escalation": {f"{CONTAINER}/securityContext/allowPrivilegeEscalation": True},
    "user of the pod": {f"{POD}/securityContext/runAsUser": 0},
    "host network": {f"{POD}/hostNetwork": True},
    "host processes": {f"{POD}/hostPID": True},
    "node": {f"{POD}/nodeName": "any"},
    "image": {f"{CONTAINER}/image": "evil:1"},
    "command": {f"{CONTAINER}/command/2": "env"},
    "sidecar": {f"{POD}/initContainers": [{"name": "x", "image": "evil:1"}]},
    "fine but not listed": {f"{CONTAINER}/resources/requests/cpu": "20m"},
    "everything": {"": {}},
    "spec": {"/spec": {}},
    "no slash": {"metadata": {"namespace": OTHER}},
    "way back": {f"{MEMORY}/../../../securityContext/privileged": True},
    "below": {f"{MEMORY}/x": "32Mi"},
    "slash at the end": {f"{MEMORY}/": "32Mi"},
    "another zero": {MEMORY.replace("/0/", "/00/"): "32Mi"},
    "NUL": {f"{MEMORY}\0": "32Mi"},
    "after a good one": {MEMORY: "32Mi", "/metadata/namespace": OTHER},
    "before a good one": {"/metadata/namespace": OTHER, MEMORY: "32Mi"},
}


@pytest.mark.parametrize("what", OVERRIDES)
def test_a_message_sets_no_field_that_is_the_operators(scene: TenantScene, what: str) -> None:
    wanted = OVERRIDES[what]
    field = json.dumps(next(pointer for pointer in wanted if pointer != MEMORY))[1:-1]
    words = ("header petiole_override", f"{field}: a message may not set this field")
    forged = {"kwargs": config_of(TENANT), "headers": {"petiole_override": wanted}}
    scene.assert_refused(TemplateError, words, **forged)


@pytest.mark.parametrize(
    "value",
    [
        {"/metadata/namespace": OTHER},
        [f"{CONTAINER}/securityContext"],
        "32Mi\nserviceAccountName: petiole",
        "",
        -1,
        True,
        None,
    ],
    ids=["object", "list", "lines", "empty", "negative", "true", "null"],
)
def test_an_override_takes_values_of_its_kind_alone(scene: TenantScene, value: Any) -> None:
    forged = {"headers": {HEADER: TENANT, "petiole_override": {MEMORY: value}}}
    scene.assert_refused(TemplateError, ("header petiole_override", MEMORY), **forged)


@pytest.mark.parametrize("value", [[MEMORY], json.dumps({"/metadata/namespace": OTHER}), 1])
def test_overrides_that_are_no_object_are_refused(scene: TenantScene, value: Any) -> None:
    forged = {"headers": {"petiole_override": value}}
    scene.assert_refused(TemplateError, ("petiole_override must be an object",), **forged)


def test_an_override_that_the_operator_allows_is_set_and_nothing_else(scene: TenantScene) -> None:
    plain = spec_of(scene, {})
    changed = spec_of(scene, {"headers": {"petiole_override": {MEMORY: "32Mi"}}})
    assert plain["containers"][0]["resources"]["requests"]["memory"] == "16Mi"
    plain["containers"][0]["resources"]["requests"]["memory"] = "32Mi"
    assert changed == plain


FIELD_OF = {
    "memory": MEMORY,
    "limit": f"{POD}/activeDeadlineSeconds",
    "tag": f"{CONTAINER}/image",
    "folder": f"{CONTAINER}/volumeMounts/0/subPath",
    "name": f"{CONTAINER}/env/1/value",
    "run": "/metadata/labels/run",
}
LINES = "32Mi\n        serviceAccountName: petiole\n        hostNetwork: true"
VALUES: dict[str, tuple[str, Any]] = {
    "lines in a quantity": ("memory", LINES),
    "an object for a quantity": ("memory", {"hostPath": {"path": "/"}}),
    "a list for a quantity": ("memory", [SECRET]),
    "a negative quantity": ("memory", "-1"),
    "text for a number": ("limit", "600\nhostPID: true"),
    "an object for a number": ("limit", {"privileged": True}),
    "a number that is none": ("limit", -1),
    "another image": ("tag", "1/../../evil"),
    "a digest": ("tag", f"1@sha256:{'0' * 64}"),
    "lines in an image": ("tag", f"1\n{LINES}"),
    "an object for an image": ("tag", {"securityContext": {"privileged": True}}),
    "the parent folder": ("folder", ".."),
    "another tenant's folder": ("folder", f"../{OTHER}"),
    "an absolute folder": ("folder", "/etc"),
    "a folder with a NUL": ("folder", "plain\0/.."),
    "no folder": ("folder", ""),
    "an object for a folder": ("folder", {"hostPath": "/"}),
    "an object for a text": ("name", {"valueFrom": REFERENCE}),
    "a list for a text": ("name", [REFERENCE]),
    "an object for a label": ("run", {"namespace": OTHER}),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_value_stays_what_its_place_allows(scene: TenantScene, what: str) -> None:
    name, value = VALUES[what]
    forged = {"kwargs": {**config_of(TENANT), name: value}}
    scene.assert_refused(TemplateError, (FIELD_OF[name], f"kwargs.{name}"), **forged)


def test_what_only_the_api_server_knows_to_be_wrong_is_refused_by_it(scene: TenantScene) -> None:
    words = ("the API server refuses Job", "metadata.labels")
    scene.assert_refused(AdmissionDenied, words, kwargs={"run": f"../{OTHER}"})


def spec_of(scene: TenantScene, forged: Json) -> Json:
    """Return the pod that a message gets, which runs."""
    job = scene.assert_taken(**forged)
    spec: Json = job.object["spec"]["template"]["spec"]
    return spec


def claims_another_queue(envelope: Envelope) -> None:
    """Let it say that it lay in the other tenant's queue."""
    envelope["properties"]["delivery_info"] = {"exchange": "", "routing_key": OTHER}


FIELDS = {
    "metadata": {"namespace": OTHER},
    "namespace": OTHER,
    "serviceAccountName": "petiole",
    "hostPath": {"path": "/"},
    "volumes": [SECRET],
    "securityContext": {"privileged": True},
    "spec": {"template": {"spec": {"hostNetwork": True}}},
}
HARMLESS: dict[str, Json] = {
    "arguments named like fields": {"kwargs": {**config_of(TENANT), **FIELDS}},
    "headers named like fields": {"headers": {**FIELDS, "kubernetes_namespace": OTHER}},
    "pointers as arguments": {"kwargs": {"petiole_override": {"/metadata/namespace": OTHER}}},
    "an id that is a path": {"task_id": f"../../{OTHER}/jobs/{uuid.uuid4()}?x=/"},
    "another tenant's queue": {"change": claims_another_queue},
    "an answer to somewhere else": {"reply_to": OTHER},
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_has_no_meaning_changes_nothing(scene: TenantScene, what: str) -> None:
    assert spec_of(scene, HARMLESS[what]) == spec_of(scene, {})


def test_a_text_stays_one_text(scene: TenantScene) -> None:
    text = f'x"}}]\n{LINES}\n- ${{kwargs.folder}} $(HOME)'
    plain = spec_of(scene, {})
    changed = spec_of(scene, {"kwargs": {"name": text}})
    env = next(each for each in plain["containers"][0]["env"] if each["name"] == "NAME")
    # Kubernetes undoes the doubling; without it, $(HOME) would be another variable's value.
    env["value"] = text.replace("$", "$$")
    assert changed == plain


@pytest.mark.parametrize(
    "forged",
    [
        {"queue": SHARED, "headers": {HEADER: TENANT}},
        {"change": claims_another_queue},
    ],
    ids=["named by its header", "nameless, to come back in another queue"],
)
def test_a_retry_names_the_tenant(scene: TenantScene, forged: Json) -> None:
    result = scene.forge(task=SECOND_TRY, **forged)
    assert result.get(timeout=20) == "done"
    jobs = scene.jobs.of_task(result.id)
    messages = [json.loads(job.annotations["petiole.dev/message"]) for job in jobs]
    headers = [message["headers"] for message in messages]
    assert [each["retries"] for each in headers] == [0, 1]
    assert headers[1][HEADER] == TENANT
    assert {job.namespace for job in jobs} == {TENANT}
