"""Requests that the kernel repeats.

When an open, or the look at attributes that comes before it, is answered with ESTALE, the kernel
looks the path up once more and opens what it finds then (do_filp_open in fs/namei.c); what that is
answered with goes to the user. A key that comes and goes all the time may be there whenever it is
looked up, and gone whenever it is opened: then the answer is that there is none.
"""

from __future__ import annotations

from fusefs.tree.recent import Recent

# So many threads, and inodes, are remembered.
_MOST = 256


class Repeats:
    """What threads have met that was gone, by inode numbers, until they open something;
    and when it was found again, be it by another thread, whose answer the kernel gives to all who
    look for it at the same time (d_alloc_parallel in fs/dcache.c)."""

    def __init__(self) -> None:
        self._gone: Recent[int, tuple[int, int]] = Recent(_MOST)  # by threads: what, and when
        self._found: Recent[int, int] = Recent(_MOST)  # by inodes: when, 0 for never
        self._now = 0

    def gone(self, thread: int, inode: int) -> bool:
        """A thread meets something that is gone. Whether it has before, and it was found again
        since."""
        met, when = self._gone.pop(thread, (0, 0))
        if met == inode and self._found.get(inode, 0) > when:
            return True
        self._now += 1
        self._gone[thread] = inode, self._now
        self._found[inode] = self._found.get(inode, 0)
        return False

    def found(self, inode: int) -> None:
        """Somebody has looked it up."""
        if inode in self._found:
            self._now += 1
            self._found[inode] = self._now

    def opened(self, thread: int) -> None:
        """A thread has opened something. (That it was told of a name that there is none says
        nothing: the kernel looks twice before it is done with it.)"""
        if self._gone:
            self._gone.pop(thread, None)
