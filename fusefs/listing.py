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

import time

import trio

from fusefs.inodes import ROOT
from fusefs.tree.node import Directory, Node, Unmade

# A listing lets other requests in after so many seconds. To read a file takes several of them, and
# each may wait for so long.
_TURN = 0.0005
# So many names are listed within the time for which the kernel believes their attributes (FRESH).
_FIRST = 1024

Child = Node | Unmade | int  # an inode number stands for `.` and `..`


class Listing:
    """An open directory, with its inode number, and where its reader stands in it."""

    def __init__(self, directory: Directory, number: int) -> None:
        self.number = number
        self._directory = directory
        self._first = ((".", number), ("..", ROOT))
        self._position = 0
        self._children = directory.children()
        self._waiting: tuple[str, Child] | None = None
        self._turn_ends = 0.0
        self._wanted = False  # whether attributes are
        self._bait: str | None = None
        self._taken = False
        self._begun = 0  # where the reply began

    def begin(self) -> None:
        """A reply begins."""
        self._wanted, self._taken = self._taken, False
        self._bait = None
        self._begun = self._position

    def plain(self, name: str) -> bool:
        """Whether the next name of the reply is to be a plain entry, where it can be one."""
        plain = not self._wanted and self._position >= _FIRST
        if self._bait is None:
            # A directory that fits into one reply needs no bait.
            plain = plain or self._begun > 0
            self._bait = name if plain else None
        return plain

    def looked_up(self, name: str) -> None:
        """Somebody has looked up a name in the directory."""
        self._taken |= name == self._bait

    async def seek(self, position: int) -> None:
        """Go to a position: the number of names given before it. Back means from the start
        again."""
        if position < self._position:
            self._position, self._waiting = 0, None
            self._children = self._directory.children()
        while self._position < position and await self.peek() is not None:
            self.advance()
            if self.overdue():
                await trio.lowlevel.checkpoint()

    def overdue(self) -> bool:
        """Whether others had to wait for long; a new turn begins if so."""
        now = time.monotonic()
        overdue = now > self._turn_ends
        if overdue:
            self._turn_ends = now + _TURN
        return overdue

    async def peek(self) -> tuple[str, Child] | None:
        """The name here, with what it stands for; None at the end."""
        if self._waiting is None and self._position < len(self._first):
            self._waiting = self._first[self._position]
        while self._waiting is None:
            try:
                self._waiting = next(self._children)
            except StopIteration:
                return None
            if self._waiting is None:
                await trio.lowlevel.checkpoint()
        return self._waiting

    def advance(self) -> int:
        """Go on to the next name; the new position."""
        self._waiting = None
        self._position += 1
        return self._position

    def skip(self) -> None:
        """Leave out the next name. It has no position: the kernel goes on after the last name that
        it was given, which is here."""
        self._waiting = None
