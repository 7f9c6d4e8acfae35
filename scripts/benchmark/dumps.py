"""A map as a whole: its dump, and the way back."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator

from benchmark.maps import NUMBERS, PREFIXES, STRUCTS, Kind, write_bpftool_batch
from benchmark.measure import MeasureError, median, medians, wall
from benchmark.setting import Pinned, Server, Setting
from benchmark.table import Goal, Row
from fusefs.bpf.map import MapType

_PER_CPU = MapType.PERCPU_HASH


def dumps(setting: Setting) -> Iterator[Row]:
    """`cat entries.jsonl` beside `bpftool map dump`, and the kernel's own `cat` of the pin.

    All write to /dev/null. bpftool is run without `-j` or `-p`, as people type it, and shows
    JSON of its own since the maps have types.
    """
    whole, prefixes = setting.sizes.entries, setting.sizes.prefixes
    yield from _dump(setting, NUMBERS, whole, Goal(0.2), Goal(1.2))
    yield from _dump(setting, STRUCTS, whole, Goal(0.2), Goal(1))
    yield from _dump(setting, NUMBERS.of(_PER_CPU), whole, Goal(0.25))
    yield from _dump(setting, STRUCTS.of(_PER_CPU), whole, Goal(0.25))
    yield from _dump(setting, PREFIXES, prefixes, Goal(0.25))


def _dump(
    setting: Setting, kind: Kind, entries: int, goal: Goal, kernel: Goal | None = None
) -> Iterator[Row]:
    work = f"`cat entries.jsonl`, {entries:,} × {kind.words}"
    with setting.pinned(kind, entries) as pinned, setting.ours() as server:
        file = server.path / pinned.name / "entries.jsonl"
        check_lines(file, entries)
        of_kernel = [lambda: wall("cat", pinned.pin)] if kernel else []
        ours, *others = medians([lambda: wall("cat", file), *of_kernel], setting.sizes.repeats)
        by_bpftool = functools.partial(wall, "bpftool", "map", "dump", "pinned", pinned.pin)
        bpftool = median(by_bpftool, setting.sizes.slow_repeats)
    yield Row("dump", work, "s", ours, "bpftool", bpftool, goal)
    if kernel:
        yield Row("dump", work, "s", ours, "kernel's cat", others[0], kernel)


def check_lines(file: object, entries: int) -> None:
    """See that a dump has a line for each entry: what is fast should also be right."""
    wall("sh", "-c", 'test "$(wc -l < "$0")" = "$1" || { echo wrong >&2; exit 1; }',
         str(file), str(entries))  # fmt: skip


def writing(setting: Setting) -> Iterator[Row]:
    """`cat backup > entries.jsonl` beside `bpftool batch`, and beside the dump."""
    sizes = setting.sizes
    for kind in (NUMBERS, STRUCTS):
        work = f"`cat backup > entries.jsonl`, {sizes.entries:,} × {kind.words}"
        with setting.pinned(kind, sizes.entries) as pinned, setting.ours() as server:
            scaled = _batch(setting, pinned) * sizes.entries / sizes.updates
            dump, ours, failed = _back(setting, server, pinned)
        note = f"bpftool on {sizes.updates:,}, scaled"
        yield Row("write", work, "s", ours, "bpftool batch", scaled, Goal(0.05), note, failed)
        yield Row("write", work, "s", ours, "our dump", dump, Goal(3), "", failed)


def _batch(setting: Setting, pinned: Pinned) -> float:
    """The seconds that bpftool takes for its number of updates."""
    file = setting.top / "batch"
    count = setting.sizes.updates
    write_bpftool_batch(str(file), str(pinned.pin), pinned.bpf_map, pinned.kind, count)
    try:
        return wall("bpftool", "batch", "file", file)
    finally:
        file.unlink()


def _back(setting: Setting, server: Server, pinned: Pinned) -> tuple[float, float | None, str]:
    """The seconds of a dump and of the way back; None and the reason when there is none."""
    backup = setting.top / "backup"
    file = server.path / pinned.name / "entries.jsonl"
    dump = median(lambda: wall("cat", file), setting.sizes.repeats)
    try:
        wall("cat", file, stdout=backup)
        times = [wall("cat", backup, stdout=file) for _ in range(setting.sizes.repeats)]
    except MeasureError as error:
        return dump, None, f"{error}"
    finally:
        backup.unlink(missing_ok=True)
    check_lines(file, pinned.entries)
    return dump, statistics.median(times), ""
