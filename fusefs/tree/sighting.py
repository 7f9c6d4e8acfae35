"""What was seen of contents, for the attributes of what shows them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable

from fusefs.tree.node import FRESH, Attributes, readers_among


class Sighting:
    """What was last seen of a file's contents: when, how long, and since when they are the same.

    A stat soon after an open shows the very contents that were opened, although a live value may
    have changed again; and a time of modification moves when the contents changed, and only then.
    """

    __slots__ = ("_digest", "_seen", "mtime_ns", "size")

    def __init__(self) -> None:
        self._digest: int | None = None
        self._seen = float("-inf")
        self.mtime_ns = 0
        self.size = 0

    @property
    def fresh(self) -> bool:
        """Whether it is recent enough to be shown."""
        return time.monotonic() - self._seen < FRESH

    @property
    def seen(self) -> bool:
        """Whether the contents were seen at all."""
        return self._digest is not None

    def see(self, contents: bytes, mtime_ns: int) -> None:
        """Note the contents; `mtime_ns` is for when they are seen for the first time."""
        digest = hash(contents)
        if digest != self._digest:
            self.mtime_ns = mtime_ns if self._digest is None else time.time_ns()
        self._digest, self.size, self._seen = digest, len(contents), time.monotonic()

    def of_link(
        self, status: os.stat_result, readable: int, target: Callable[[], str]
    ) -> Attributes:
        """The attributes of a symbolic link, whose text is asked for if it was not seen lately; it
        is for those to read whom `readable` has."""
        if not self.fresh:
            self.see(target().encode(), status.st_mtime_ns)
        attributes = Attributes.of(status, stat.S_IFLNK | 0o777)
        attributes.known_by = readers_among(status, readable)
        attributes.size = self.size
        attributes.mtime_ns = attributes.ctime_ns = self.mtime_ns
        return attributes

    def merge(self, newer: Sighting) -> None:
        """Take over a newer one; an older one tells nothing."""
        if newer._digest is None or newer._seen < self._seen:
            return
        if newer._digest != self._digest:
            self.mtime_ns = newer.mtime_ns if self._digest is None else time.time_ns()
        self._digest, self.size, self._seen = newer._digest, newer.size, newer._seen
