"""Runs the scenarios against the workers of one kind; as a program, compares two kinds.

    PYTHONPATH=tests/support parity_run.py [--celery newest|oldest] [--python 3.13|FILE]
                             [--kind KIND] [--only NAME ...] [--keep FOLDER]

Prints every field that differs from Celery's prefork worker and is not expected to, and exits with
0 when there is none and every scenario could be played. `--python` is an interpreter with Celery,
redis, PyYAML and msgpack.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parity_scenarios  # noqa: F401 - enters the scenarios
import parity_scenarios_canvas  # noqa: F401
from job_template import write_template
from parity_compare import Where, broken, compare, missing, unexpected
from parity_differences import DIFFERENCES, LEFT_OUT
from parity_differences_local import LOCAL_DIFFERENCES
from parity_scene import SCENARIOS
from parity_transcript import Run, transcripts
from petiole_worker import TOP, PetioleWorker
from program import INHERITED, Program, clean_environment
from python_env import ensure, find_python
from redis_server import RedisServer

HERE = Path(__file__).resolve().parent
KINDS = ("celery", "process", "local")  # the first is what the others are compared with
CLIENT_TIMEOUT_S = 540
OLDEST_PYTHON, NEWEST_PYTHON = "3.9", "3.13"
HEAD = "celery-task-meta-"
NODES: dict[str, dict[str, Any]] = {
    "open": {
        "accept_content": ["json", "pickle", "msgpack", "yaml"],
        "result_extended": True,
        "task_track_started": True,
        "task_default_queue": "open",
    },
    "strict": {"task_default_queue": "strict"},
}
PROCESSES = {"open": 4, "strict": 2}
OUTPUT_HEAD = "\n[2026-01-01 00:00:00,000: INFO/MainProcess] output of a container\n"
IN_CONTAINERS = ("parity_app.*", "a dotless name*", "celery.*")  # tasks of the kind "local"
CLIENT_ENVIRONMENT = {
    "local": {
        "PARITY_TIMEOUT_S": "120",  # each task starts a Python, and others wait for it
        "PARITY_ONCE": "1",
    }
}


@dataclass(frozen=True)
class Environment:
    """A Celery (`newest` or `oldest`) under a Python: a version, or empty for the suite's own."""

    celery: str
    python: str = ""

    def interpreter(self) -> str:
        """Return the interpreter, making its environment first when it is missing."""
        if not self.python:
            return str(ensure(self.celery))
        return str(ensure(f"parity-{self.celery}", find_python(self.python)))

    def __str__(self) -> str:
        """Return what the tests are called."""
        return f"{self.celery}-{self.python}" if self.python else self.celery


def environments() -> list[Environment]:
    """Return what is compared: each Celery, under the oldest and the newest Python at hand.

    With a build that is there for its instruments the newest Celery is enough.
    """
    if os.environ.get("PETIOLE_VARIANT", "release") != "release":
        return [Environment("newest")]
    oldest = OLDEST_PYTHON if find_python(OLDEST_PYTHON) else ""
    found = [Environment("newest"), Environment("oldest", oldest)]
    if find_python(NEWEST_PYTHON):
        found.append(Environment("newest", NEWEST_PYTHON))
    return found


def app_environment(server: RedisServer, node: str, python: str) -> dict[str, str]:
    """Return the environment in which the app is the one of a node's worker."""
    return clean_environment(
        {
            "PARITY_URL": server.url(0),
            "PARITY_SETTINGS": json.dumps(NODES[node]),
            "PYTHONPATH": f"{HERE}:{TOP / 'python-shim' / 'src'}",
            "PETIOLE_PYTHON": python,
            "C_FORCE_ROOT": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONHASHSEED": "0",
        }
    )


def start_worker(
    kind: str, server: RedisServer, node: str, python: str, folder: Path
) -> Program | PetioleWorker:
    """Start the worker of a kind that serves the queue `node`."""
    environment = app_environment(server, node, python)
    environment |= {"PARITY_RECORDS": server.url(2), "PARITY_NODE": node}
    count = str(PROCESSES[node])
    settings: dict[str, Any] = {"tasks": {}, "plugins": []}
    if kind == "celery":
        command = [python, "-m", "celery", "-A", "parity_app", "worker", "-n", f"{node}@test"]
        command += ["-Q", node, "-l", "INFO", "-P", "prefork", "-c", count]
        folder.mkdir(parents=True, exist_ok=True)
        return Program(command, folder / f"{node}.log", environment, cwd=folder)
    if kind == "local":
        settings |= container_settings(environment, node, python, folder)
    return PetioleWorker(
        folder,
        name=node,
        settings=settings,
        queues=(node,),
        global_arguments=("-A", "parity_app"),
        arguments=("-P", "prefork", "-c", count),
        environment=environment,
    )


