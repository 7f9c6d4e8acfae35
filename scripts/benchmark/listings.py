"""Listings, what is read after them, and what they leave in memory."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmark.maps import NUMBERS
from benchmark.measure import MeasureError, drop_names, medians, pinned_names, resident, wall
from benchmark.setting import Server, Setting
from benchmark.table import Goal, Row

# How long bpf-fusefs lets names and attributes be cached, in seconds.
OUR_TIMEOUT = 0.05


def names(setting: Setting) -> Iterator[Row]:
    """`ls -U` of many names."""
    entries = setting.sizes.entries
    work = f"`ls -U entries/`, {entries:,} entries"
    with setting.bare(entries, OUR_TIMEOUT) as bare:
        theirs = _listed(setting, bare.path / "entries", entries)
    with setting.pinned(NUMBERS, entries) as pinned, setting.ours() as server:
        ours = _listed(setting, server.path / pinned.name / "entries", entries)
    yield Row("list", work, "s", ours, "bare", theirs, Goal(1.5))


def _listed(setting: Setting, directory: Path, entries: int) -> float:
    """The seconds of `ls -U`, and it must list all."""
    output = setting.top / "names"
    seconds = wall("ls", "-U", directory, stdout=output)
    listed = output.read_bytes().count(b"\n")
    if listed != entries:
        raise MeasureError(f"{listed} of {entries} names were listed")
    return seconds


def details(setting: Setting) -> Iterator[Row]:
    """`ls -l` of many names, beside a file system that lets all be cached for a second."""
    entries = setting.sizes.long
    work = f"`ls -l entries/`, {entries:,} entries"
    with (
        setting.pinned(NUMBERS, entries) as pinned,
        setting.ours() as server,
        setting.bare(entries, 1) as bare,
    ):
        directories = [server.path / pinned.name / "entries", bare.path / "entries"]
        runs = [functools.partial(wall, "ls", "-l", directory) for directory in directories]
        ours, theirs = medians(runs, setting.sizes.repeats)
    yield Row("list", work, "s", ours, "bare, timeouts 1 s", theirs, Goal(2))


def contents(setting: Setting) -> Iterator[Row]:
    """`grep -r` of many entries, beside a file system that lets nothing be cached."""
    sizes = setting.sizes
    work = f"`grep -rh . entries/`, {sizes.long:,} entries"
    scale = sizes.long / sizes.grepped
    with (
        setting.pinned(NUMBERS, sizes.grepped) as pinned,
        setting.ours() as server,
        setting.bare(sizes.grepped, 0) as bare,
    ):
        directories = [server.path / pinned.name / "entries", bare.path / "entries"]
        for directory in directories:
            found = subprocess.run(["grep", "-rh", ".", directory], capture_output=True, check=True)
            if found.stdout.count(b"\n") != sizes.grepped:
                raise MeasureError("grep has not found all")
        # Into a pipe: grep ends at the first match when it writes to /dev/null.
        command = 'grep -rh . "$0" | cat > /dev/null'
        runs = [functools.partial(wall, "sh", "-c", command, path) for path in directories]
        ours, theirs = medians(runs, max(sizes.repeats - 1, 1))
    note = f"both on {sizes.grepped:,}, scaled"
    yield Row("list", work, "s", ours * scale, "bare, timeouts 0", theirs * scale, Goal(0.6), note)


def memory(setting: Setting) -> Iterator[Row]:
    """What the server holds at rest, and what a dump and a listing leave behind: in it, and in the
    kernel as inodes and names."""
    entries = setting.sizes.entries
    with setting.bare(entries, OUR_TIMEOUT) as bare:
        directory = bare.path / "entries"
        wall("cat", directory / "0")
        their_idle = resident(bare.pid)
        their_names = _left_by_listing(directory)
        their_growth = resident(bare.pid) - their_idle
    with setting.pinned(NUMBERS, entries) as pinned, setting.ours() as server:
        our_idle = _idle(server, pinned.name)
        wall("cat", server.path / pinned.name / "entries.jsonl")
        our_names = _left_by_listing(server.path / pinned.name / "entries")
        our_growth = resident(server.pid) - our_idle
    yield Row("memory", "resident, idle", "MB", our_idle, "bare", their_idle, Goal(most=45))
    work = f"resident, more after a dump and a listing of {entries:,}"
    yield Row("memory", work, "MB", our_growth, "bare, listing", their_growth, Goal(most=30))
    work = f"kernel memory that a listing of {entries:,} leaves"
    note = "active fuse_inode and dentry objects in /proc/slabinfo"
    yield Row("memory", work, "MB", our_names, "bare", their_names, Goal(most=100), note)


def _idle(server: Server, name: str) -> float:
    """The resident memory after a first look at the mount."""
    wall("ls", server.path)
    wall("cat", server.path / name / "info")
    return resident(server.pid)


def _left_by_listing(directory: Path) -> float:
    """How much more memory inodes and names take after a listing."""
    drop_names()
    before = pinned_names()
    wall("ls", "-U", directory)
    return pinned_names() - before
