"""What tells changes to those who watch asks for them to be made, with root's rights: none ever is,
however late it comes. And it takes no more than its share of what the kernel has for root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sys
import termios
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from support.maps import make_map, pin
from support.mounting import Mount
from support.waiting import eventually
from support.watching import echoing, watching

from fusefs import echoes
from fusefs.bpf.bpffs import Directory
from fusefs.echoes import Echoes
from fusefs.tree.context import Context
from fusefs.tree.mirror import Mirror

# What echoes is given up after a second, and not killed for many, as on a machine that has too much
# to do.
_IMPATIENT = """
import threading, trio
from fusefs import cli, echoes
kill = trio.Process.kill
def kill_late(process):
    later = threading.Timer(20, kill, [process])
    later.daemon = True
    later.start()
trio.Process.kill = kill_late
echoes._PATIENCE = 1
cli.main()
"""


def _unread(pid: int) -> int:
    """How many bytes of its input a process has not read."""
    count = array("i", [0])
    with open(f"/proc/{pid}/fd/0", "rb", buffering=0) as pipe:
        fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_what_is_not_awaited_any_more_does_nothing(mounter: Callable[..., Mount]) -> None:
    """What was removed is there again by then."""
    mount = mounter("-d", command=[sys.executable, "-c", _IMPATIENT], complains=True)
    names = [f"pin{number}" for number in range(9)]
    with make_map() as made, watching(mount.path) as watcher:
        for name in names:
            pin(mount.source / name, made)
        watcher.told(len(names))
        telling = echoing(mount)
        time.sleep(0.5)  # it answers, and waits for more
        os.kill(telling, signal.SIGSTOP)
        try:
            for name in names:
                (mount.source / name).unlink()
            eventually("it was told", lambda: _unread(telling), 20)
            time.sleep(1.2)  # and was given up
            for name in names:
                pin(mount.source / name, made)
        finally:
            os.kill(telling, signal.SIGCONT)
        late = re.compile(rf"rmdir\(.* by pid {telling} ")
        eventually("it asks all the same", lambda: late.search(mount.log()), 20)
        ended = Path(f"/proc/{telling}")
        eventually("it has come to its end", lambda: not ended.exists(), 20)
        assert {*names} <= {*os.listdir(mount.source)}


def test_the_directories_that_are_watched_are_bounded(
    bpffs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may make and list any number of directories."""
    monkeypatch.setattr(echoes, "_MOST_WATCHED", 20)
    top = Directory(str(bpffs))
    context = Context(top, str(bpffs))

    def watches() -> int:
        """How many this process has."""
        count = 0
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # of the listing itself
                count += Path(f"/proc/self/fdinfo/{fd}").read_text().count("inotify wd:")
        return count

    async def look_around() -> None:
        async with trio.open_nursery() as nursery:
            told = Echoes(str(bpffs), lambda number: None)
            told.start(nursery)
            before = watches()
            for number in range(50):
                top.mkdir(f"directory{number}", 0o755)
                for listed in (number, 0):  # that is the one which somebody has in view
                    mirror = Mirror(Directory(f"directory{listed}", top), context)
                    told.watch(listed, mirror)
            assert watches() - before == 20
            nursery.cancel_scope.cancel()

    trio.run(look_around)
