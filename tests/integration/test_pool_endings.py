"""Ends that the worker makes of a task of its Python processes: who waits for it hears of it.

Each story is told to a real Celery prefork worker and to Petiole, with the same app and client;
what is stored and called afterwards must be the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Signature, chain, chord
from celery_client import client_app
from celery_worker import APP_FOLDER
from helpers import interpreter, stored, wait_settled, wait_stored
from petiole_worker import TOP, PetioleWorker
from program import Program, clean_environment
from publication_watch import PublicationWatch
from redis_server import RedisServer
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
QUEUE = "celery"
ID = "the id"
Story = Callable[..., Any]


class Scene:
    """A worker of ending_app, and a client that sends to it and looks."""

    def __init__(self, server: RedisServer, worker: Program) -> None:
        """Take the worker, which is ready; `close` does not stop it."""
        self.worker = worker
        with contextlib.ExitStack() as stack:
            self.broker = stack.enter_context(contextlib.closing(server.client(0)))
            self.backend = stack.enter_context(contextlib.closing(server.client(1)))
            self.client = stack.enter_context(client_app(server))
            self.close = stack.pop_all().close

    def task(self, name: str, *args: Any, **options: Any) -> Signature:
        """Return a signature of a task of the app."""
        return self.client.signature(f"ending_app.{name}", args=args, options=options)

    def send(self, signature: Signature) -> str:
        """Send it and return the id of its result."""
        return str(signature.apply_async().id)

    def send_chain(self, *signatures: Signature) -> list[str]:
        """Send a chain and return the ids of its tasks, the first one's first."""
        result = chain(*signatures).apply_async()
        ids = []
        while result is not None:
            ids.insert(0, str(result.id))
            result = result.parent
        return ids

    def send_chord(self, header: list[Signature], body: Signature) -> tuple[list[str], str]:
        """Send a chord and return the ids of its header and of its body."""
        result = chord(header, app=self.client)(body)
        return [str(member.id) for member in result.parent.results], str(result.id)

    def result(self, task_id: str) -> dict[str, Any]:
        """Wait for a result and return what is the same under every worker."""
        document = wait_stored(self.backend, task_id)
        text = json.dumps({key: document[key] for key in ("status", "result")})
        told: dict[str, Any] = json.loads(text.replace(task_id, ID))
        return {**told, "has_traceback": document["traceback"] is not None}

    def notes(self, *kinds: str | tuple[str, str]) -> list[list[Any]]:
        """Wait for notes of each kind, and until all is quiet; return them, each one once.

        A kind with a task's id is a note of that task: what is called may be called after the end
        of the task is stored.

        At a hard limit Celery calls errbacks and handlers of task_failure twice: once for the
        limit, and once for the failure that its pool makes of it (billiard/pool.py).
        """

        def found() -> set[bytes]:
            return set(self.broker.lrange("notes", 0, -1))

        def is_all() -> bool:
            notes = list(map(json.loads, found()))
            known = {(note[0], value) for note in notes for value in note[1:] if type(value) is str}
            return set(kinds) <= known | {note[0] for note in notes}

        wait_for(is_all, 15, lambda: f"{kinds}, noted is {found()}")
        wait_for(lambda: not self.broker.exists(QUEUE, "unacked"), 15)
        return sorted(map(json.loads, found()), key=str)


@pytest.fixture(params=["newest", "oldest"])
def celery(request: pytest.FixtureRequest) -> str:
    """Return which Celery the worker and its processes have."""
    name: str = request.param
    return name


