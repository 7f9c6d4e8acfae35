"""No other thread or process to be had, as a limit on processes has it: what needs one is refused
with EAGAIN or does without, nothing is half done, and all is well again once there are some."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags
from support.actions import ACTIONS
from support.cgroups import Limited, limited
from support.maps import make_map, pin
from support.mounting import COMMAND, Mount, mounted, mounted_bpffs
from support.shell import run
from support.soaking import Figure, passing
from support.stage import stage
from support.trials import Trials
from support.waiting import eventually


@contextlib.contextmanager
def left(group: Limited, mount: Mount, count: int) -> Iterator[None]:
    """While this lasts, a mount can have only so many threads and processes more than it has."""
    group.limit(len(os.listdir(f"/proc/{mount.process.pid}/task")) + count)
    try:
        yield
    finally:
        group.limit(None)


@pytest.fixture(scope="module")
def few() -> Iterator[tuple[Trials, Mount, Limited]]:
    """A mount of everything, whose threads can be limited."""
    with (
        limited("pids") as group,
        mounted_bpffs() as bpffs,
        stage(bpffs, 2000) as made,
        mounted(bpffs, command=[*group.command, *COMMAND], complains=True) as mount,
    ):
        yield Trials(made, mount), mount, group


@pytest.mark.soak(short=2)
def test_without_threads_nothing_is_half_done(
    few: tuple[Trials, Mount, Limited], span: float, figure: Figure
) -> None:
    trials, mount, group = few
    matrix = [(name, count) for name in ACTIONS for count in range(3)]
    for turn in passing(span):
        if turn % len(matrix) == 0:
            random.shuffle(matrix)
        name, count = matrix[turn % len(matrix)]
        trials.learn(name)
        answer = trials.attempt(name, left(group, mount, count))
        assert answer in (0, errno.EAGAIN), f"{name} with {count}: {errno.errorcode[answer]}"
    figure("operations with 0 to 2 threads left", sum(trials.answers.values()))
    figure("of which answered with EAGAIN", trials.answers["EAGAIN"])


def test_watchers_are_told_again_once_there_can_be_threads() -> None:
    with (
        limited("pids") as group,
        mounted_bpffs() as bpffs,
        mounted(bpffs, command=[*group.command, *COMMAND], complains=True) as mount,
        make_map() as sample,
        contextlib.closing(INotify()) as watcher,
    ):
        os.listdir(mount.path)
        watcher.add_watch(str(mount.path), flags.CREATE)
        with left(group, mount, 0):
            pin(bpffs / "first", sample)
            reason = "changes in bpffs were not told to those who watch: "
            eventually("that cannot be told", lambda: reason in mount.log())
        assert "Traceback" not in mount.log()
        pin(bpffs / "second", sample)
        assert [event.name for event in watcher.read(timeout=10_000)] == ["second"]


def test_a_mount_that_cannot_begin_says_why_in_a_line(bpffs: Path, place: Path) -> None:
    with limited("pids") as group:
        group.limit(1)
        result = run([*group.command, *COMMAND, str(bpffs), str(place)])
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr == f"bpf-fusefs: {place}: Resource temporarily unavailable\n"
