"""Opens that the kernel repeats.

When an open is answered with ESTALE, the kernel looks the path up once more and opens what it finds
then (do_filp_open in fs/namei.c); what that is answered with goes to the user. A key that comes and
goes all the time may be there whenever it is looked up, and gone whenever it is opened: then the
answer is that there is none.
"""

from __future__ import annotations

from fusefs.tree.recent import Recent

# Threads whose last open met something gone, most of which the kernel has told by now that there
# is none.
_MOST = 256


class Repeats:
    """What threads have met that was gone, by inode numbers, until their next open."""

    def __init__(self) -> None:
        self._gone: Recent[int, int] = Recent(_MOST)
        self._found: Recent[int, int] = Recent(_MOST)

    def gone(self, thread: int, inode: int) -> None:
        """An open is being answered with ESTALE."""
        self._gone[thread] = inode

    def found(self, thread: int, inode: int) -> None:
        """A thread has looked something up."""
        if self._gone and self._gone.get(thread) == inode:
            self._found[thread] = inode

    def repeated(self, thread: int, inode: int) -> bool:
        """Whether a thread that opens something repeats an open that was answered so, and has
        found the same there again."""
        self._gone.pop(thread, None)
        return self._found.pop(thread, None) == inode