@pytest.fixture
def start(
    celery: str,
    redis_server: RedisServer,
    broker: redis.Redis,
    start_petiole: Callable[..., PetioleWorker],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Callable[..., Scene]:
    """Return a function that starts a worker on an empty Redis."""
    environment = {"ENDING_URL": redis_server.url(0), "CELERY_RESULT_BACKEND": redis_server.url(1)}

    def start_celery_worker(count: int) -> Program:
        command = [interpreter(celery), "-m", "celery", "-A", "ending_app", "worker", "-l", "INFO"]
        command += [
            "-c",
            str(count),
            "-n",
            "c@test",
            "-P",
            "prefork",
            "--without-gossip",
            "--without-mingle",
        ]
        path = {"PYTHONPATH": str(APP_FOLDER)}
        worker = Program(
            command,
            tmp_path / f"celery-{count}.log",
            clean_environment({**environment, **path}),
            cwd=tmp_path,
        )
        request.addfinalizer(worker.stop)
        worker.wait_log(r"\S+ ready\.", 30)
        return worker

    def start_pool_worker(count: int, settings: dict[str, Any]) -> Program:
        return start_petiole(
            settings={"tasks": {}, "plugins": [], **settings},
            queues=(QUEUE,),
            global_arguments=("-A", "ending_app"),
            arguments=("-c", str(count)),
            environment={
                **environment,
                "C_FORCE_ROOT": "1",
                "PETIOLE_PYTHON": interpreter(celery),
                "PYTHONPATH": f"{TOP / 'python-shim' / 'src'}:{APP_FOLDER}",
            },
        )

    def start(kind: str, count: int = 2, **settings: Any) -> Scene:
        broker.flushall()
        if kind == "celery":
            worker = start_celery_worker(count)
        else:
            worker = start_pool_worker(count, settings)
        scene = Scene(redis_server, worker)
        request.addfinalizer(scene.close)
        return scene

    return start


@pytest.fixture
def compare(start: Callable[..., Scene]) -> Callable[[Story], Any]:
    """Return a function that tells a story under both workers and compares what comes of it."""

    def compare(story: Story) -> Any:
        told = {}
        for kind in ("celery", "petiole"):
            scene = start(kind)
            told[kind] = story(scene)
            wait_settled(scene.broker)
            code = scene.worker.stop()
            assert kind == "celery" or code == 0, f"exit code {code}"
        assert told["petiole"] == told["celery"]
        return told["petiole"]

    return compare


def story_of_a_chord(header: Sequence[tuple[str, dict[str, Any]]], notes: Sequence[str]) -> Story:
    """Return a story: a chord of these tasks, whose body and errback are looked at."""

    def story(scene: Scene) -> Any:
        signatures = [scene.task(name, 1, 2, **options) for name, options in header]
        body = scene.task("total").on_error(scene.task("on_error"))
        member_ids, body_id = scene.send_chord(signatures, body)
        members = [scene.result(member_id) for member_id in member_ids]
        text = json.dumps([members, scene.result(body_id), scene.notes(*notes)])
        for number, member_id in enumerate(member_ids):
            text = text.replace(member_id, f"member {number}")
        return json.loads(text.replace(body_id, "body"))

    return story


@pytest.mark.parametrize(
    ("name", "options"),
    [("hang", {"time_limit": 1}), ("die", {}), ("add", {"expires": -10})],
    ids=["hard limit", "killed", "expired"],
)
def test_chord_of_a_task_that_ends_without_its_process(
    name: str, options: dict[str, Any], compare: Callable[[Story], Any]
) -> None:
    notes = {"errback", *({} if name == "add" else {"task_failure"})}
    story = story_of_a_chord([("add", {}), (name, options)], sorted(notes))
    members, body, _ = compare(story)
    assert members[0]["status"] == "SUCCESS"
    assert members[1]["status"] in {"FAILURE", "REVOKED"}
    assert body["result"]["exc_type"] == "ChordError"


@pytest.mark.parametrize(
    ("name", "options"),
    [("hang", {"time_limit": 1}), ("die", {})],
    ids=["hard limit", "killed"],
)
def test_rest_of_a_chain_and_errbacks(
    name: str, options: dict[str, Any], compare: Callable[[Story], Any]
) -> None:
    def story(scene: Scene) -> Any:
        first = scene.task(name, 1, **options)
        for errback in ("on_error", "on_error_at_once"):
            first.link_error(scene.task(errback))
        ids = scene.send_chain(first, scene.task("add", 2), scene.task("add", 3))
        notes = scene.notes("errback", "errback at once", "task_failure")
        text = json.dumps([list(map(scene.result, ids)), notes])
        for number, task_id in enumerate(ids):
            text = text.replace(task_id, f"task {number}")
        return json.loads(text)

    results, _ = compare(story)
    assert [result["status"] for result in results] == ["FAILURE"] * 3


@pytest.mark.parametrize(
    ("name", "options"), [("add", {}), ("die", {}), ("hang", {"time_limit": 1})]
)
def test_a_failure_is_stored_before_what_follows_from_it(
    name: str, options: dict[str, Any], start: Callable[..., Scene]
) -> None:
    """As Celery does, but that it stores the limit twice; each is told once here."""
    scene = start("petiole")
    with contextlib.ExitStack() as stack:
        publications = PublicationWatch(scene.broker)
        stack.callback(publications.stop)
        first = scene.task(name, None, 1, **options)
        ids = scene.send_chain(first, scene.task("add", 2), scene.task("add", 3))
        wait_for(lambda: publications.tasks() >= set(ids), 15)
        wait_settled(scene.broker)
        publications.sync()
    assert [publications.results(each) for each in ids] == [["FAILURE"]] * 3
    assert min(ids, key=publications.ready_s) == ids[0]


def test_handlers_of_a_failure_at_the_hard_limit(
    celery: str, compare: Callable[[Story], Any]
) -> None:
    def story(scene: Scene) -> Any:
        hung = scene.send(scene.task("hang", 1, time_limit=1))
        dead = scene.send(scene.task("die", 1))
        told = [scene.result(hung), scene.result(dead)]
        # Methods of the task at the limit are new in Celery 5.7.
        methods = ("on_failure", "after_return") if celery == "newest" else ()
        notes = scene.notes(("task_failure", hung), ("task_failure", dead), *methods)
        text = json.dumps([told, notes])
        return json.loads(text.replace(hung, "hung").replace(dead, "dead"))

    _, notes = compare(story)
    assert ["task_failure", "ending_app.die", "dead", "WorkerLostError"] in notes


def test_the_hard_limit_is_no_exception_to_retry_for(compare: Callable[[Story], Any]) -> None:
    def story(scene: Scene) -> Any:
        return scene.result(scene.send(scene.task("hang_and_retry", time_limit=1)))

    assert compare(story)["result"]["exc_type"] == "TimeLimitExceeded"


def lose_once(scene: Scene, name: str) -> str:
    """Send a task whose first try is lost, check that it is tried twice, and return its id."""
    task_id = scene.send(scene.task(name))
    assert wait_stored(scene.backend, task_id)["result"] == "survived"
    wait_settled(scene.broker)
    assert scene.broker.get("runs") == b"2"
    assert scene.broker.llen(QUEUE) == 0
    return task_id


def test_a_lost_task_is_sent_again_once_when_a_setting_says_so(
    celery: str, start: Callable[..., Scene]
) -> None:
    """The app says that it is given back: what is above the app wins, in the processes, too."""
    scene = start("petiole", task_retry_on_worker_lost=True)
    task_id = lose_once(scene, "die_once")
    if celery == "newest":
        assert scene.notes("on_retry") == [["on_retry", task_id]]
    else:
        line = rf"INFO/.*die_once\[{task_id}\] retry: Retry in 0s: WorkerLostError\("
        assert scene.worker.log_count(line) == 1


def test_a_next_try_that_was_sent_is_not_sent_again(start: Callable[..., Scene]) -> None:
    """The process that sends it is lost before it has told so."""
    lose_once(start("petiole", task_retry_on_worker_lost=True), "die_once_and_on_retry")


@pytest.mark.parametrize("option", ["acks_late", "reject_on_worker_lost"])
def test_a_lost_task_fails_when_a_setting_says_so(option: str, start: Callable[..., Scene]) -> None:
    scene = start("petiole", tasks={"ending_app.die_once": {option: False}})
    lost = scene.result(scene.send(scene.task("die_once")))
    assert lost["result"]["exc_type"] == "WorkerLostError"
    assert scene.broker.get("runs") == b"1"


def test_nothing_follows_from_a_message_of_another_tenant(start: Callable[..., Scene]) -> None:
    scene = start("petiole")
    foreign = scene.task("add", 1, 2, headers={"petiole_tenant": "somebody-else"})
    foreign.link_error(scene.task("on_error")).link_error(scene.task("on_error_at_once"))
    ids = scene.send_chain(foreign, scene.task("add", 3))
    assert scene.result(ids[0])["result"]["exc_type"] == "TenantMismatch"
    scene.worker.wait_log(rf"{ids[0]}.*TenantMismatch")
    assert scene.result(scene.send(scene.task("add", 3, 4)))["result"] == 7
    wait_settled(scene.broker)
    assert scene.notes() == []
    assert stored(scene.backend, ids[1]) is None


def test_rejected_member_of_a_chord(celery: str, start: Callable[..., Scene]) -> None:
    """The newest Celery stores a FAILURE; the oldest nothing, so that its chord waits for ever."""
    if celery == "newest":
        story = story_of_a_chord([("add", {}), ("refuse", {})], ["errback", "task_failure"])
        told = story(start("petiole"))
        assert told[0][1]["result"]["exc_type"] == "Reject"
        assert told[1]["result"]["exc_type"] == "ChordError"
        assert told == story(start("celery"))
        return
    scene = start("petiole")
    refused = scene.send(scene.task("refuse"))
    assert scene.result(scene.send(scene.task("add", 1, 2)))["result"] == 3
    assert stored(scene.backend, refused) is None


def test_a_body_that_only_python_can_read(start: Callable[..., Scene]) -> None:
    scene = start("petiole", accept_content=["json", "pickle"])
    task = scene.task("add", 1, 2)
    header = [task.set(expires=-10, serializer="pickle"), scene.task("add", 1, 1)]
    _, body = scene.send_chord(header, scene.task("total"))
    assert scene.result(body)["result"]["exc_type"] == "ChordError"


def test_a_process_that_dies_of_an_errback(start: Callable[..., Scene]) -> None:
    """The result is stored all the same, and the log says what was not done."""
    scene = start("petiole")
    task = scene.task("die", 1)
    task.link_error(scene.task("break_errback"))
    dead = scene.send(task)
    assert scene.result(dead)["result"]["exc_type"] == "WorkerLostError"
    scene.worker.wait_log(rf"ERROR/.*No Python process could do what follows.*\[{dead}\]")
    assert scene.result(scene.send(scene.task("add", 1, 2)))["result"] == 3


def test_a_process_that_dies_after_the_success(start: Callable[..., Scene]) -> None:
    """The task has succeeded: it is not run again, its chain goes on, and no errback is called."""
    scene = start("petiole")
    task = scene.task("succeed_and_die", 1)
    task.link_error(scene.task("on_error"))
    first, second = scene.send_chain(task, scene.task("add", 2))
    assert scene.result(first)["result"] == 1
    assert scene.result(second)["result"] == 3
    scene.worker.wait_log(rf"WARNING/.*\[{first}\] succeeded before the worker was lost: signal 9")
    wait_settled(scene.broker)
    assert scene.worker.log_count(rf"\[{first}\] received") == 1
    assert not scene.broker.exists("notes")


def test_a_process_that_leaves_after_the_success(start: Callable[..., Scene]) -> None:
    scene = start("petiole")
    first, second = scene.send_chain(scene.task("succeed_and_leave", 1), scene.task("add", 2))
    assert scene.result(first)["result"] == 1
    assert scene.result(second)["result"] == 3
    scene.worker.wait_log(rf"WARNING/.*\[{first}\] succeeded before the worker was lost")


def test_an_end_while_every_process_is_busy(start: Callable[..., Scene]) -> None:
    """What follows from it does not wait for a process to be free."""
    scene = start("petiole", 1)
    hung = scene.send(scene.task("hang"))
    scene.worker.wait_log(rf"hang\[{hung}\] received")
    wait_settled(scene.broker)  # early: it has begun
    header = [scene.task("add", 1, 1), scene.task("add", 2, 2)]
    members, body = scene.send_chord(header, scene.task("total"))
    for member in members:
        scene.worker.wait_log(rf"add\[{member}\] received")
    scene.client.control.revoke(members)
    assert scene.result(body)["result"]["exc_type"] == "ChordError"
    assert [scene.result(member)["status"] for member in members] == ["REVOKED"] * 2
    scene.client.control.revoke(hung, terminate=True)
    assert scene.result(hung)["status"] == "REVOKED"


def test_the_last_process_of_a_worker_that_stops(start: Callable[..., Scene]) -> None:
    """A task that ends by its limit while a worker stops fails its chord, too."""
    scene = start("petiole", 2)
    header = [scene.task("hang", time_limit=2), scene.task("add", 1, 1)]
    (member, _), body = scene.send_chord(header, scene.task("total"))
    scene.worker.wait_log(rf"hang\[{member}\] received")
    wait_settled(scene.broker)  # early: both have begun
    scene.worker.terminate()
    assert scene.worker.wait_exit() == 0
    assert scene.result(body)["result"]["exc_type"] == "ChordError"
    assert stored(scene.backend, member)["result"]["exc_type"] == "TimeLimitExceeded"


def test_tasks_that_are_lost_with_all_processes(start: Callable[..., Scene]) -> None:
    """Who waits for them hears of it from the first process of the next parent."""
    scene = start("petiole", 1)
    assert scene.result(scene.send(scene.task("add", 1, 1)))["result"] == 2
    task = scene.task("hang")
    task.link_error(scene.task("on_error"))
    hung = scene.send(task)
    scene.worker.wait_log(rf"hang\[{hung}\] received")
    parent = int((Path(f"/proc/{scene.worker.pid}/task/{scene.worker.pid}/children")).read_text())
    wait_settled(scene.broker)
    os.kill(parent, 9)
    assert scene.result(hung)["result"]["exc_type"] == "WorkerLostError"
    assert ["errback", hung] in scene.notes("errback")
