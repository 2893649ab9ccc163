#!/usr/bin/env python3
"""Run the stages of the test suite and count what they say.

    run_tests.py [--variant NAME] [--petiole PATH] [--stage NAME ...]

Every stage runs, also after one that failed, with its output shown live. The last line is exactly
`N passed, N failed, N skipped`; the exit code is 1 when anything failed. A stage that crashed, or
that ran no test at all, counts as one failure; so does every report that a sanitizer wrote while a
stage ran. Without --stage all of `make test` runs, and with CI=true also what only CI waits for.

The stages see PETIOLE_BINARY (absolute path of the program under test; plugins are beside it) and
PETIOLE_VARIANT. `BUILD` names the build folder (build), and `make` gets its own variables back
through MAKEFLAGS.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

TOP = Path(__file__).resolve().parents[2]
CHECK_TIMEOUT_S = 600
UNIT_TIMEOUT_S = 300
BUILD_TIMEOUT_S = 1800
SUITE_TIMEOUT_S = 3600
INTERRUPT_GRACE_S = 30
SKIPPED_EXIT_CODE = 77
PYTEST_EXIT_CODES = (0, 1)
FUZZ_SECONDS = 60
REASON_CHARACTERS = 600
TAP_ENVIRONMENT = {"CMOCKA_MESSAGE_OUTPUT": "TAP"}
TAP_PLAN = re.compile(r"1\.\.(\d+)$")
TAP_RESULT = re.compile(r"(?P<failed>not )?ok \d+ (?P<skip># SKIP )?(- )?(?P<name>.*)")


@dataclass
class Counts:
    """How many tests passed and were skipped, and the names of those that failed."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the tests of `other` to these."""
        self.passed += other.passed
        self.skipped += other.skipped
        self.failed += other.failed

    def record(self, name: str, exit_code: int) -> None:
        """Count a program that is one test: 0 passed, 77 skipped, everything else failed."""
        if exit_code == 0:
            self.passed += 1
        elif exit_code == SKIPPED_EXIT_CODE:
            self.skipped += 1
        else:
            self.failed.append(f"{name} (exit code {exit_code})")

    def __str__(self) -> str:
        """Return the closing line."""
        return f"{self.passed} passed, {len(self.failed)} failed, {self.skipped} skipped"


@dataclass(frozen=True)
class Context:
    """What a stage works on: one build variant and its folders."""

    variant: str
    build: Path
    petiole: Path
    make: tuple[str, ...] = ()

    @property
    def objects(self) -> Path:
        """Return the folder of the variant's objects and test programs."""
        return self.build / self.variant

    @property
    def reports(self) -> Path:
        """Return the folder of the variant's test reports."""
        return self.objects / "reports"

    def environment(self) -> dict[str, str]:
        """Return the environment of the programs that the stages start."""
        log = f"log_path={self.reports.resolve()}/sanitizer"
        return os.environ | {
            "PETIOLE_BINARY": str(self.petiole.resolve()),
            "PETIOLE_VARIANT": self.variant,
            "ASAN_OPTIONS": f"{log}:detect_leaks=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": f"{log}:print_stacktrace=1",
            "TSAN_OPTIONS": f"{log}:halt_on_error=0",
        }


def context_of(variant: str, petiole: Path | None = None) -> Context:
    """Return the context of a build variant; `petiole` replaces the program it builds."""
    build = Path(os.environ.get("BUILD", "build"))
    own = (build if variant == "release" else build / variant) / "petiole"
    compiler = {"clang": ("CC=clang-14",), "fuzz": ("CC=clang-14",)}.get(variant, ())
    return Context(variant, build, petiole or own, (f"VARIANT={variant}", *compiler))


