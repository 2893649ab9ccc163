"""What a process holds of the machine over time, and whether it becomes more."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One look at a process: memory in bytes, `at_s` of the monotonic clock.

    `anonymous` is what of `rss` no file is behind: heap, stacks and changed data. `pss` depends on
    who else runs the same program at that moment.
    """

    at_s: float
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
    return Sample(time.monotonic(), rss, pss, anonymous, descriptors)


def growth(samples: list[Sample], what: str) -> float:
    """Return by how much the member `what` grows over the time of the samples.

    That is the slope of the straight line that fits them best, times that time: a single high or
    low sample has little weight.
    """
    times = [each.at_s for each in samples]
    slope = statistics.linear_regression(times, [getattr(each, what) for each in samples]).slope
    return slope * (times[-1] - times[0])
