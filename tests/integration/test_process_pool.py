"""The pool of Python processes: an app as a team has it, run by `petiole -A app worker`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, platforms
from celery.exceptions import SecurityError
from celery.result import AsyncResult
from helpers import wait_published, wait_settled, wait_stored
from kombu.serialization import register
from petiole_worker import TOP, run_petiole
from pool import PetioleStarter, run
from process_family import descendants, is_alive
from redis_server import RedisServer
from waiting import wait_for

pytestmark = pytest.mark.petiole_only
QUEUE = "celery"
MIB = 1 << 20


def test_processes_share_a_parent_and_do_one_task_each(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(2)
    assert descendants(worker.pid) == [], "nothing is started before work comes"
    first = run(send, "who")
    assert first["parent"] != worker.pid
    assert first["inits"] == 1
    assert first["command_line"] == ["celery", "-A", "pool_app", "worker"]
    begin = time.monotonic()
    for result in [send("sleep", 0.5) for _ in range(4)]:
        assert result.get(timeout=20) == "slept"
    assert time.monotonic() - begin > 0.9, "four of half a second by no more than two processes"
    assert len(descendants(worker.pid)) == 3, "two processes and their parent"
    worker.terminate()
    assert worker.wait_exit() == 0


def test_broker_and_backend_are_of_the_workers_app_alone(
    redis_server: RedisServer, start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    start_pool(1)
    own, others, variables = run(send, "urls")
    assert own == [redis_server.url(0), redis_server.url(1)]
    assert others == ["redis://elsewhere/0", "redis://elsewhere/1"]
    assert variables == []


def test_idle_processes_end_and_come_back(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(2, process_idle_timeout=0.5)
    before = run(send, "who")
    wait_for(lambda: not descendants(worker.pid), 10)
    assert run(send, "who")["pid"] != before["pid"]


def test_without_an_idle_time_processes_stay(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    start_pool(1, process_idle_timeout=0)
    before = run(send, "who")
    assert run(send, "who") == before


def test_a_process_is_replaced_after_so_many_tasks(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    start_pool(1, "--max-tasks-per-child", "2")
    pids = [run(send, "who")["pid"] for _ in range(5)]
    assert pids[0] == pids[1]
    assert pids[2] == pids[3]
    assert len(set(pids)) == 3


def test_a_process_is_replaced_when_it_has_grown(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(1, "--max-memory-per-child", "200000")
    first = run(send, "keep", 1 * MIB)
    assert run(send, "keep", 300 * MIB) == first
    assert run(send, "keep", 1) != first
    worker.wait_log(
        r"WARNING/.*child process exiting after exceeding memory limit \(\d+KiB / 200000"
    )


def test_solo_is_one_process(start_pool: PetioleStarter, send: Callable[..., AsyncResult]) -> None:
    worker = start_pool(4, "-P", "solo")
    for result in [send("who") for _ in range(8)]:
        result.get(timeout=20)
    assert len(descendants(worker.pid)) == 2


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (3, "Worker exited prematurely: exitcode 3 Job: 0."),
        (-9, "Worker exited prematurely: signal 9 (SIGKILL) Job: 0."),
        (-11, "Worker exited prematurely: signal 11 (SIGSEGV) Job: 0."),
    ],
    ids=["exit", "kill", "segv"],
)
def test_a_lost_process(
    code: int,
    sentence: str,
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
) -> None:
    worker = start_pool(1)
    result = send("leave", code)
    document = wait_stored(backend, result.id)
    assert document["result"] == {
        "exc_type": "WorkerLostError",
        "exc_message": [sentence],
        "exc_module": "billiard.exceptions",
    }
    worker.wait_log(r"ERROR/.*Process 'ForkPoolWorker-1' pid:\d+ exited with '")
    assert run(send, "add", 1, 2) == 3
    wait_settled(broker)


def test_a_late_task_of_a_lost_process_goes_back(
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    worker = start_pool(
        1,
        tasks={"pool_app.who": {"executor": "process"}},
        task_acks_late=True,
        task_reject_on_worker_lost=True,
    )
    pid = run(send, "who")["pid"]
    result = send("hold", str(tmp_path / "gate"))
    wait_stored(backend, result.id, ("STARTED",))
    os.kill(pid, signal.SIGKILL)
    worker.wait_log(rf"hold\[{result.id}\] received", count=2)
    (tmp_path / "gate").touch()
    assert result.get(timeout=20) == "let go"
    assert worker.log_count(rf"hold\[{result.id}\] received") == 2
    wait_settled(broker)


def test_time_limits(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    worker = start_pool(2)
    assert run(send, "careful", 30, soft_time_limit=1) == "cleaned up"
    soft = wait_stored(backend, send("sleep", 30, soft_time_limit=1).id)
    assert soft["result"]["exc_type"] == "SoftTimeLimitExceeded"
    begin = time.monotonic()
    for name, args in (("sleep", (30,)), ("stubborn", ())):
        result = send(name, *args, time_limit=1)
        hard = wait_stored(backend, result.id)
        assert hard["result"] == {
            "exc_type": "TimeLimitExceeded",
            "exc_message": [1],
            "exc_module": "billiard.exceptions",
        }
        worker.wait_log(rf"ERROR/.*Hard time limit \(1s\) exceeded for pool_app.{name}")
    assert time.monotonic() - begin < 25, "both would have slept for thirty"
    assert run(send, "add", 1, 2) == 3
    wait_for(lambda: len(descendants(worker.pid)) <= 3, 20)


def test_terminate(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    worker = start_pool(1)
    result = send("sleep", 60)
    wait_stored(backend, result.id, ("STARTED",))
    waiting = send("sleep", 60)
    worker.wait_log(rf"sleep\[{waiting.id}\] received")
    waiting.revoke()
    worker.wait_log(rf"flagged as revoked: {waiting.id}")
    result.revoke(terminate=True, signal="SIGKILL")
    for key in (result.id, waiting.id):
        assert wait_stored(backend, key)["status"] == "REVOKED"
    assert run(send, "add", 1, 2) == 3


def test_output_and_loggers_reach_the_log_with_the_id(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(1)
    result = send("speak")
    result.get(timeout=20)
    for text in ("by logger", "by print", "without an end", "by C"):
        worker.wait_log(rf"WARNING/ForkPoolWorker-1\] pool_app.speak\[{result.id}\]: {text}$")
    other = send("fork_and_log")
    assert other.get(timeout=20) == "done"
    worker.wait_log(r"from the fork")


def test_the_log_has_the_order_in_which_a_task_writes(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(1)
    result = send("chatter", 100)
    result.get(timeout=20)
    worker.wait_log(rf"{result.id}\] succeeded")
    lines = re.findall(rf"{result.id}\](?::| (succeeded)) ?(?:chatter (.*))?", worker.log())
    numbers = [str(number) for number in range(400)]
    texts = [succeeded or text for succeeded, text in lines]
    assert texts == [*numbers[:4], "by another program", *numbers[4:], "succeeded"]


def test_retry_reject_and_own_states(
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
) -> None:
    worker = start_pool(2)
    assert run(send, "again", 2) == 2
    mine = wait_stored(backend, send("own_state").id, ("MINE",))
    assert mine["result"] == {"k": 1}
    refused = send("refuse", False)
    worker.wait_log(rf"refuse\[{refused.id}\] .*no")
    wait_settled(broker)
    assert broker.llen(QUEUE) == 0


def test_state_of_a_handler_of_the_failure(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    """It stays, as with Celery, which stores it after the failure."""
    start_pool(1)
    explained = send("explained")
    assert run(send, "add", 1, 2) == 3
    assert wait_stored(backend, explained.id, ("EXPLAINED",))["result"] == "because"
    assert run(send, "add", 1, 2) == 3
    assert explained.state == "EXPLAINED"


@pytest.mark.parametrize("serializer", ["json", "pickle", "msgpack", "yaml", "own"])
def test_bodies_that_only_python_can_open(
    serializer: str, start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    register("own", json.dumps, json.loads, "application/x-own", "utf-8")
    worker = start_pool(1, accept=f"json,{serializer}")
    assert run(send, "add", 1, 2, serializer=serializer) == 3
    for compression in ("zlib", "bzip2", "lzma"):
        assert run(send, "add", 1, 2, serializer=serializer, compression=compression) == 3
    assert worker.log_count("ERROR/") == 0


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_messages_of_protocol_1(
    compression: str | None,
    start_pool: PetioleStarter,
    make_client: Callable[..., Celery],
    backend: redis.Redis,
) -> None:
    start_pool(1)
    client = make_client(task_protocol=1)
    sent = client.send_task("pool_app.add", (1, 2), queue=QUEUE, compression=compression)
    assert wait_stored(backend, sent.id)["result"] == 3


def test_pickle_is_refused_unless_it_is_accepted(
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
) -> None:
    worker = start_pool(1)
    result = send("add", 1, 2, serializer="pickle")
    worker.wait_log("Refusing to deserialize untrusted content of type pickle .application/x")
    wait_settled(broker)
    assert backend.get(f"celery-task-meta-{result.id}") is None


def is_refused_by_celery() -> bool:
    """Return whether Celery's worker would take no pickle here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            platforms.check_privileges(["json", "pickle"])
        except SecurityError:
            return True
    return False


