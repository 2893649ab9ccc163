"""The pool of Python processes in trouble: hostile tasks, lost parents, broken apps, no Redis."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from celery.result import AsyncResult
from helpers import wait_settled, wait_stored
from latency_proxy import LatencyProxy
from petiole_worker import TOP, petiole_binary
from pool import PetioleStarter, run
from process_family import descendants, is_alive
from program import Program, clean_environment
from redis_server import RedisServer
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
MIB = 1 << 20
Send = Callable[..., AsyncResult]


def lost(backend: redis.Redis, task_id: str, timeout_s: float = 15.0) -> str:
    """Wait for the end of a lost task and return the sentence."""
    result = wait_stored(backend, task_id, timeout_s=timeout_s)["result"]
    assert result["exc_type"] == "WorkerLostError"
    return str(result["exc_message"][0])


def test_a_process_that_dies_within_a_frame(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    worker = start_pool(1)
    for size in (64, 8 * MIB):
        assert "SIGKILL" in lost(backend, send("half_a_frame", size).id)
    assert run(send, "add", 1, 2) == 3
    assert not worker.log_contains("no answer")


def test_a_large_result(start_pool: PetioleStarter, send: Send, backend: redis.Redis) -> None:
    start_pool(2)
    result = send("large", 100 * MIB)
    assert run(send, "add", 1, 2) == 3, "others go on meanwhile"
    key = f"celery-task-meta-{result.id}"
    wait_for(lambda: backend.strlen(key) > 100 * MIB, 60)


def test_a_task_that_closes_every_descriptor(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    start_pool(1)
    assert "exitcode 1" in lost(backend, send("close_all").id)
    assert run(send, "add", 1, 2) == 3


def test_a_task_that_comes_back_twice(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    start_pool(1)
    pid = run(send, "come_back_twice")
    assert run(send, "who")["pid"] == pid
    assert run(send, "add", 1, 2) == 3


def test_a_daemon_of_a_task_outlives_its_process(start_pool: PetioleStarter, send: Send) -> None:
    worker = start_pool(1, process_idle_timeout=0.2)
    daemon = run(send, "leave_daemon")
    try:
        wait_for(lambda: not descendants(worker.pid), 10)
        assert is_alive(daemon)
        assert run(send, "add", 1, 2) == 3
        worker.terminate()
        assert worker.wait_exit() == 0
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_output_after_the_end_of_a_task(
    start_pool: PetioleStarter, send: Send, tmp_path: Path
) -> None:
    worker = start_pool(1)
    assert run(send, "print_later", str(tmp_path / "now")) == "returned"
    (tmp_path / "now").touch()
    worker.wait_log(r"WARNING/ForkPoolWorker-1\] printed later$")
    assert run(send, "add", 1, 2) == 3


def test_no_room_for_another_process(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis, tmp_path: Path
) -> None:
    """What runs goes on; what waits is run when there is room again."""
    full, gate = tmp_path / "full", tmp_path / "gate"
    worker = start_pool(2, environment={"POOL_NO_FORK": str(full)})
    running = send("hold", str(gate))
    wait_stored(backend, running.id, ("STARTED",))
    full.touch()
    results = [send("add", 1, number) for number in range(2)]
    worker.wait_log("ERROR/.*No Python process can be forked: Resource temporarily unavailable")
    assert not running.ready()
    full.unlink()
    assert [result.get(timeout=20) for result in results] == [1, 2]
    gate.touch()
    assert running.get(timeout=20) == "let go"


def test_a_message_that_no_process_can_take(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    """It has ended all processes that it was given to, and is lost at last."""
    worker = start_pool(1, environment={"POOL_MEMORY": str(32 * MIB)}, max_delivery_attempts=2)
    sentence = lost(backend, send("add", "x" * (64 * MIB), "").id, timeout_s=60)
    assert sentence.startswith("Worker exited prematurely: exitcode 1")
    assert run(send, "add", 1, 2) == 3
    ended = worker.log_count("Process 'ForkPoolWorker-.*exited with 'exitcode 1'")
    assert ended == 4, "two of the task, and two of its end, which has the message, too"


def test_last_words_of_a_process(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    """What it logs when its task was given up is shown."""
    worker = start_pool(1)
    result = send("tidy_up")
    worker.wait_log("begun what is to be tidied up")  # STARTED is stored before
    result.revoke(terminate=True, signal="SIGTERM")  # which gives it seconds to say them
    assert wait_stored(backend, result.id)["status"] == "REVOKED"
    worker.wait_log("WARNING/ForkPoolWorker-1.*tidying up$")
    assert run(send, "add", 1, 2) == 3
    assert not worker.log_contains("Logging error")


@pytest.mark.parametrize("how", ["in time", "hurried"])
def test_handlers_of_the_end_of_a_process(
    how: str, start_pool: PetioleStarter, send: Send, tmp_path: Path
) -> None:
    """They have more than some seconds for it, until a second signal."""
    mark = tmp_path / "mark"
    seconds = "4" if how == "in time" else "60"
    worker = start_pool(1, environment={"POOL_END_S": seconds, "POOL_ENDS": str(mark)})
    assert run(send, "add", 1, 2) == 3
    pids = descendants(worker.pid)
    worker.terminate()
    wait_for(mark.exists)
    if how == "hurried":
        worker.terminate()
    assert worker.wait_exit(15.0 if how == "in time" else 3.0) == 0
    assert mark.read_text() == ("done" if how == "in time" else "")
    assert not any(map(is_alive, pids))


def test_output_without_end(start_pool: PetioleStarter, send: Send) -> None:
    start_pool(2)
    chatter = run(send, "leave_chatter")
    try:
        assert [run(send, "add", 1, number) for number in range(4)] == [1, 2, 3, 4]
    finally:
        os.kill(chatter, signal.SIGKILL)


def test_a_task_that_changes_signals(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    """Its process cannot be asked to end, but is ended."""
    start_pool(1)
    run(send, "change_signals")
    document = wait_stored(backend, send("sleep", 60, time_limit=1).id)
    assert document["result"]["exc_type"] == "TimeLimitExceeded"
    assert run(send, "careful", 60, soft_time_limit=1) == "cleaned up", "by the next process"


def test_a_task_that_ignores_its_signal_is_killed_after_its_grace(
    start_pool: PetioleStarter, send: Send, backend: redis.Redis
) -> None:
    """With all of its process group, and not before ten seconds."""
    worker = start_pool(1)
    result = send("stubborn")
    wait_stored(backend, result.id, ("STARTED",))
    worker.wait_log("no signal ends this")
    pids = descendants(worker.pid)
    assert len(pids) == 3, "the parent, the process and its child"
    begin = time.monotonic()
    result.revoke(terminate=True, signal="SIGTERM")
    worker.wait_log(rf"Terminating {result.id}")
    wait_for(lambda: sum(map(is_alive, pids)) == 1, 30, "the end of process and child")
    assert time.monotonic() - begin > 9
    assert wait_stored(backend, result.id)["status"] == "REVOKED"
    assert run(send, "add", 1, 2) == 3


def test_sys_exit(start_pool: PetioleStarter, send: Send, backend: redis.Redis) -> None:
    """Celery from billiard 4.3 on knows of it before the process is gone."""
    start_pool(1)
    assert lost(backend, send("leave_nicely").id) == "Worker exited prematurely: exitcode 7."
    assert run(send, "add", 1, 2) == 3


def test_a_killed_worker_takes_running_tasks_with_it(
    start_pool: PetioleStarter,
    send: Send,
    backend: redis.Redis,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    """SIGKILL to the worker alone: no process goes on, and a late task runs once more elsewhere."""
    settings = {"task_acks_late": True, "broker_transport_options": {"visibility_timeout": 2}}
    worker = start_pool(2, **settings)
    gate = tmp_path / "gate"
    result = send("hold", str(gate))
    wait_stored(backend, result.id, ("STARTED",))
    pids = descendants(worker.pid)
    assert len(pids) >= 2
    os.kill(worker.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, pids)), 20)
    gate.touch()
    other = start_pool(1, **settings)
    assert result.get(timeout=30) == "let go"
    wait_settled(broker)
    assert other.log_count(rf"hold\[{result.id}\] received") == 1


def test_an_app_that_breaks_later(
    start_pool: PetioleStarter, send: Send, tmp_path: Path, broker: redis.Redis
) -> None:
    """Its tasks wait, in the queue but for a few, until it can be imported again."""
    broken = tmp_path / "broken"
    worker = start_pool(1, environment={"POOL_BREAKS": str(broken)}, worker_lookahead=1)
    broken.touch()
    results = [send("add", 1, number) for number in range(5)]
    worker.wait_log("RuntimeError: broken on purpose")
    worker.wait_log(r"CRITICAL/.*The parent of the Python processes ended \(exit code 1\)", count=2)
    assert broker.llen("celery") >= 3
    broken.unlink()
    assert [result.get(timeout=30) for result in results] == [1, 2, 3, 4, 5]


def test_a_worker_stops_while_its_app_cannot_be_imported(
    start_pool: PetioleStarter, send: Send, tmp_path: Path, broker: redis.Redis
) -> None:
    broken = tmp_path / "broken"
    worker = start_pool(1, environment={"POOL_BREAKS": str(broken)})
    broken.touch()
    send("add", 1, 2)
    worker.wait_log("CRITICAL/.*The parent of the Python processes ended")
    worker.terminate()
    assert worker.wait_exit() == 0
    wait_settled(broker)
    assert broker.llen("celery") == 1


SLOW_APP = """
import os, signal, sys
from celery import Celery
app = Celery("slow", broker=os.environ["POOL_URL"])
stage = sys.modules["__main__"].__spec__.name.partition(".")[2]
open(f"begun-{stage}", "w").close()
if not os.path.exists(f"go-{stage}"):
    signal.pause()


