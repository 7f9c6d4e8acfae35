"""Nothing stays with the daemon: neither objects, nor descriptors, threads or memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import inotify_simple
import pytest
from support.deeds import Deeds
from support.growth import Held
from support.links import loaded, raw_tracepoint
from support.maps import NO_PREALLOC, exists, make_map, pin, u32, u64
from support.mounting import Mount
from support.programs import load
from support.shell import ENVIRONMENT, end_group
from support.soaking import Figure, passing
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object

# Kilobytes by which the daemon may grow; and how many turns of each deed it may have to do so.
ROOM = 4 << 10
WARM_UP = 30
SOON = 1  # second

READERS = [
    "find . -type f -exec cat {} +",
    "ls -laR . && cat .by-id/graph.dot */info",
    "grep -rs x . ; head -c 1 */entries.jsonl",
]


def settled(mount: Mount, before: Held) -> Held:
    """What it holds once it has no more descriptors than before."""
    wanted = before.descriptors.total()
    eventually(
        f"descriptors are given back: {before.descriptors}",
        lambda: Held.by(mount.process.pid).descriptors.total() <= wanted,
    )
    return Held.by(mount.process.pid)


@pytest.mark.soak(short=1, share=6)
def test_no_deed_leaves_anything(mounted: Mount, span: float, figure: Figure) -> None:
    deeds = dict(Deeds(mounted).all())
    for _ in passing(min(span / 4, 60), WARM_UP if span > 60 else 2):
        for deed in deeds.values():
            deed()
    before = Held.by(mounted.process.pid)
    counts: dict[str, int] = {}
    growth: dict[str, int] = {}
    last = before
    for name, deed in deeds.items():
        counts[name] = 0
        for _ in passing(span * 3 / 4 / len(deeds)):
            deed()
            counts[name] += 1
        now = Held.by(mounted.process.pid)
        growth[name], last = now.kilobytes - last.kilobytes, now
    after = settled(mounted, before)
    assert after.threads <= before.threads + 1
    assert after.kilobytes < before.kilobytes + ROOM, growth
    figure("operations", sum(counts.values()))
    for name, count in counts.items():
        figure(f"{name}: how often, and growth", f"{count:,}, {growth[name]} KiB")
    figure("before", before)
    figure("after", after)


def a_loader(turn: int, stack: ExitStack) -> Object:
    """Something that a loader pins."""
    kinds: list[Callable[[], Object]] = [
        lambda: _filled(make_map()),
        lambda: make_map(MapType.ARRAY, max_entries=3),
        lambda: _filled(make_map(MapType.LRU_HASH)),
        lambda: make_map(MapType.LPM_TRIE, key=8, value=8, flags=NO_PREALLOC),
        lambda: Map.create(MapType.QUEUE, key_size=0, value_size=4, max_entries=4),
        lambda: Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=4096),
        lambda: make_map(MapType.PERCPU_ARRAY, max_entries=2),
        load,
        lambda: _link(stack),
    ]
    return kinds[turn % len(kinds)]()


def _filled(made: Map) -> Map:
    for number in range(20):
        made.update(u32(number), u64(number))
    return made


def _link(stack: ExitStack) -> Object:
    programs = stack.enter_context(loaded())
    with programs.program("on_raw_tracepoint") as program:
        return raw_tracepoint(program, "sys_enter", 1)


def _is_gone(kind: type[Object], number: int) -> bool:
    return not exists(kind, number)


@contextlib.contextmanager
def readers(mount: Mount) -> Iterator[None]:
    """Some who read all that there is, all the time."""
    processes = [
        subprocess.Popen(
            ["bash", "-c", f"while :; do {command}; done"],
            cwd=mount.path,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for command in READERS
    ]
    try:
        yield
        assert all(process.poll() is None for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            end_group(process.pid)


def use(path: Path) -> None:
    """What a loader may do with its pin."""
    (path / "info").read_text()
    for entry in os.scandir(path):
        entry.stat()
    if (path / "entries").is_dir():
        os.listdir(path / "entries")


@pytest.mark.soak(short=1.5, share=4)
def test_objects_go_with_their_pins_while_all_is_read(
    mounted: Mount, span: float, figure: Figure
) -> None:
    with make_map() as standing, inotify_simple.INotify() as watcher, ExitStack() as stack:
        mounted.pin("standing", _filled(standing))
        watcher.add_watch(mounted.path, inotify_simple.masks.ALL_EVENTS)
        stack.enter_context((mounted.path / "standing/entries.jsonl").open("rb", buffering=0))
        stack.enter_context(readers(mounted))
        longest, turns, events = 0.0, 0, 0
        before: Held | None = None
        for turn in passing(span, 9):
            with ExitStack() as around, a_loader(turn, around) as made:
                kind, number = type(made), int(made.info.id)
                pin(mounted.source / f"pin{turn}", made)
            use(mounted.path / f"pin{turn}")
            (mounted.source / f"pin{turn}").unlink()
            start = time.monotonic()
            eventually("it is gone", partial(_is_gone, kind, number), SOON)
            longest, turns = max(longest, time.monotonic() - start), turns + 1
            events += len(watcher.read(timeout=0))
            if turn == 20:
                before = Held.by(mounted.process.pid)
        after = Held.by(mounted.process.pid)
    assert events > turns
    figure("objects pinned, used and unpinned", turns)
    figure("the longest until one was gone", f"{1000 * longest:.0f} ms")
    if before:
        assert after.kilobytes < before.kilobytes + 4 * ROOM, (str(before), str(after))
        figure("before", before)
        figure("after", after)