def test_root_does_not_take_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Celery's worker: pickle runs what its sender wants."""
    environment = {
        "PETIOLE_PYTHON": sys.executable,
        "PYTHONPATH": f"{TOP / 'python-shim' / 'src'}:{TOP / 'tests' / 'integration'}",
        "POOL_URL": "redis://127.0.0.1:1",
        "POOL_ACCEPT": "json,pickle",
        "PETIOLE_RUN_DIR": str(tmp_path),
        "PETIOLE_WORKER_HTTP_ADDRESS": "",
        "PETIOLE_BROKER_CONNECTION_RETRY_ON_STARTUP": "false",
    }
    monkeypatch.delenv("C_FORCE_ROOT", raising=False)
    for forced in ({}, {"C_FORCE_ROOT": "1"}):
        done = run_petiole("-A", "pool_app", "worker", environment={**environment, **forced})
        is_refused = "C_FORCE_ROOT" in done.stdout + done.stderr
        assert is_refused == (is_refused_by_celery() and not forced), done.stdout + done.stderr
        assert done.returncode == 1


def test_what_is_no_frame_costs_the_process_alone(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    worker = start_pool(1)
    document = wait_stored(backend, send("break_in").id)
    assert document["result"]["exc_type"] == "WorkerLostError"
    worker.wait_log("wrote something that is no answer")
    assert run(send, "add", 1, 2) == 3


def test_killed_parent_is_started_again(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    worker = start_pool(1)
    parent = run(send, "who")["parent"]
    result = send("sleep", 60)
    wait_stored(backend, result.id, ("STARTED",))
    os.kill(parent, signal.SIGKILL)
    assert wait_stored(backend, result.id)["result"]["exc_type"] == "WorkerLostError"
    worker.wait_log("CRITICAL/.*The parent of the Python processes ended")
    assert run(send, "add", 1, 2) == 3


def test_warm_shutdown_waits_and_cold_shutdown_kills(
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    tmp_path: Path,
) -> None:
    worker = start_pool(2)
    result = send("hold", str(tmp_path / "gate"))
    wait_stored(backend, result.id, ("STARTED",))
    worker.terminate()
    worker.wait_log("Warm shutdown")
    (tmp_path / "gate").touch()
    assert worker.wait_exit() == 0
    assert wait_stored(backend, result.id)["status"] == "SUCCESS"
    worker = start_pool(2)
    long = send("sleep", 60)
    wait_stored(backend, long.id, ("STARTED",))
    worker.signal(signal.SIGQUIT)
    assert worker.wait_exit() == 0
    assert wait_stored(backend, long.id, ("RETRY",))["status"] == "RETRY"


def test_processes_go_with_the_worker(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(2)
    for result in [send("sleep", 0.5) for _ in range(4)]:
        result.get(timeout=20)
    pids = descendants(worker.pid)
    assert len(pids) == 3
    worker.kill()
    wait_for(lambda: not any(map(is_alive, pids)), 20)


def test_an_app_that_cannot_be_imported_ends_the_worker(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken on purpose')\n")
    done = run_petiole(
        "--workdir",
        str(tmp_path),
        "-A",
        "broken",
        "worker",
        environment={
            "PETIOLE_PYTHON": sys.executable,
            "PYTHONPATH": str(TOP / "python-shim" / "src"),
        },
    )
    assert done.returncode == 2
    assert "broken on purpose" in done.stderr + done.stdout


def test_the_app_is_imported_once_and_shared(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], tmp_path: Path
) -> None:
    imports = tmp_path / "imports"
    worker = start_pool(4, environment={"POOL_IMPORTS": str(imports)})
    for result in [send("sleep", 0.5) for _ in range(4)]:
        result.get(timeout=20)
    assert imports.read_text().split() == ["petiole.manifest", "petiole.pool"]
    pids = descendants(worker.pid)
    assert len(pids) == 5
    sizes = [memory(pid) for pid in pids]
    shared = sum(size["Pss"] for size in sizes) / sum(size["Rss"] for size in sizes)
    assert shared < 0.5, sizes


def memory(pid: int) -> dict[str, int]:
    """Return the memory of a process in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_no_python_is_left_of_the_start(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(2, process_idle_timeout=0.2)
    assert descendants(worker.pid) == []
    assert run(send, "add", 1, 2) == 3
    wait_for(lambda: not descendants(worker.pid), 10)


def test_a_process_connects_when_its_task_does(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    worker = start_pool(1)
    assert run(send, "who")["inits"] == 1

    def connections() -> int:
        """Return how many sockets of the network the processes have."""
        table = Path("/proc/net/tcp").read_text()
        inodes = {line.split()[9] for line in table.splitlines()[1:]}
        links = [
            link.readlink()
            for pid in descendants(worker.pid)
            for link in Path(f"/proc/{pid}/fd").iterdir()
        ]
        return sum(str(link)[8:-1] in inodes for link in links if "socket" in str(link))

    assert connections() == 0
    assert wait_stored(backend, run(send, "send_another", 3, 4))["result"] == 7
    assert connections() > 0


@pytest.mark.parametrize("is_late", [False, True])
def test_early_and_late_acknowledgement(
    is_late: bool,
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    start_pool(1)
    result = send("hold_late" if is_late else "hold", str(tmp_path / "gate"))
    wait_stored(backend, result.id, ("STARTED",))
    if is_late:
        assert broker.hlen("unacked") == 1
    else:
        wait_settled(broker)
    assert not result.ready()
    (tmp_path / "gate").touch()
    assert result.get(timeout=10) == "let go"
    wait_settled(broker)


@pytest.mark.parametrize(
    ("setting", "flag", "comes_back"),
    [
        ("task_acks_on_failure_or_timeout", True, False),
        ("task_acks_on_failure_or_timeout", False, True),
        ("task_acks_on_timeout", False, True),
        ("task_acks_on_failure", False, False),
    ],
)
def test_split_forms_of_late_acknowledgement(
    setting: str,
    flag: bool,
    comes_back: bool,
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
    broker: redis.Redis,
) -> None:
    """A late task that ran out of time comes back only if it is not to be acknowledged then.

    One that failed never does: what is not acknowledged is rejected.
    """
    worker = start_pool(1, task_acks_late=True, **{setting: flag})
    with backend.pubsub() as channel:
        channel.psubscribe("celery-task-meta-*")  # there is no other task yet
        limited = send("late", 60)
        wait_published(channel, "FAILURE")  # what is stored may be STARTED again by then
    if comes_back:
        worker.wait_log(rf"\[{limited.id}\] received", count=2)
        limited.revoke(terminate=True, signal="SIGKILL")
        wait_stored(backend, limited.id, ("REVOKED",))
    failed = send("add", 1, "x")
    wait_stored(backend, failed.id, ("FAILURE",))
    wait_settled(broker, 20)
    assert broker.llen(QUEUE) == 0
    assert worker.log_count(rf"\[{limited.id}\] received") == 1 + comes_back
    assert worker.log_count(rf"\[{failed.id}\] received") == 1


@pytest.mark.parametrize("source", ["setting", "option", "task"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_where_time_limits_come_from(
    kind: str,
    source: str,
    start_pool: PetioleStarter,
    send: Callable[..., AsyncResult],
    backend: redis.Redis,
) -> None:
    name = "time_limit" if kind == "hard" else "soft_time_limit"
    settings: dict[str, Any] = {}
    arguments: tuple[str, ...] = ()
    if source == "setting":
        settings = {f"task_{name}": 1}
    elif source == "option":
        arguments = (f"--{name.replace('_', '-')}", "1")
    else:
        settings = {"tasks": {"pool_app.sleep": {"executor": "process", name: 1}}}
    start_pool(1, *arguments, **settings)
    document = wait_stored(backend, send("sleep", 60).id)
    expected = "TimeLimitExceeded" if kind == "hard" else "SoftTimeLimitExceeded"
    assert document["result"]["exc_type"] == expected


def test_limits_of_processes_by_settings(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(1, worker_max_tasks_per_child=2)
    pids = [run(send, "who")["pid"] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2]
    worker.terminate()
    assert worker.wait_exit() == 0
    start_pool(1, worker_max_memory_per_child=200_000)
    pid = run(send, "who")["pid"]
    assert run(send, "keep", 300 * MIB) == pid
    assert run(send, "who")["pid"] != pid


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet", "solo"])
def test_pools_that_are_no_processes(
    pool: str, start_pool: PetioleStarter, send: Callable[..., AsyncResult]
) -> None:
    worker = start_pool(2, "-P", pool)
    for result in [send("sleep", 0.5) for _ in range(4)]:
        assert result.get(timeout=20) == "slept"
    count = 1 if pool == "solo" else 2
    assert len(descendants(worker.pid)) == 1 + count, "their parent, and as many as -c says"
    assert worker.log_count(rf"WARNING/.*-P {pool}: tasks of the app run .*-P prefork") == 1


def test_autoscale(start_pool: PetioleStarter, send: Callable[..., AsyncResult]) -> None:
    worker = start_pool(1, "--autoscale=3,1")
    for result in [send("sleep", 0.5) for _ in range(6)]:
        result.get(timeout=20)
    assert len(descendants(worker.pid)) == 4
    assert worker.log_count("WARNING/.*--autoscale: up to 3 Python processes") == 1


def test_settings_and_rows_of_the_file_hold_in_processes(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    """What Celery decides in the process is decided by what counts for the worker."""
    rows = {
        "pool_app.who": {"executor": "process", "ignore_result": True},
        "pool_app.fail*": {"executor": "process", "store_errors_even_if_ignored": True},
        "pool_app.again": {"max_retries": 1, "track_started": False},
    }
    start_pool(
        1, result_extended=True, task_ignore_result=False, task_track_started=False, tasks=rows
    )
    ignored = send("who")
    added = wait_stored(backend, send("add", 1, 2).id)
    assert added["name"] == "pool_app.add"
    assert added["date_done"].endswith("+00:00")
    assert backend.get(f"celery-task-meta-{ignored.id}") is None
    failed = wait_stored(backend, send("fail_unheard").id)
    assert failed["result"]["exc_type"] == "ValueError"
    again = wait_stored(backend, send("again", 2).id)
    assert again["result"]["exc_type"] == "MaxRetriesExceededError"
    tracked = send("sleep", 0.5)
    assert wait_stored(backend, tracked.id, ("STARTED", "SUCCESS"))["status"] == "SUCCESS"


def test_environment_holds_in_processes(
    start_pool: PetioleStarter, send: Callable[..., AsyncResult], backend: redis.Redis
) -> None:
    start_pool(1, environment={"PETIOLE_TASK_IGNORE_RESULT": "true"})
    ignored = send("add", 1, 2)
    failed = send("add", 1, "x", ignore_result=False)
    assert wait_stored(backend, failed.id)["status"] == "FAILURE"
    assert backend.get(f"celery-task-meta-{ignored.id}") is None
