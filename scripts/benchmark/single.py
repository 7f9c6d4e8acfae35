"""One entry at a time: by a command for each, by one process, and beside a dump."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.client import WORK
from benchmark.listings import OUR_TIMEOUT
from benchmark.maps import NUMBERS, hex_bytes, pack
from benchmark.measure import on_one_core, percentile, repeated, spent, wall
from benchmark.setting import Pinned, Server, Setting
from benchmark.table import Goal, Row

_WORDS = {
    "read": "open, read, close of an entry",
    "stat": "stat of an entry",
    "overwrite": "overwrite of an entry",
}


def commands(setting: Setting) -> Iterator[Row]:
    """`cat` and `echo >` beside bpftool, started for each entry. `sh` is what echoes: one process
    for each, as bpftool is. The bare file system shows what the commands alone take."""
    keys = setting.sizes.keys
    with (
        setting.pinned(NUMBERS, keys) as pinned,
        setting.ours() as server,
        setting.bare(keys, OUR_TIMEOUT) as bare,
    ):
        directories = [server.path / pinned.name / "entries", bare.path / "entries"]
        reads: list[list[float]] = []
        writes: list[list[float]] = []
        for number in random.sample(range(keys), min(setting.sizes.commands, keys)):
            files = [directory / str(number) for directory in directories]
            lookup, update = _by_bpftool(pinned, number)
            reads.append([*(wall("cat", file) for file in files), wall(*lookup)])
            echo = ["sh", "-c", 'echo 5 > "$0"']
            writes.append([*(wall(*echo, file) for file in files), wall(*update)])
    for work, times in (("`cat entries/KEY`", reads), ("`echo V > entries/KEY`", writes)):
        ours, floor, bpftool = (statistics.median(of) * 1000 for of in zip(*times, strict=True))
        words = f"{work}, whole process"
        yield Row("single", words, "ms", ours, "bpftool", bpftool, Goal(0.5))
        yield Row("single", words, "ms", ours, "bare", floor)


def _by_bpftool(pinned: Pinned, number: int) -> tuple[list[str], list[str]]:
    """The commands that look an entry up, and that set it to the value which it has."""
    key, value = pack(pinned.bpf_map, pinned.kind, range(number, number + 1))
    of_map = ["pinned", str(pinned.pin), "key", *hex_bytes(key)]
    return (
        ["bpftool", "map", "lookup", *of_map],
        ["bpftool", "map", "update", *of_map, "value", *hex_bytes(value)],
    )


@dataclass(frozen=True)
class Times:
    """What an operation took, in microseconds: the client, of which the median and the 99th
    percentile; and the server's CPU, on average. And how many answers it took."""

    median: float
    percentile: float
    server: float
    answers: float


def operations(setting: Setting) -> Iterator[Row]:
    """Operations of one process, on one core with the server, which is steadier."""
    keys = setting.sizes.keys
    with (
        setting.pinned(NUMBERS, keys) as pinned,
        setting.ours() as server,
        setting.bare(keys, OUR_TIMEOUT) as bare,
        setting.bare(keys, 0) as uncached,
    ):
        servers = [server, bare, uncached]
        directories = [server.path / pinned.name, bare.path, uncached.path]
        for work, words in _WORDS.items():
            of_all = _in_turns(setting, work, servers, directories)
            ours, theirs, without = map(_middle, of_all)
            note = f"answers: ours {ours.answers:.1f}, bare {theirs.answers:.1f}"
            for peer, times, goal in (
                ("bare", theirs, Goal(0.6)),
                ("bare, timeouts 0", without, Goal()),
            ):
                yield Row("single", f"{words}: client", "µs", ours.median, peer, times.median,
                          goal, note)  # fmt: skip
                yield Row("single", f"{words}: server CPU", "µs", ours.server, peer, times.server,
                          goal)  # fmt: skip


def _in_turns(
    setting: Setting, work: str, servers: list[Server], directories: list[Path]
) -> list[list[Times]]:
    """The times of each server, measured as often as wanted."""
    keys = setting.sizes.keys
    of_all: list[list[Times]] = [[] for _ in servers]
    for _ in range(setting.sizes.repeats):
        for server, directory, times in zip(servers, directories, of_all, strict=True):
            with on_one_core(server.pid):
                times.append(_client(work, server, directory / "entries", keys, keys))
    return of_all


def _middle(times: list[Times]) -> Times:
    """The median of each."""
    of_each = zip(*((t.median, t.percentile, t.server, t.answers) for t in times), strict=True)
    return Times(*(statistics.median(of_one) for of_one in of_each))


def _client(work: str, server: Server, directory: Path, names: int, count: int) -> Times:
    """Let a client work on so many of the names."""
    output = server.path.parent / "times"
    command = [sys.executable, "-m", "benchmark.client", work]
    before = spent(server.pid)
    wall(*command, directory, str(names), str(count), stdout=output)
    after = spent(server.pid)
    times = [nanoseconds / 1000 for nanoseconds in json.loads(output.read_bytes())]
    return Times(
        statistics.median(times),
        percentile(times, 99),
        (after.cpu - before.cpu) / count * 1e6,
        (after.writes - before.writes) / count,
    )


def beside_a_dump(setting: Setting) -> Iterator[Row]:
    """The slowest of a hundred operations while another process reads all entries, again and
    again; of the bare file system, a file that gives constant text as fast as it can."""
    sizes = setting.sizes
    with (
        setting.pinned(NUMBERS, sizes.entries) as pinned,
        setting.ours() as server,
        setting.bare(sizes.entries, OUR_TIMEOUT) as bare,
    ):
        for work in WORK:
            ours = _beside(server, pinned.name, "entries.jsonl", work, pinned)
            theirs = _beside(bare, "", "stream", work, pinned)
            words = f"{_WORDS[work]}, 99th percentile beside a dump of {sizes.entries:,}"
            yield Row("load", words, "ms", ours, "bare beside a stream", theirs, Goal(most=10))


def _beside(server: Server, name: str, file: str, work: str, pinned: Pinned) -> float:
    """The 99th percentile in milliseconds."""
    directory = server.path / name
    count = min(pinned.entries, 3000)
    with repeated("cat", directory / file):
        return _client(work, server, directory / "entries", pinned.entries, count).percentile / 1000