def run(
    context: Context,
    command: list[str],
    timeout_s: int,
    *,
    on_line: Callable[[str], None] | None = None,
    extra: dict[str, str] | None = None,
) -> int:
    """Run a program with its output shown live; return its exit code, negative for a signal.

    `on_line` gets each line of its stdout too; `extra` is added to the environment. A program that
    takes longer than `timeout_s`, or is still there when this one is interrupted, is interrupted
    and, 30 s later, killed. What it started and left behind in its process group is killed.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if on_line else None,
        env=context.environment() | (extra or {}),
        text=True,
        errors="replace",
        start_new_session=True,
    )
    timer = threading.Timer(timeout_s, interrupt, [process, f"took more than {timeout_s} s"])
    timer.start()
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if on_line:
                on_line(line.rstrip("\n"))
        return process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            interrupt(process, "is interrupted")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def interrupt(process: subprocess.Popen[str], reason: str) -> None:
    """Ask a program to clean up and end, and kill it when it does not."""
    print(f"process {process.pid} {reason}", flush=True)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(INTERRUPT_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def run_make(context: Context, *words: str) -> int:
    """Run `make` for the context's variant, on all cores unless a job server says how many."""
    jobs = () if "jobserver" in os.environ.get("MAKEFLAGS", "") else (f"-j{os.cpu_count()}",)
    return run(context, ["make", *jobs, *context.make, *words], BUILD_TIMEOUT_S)


def build_stage(context: Context) -> Counts:
    """Build everything of the variant: one test, which DEVELOPER=1 makes fail on a warning."""
    counts = Counts()
    counts.record("build", run_make(context, "-k", "all", "unit", "replay"))
    return counts


def checks_stage(context: Context) -> Counts:
    """Run every check of tests/checks; each is one test."""
    counts = Counts()
    for check in sorted(Path("tests/checks").glob("check_*.*")):
        print(f"-- {check.stem}", flush=True)
        counts.record(check.stem, run(context, [str(check)], CHECK_TIMEOUT_S))
    return counts


def lint_stage(context: Context) -> Counts:
    """Run clang-tidy over the C sources: one test."""
    counts = Counts()
    counts.record("lint", run_make(context, "lint"))
    return counts


def unit_stage(context: Context) -> Counts:
    """Run the program of every file in tests/unit, counting cmocka's tests."""
    counts = Counts()
    for source in sorted(Path("tests/unit").glob("test_*.c")):
        program = context.objects / "tests" / source.stem
        counts.add(run_unit(context, program))
    return counts


def run_unit(context: Context, program: Path) -> Counts:
    """Run one cmocka program and count the lines of its TAP output."""
    counts = Counts()
    planned = 0

    def read(line: str) -> None:
        nonlocal planned
        if plan := TAP_PLAN.match(line):
            planned += int(plan[1])
        elif result := TAP_RESULT.match(line):
            if result["skip"]:
                counts.skipped += 1
            elif result["failed"]:
                counts.failed.append(f"{program.name}: {result['name']}")
            else:
                counts.passed += 1

    print(f"-- {program.name}", flush=True)
    if not program.exists():
        return Counts(failed=[f"{program.name} was not built"])
    command = [str(program)]
    exit_code = run(context, command, UNIT_TIMEOUT_S, on_line=read, extra=TAP_ENVIRONMENT)
    ran = counts.passed + counts.skipped + len(counts.failed)
    if ran == 0 or ran < planned or (exit_code != 0 and not counts.failed):
        counts.failed.append(f"{program.name}: ended with {exit_code} after {ran} of {planned}")
    return counts


def replay_stage(context: Context) -> Counts:
    """Run every scenario of tests/replay under a virtual clock; each is one test."""
    counts = Counts()
    program = context.objects / "tests" / "player"
    for scenario in sorted(Path("tests/replay").glob("*.scenario")):
        print(f"-- {scenario.name}", flush=True)
        if program.exists():
            exit_code = run(context, [str(program), str(scenario)], UNIT_TIMEOUT_S)
            counts.record(scenario.name, exit_code)
        else:
            counts.failed.append(f"{scenario.name}: {program} was not built")
    return counts


def pytest_stage(name: str, folder: str, *options: str) -> Stage:
    """Return a stage that runs the pytest suite of a folder with the pinned packages."""

    def stage(context: Context) -> Counts:
        report = context.reports / f"{name}.xml"
        report.unlink(missing_ok=True)
        command = [test_python(), "-m", "pytest", "-p", "no:cacheprovider", "-ra"]
        command += [f"--junitxml={report.resolve()}", *options, folder]
        exit_code = run(context, command, SUITE_TIMEOUT_S)
        counts = read_junit(report) if report.exists() else Counts()
        if exit_code not in PYTEST_EXIT_CODES:
            counts.failed.append(f"{name}: pytest ended with {exit_code}")
        return counts

    return stage