def container_settings(
    environment: dict[str, str], node: str, python: str, folder: Path
) -> dict[str, Any]:
    """Return settings by which each task of the app is a container's."""
    folder.mkdir(parents=True, exist_ok=True)
    of_container = {key: environment[key] for key in environment if key not in INHERITED}
    of_container.pop("PYTHONDONTWRITEBYTECODE")
    template = write_template(
        folder,
        f"{node}-template",
        command=(python, "-m", "petiole.run"),
        app="parity_app",
        env={
            **of_container,
            "PARITY_IS_CHILD": "1",
            "PETIOLE_ACCEPT_CONTENT": "json",
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
        },
    )
    row = {"executor": "local", "job_template": template}
    return {
        "tasks": dict.fromkeys(IN_CONTAINERS, row),
        "kubernetes_namespace": node,  # the tenant, which has the queue of this name
        "tenant_header": f"tenant_of_{node}",  # `open` sends to `strict`, as no tenant does
        "kubernetes_publish_queues": list(NODES),
        "local_log_dir": str(folder / f"{node}-output"),
    }


def run_kind(kind: str, python: str, folder: Path, only: Sequence[str] = ()) -> Run:
    """Run the scenarios against two workers of a kind, and return what that left."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        server = RedisServer(folder / "redis")
        stack.callback(server.stop)
        workers = {}
        for node in NODES:
            workers[node] = start_worker(kind, server, node, python, folder)
            stack.callback(workers[node].stop)
        for worker in workers.values():
            worker.wait_log(r"\S+ ready\.", 60)
        client = run_client(kind, server, python, folder, only or scenarios_of(kind))
        for worker in workers.values():
            code = worker.stop(30)
            assert kind == "celery" or code == 0, f"exit code {code}:\n{worker.log()}"
        logs = {node: each.log() + outputs(folder, node) for node, each in workers.items()}
        return collect(server, client, logs)


def outputs(folder: Path, node: str) -> str:
    """Return what containers wrote: their process stands for one of the pool."""
    paths = sorted((folder / f"{node}-output").glob("*"))
    texts = [OUTPUT_HEAD + path.read_text(errors="replace") for path in paths]
    return "".join(texts).replace("/MainProcess]", "/ForkPoolWorker-1]")


def run_client(
    kind: str, server: RedisServer, python: str, folder: Path, only: Sequence[str]
) -> dict[str, Any]:
    """Run the client script and return what it wrote."""
    answer = folder / "client.json"
    environment = app_environment(server, "open", python) | {"PARITY_ONLY": " ".join(only)}
    environment |= CLIENT_ENVIRONMENT.get(kind, {})
    done = subprocess.run(
        [python, str(HERE / "parity_client.py"), str(answer)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(answer.read_text())


def collect(server: RedisServer, client: dict[str, Any], logs: dict[str, str]) -> Run:
    """Read what is in Redis when the workers have ended."""
    with (
        contextlib.closing(server.client(2)) as records,
        contextlib.closing(server.client(0)) as broker,
    ):
        notes = [json.loads(text) for text in records.lrange("records", 0, -1)]
        keys = [key.decode() for key in broker.keys("*")]
        stored = {
            key[len(HEAD) :]: broker.get(key).decode("utf-8", "backslashreplace")
            for key in keys
            if key.startswith(HEAD)
        }
    left = [key for key in keys if not key.startswith(HEAD)]
    return Run(client, notes, stored, logs, left)


def run_kinds(
    kinds: Sequence[str], python: str, folder: Path, only: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the transcripts of several kinds, which run at the same time."""
    with ThreadPoolExecutor() as pool:
        runs = {kind: pool.submit(run_kind, kind, python, folder / kind, only) for kind in kinds}
        return {kind: transcripts(run.result()) for kind, run in runs.items()}


def scenarios_of(kind: str) -> list[str]:
    """Return the scenarios that are run with a kind of worker; none: all."""
    left_out = {name for each in LEFT_OUT if kind in each.kinds for name in each.scenarios}
    return [name for name in SCENARIOS if name not in left_out] if left_out else []


def rows_for(kind: str, celery: str) -> list[Where]:
    """Return where differences of a kind of worker are expected with a version of Celery."""
    return [
        where
        for difference in (*DIFFERENCES, *LOCAL_DIFFERENCES)
        for where in difference.where
        if kind in difference.kinds and celery in where.celeries
    ]


def main() -> int:
    """Compare a kind with Celery and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--celery", choices=("newest", "oldest"), default="newest")
    parser.add_argument("--python", help="a version such as 3.13, or an interpreter")
    parser.add_argument("--kind", choices=KINDS[1:], default="process")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--keep", type=Path, help="leave logs and transcripts in this folder")
    options = parser.parse_args()
    is_file = options.python and os.sep in options.python
    environment = Environment(options.celery, options.python or "")
    python = options.python if is_file else environment.interpreter()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        found = run_kinds(("celery", options.kind), python, folder, options.only)
        for kind, each in found.items():
            (folder / f"{kind}.json").write_text(json.dumps(each, indent=1))
    rows = rows_for(options.kind, options.celery)
    mismatches = {
        feature: list(compare(found["celery"][feature], each))
        for feature, each in found[options.kind].items()
    }
    count = 0
    for kind, feature in itertools.product(found, mismatches):
        if text := broken(found[kind], feature):
            count += 1
            print(f"{feature}: cannot be played against {kind}:\n{text}")
    for feature, each in mismatches.items():
        others = unexpected(feature, each, rows)
        count += len(others)
        for other in others:
            print(f"{feature}: {other}")
    for where, feature in [] if options.only else missing(mismatches, rows):
        count += 1
        print(f"{feature}: was expected and is not there: {where}")
    print(f"{count} unexpected differences in {time.monotonic() - begin:.0f} s")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
