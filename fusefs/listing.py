"""Open directories, whose readers get their names some at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import trio

from fusefs.tree.node import Directory, Node

# A listing lets other requests in after so many seconds.
_TURN = 0.005


class Listing:
    """An open directory: where its reader stands in it."""

    def __init__(self, directory: Directory, first: Sequence[tuple[str, int]]) -> None:
        self._directory = directory
        self._first = first  # `.` and `..` and their inode numbers
        self._position = 0
        self._children: Iterator[tuple[str, Node] | None] = directory.children()
        self._waiting: tuple[str, Node | int] | None = None
        self._turn_ends = 0.0

    async def seek(self, position: int) -> None:
        """Go to a position: the number of names before it. Back means from the start again."""
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

    async def peek(self) -> tuple[str, Node | int] | None:
        """The name here, with its node or inode number; None at the end."""
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
