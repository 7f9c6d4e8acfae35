"""Watching directories with inotify(7), as file managers do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from inotify_simple import INotify, flags

from support.mounting import Mount

# So long they may take on a busy machine.
_PATIENCE = 10_000


class Watcher:
    """Somebody who has listed some directories, and watches them."""

    def __init__(self, *directories: Path) -> None:
        self._inotify = INotify()
        self._names: dict[int, str] = {}
        wanted = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO
        for directory in directories:
            os.listdir(directory)
            self._names[self._inotify.add_watch(str(directory), wanted)] = directory.name

    def told(self, count: int) -> list[str]:
        """The next so many events, as `DIRECTORY: EVENT NAME`."""
        told: list[str] = []
        while len(told) < count:
            events = self._inotify.read(timeout=_PATIENCE)
            assert events, f"not more than {told}"
            for event in events:
                kinds = flags.from_mask(event.mask & ~flags.ISDIR)
                what = " ".join(str(kind.name) for kind in kinds)
                told.append(f"{self._names[event.wd]}: {what} {event.name}")
        return told

    def close(self) -> None:
        self._inotify.close()


@contextlib.contextmanager
def watching(*directories: Path) -> Iterator[Watcher]:
    """Somebody who does so."""
    watcher = Watcher(*directories)
    try:
        yield watcher
    finally:
        watcher.close()


def echoing(mount: Mount) -> int:
    """The process that tells changes."""
    tasks = Path(f"/proc/{mount.process.pid}/task").iterdir()
    (child,) = (int(child) for task in tasks for child in (task / "children").read_text().split())
    return child
