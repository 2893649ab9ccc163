#!/usr/bin/env python3
"""Train for two tenants on this machine and show what happened.

    run_demo.py --petiole build/petiole [--cluster]

Starts a redis-server, the control plane of `app/` and a Petiole worker for each of two tenants, all
on free ports of 127.0.0.1. Logs in as an admin and as a user, posts a training for each, follows
both to SUCCESS, and prints what became of them, and the workers' memory beside that of Celery's
worker with the same app.

The trainings run as processes of this machine; with --cluster as Jobs of the cluster that
KUBECONFIG names, or of one that is started for the demo.

Whatever was started is stopped, and the folder of it deleted, however the demo ends. Exits with 0;
with 1 after a failure, with a sentence and the folder of the logs, which is kept then; with 130 or
143 after SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
SUPPORT = TOP / "tests" / "support"
sys.path[:0] = [str(SUPPORT), str(SUPPORT / "cluster")]

import python_env  # noqa: E402 - These need the folders above.
from processes import free_port  # noqa: E402

import places  # noqa: E402
import table  # noqa: E402
from control_plane import ControlPlane, User  # noqa: E402
from places import Place  # noqa: E402
from programs import DemoError, Memory, Program, Programs, wait_until  # noqa: E402

TENANTS = ("tenant-admin", "tenant-user")
# Celery's Deployment that Petiole takes the place of has these very arguments.
WORKER = ("-A", "app.tasks", "worker", "--loglevel=info")
CELERY_POOLS = ("solo", "prefork")
START_S = 60.0
TRAINING_S = 180.0
INHERITED = ("HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
UNFINISHED = ("PENDING", "RECEIVED", "STARTED", "RETRY")
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


@dataclass(frozen=True)
class Person:
    """Somebody who trains: how to log in, where his tasks belong, and what he asks for."""

    name: str
    password: str
    tenant: str
    epochs: int
    rank: int


PEOPLE = (
    Person("admin", "admin", "tenant-admin", epochs=3, rank=8),
    Person("alice", "wonderland", "tenant-user", epochs=2, rank=4),
)


@dataclass
class Training:
    """A task on its way."""

    user: User
    tenant: str
    task_id: str
    posted_s: float
    answer: dict[str, Any]
    seconds: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether the API has told the end of it."""
        return self.answer["status"] not in UNFINISHED

    def look(self) -> bool:
        """Ask the API once more, unless the end is known; return whether it is."""
        if not self.is_finished:
            self.answer = self.user.task(self.task_id)
            self.seconds = time.monotonic() - self.posted_s
        return self.is_finished


