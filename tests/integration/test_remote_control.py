"""Remote control: what clients of the oldest and the newest Celery broadcast and hear."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery_worker import APP_FOLDER, CeleryWorker, app_environment
from helpers import new_ids, wait_settled, wait_stored
from petiole_worker import TENANT, PetioleWorker
from redis_server import RedisServer
from waiting import wait_for

ADD, SLEEP = "petiole.sample.add", "petiole.sample.sleep"
REVOKED_KEY = f"petiole:revoked:{TENANT}"
StartPetiole = Callable[..., PetioleWorker]


def run_control(python: str, server: RedisServer, node: str) -> dict[str, Any]:
    settings = {
        "broker_url": server.url(0),
        "result_backend": server.url(1),
        "task_default_queue": TENANT,
    }
    done = subprocess.run(
        [python, str(APP_FOLDER / "control_program.py"), node],
        env=app_environment(settings),
        cwd=APP_FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_an_unmodified_client_controls_the_worker(
    python: str, start_petiole: StartPetiole, redis_server: RedisServer
) -> None:
    worker = start_petiole(task_options={SLEEP: {"track_started": True}})
    node = worker.node_name
    answer = run_control(python, redis_server, node)
    ids = answer["ids"]
    pong = [{node: {"ok": "pong"}}]
    assert [answer[key] for key in ("ping", "destination", "pattern")] == [pong] * 3
    assert answer["inspect"]["code"] == 0, answer["inspect"]
    assert json.loads(answer["inspect"]["out"]) == {node: {"ok": "pong"}}
    assert not answer["elsewhere"]
    assert answer["unknown"] == [{node: {"error": "KeyError('nosuch')"}}]
    flagged = f"tasks {{'{ids['later']}'}} flagged as revoked"
    assert answer["revoke"] == [{node: {"ok": flagged}}]
    assert answer["later"] == "revoked"
    assert answer["terminate"] == [{node: {"ok": f"terminate: {ids['running']}"}}]
    assert answer["running"] == "terminated"
    assert answer["again"] == [{node: {"ok": "terminate: tasks unknown"}}]
    assert answer["sum"] == 3
    assert worker.log_count(f"Tasks flagged as revoked: {ids['later']}") == 1
    assert worker.log_count(rf"Terminating {ids['running']} \(15\)") == 1


def test_a_revoked_message_that_is_taken_later_never_runs(
    start_petiole: StartPetiole, client: Celery, broker: redis.Redis, backend: redis.Redis
) -> None:
    """Also by a worker that starts later and never heard the broadcast."""
    first = start_petiole()
    (task_id,) = new_ids(1)
    client.control.revoke(task_id)
    wait_for(lambda: broker.zcard(REVOKED_KEY) == 1, what="the id to be remembered")
    first.stop()
    start_petiole()
    with pytest.raises(TaskRevokedError, match="revoked"):
        client.send_task(ADD, (1, 2), task_id=task_id).get(timeout=10)
    document = wait_stored(backend, task_id)
    assert (document["status"], document["result"]["exc_message"]) == ("REVOKED", ["revoked"])
    wait_settled(broker)
    assert client.send_task(ADD, (1, 2)).get(timeout=10) == 3


def test_tasks_that_wait_for_a_place_are_revoked_at_once(
    start_petiole: StartPetiole, client: Celery, broker: redis.Redis
) -> None:
    worker = start_petiole(settings={"native_threads": 1})
    running = client.send_task(SLEEP, (60.0,))
    waiting = [client.send_task(ADD, (1, 1)) for _ in range(5)]
    worker.wait_log(r"petiole\.sample\.add\[.*\] received", count=5)
    client.control.revoke([result.id for result in waiting], terminate=True)
    for result in waiting:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=10)
    wait_for(lambda: broker.zcard(REVOKED_KEY) == 5, what="their ids to be remembered")
    assert not running.ready()
    running.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        running.get(timeout=10)


def test_what_is_remembered_is_bounded(
    start_program: Callable[..., Any], client: Celery, broker: redis.Redis
) -> None:
    limits = {"CELERY_WORKER_REVOKES_MAX": "10", "CELERY_WORKER_REVOKE_EXPIRES": "100"}
    start_program(PetioleWorker, environment=limits).wait_ready()
    ids = new_ids(30)
    client.control.revoke(ids)
    wait_for(lambda: broker.zscore(REVOKED_KEY, f"revoke:{ids[-1]}"), what="the last id")
    wait_for(lambda: broker.zcard(REVOKED_KEY) == 10, what="ten ids")
    assert 0 < broker.ttl(REVOKED_KEY) <= 100
    with pytest.raises(TaskRevokedError):
        client.send_task(ADD, (1, 2), task_id=ids[-1]).get(timeout=10)
    assert client.send_task(ADD, (1, 2), task_id=ids[0]).get(timeout=10) == 3


@pytest.mark.parametrize(
    "options",
    [{"global_keyprefix": "shop:"}, {"fanout_prefix": "{db}/x."}, {"fanout_prefix": False}],
)
def test_the_channel_is_kombus(
    start_petiole: StartPetiole, make_client: Callable[..., Celery], options: dict[str, Any]
) -> None:
    worker = start_petiole(settings={"broker_transport_options": options})
    client = make_client(broker_transport_options=options)
    assert client.control.ping(timeout=5, limit=1) == [{worker.node_name: {"ok": "pong"}}]


def test_remote_control_survives_a_lost_connection(
    start_petiole: StartPetiole, client: Celery, broker: redis.Redis
) -> None:
    worker = start_petiole()
    assert client.control.ping(timeout=5, limit=1)
    broker.client_kill_filter(_type="pubsub")
    pong = [{worker.node_name: {"ok": "pong"}}]
    wait_for(lambda: client.control.ping(timeout=0.5, limit=1) == pong, 15, "an answer again")


def test_it_can_be_turned_off_or_named_otherwise(
    start_petiole: StartPetiole, make_client: Callable[..., Celery], client: Celery
) -> None:
    start_petiole(settings={"worker_enable_remote_control": False})
    other = start_petiole(settings={"control_exchange": "mine"})
    assert not client.control.ping(timeout=0.5)
    mine = make_client(control_exchange="mine")
    assert mine.control.ping(timeout=5, limit=1) == [{other.node_name: {"ok": "pong"}}]


def test_garbage_on_the_channel_is_told_and_skipped(
    start_petiole: StartPetiole, client: Celery, broker: redis.Redis
) -> None:
    worker = start_petiole()
    for text in ("", "nonsense", "[]", "{}", '{"body": "!", "properties": 7}', "\xff" * 100):
        broker.publish("/0.celery.pidbox", text)
    bad = {"method": 5}
    client.control.broadcast("revoke", arguments={"task_id": bad})
    client.control.broadcast("revoke", arguments={"terminate": True})
    client.control.broadcast(
        "revoke", arguments={"task_id": "a", "terminate": True, "signal": "NO"}
    )
    assert client.control.ping(timeout=5, limit=1) == [{worker.node_name: {"ok": "pong"}}]
    assert worker.log_count("WARNING") >= 6


def test_a_python_worker_beside_it_starts_and_both_answer(
    start_petiole: StartPetiole, start_program: Callable[..., Any], client: Celery
) -> None:
    """Celery's mingle asks us `hello`, which we do not know, and goes on."""
    ours = start_petiole()
    theirs = start_program(CeleryWorker, name="python").wait_ready()

    def answers_of_both() -> dict[str, Any] | None:
        answers: dict[str, Any] = {}
        for answer in client.control.ping(timeout=5, limit=2):
            answers.update(answer)
        return answers if len(answers) == 2 else None

    answers = wait_for(answers_of_both, 30, "answers of both")
    assert answers
    assert answers[ours.node_name] == {"ok": "pong"}
    assert theirs.is_running()
