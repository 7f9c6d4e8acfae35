"""What does not depend on size, and what does not depend on maps: growth, and the start."""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from benchmark.maps import NUMBERS
from benchmark.measure import median, medians
from benchmark.setting import Setting
from benchmark.table import Goal, Row, number

_AT_ONCE = 1 << 17  # bytes that are read in one go, as cat does


def growth(setting: Setting) -> Iterator[Row]:
    """What an entry costs in a dump and in a listing, the dearest size beside the cheapest: what a
    reader waits for that runs already, since to start a command costs the same for all."""
    costs: dict[str, dict[int, float]] = {"dump": {}, "listing": {}}
    for entries in setting.sizes.growth:
        times = setting.sizes.repeats * (5 if entries < 1_000_000 else 1)
        times = 1 if entries > 1_000_000 else times
        with setting.pinned(NUMBERS, entries) as pinned, setting.ours() as server:
            directory = server.path / pinned.name
            dump = median(functools.partial(_read, directory / "entries.jsonl"), times)
            costs["dump"][entries] = dump / entries * 1e6
            once = max(times // 3, 1)
            listing = median(functools.partial(_list, directory / "entries"), once)
            costs["listing"][entries] = listing / entries * 1e6
    sizes = setting.sizes.growth
    for work, by_size in costs.items():
        note = ", ".join(f"{size:,}: {number(cost)} µs" for size, cost in by_size.items())
        words = f"an entry's share of a {work}, {sizes[0]:,} to {sizes[-1]:,}"
        worst, best = (pick(by_size.items(), key=lambda of: of[1]) for pick in (max, min))
        words = f"{words}, dearest: {worst[0]:,}"
        peer = f"cheapest: {best[0]:,}"
        yield Row("growth", words, "µs", worst[1], peer, best[1], Goal(1.25), note)


def _read(path: Path) -> float:
    """The seconds in which a file is read."""
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_AT_ONCE):
            pass
    return time.perf_counter() - begun


def _list(directory: Path) -> float:
    """The seconds in which the names in a directory are read."""
    begun = time.perf_counter()
    with os.scandir(directory) as names:
        deque(names, maxlen=0)
    return time.perf_counter() - begun


def start(setting: Setting) -> Iterator[Row]:
    """From the start of the command until the mount answers a `stat`."""

    def ours() -> float:
        begun = time.perf_counter()
        with setting.ours():
            return time.perf_counter() - begun

    def bare() -> float:
        begun = time.perf_counter()
        with setting.bare(1000, 0):
            return time.perf_counter() - begun

    ours(), bare()  # the first time, files are read that are in memory then
    our_time, their_time = medians([ours, bare], setting.sizes.starts)
    yield Row("start", "command to answering mount", "ms", our_time * 1000, "bare",
              their_time * 1000, Goal(1.5))  # fmt: skip
