#!/usr/bin/env python3
"""Measure Petiole beside Celery's own worker, in one run on one machine.

    python3 benchmarks/run.py --petiole build/petiole [--quick] [--only NAME ...]

Prints a table and writes benchmarks/results/latest.json (another place with --output): medians,
ratios (ours / theirs), every raw value, machine and versions. --quick takes small numbers, for a
look whether everything works; its figures mean little, and it writes nothing unless --output is
given. README.md beside this file tells what is measured and how. Exits 0, or 1 when a result was
wrong or a worker failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parent
SUPPORT = TOP / "tests" / "support"
IN_ENVIRONMENT = "PETIOLE_BENCH_PYTHON"


def enter_environment() -> None:
    """Go on under the Python that has Celery and the Redis client, made when it is missing."""
    if os.environ.get(IN_ENVIRONMENT):
        return
    command = [sys.executable, str(SUPPORT / "python_env.py"), "bench"]
    python = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    os.environ[IN_ENVIRONMENT] = python
    os.execv(python, [python, *sys.argv])  # noqa: S606  (no shell is wanted)


def main() -> int:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--petiole", type=Path, default=TOP / "build" / "petiole")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    os.environ["PETIOLE_BINARY"] = str(options.petiole.resolve())
    enter_environment()
    sys.path[:0] = [str(SUPPORT), str(SUPPORT / "cluster"), str(TOP / "tests" / "integration")]

    import jobs  # noqa: PLC0415  (needs the environment and the path)
    import measure  # noqa: PLC0415
    import python_tasks  # noqa: PLC0415
    import report  # noqa: PLC0415

    measurements = measure.MEASUREMENTS | {"python": python_tasks.python_tasks, "jobs": jobs.jobs}
    scale = measure.QUICK if options.quick else measure.FULL
    rows = measure.measure_all(measurements, scale, options.only)
    print(report.table(rows))
    output = options.output
    if output is None and not options.quick and not options.only:
        output = FOLDER / "results" / "latest.json"
    if output is not None:
        report.write(rows, output)
        print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
