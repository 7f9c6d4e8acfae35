"""Requests that the kernel repeats.

When an open, or the look at attributes that comes before it, is answered with ESTALE, the kernel
looks the path up once more and opens what it finds then (do_filp_open in fs/namei.c); what that is
answered with goes to the user. A key that comes and goes all the time may be there whenever it is
looked up, and gone whenever it is opened: then the answer is that there is none.
"""

from __future__ import annotations

import time

from fusefs.tree.recent import Recent

# So many threads, and inodes, are remembered; and for so many seconds, as the kernel repeats a
# request at once. What is opened later may be gone because something else has its name.
_MOST = 256
_AT_ONCE = 1


class Repeats:
    """What threads have met that was gone, by inode numbers; and when it was found again, be it by
    another thread, whose answer the kernel gives to all who look for it at the same time
    (d_alloc_parallel in fs/dcache.c)."""

    def __init__(self) -> None:
        self._gone: Recent[int, tuple[int, float]] = Recent(_MOST)  # by threads: what, and when
        self._found: Recent[int, float] = Recent(_MOST)  # by inodes: when, 0 for never

    def gone(self, thread: int, inode: int) -> bool:
        """A thread meets something that is gone. Whether it has before, and it was found again
        since."""
        met, when = self._gone.pop(thread, (0, 0.0))
        now = time.monotonic()
        if met == inode and self._found.get(inode, 0) > when > now - _AT_ONCE:
            return True
        self._gone[thread] = inode, now
        self._found[inode] = self._found.get(inode, 0)
        return False

    def opened(self, thread: int) -> None:
        """A thread has opened something."""
        if self._gone:
            self._gone.pop(thread, None)

    def found(self, inode: int) -> None:
        """Somebody has looked it up."""
        if inode in self._found:
            self._found[inode] = time.monotonic()
