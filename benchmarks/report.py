"""The outcome of a benchmark as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from measure import OURS, Row
from petiole_worker import petiole_binary

DIGITS = 4


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _first_match(pattern: str, path: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def as_json(row: Row) -> dict[str, object]:
    """Return one row of the result file; ratio is ours / theirs, of the medians."""
    medians = {name: median(values) for name, values in row.runs.items()}
    peers = {name: _round(value) for name, value in medians.items() if name != OURS}
    return {
        "benchmark": row.benchmark,
        "metric": row.metric,
        "unit": row.unit,
        "what": row.what,
        "petiole": _round(medians[OURS]),
        "peers": peers,
        "ratio": {name: _round(medians[OURS] / medians[name]) for name in peers},
        "runs": row.runs,
    }


def machine() -> dict[str, object]:
    """Return what of the machine the figures depend on."""
    return {
        "processor": _first_match(r"^model name\s*: (.*)$", "/proc/cpuinfo"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_kib": int(_first_match(r"^MemTotal:\s*(\d+)", "/proc/meminfo")),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that was measured or measured with."""
    redis = subprocess.run(
        ["redis-server", "--version"], check=True, capture_output=True, text=True
    )
    own = subprocess.run(
        [petiole_binary(), "--version"], check=True, capture_output=True, text=True
    )
    return {
        "petiole": own.stdout.strip(),
        "celery": version("celery"),
        "kombu": version("kombu"),
        "kubernetes (Python)": version("kubernetes"),
        "redis-py": version("redis"),
        "redis-server": redis.stdout.split("v=")[1].split()[0],
        "python": platform.python_version(),
    }


def write(rows: list[Row], path: Path) -> None:
    """Write the result file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rows": [as_json(row) for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def table(rows: list[Row]) -> str:
    """Return the medians and ratios as text."""
    lines = [f"{'benchmark':24} {'metric':20} {'petiole':>12}   peers (ours / theirs)"]
    for row in rows:
        shown = as_json(row)
        peers = ", ".join(
            f"{name} {value:,} ({shown['ratio'][name]})"  # type: ignore[index]
            for name, value in shown["peers"].items()  # type: ignore[attr-defined]
        )
        ours = f"{shown['petiole']:>12,} {row.unit}"
        lines.append(f"{row.benchmark:24} {row.metric:20} {ours:16} {peers or '-'}")
    return "\n".join(lines)
