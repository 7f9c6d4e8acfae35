"""Opens that the kernel repeats.

When an open is answered with ESTALE, the kernel looks the path up once more and opens what it finds
then (do_filp_open in fs/namei.c); what that is answered with goes to the user. A key that comes and
goes all the time may be there whenever it is looked up, and gone whenever it is opened: then the
answer is that there is none.
"""

from __future__ import annotations

from fusefs.tree.recent import Recent

# So many threads, and inodes, are remembered. To most of them the kernel has told by now that there
# is none.
_MOST = 256


class Repeats:
    """What threads have met that was gone, by inode numbers, until their next open; and when it was
    found again, be it by another thread, whose answer the kernel gives to all who look for it at
    the same time (d_alloc_parallel in fs/dcache.c)."""

    def __init__(self) -> None:
        self._gone: Recent[int, tuple[int, int]] = Recent(_MOST)  # by threads: what, and when
        self._found: Recent[int, int] = Recent(_MOST)  # by inodes: when, 0 for never
        self._now = 0

    def gone(self, thread: int, inode: int) -> None:
        """An open is being answered with ESTALE."""
        self._now += 1
        self._gone[thread] = inode, self._now
        self._found[inode] = self._found.get(inode, 0)

    def found(self, inode: int) -> None:
        """Somebody has looked it up."""
        if inode in self._found:
            self._now += 1
            self._found[inode] = self._now

    def repeated(self, thread: int, inode: int) -> bool:
        """Whether a thread that opens something repeats an open that was answered so, and it has
        been found again since."""
        met, when = self._gone.pop(thread, (0, 0))
        return met == inode and self._found.get(inode, 0) > when