@app.task
def f():
    return 1
"""


@pytest.mark.parametrize("stage", ["manifest", "pool"])
def test_a_worker_stops_while_its_app_is_imported(
    stage: str, redis_server: RedisServer, tmp_path: Path, send: Send, broker: redis.Redis
) -> None:
    (tmp_path / "slow.py").write_text(SLOW_APP)
    environment = {
        "PETIOLE_PYTHON": sys.executable,
        "PYTHONPATH": str(TOP / "python-shim" / "src"),
        "PETIOLE_WORKER_HTTP_ADDRESS": "",
        "PETIOLE_RUN_DIR": str(tmp_path),
        "POOL_URL": redis_server.url(0),
    }
    command = [str(petiole_binary()), "-A", "slow", "worker", "-l", "INFO", "-Q", "celery"]
    worker = Program(command, tmp_path / "log", clean_environment(environment), cwd=tmp_path)
    try:
        if stage == "pool":
            (tmp_path / "go-manifest").touch()
            worker.wait_log("ready", 30)
            broker.lpush("celery", MESSAGE)
        wait_for((tmp_path / f"begun-{stage}").exists, 30)
        pids = descendants(worker.pid)
        begin = time.monotonic()
        worker.terminate()
        worker.wait_exit()
        assert time.monotonic() - begin < 4.5, "it was not waited for"
        assert not any(map(is_alive, pids))
        assert stage == "manifest" or broker.llen("celery") == 1
    finally:
        worker.stop()


MESSAGE = (
    '{"body": "W1tdLCB7fSwgbnVsbF0=", "content-type": "application/json", "content-encoding": '
    '"utf-8", "headers": {"task": "slow.f", "id": "1"}, "properties": {"delivery_tag": "1", '
    '"body_encoding": "base64", "delivery_info": {"exchange": "", "routing_key": "celery"}}}'
)


def test_redis_is_away_when_tasks_end(
    start_pool: PetioleStarter,
    send: Send,
    backend: redis.Redis,
    broker: redis.Redis,
    proxy: LatencyProxy,
    tmp_path: Path,
) -> None:
    """Nothing is lost and nothing runs twice."""
    worker = start_pool(
        2, broker_url=proxy.url(0), result_backend=proxy.url(1), task_acks_late=True
    )
    gate = tmp_path / "gate"
    results = [send("hold", str(gate)) for _ in range(2)]
    for result in results:
        wait_stored(backend, result.id, ("STARTED",))
    proxy.cut(refuse=True)
    worker.wait_log("ERROR/.*[Cc]onnection to .* lost")
    gate.touch()
    worker.wait_log(r"hold\[.*succeeded in", count=2)
    proxy.flow()
    for result in results:
        assert wait_stored(backend, result.id)["status"] == "SUCCESS"
    wait_settled(broker)
    assert worker.log_count(r"hold\[.*succeeded in") == 2
