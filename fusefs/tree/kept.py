"""Maps that stay open for a moment, since who asked for one entry often asks for another next.

To open a pin takes a third of a small request. What is kept is a descriptor and what never changes,
so all that is shown is as new as ever; and the moment is short enough for an object to be
gone from the kernel soon after its last pin and user.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Hashable

from fusefs.bpf.object import Object

# So long one stays open after it was opened, used or not, in seconds; and so many do.
_MOMENT = 0.1
_MOST = 64


class Kept:
    """Open objects, by what they are of. Nothing is kept before somebody sees to it that `drop` is
    called in time: `on_first` is called when there was none."""

    def __init__(self) -> None:
        self.on_first: Callable[[], None] | None = None
        self._kept: dict[Hashable, tuple[Object, float]] = {}  # the next to be closed comes first

    def keep(self, of: Hashable, fd: int, make: Callable[[int], Object]) -> None:
        """Keep what `make` makes of a copy of a descriptor, if one is to be had."""
        if self.on_first is None or of in self._kept or len(self._kept) == _MOST:
            return
        try:
            copy = os.dup(fd)
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return  # who asked has what was asked for
        if not self._kept:
            self.on_first()
        self._kept[of] = make(copy), time.monotonic() + _MOMENT

    def get(self, of: Hashable) -> Object | None:
        """What is kept, to be used before others have a turn, and not to be closed; or None."""
        kept = self._kept.get(of)
        return kept[0] if kept else None

    def drop(self) -> float | None:
        """Close those whose time is over; the seconds until the next one's is, None when none is
        left."""
        now = time.monotonic()
        for of, (obj, until) in list(self._kept.items()):
            if until > now:
                return until - now
            del self._kept[of]
            obj.close()
        return None
