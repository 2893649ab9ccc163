"""revoke(terminate=True) of what runs as a process of the worker's machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from helpers import wait_settled, wait_stored
from job_template import report, write_template
from petiole_worker import PetioleWorker
from waiting import wait_for

TASK = "machine.nap"
AT_ONCE_S = 14.0  # far less than the grace
StartPetiole = Callable[..., PetioleWorker]


class Nap:
    """A task that runs as a process, and sleeps in a child of it, until it is ended."""

    def __init__(self, folder: Path, *, traps: str = "", grace_s: int = 600) -> None:
        """Write its template; `traps` are shell commands that it begins with."""
        self.pids = folder / "pids"
        self.got = folder / "got"
        # Its children do not take over what it traps, but what it ignores.
        script = f"{traps} sleep 600 & echo $$$$ $! > {self.pids}; while true; do wait; done"
        pod = {"terminationGracePeriodSeconds": grace_s}
        self.row = {
            "executor": "local",
            "job_template": write_template(folder, "nap", script=script, pod=pod),
        }

    def begin(self, client: Celery) -> AsyncResult:
        """Send it, and return when it runs."""
        result = client.send_task(TASK)
        wait_for(lambda: self.pids.exists() and self.pids.read_text().endswith("\n"), what="pids")
        return result

    def is_gone(self) -> bool:
        """Return whether none of its processes is there."""
        return not any(Path(f"/proc/{pid}").exists() for pid in self.pids.read_text().split())


def start(start_petiole: StartPetiole, nap: Nap) -> PetioleWorker:
    return start_petiole(settings={"tasks": {TASK: nap.row}, "plugins": []})


def terminate(client: Celery, result: AsyncResult, signal: str) -> None:
    client.control.revoke(result.id, terminate=True, signal=signal)


def assert_revoked(
    result: AsyncResult, nap: Nap, broker: redis.Redis, backend: redis.Redis
) -> None:
    """It is REVOKED for good, and none of its processes is there."""
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get(timeout=15)
    wait_for(nap.is_gone, what="its processes to be gone")
    document: dict[str, Any] = wait_stored(backend, result.id)
    assert (document["status"], document["result"]["exc_message"]) == ("REVOKED", ["terminated"])
    wait_settled(broker)


@pytest.mark.parametrize("signal", ["TERM", "INT", "USR1", "QUIT"])
def test_a_process_gets_the_clients_signal_and_may_tidy_up(
    *,
    start_petiole: StartPetiole,
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
    tmp_path: Path,
    signal: str,
) -> None:
    traps = f"trap 'echo {signal} > {tmp_path}/got; exit 0' {signal};"
    nap = Nap(tmp_path, traps=traps)
    worker = start(start_petiole, nap)
    result = nap.begin(client)
    terminate(client, result, f"SIG{signal}")
    assert_revoked(result, nap, broker, backend)
    assert nap.got.read_text().strip() == signal
    assert worker.log_count(f"Terminating {result.id}") == 1


def test_sigkill_kills_at_once(
    start_petiole: StartPetiole,
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
    tmp_path: Path,
) -> None:
    nap = Nap(tmp_path, traps="trap '' TERM INT;")
    start(start_petiole, nap)
    result = nap.begin(client)
    # A second client that is less patient than the first one.
    terminate(client, result, "SIGTERM")
    terminate(client, result, "SIGKILL")
    began_s = time.monotonic()
    assert_revoked(result, nap, broker, backend)
    assert time.monotonic() - began_s < AT_ONCE_S


def test_a_process_that_does_not_listen_is_killed_after_its_grace(
    start_petiole: StartPetiole,
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
    tmp_path: Path,
) -> None:
    nap = Nap(tmp_path, traps="trap '' TERM;", grace_s=1)
    start(start_petiole, nap)
    result = nap.begin(client)
    began_s = time.monotonic()
    terminate(client, result, "SIGTERM")
    assert_revoked(result, nap, broker, backend)
    assert time.monotonic() - began_s >= 1.0


def test_a_process_that_ends_well_after_all_is_revoked_nevertheless(
    start_petiole: StartPetiole,
    client: Celery,
    broker: redis.Redis,
    backend: redis.Redis,
    tmp_path: Path,
) -> None:
    """As Celery's: what a task says after it was terminated is not heard."""
    say = tmp_path / "say.sh"
    say.write_text(f"printf %s '{report(1)}' > $PETIOLE_RESULT_FILE && echo yes > {tmp_path}/got\n")
    nap = Nap(tmp_path, traps=f"trap '. {say}; exit 0' TERM;")
    start(start_petiole, nap)
    result = nap.begin(client)
    terminate(client, result, "SIGTERM")
    assert_revoked(result, nap, broker, backend)
    assert nap.got.read_text() == "yes\n"