def test_python() -> str:
    """Return the interpreter of the suites, making its environment first when it is missing."""
    command = [sys.executable, "tests/support/python_env.py", "newest"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def read_junit(report: Path) -> Counts:
    """Count the test cases of a JUnit file; a case fails once, in its body or around it."""
    counts = Counts()
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        ends = [end for kind in ("failure", "error") for end in case.iter(kind)]
        if ends:
            why = " ".join(ends[0].get("message", "").split())[:REASON_CHARACTERS]
            counts.failed.append(f"{case.get('classname')}::{case.get('name')}: {why}")
        elif case.find("skipped") is not None:
            counts.skipped += 1
        else:
            counts.passed += 1
    return counts


def fuzz_stage(context: Context) -> Counts:
    """Run the fuzz targets, for a minute in all; together they are one test."""
    counts = Counts()
    targets = list(Path("tests/fuzz").glob("fuzz_*.c"))
    if not targets:
        return counts
    seconds = FUZZ_SECONDS // len(targets)
    counts.record("fuzz", run_make(context, f"FUZZ_SECONDS={seconds}", "fuzz-run"))
    return counts


Stage = Callable[[Context], Counts]
STAGES: dict[str, Stage] = {
    "build": build_stage,
    "checks": checks_stage,
    "lint": lint_stage,
    "unit": unit_stage,
    "replay": replay_stage,
    "shim": pytest_stage("shim", "python-shim/tests", "-c", "python-shim/pyproject.toml"),
    "integration": pytest_stage("integration", "tests/integration"),
    "kubernetes": pytest_stage("kubernetes", "tests/kubernetes"),
    "native": pytest_stage("native", "tests/integration", "-k", "native"),
    "fuzz": fuzz_stage,
}
TEST_STAGES = ("build", "checks", "unit", "replay", "shim", "integration", "kubernetes")
CI_STAGES = (
    ("release", "lint"),
    ("clang", "build"),
    ("clang", "unit"),
    ("fuzz", "fuzz"),
    ("asan", "build"),
    ("asan", "unit"),
    ("asan", "replay"),
    ("asan", "integration"),
)


def run_stage(context: Context, name: str) -> Counts:
    """Run one stage and count it; nothing that goes wrong in it reaches the caller."""
    title = name if context.variant == "release" else f"{context.variant} {name}"
    print(f"\n== {title}", flush=True)
    context.reports.mkdir(parents=True, exist_ok=True)
    for old in context.reports.glob("sanitizer.*"):
        old.unlink()
    started = time.monotonic()
    try:
        counts = STAGES[name](context)
        if not (counts.passed or counts.skipped or counts.failed):
            counts.failed.append("no test ran")
    except Exception as error:  # one stage must not hide the others
        counts = Counts(failed=[f"the stage crashed: {error}"])
    for report in sorted(context.reports.glob("sanitizer.*")):
        print(report.read_text(errors="replace"), flush=True)
        counts.failed.append(f"sanitizer report {report.name}")
    counts.failed = [f"{title}: {failure}" for failure in counts.failed]
    print(f"== {title}: {counts} in {time.monotonic() - started:.0f} s", flush=True)
    return counts


def plan(options: argparse.Namespace) -> list[tuple[Context, str]]:
    """Return the stages to run, each with its context, in their order."""
    own = context_of(options.variant, options.petiole)
    stages = [(own, name) for name in options.stage or TEST_STAGES]
    if os.environ.get("CI") == "true" and not options.stage:
        stages += [(context_of(variant), name) for variant, name in CI_STAGES]
    return stages


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="Run the stages of the test suite.")
    parser.add_argument("--variant", default="release", help="build variant under test (release)")
    parser.add_argument("--petiole", type=Path, help="program under test; default: the variant's")
    parser.add_argument("--stage", nargs="+", choices=STAGES, help="run only these, in this order")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the stages that the command line names and print the closing line."""
    options = parse_options(arguments)
    os.chdir(TOP)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    total = Counts()
    try:
        for context, name in plan(options):
            total.add(run_stage(context, name))
    except KeyboardInterrupt:
        total.failed.append("interrupted")
    print(*[f"FAILED {failure}" for failure in total.failed], sep="\n")
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
