"""A program and the processes below it."""

from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER, SYSTEM = 11, 12  # fields of /proc/PID/stat behind the name


def family(pid: int) -> list[int]:
    """Return `pid` and all processes below it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def processor_s(pid: int) -> float:
    """Return the processor time so far of `pid` and all processes below it that live."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[USER]) + int(fields[SYSTEM])
    return ticks / TICKS_PER_S