@dataclass(frozen=True)
class Stage:
    """What everything on this machine needs to know."""

    folder: Path
    python: Path
    programs: Programs
    redis_port: int

    @property
    def pythonpath(self) -> str:
        """Return where the package `petiole` and the app are."""
        return os.pathsep.join(map(str, (HERE.parent / "src", HERE)))

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of a program: nothing that configures it but `extra`."""
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        path = os.pathsep.join((str(self.python.parent), os.environ.get("PATH", os.defpath)))
        return {**inherited, "PATH": path, "PYTHONPATH": self.pythonpath, **extra}

    def celery_environment(self, **extra: str) -> dict[str, str]:
        """Return the same with the addresses of broker and backend."""
        url = f"redis://127.0.0.1:{self.redis_port}"
        return self.environment(
            CELERY_BROKER_URL=f"{url}/0", CELERY_RESULT_BACKEND=f"{url}/1", **extra
        )

    def start(
        self, name: str, command: Sequence[str | Path], env: dict[str, str], ready: str
    ) -> Program:
        """Start a program, and wait until it prints `ready`."""
        program = self.programs.start(name, command, env, self.folder)
        self.programs.wait_for_line(program, ready, START_S)
        return program


def start_redis(stage: Stage) -> None:
    """Start the redis-server, which keeps nothing on disk."""
    program = shutil.which("redis-server")
    if not program:
        raise DemoError("redis-server is missing: apt-get install redis-server")
    command = [program, "--bind", "127.0.0.1", "--port", str(stage.redis_port), "--save", ""]
    command += ["--appendonly", "no", "--dir", str(stage.folder)]
    stage.start("redis-server", command, stage.environment(), "Ready to accept connections")


def start_control_plane(stage: Stage) -> ControlPlane:
    """Start the API."""
    port = free_port()
    command = [str(stage.python), "-m", "uvicorn", "app.main:app", "--host", "127.0.0.1"]
    env = stage.celery_environment(JWT_SECRET=secrets.token_hex(32))
    stage.start("control plane", [*command, "--port", str(port)], env, "Uvicorn running on")
    return ControlPlane(f"http://127.0.0.1:{port}")


@contextmanager
def petiole_workers(stage: Stage, petiole: Path, place: Place) -> Iterator[dict[str, Program]]:
    """Run a Petiole for each tenant while the block runs, and give them by tenant."""
    workers: dict[str, Program] = {}
    with ExitStack() as stack:
        for tenant in TENANTS:
            workers[tenant] = start_petiole(stage, petiole, place, tenant)
            stack.callback(stage.programs.stop, workers[tenant])
        yield workers


def start_petiole(stage: Stage, petiole: Path, place: Place, tenant: str) -> Program:
    """Start the worker of a tenant."""
    env = stage.celery_environment(
        PETIOLE_RUN_DIR=str(stage.folder / f"run-{tenant}"),
        PETIOLE_WORKER_HTTP_ADDRESS=f"127.0.0.1:{free_port()}",
        PETIOLE_PYTHON=str(stage.python),
        **place.worker_environment(tenant),
    )
    command = [str(petiole), *WORKER, "-n", f"{tenant}@%h"]
    return stage.start(f"petiole {tenant}", command, env, " ready.")


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


def post_trainings(control_plane: ControlPlane) -> list[Training]:
    """Log in as each of the people and start a training."""
    trainings = []
    for person in PEOPLE:
        user = control_plane.log_in(person.name, person.password)
        config = {
            "experiment_name": f"demo-{person.name}",
            "training": {"epochs": person.epochs},
            "lora": {"r": person.rank},
        }
        posted_s = time.monotonic()
        task_id = user.train(config)
        say(f"POST /train as {person.name}: task {task_id}")
        trainings.append(Training(user, person.tenant, task_id, posted_s, {"status": "PENDING"}))
    return trainings


def follow(trainings: list[Training], programs: Programs) -> None:
    """Ask the API for the trainings until both have succeeded.

    Raises:
        DemoError: One failed, took too long, or a program has ended.
    """

    def are_finished() -> bool:
        programs.check()
        return all([training.look() for training in trainings])

    if not wait_until(are_finished, TRAINING_S):
        states = ", ".join(f"{each.task_id} {each.answer['status']}" for each in trainings)
        raise DemoError(f"not finished within {TRAINING_S:.0f} s: {states}")
    for training in trainings:
        if training.answer["status"] != "SUCCESS":
            raise DemoError(f"the training of {training.tenant} failed: {training.answer}")


def check_ownership(trainings: list[Training]) -> str:
    """Return a line about who may read whose task; raise DemoError when the wrong one may."""
    admins, users = trainings
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
    command = ["redis-cli", "-p", str(stage.redis_port), "-n", "1"]
    command += ["GET", f"celery-task-meta-{task_id}"]
    # S603 warns of programs that somebody else names.
    answer = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return str(json.loads(answer.stdout)["queue"])


def show_trainings(stage: Stage, place: Place, trainings: list[Training]) -> str:
    """Return the table of the tasks; the accuracy is what the API answered."""
    head = ("task", "tenant", "queue", "namespace", "Job", "state", "accuracy", "time")
    rows = []
    for training in trainings:
        job = place.find_job(training.tenant, training.task_id)
        result = training.answer["result"]
        rows.append(
            (
                f"train_lora[{training.task_id[:8]}]",
                training.tenant,
                stored_queue(stage, training.task_id),
                job.namespace,
                job.name,
                training.answer["status"],
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
            trainings = post_trainings(control_plane)
            follow(trainings, programs)
            ownership = check_ownership(trainings)
            memories = {f"petiole {tenant}": each.memory() for tenant, each in workers.items()}
        say("Celery's worker with the same app, for its memory")
        memories.update(measure_celery(stage))
        parts = [show_trainings(stage, place, trainings), ownership, show_memory(memories)]
        print("\n" + "\n\n".join(filter(None, [*parts, place.show()])), flush=True)


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


def say(text: str) -> None:
    """Tell what happens next."""
    print(f"demo: {text}", flush=True)


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
