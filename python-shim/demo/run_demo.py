#!/usr/bin/env python3
"""Train for two tenants on this machine and show what happened.

    run_demo.py --petiole build/petiole [--cluster]

Starts a redis-server, the control plane of `app/` and a Petiole worker for each of two tenants, all
on free ports of 127.0.0.1. Logs in as an admin and as a user, posts a training for each, follows
both to SUCCESS, and prints what became of them, and the workers' memory beside that of Celery's
worker with the same app.

The trainings run as processes of this machine; with --cluster as Jobs of the cluster that
KUBECONFIG names, or of one that is started for the demo, and `acts.py` shows what goes wrong there.

Whatever was started is stopped, and the folder of it deleted, however the demo ends. Exits with 0;
with 1 after a failure, with a sentence and the folder of the logs, which is kept then; with 130 or
143 after SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
SUPPORT = TOP / "tests" / "support"
sys.path[:0] = [str(SUPPORT), str(SUPPORT / "cluster")]

import python_env  # noqa: E402 - These need the folders above.
from processes import free_port  # noqa: E402

import places  # noqa: E402
import table  # noqa: E402
import trainings  # noqa: E402
from acts import Acts  # noqa: E402
from places import Kubernetes, Place  # noqa: E402
from programs import DemoError, Memory, Programs, say  # noqa: E402
from stage import (  # noqa: E402
    TENANTS,
    WORKER,
    Stage,
    petiole_workers,
    start_control_plane,
    start_redis,
)
from trainings import ADMIN, ALICE, Training  # noqa: E402

CELERY_POOLS = ("solo", "prefork")
FORBIDDEN = 403
MIB = 1024 * 1024
EXIT_FAILED = 1
EXIT_SIGNALLED = 128


class Interrupted(BaseException):
    """A signal asked the demo to end; not an Exception, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        """`number` is the signal's."""
        super().__init__(number)
        self.number = number


def measure_celery(stage: Stage) -> dict[str, Memory]:
    """Start a Celery worker for each pool, measure it as soon as it is ready, and stop it."""
    found = {}
    for pool in CELERY_POOLS:
        name = f"celery -P {pool}"
        command = [str(stage.python), "-m", "celery", *WORKER, "-P", pool, "-n", f"{pool}@%h"]
        worker = stage.start(name, command, stage.celery_environment(), " ready.")
        found[name] = worker.memory()
        stage.programs.stop(worker)
    return found


def check_ownership(admins: Training, users: Training) -> str:
    """Return a line about who may read whose task; raise DemoError when the wrong one may."""
    status = users.user.status_of_task(admins.task_id)
    if status != FORBIDDEN:
        raise DemoError(f"the user could read the admin's task: {status}")
    users_task = admins.user.task(users.task_id)
    return (
        f"GET /task of the admin's task as {users.user.user_id}: {status}; "
        f"of the user's task as {admins.user.user_id}: {users_task['status']}"
    )


def stored_queue(stage: Stage, task_id: str) -> str:
    """Return the queue that the stored result names."""
    return str(json.loads(stage.redis(1, "GET", f"celery-task-meta-{task_id}"))["queue"])


def show_trainings(stage: Stage, place: Place, shown: list[Training]) -> str:
    """Return the table of the tasks; the accuracy is what the API answered."""
    head = ("task", "tenant", "queue", "namespace", "Job", "state", "accuracy", "time")
    rows = []
    for training in shown:
        job = place.find_job(training.tenant, training.task_id)
        result = training.answer["result"]
        rows.append(
            (
                f"train_lora[{training.task_id[:8]}]",
                training.tenant,
                stored_queue(stage, training.task_id),
                job.namespace,
                job.name,
                training.status,
                f"{result['eval']['accuracy']:.4f}",
                f"{training.seconds:.1f} s",
            )
        )
    return table.render(head, rows, frozenset({"accuracy", "time"}))


def show_memory(memories: dict[str, Memory]) -> str:
    """Return the table of the workers' memory."""
    head = ("worker", "processes", "resident", "proportional")
    rows = [
        (name, str(each.processes), _mib(each.rss_bytes), _mib(each.pss_bytes))
        for name, each in memories.items()
    ]
    shown = table.render(head, rows, frozenset(head[1:]))
    note = "proportional (PSS): a page that n processes share counts 1/n in each of them"
    return f"{shown}\n{note}"


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


def run(petiole: Path, is_cluster: bool, folder: Path, programs: Programs) -> None:
    """Run the demo in `folder`. Raises DemoError."""
    say("Python environment")
    stage = Stage(folder, python_env.ensure("demo"), programs, free_port())
    say("redis-server and control plane")
    start_redis(stage)
    control_plane = start_control_plane(stage)
    with place_for_jobs(stage, is_cluster) as place:
        say("a Petiole worker for each tenant")
        with petiole_workers(stage, petiole, place) as workers:
            posted = [trainings.post(control_plane, person) for person in (ADMIN, ALICE)]
            trainings.follow(posted, programs)
            parts = [show_trainings(stage, place, posted), check_ownership(*posted)]
            memories = workers.memories()
            if isinstance(place, Kubernetes):
                parts.append(Acts(stage, control_plane, place, workers).play())
        say("Celery's worker with the same app, for its memory")
        memories.update(measure_celery(stage))
        parts += [show_memory(memories), place.show()]
        print("\n" + "\n\n".join(filter(None, parts)), flush=True)


def place_for_jobs(stage: Stage, is_cluster: bool) -> AbstractContextManager[Place]:
    """Return where Jobs run while the block runs."""
    if not is_cluster:
        return nullcontext(places.Machine(stage.folder))
    is_given = bool(os.environ.get("KUBECONFIG"))
    say(
        "the cluster of KUBECONFIG" if is_given else "a Kubernetes cluster; its first build is slow"
    )
    return places.kubernetes(stage.folder, TENANTS, stage.python, stage.pythonpath)


def handle_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    """Let `handler` have what asks a program to end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def interrupt(number: int, _frame: FrameType | None) -> None:
    """Raise Interrupted, once: what cleans up is not interrupted."""
    handle_signals(signal.SIG_IGN)
    raise Interrupted(number)


def delete_all_but_logs(folder: Path) -> None:
    """Delete settings, credentials and sockets below `folder`, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            elif path.suffix != ".log":
                path.unlink()


def main() -> int:
    """Run the demo and clean up; see the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--petiole", type=Path, required=True, help="the program")
    parser.add_argument("--cluster", action="store_true", help="run Jobs on Kubernetes")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="petiole-demo-"))
    programs = Programs(folder)
    exit_code = 0
    try:
        handle_signals(interrupt)
        run(options.petiole.resolve(), options.cluster, folder, programs)
    except (DemoError, python_env.PythonEnvError) as error:
        print(f"demo: {error}\ndemo: the logs are in {folder}", file=sys.stderr)
        exit_code = EXIT_FAILED
    except Interrupted as error:
        print(f"demo: stopped by {signal.Signals(error.number).name}", file=sys.stderr)
        exit_code = EXIT_SIGNALLED + error.number
    finally:
        handle_signals(signal.SIG_IGN)
        programs.close()
        delete_all_but_logs(folder)
        if exit_code != EXIT_FAILED:
            shutil.rmtree(folder, ignore_errors=True)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
