#!/usr/bin/env python3
"""Break one step of the worker at a time and see that the crash harness notices.

    python3 tests/support/break_steps.py [NAME ...]

For each break, or each one named, a copy of the sources gets one edit, is built, and runs the
harness (tests/kubernetes/test_crash_harness.py), which must fail. Prints what the harness said.
Exits 0 when all were noticed, or 1 with those that were not, that no longer fit the source, or
that did not build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
COPIED = ("Makefile", "include", "src", "tests")
TIMEOUT_S = 900
SHOWN_LINES = 6


class BreakError(RuntimeError):
    """A break that cannot be made."""


@dataclass(frozen=True)
class Break:
    """An edit of one file: `old`, which is there once, becomes `new`. `test` is to notice it."""

    name: str
    what: str
    file: str
    old: str
    new: str
    test: str


BREAKS = (
    Break(
        "adopt",
        "a Job that exists already is a failure",
        "src/executor/executor_kubernetes_submit.c",
        "case KUBERNETES_EXISTS:\n        find_existing(submission);",
        'case KUBERNETES_EXISTS:\n        fail(submission, "JobNameConflict", "it exists");',
        "test_killed_at_every_step",
    ),
    Break(
        "take-over",
        "the Jobs of a worker that is gone stay nobody's",
        "src/executor/executor_kubernetes_own.c",
        "if (entry->is_finished == is_finished && is_orphan(executor, entry)) {",
        "if (!entry->exists && entry->is_finished == is_finished && is_orphan(executor, entry)) {",
        "test_killed_at_any_instant",
    ),
    Break(
        "own",
        "the Jobs of another worker count as ours",
        "src/executor/executor_kubernetes_observe.c",
        "entry->is_mine = strcmp(entry->owner, executor->options.instance_id) == 0;",
        "entry->is_mine = entry->owner[0] != 0;",
        "test_ten_workers_killed_all_the_time",
    ),
    Break(
        "look",
        "what a dead worker stored is not looked at before its Job is reported",
        "src/worker/pipeline_report.c",
        "if (completion && completion->is_taken_over && pipeline->backend) {",
        "if (completion && completion->is_taken_over && !pipeline->backend) {",
        "test_killed_at_every_step",
    ),
    Break(
        "mark",
        "a Job that is reported is not marked so",
        "src/executor/kubernetes_job.c",
        r'"reported") "\":\"true\"}}"',
        r'"reported") "\":\"\"}}"',
        "test_killed_at_any_instant",
    ),
)


def make_copy(folder: Path, given: Break) -> None:
    """Copy the sources to `folder` and edit them.

    Raises:
        BreakError: the text to replace is not there once.
    """
    for name in COPIED:
        source = TOP / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    path = folder / given.file
    text = path.read_text()
    if text.count(given.old) != 1:
        raise BreakError(f"{given.file} has not exactly one {given.old!r}")
    path.write_text(text.replace(given.old, given.new))


def run_harness(folder: Path, given: Break) -> subprocess.CompletedProcess[str]:
    """Build the copy and run the test that is to notice.

    Raises:
        BreakError: it cannot be built.
    """
    build = ["make", "-C", str(folder), f"-j{os.cpu_count()}", "all"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise BreakError(f"does not build: {built.stderr}")
    make_python = [sys.executable, str(TOP / "tests/support/python_env.py"), "newest"]
    python = subprocess.run(make_python, check=True, stdout=subprocess.PIPE, text=True)
    command = [python.stdout.strip(), "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x"]
    command += ["--instants", "20", "-k", given.test, "--tb", "line"]
    return subprocess.run(
        [*command, "tests/kubernetes/test_crash_harness.py"],
        cwd=TOP,
        env={**os.environ, "PETIOLE_BINARY": str(folder / "build" / "petiole")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def is_noticed(given: Break) -> bool:
    """Make one break and print what became of it."""
    print(f"-- {given.name}: {given.what}", flush=True)
    with tempfile.TemporaryDirectory(prefix="petiole-break-") as folder:
        try:
            make_copy(Path(folder), given)
            done = run_harness(Path(folder), given)
        except BreakError as error:
            print(error)
            return False
    said = [line for line in done.stdout.splitlines() if line.strip()]
    print(*(line[:200] for line in said[-SHOWN_LINES:]), sep="\n", flush=True)
    return done.returncode == 1 and "1 failed" in said[-1]


def main() -> int:
    """Read the command line, make the breaks, and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(b.name for b in BREAKS)])
    names = parser.parse_args().names
    chosen = [each for each in BREAKS if not names or each.name in names]
    missed = [each.name for each in chosen if not is_noticed(each)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} breaks noticed", *missed)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
