"""How many values a per-CPU map keeps for each key."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def possible_cpus() -> int:
    """The number of possible CPUs: those that are online and those that may yet be plugged in.

    Source: /sys/devices/system/cpu/possible, a list of ranges such as `0-3,8`
    (Documentation/admin-guide/cputopology.rst); the kernel sizes per-CPU values by the highest.
    """
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return sum(
        int(last or first) - int(first) + 1 for first, _, last in (r.partition("-") for r in ranges)
    )
