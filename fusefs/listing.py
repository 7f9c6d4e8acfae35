"""Open directories, whose readers get their names some at a time.

A name can be listed with the attributes of what it is, or as a plain entry (`plain_entries`). The
first makes an inode in the kernel and answers the stat that may follow; the second costs a tenth,
and each stat that does follow then costs a request. Which is right depends on the reader, who does
not say what it wants: `ls -U` the names, `ls -l` the attributes, each a moment after its name.

So the reader is watched. One name in each reply is plain, as a bait; if that is looked up before
the next reply, its reader wants attributes, and the others of the next reply get them; else they
are plain. A reader who comes for attributes only after it has all names, as find does, has not
shown it yet; so the first names, as many as are still believed when it has them all, get
attributes anyway.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import deque
from collections.abc import Iterator

import trio

from fusefs.bpf.credentials import Caller
from fusefs.inodes import ROOT
from fusefs.tree.alike import Alike
from fusefs.tree.node import Directory, Node, refusal
from fusefs.waiting import Interruptible

# A listing lets other requests in after so many seconds. To read a file takes several of them, and
# each may wait for so long.
_TURN = 0.0005
# So many names are listed within the time for which the kernel believes their attributes (FRESH).
_FIRST = 1024
# A reply with so many names is probably not the last one.
_LARGE = 512

# A name and what it stands for, which for `.` and `..` is an inode number; or many that are alike.
Found = tuple[str, Node | int] | Alike


class Listing:
    """An open directory, with its inode number, and where its reader stands in it. `caller` has
    opened it, and `client` is the task that did."""

    def __init__(self, directory: Directory, number: int, caller: Caller, client: int) -> None:
        self.number = number
        self._directory = directory
        self._caller = caller
        self._client = client
        self._judged = directory.occupant()
        self._first = ((".", number), ("..", ROOT))
        self._position = 0
        self._children = self._all()
        self._waiting: Found | None = None
        # What was found since the last reply began, and where: the kernel asks again for what its
        # reader had no room for.
        self._past: list[tuple[int, Found]] = []
        self._coming: deque[Found] = deque()  # to be given once more
        self._turn_ends = 0.0
        self._wanted = False  # whether attributes are
        self._bait: str | None = None
        self._taken = False
        self._begun = 0  # where the reply began
        self._reply: Interruptible | None = None  # and how long it takes

    def begin(self) -> None:
        """A reply begins."""
        self._reply = None
        self._wanted, self._taken = self._taken, False
        self._bait = None
        starts = (at for at, (start, _) in enumerate(self._past) if start <= self._begun)
        del self._past[: max(starts, default=0)]
        self._begun = self._position

    def plain(self, name: str) -> tuple[bool, int]:
        """Whether the next name of the reply, which is `name`, is to be a plain entry, where it can
        be one; and for how many names that is so."""
        # A directory that fits into one reply needs no bait.
        if self._bait is None and (self._begun > 0 or self._position >= _LARGE):
            self._bait = name
            return True, 1
        if self._position < _FIRST:
            until = _LARGE if self._position < _LARGE else _FIRST
            return False, until - self._position
        return not self._wanted, sys.maxsize

    def looked_up(self, name: str) -> None:
        """Somebody has looked up a name in the directory."""
        self._taken |= name == self._bait

    async def seek(self, position: int) -> None:
        """Go to a position: the number of names given before it. Back beyond the last reply means
        from the start again."""
        if position < self._position:
            self._go_back(position)
        interruptible = Interruptible(self._client)
        while self._position < position and (found := await self.peek(interruptible)) is not None:
            count = len(found.names) if isinstance(found, Alike) else 1
            self.advance(min(count, position - self._position))
            if self.overdue():
                await trio.lowlevel.checkpoint()

    def _go_back(self, position: int) -> None:
        """Go back to a position, or before it."""
        past = self._past
        while past and past[-1][0] > position:
            self._coming.appendleft(past.pop()[1])
        if past:
            self._position, self._waiting = past[-1]
        else:
            self._position, self._waiting = 0, None
            self._coming.clear()
            self._children = self._all()

    def _all(self) -> Iterator[tuple[str, Node] | Alike | None]:
        """The children, from the first on. Raises PermissionError when there is another pin by now,
        which is not for who has opened this."""
        directory, caller = self._directory, self._caller
        is_judged = caller.changes_all or directory.occupant() is self._judged
        if not is_judged and not directory.attributes().permit(caller, os.R_OK):
            raise refusal(errno.EACCES)
        yield from directory.children()

    def expire(self) -> None:
        """A name in the directory is there no more."""
        for found in (self._waiting, *self._coming, *(found for _, found in self._past)):
            if isinstance(found, Alike):
                found.expire()

    def overdue(self) -> bool:
        """Whether others had to wait for long; a new turn begins if so."""
        now = time.monotonic()
        overdue = now > self._turn_ends
        if overdue:
            self._turn_ends = now + _TURN
        return overdue

    @property
    def position(self) -> int:
        """The number of names given."""
        return self._position

    async def next_of_reply(self) -> Found | None:
        """What is here; None at the end, and where a reply that has some names has taken long."""
        if self._reply is None:
            self._reply = Interruptible(self._client)
        return await self.peek(self._reply, short=self._position > self._begun)

    async def peek(self, interruptible: Interruptible, *, short: bool = False) -> Found | None:
        """What is here; None at the end, and if `short` where that is far. Raises OSError: EINTR
        when its reader does not wait for that."""
        while self._waiting is None:
            try:
                self._waiting = self._next()
            except StopIteration:
                return None
            if self._waiting is None:
                if short and interruptible.is_long:
                    return None
                interruptible.check()
                await trio.lowlevel.checkpoint()
            else:
                self._past.append((self._position, self._waiting))
        return self._waiting

    def _next(self) -> Found | None:
        """What comes next; None for "not yet, ask again". Raises StopIteration."""
        if self._coming:
            return self._coming.popleft()
        if self._position < len(self._first):
            return self._first[self._position]
        return next(self._children)

    def advance(self, names: int = 1) -> None:
        """Go on after so many names."""
        self.skip(names)
        self._position += names

    def skip(self, names: int = 1) -> None:
        """Leave out so many names. They have no position: the kernel goes on after the last name
        that it was given, which is here."""
        waiting = self._waiting
        self._waiting = waiting.rest(names) if isinstance(waiting, Alike) else None
