"""Descriptors of directories, as many as this process may well have open for that."""

from __future__ import annotations

import resource
import weakref
from typing import Protocol

# As many of all descriptors that this process may have, and always some.
_PART = 4
_LEAST = 64


class Closable(Protocol):
    """What has a descriptor that can be opened again."""

    def let_go(self) -> None:
        """Close it."""


class Held:
    """Those that are open. The kernel may refer to any number of directories for as long as it
    likes, which users have only to make and to look at."""

    def __init__(self) -> None:
        self._open: dict[int, weakref.ref[Closable]] = {}  # those opened first come first

    def add(self, fd: int, directory: Closable) -> None:
        """One was opened."""
        self._open[fd] = weakref.ref(directory)

    def remove(self, fd: int) -> None:
        """One was closed."""
        self._open.pop(fd, None)

    def trim(self) -> None:
        """Let go of those that were opened first, if they are too many. Nobody may be using one."""
        if len(self._open) <= _LEAST:
            return
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        while len(self._open) > max(limit // _PART, _LEAST):
            fd, known = next(iter(self._open.items()))
            self.remove(fd)
            if directory := known():
                directory.let_go()
