"""What a process holds of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One look at a process: memory in bytes.

    `anonymous` is what of `rss` no file is behind: heap, stacks and changed data. `pss` depends on
    who else runs the same program at that moment.
    """

    rss: int
    pss: int
    anonymous: int
    descriptors: int


def sample(pid: int) -> Sample:
    """Look at a process that runs."""
    process = Path(f"/proc/{pid}")
    lines = (process / "smaps_rollup").read_text().splitlines()[1:]
    fields = {line.split(":")[0]: line.split()[1] for line in lines}
    descriptors = sum(1 for _ in (process / "fd").iterdir())
    rss, pss, anonymous = (int(fields[each]) * 1024 for each in ("Rss", "Pss", "Anonymous"))
    return Sample(rss, pss, anonymous, descriptors)
