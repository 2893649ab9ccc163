"""A program and the processes below it; any of them may end while one looks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STATE, PARENT, USER, SYSTEM = 0, 1, 11, 12  # fields of /proc/PID/stat behind the name
ENDED = ("Z", "X")


def _fields(pid: int | str) -> list[str]:
    """Return the fields of a process' stat behind its name; of one that is gone a dead one's."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0", *["0"] * SYSTEM]


def is_alive(pid: int) -> bool:
    """Return whether there is such a process that has not ended."""
    return _fields(pid)[STATE] not in ENDED


def _children() -> Iterator[tuple[int, int]]:
    """Return the parent and the id of each process that has not ended."""
    for path in Path("/proc").glob("[0-9]*"):
        fields = _fields(path.name)
        if fields[STATE] not in ENDED:
            yield int(fields[PARENT]), int(path.name)


def family(pid: int) -> list[int]:
    """Return `pid` and all processes below it that have not ended."""
    below: dict[int, list[int]] = {}
    for parent, child in _children():
        below.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid` that have not ended."""
    return family(pid)[1:]


def processor_s(pid: int) -> float:
    """Return the processor time so far of `pid` and all processes below it that live."""
    fields = map(_fields, family(pid))
    return sum(int(each[USER]) + int(each[SYSTEM]) for each in fields) / TICKS_PER_S
