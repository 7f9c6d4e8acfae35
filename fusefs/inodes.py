"""Inode numbers: which node the kernel means, and how often it still refers to it.

The kernel counts each answer that names an inode as a reference (lookup count) and gives them
back with FORGET (Documentation/filesystems/fuse, libfuse's fuse_lowlevel.h). A node is kept here
exactly as long as the kernel refers to it.

Its number is made of its identity. So it can be told of a node that is not made yet, and it is the
same when the kernel comes to refer to it again.
"""

from __future__ import annotations

import errno
import gc
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from fusefs.tree.alike import StandIn
from fusefs.tree.node import Attributes, Node, gone

ROOT = 1  # FUSE_ROOT_ID
# So many numbers are made of identities: those that every program can hold which takes them for
# floating point numbers, as jq does. More are given to those that find theirs taken.
_MADE = 1 << 52
# After so many new inodes they are exempted from the search for garbage, which takes 5 ms then.
_MANY = 1 << 13


@dataclass(slots=True)
class Inode:
    """A node that the kernel knows, by `number`.

    `known` is the node, or what stands in for it until it is asked for. `lookups` counts its
    references, `handles` its open files. `size` and `mtime_ns` are what it last heard, and `held`
    the attributes since it was opened. One that was `renamed` is gone for good.
    """

    number: int
    known: Node | StandIn
    lookups: int = 0
    handles: int = 0
    size: int = -1
    mtime_ns: int = -1
    held: Attributes | None = None
    renamed: bool = False

    @property
    def node(self) -> Node:
        """The node. Raises `gone()` when that goes by another name, see `InodeTable.renamed`."""
        if self.renamed:
            raise gone()
        if isinstance(self.known, StandIn):
            self.known = self.known.node()
        return self.known

    def attributes(self) -> Attributes:
        """The node's attributes, to be used at once; while it is open, the last ones when it is
        gone, as those of an unlinked file."""
        stands_in = isinstance(self.known, StandIn) and not self.renamed
        if stands_in and (told := self.known.attributes()):
            return told
        try:
            attributes = self.node.attributes()
        except OSError as error:
            if error.errno == errno.ESTALE and self.held:
                return self.held
            raise
        if self.handles:
            self.held = attributes
        return attributes

    def opened(self) -> None:
        """A file of it was opened."""
        self.handles += 1

    def closed(self) -> None:
        """A file of it was closed."""
        self.handles -= 1
        if not self.handles:
            self.held = None

    def tell(self, attributes: Attributes) -> bool:
        """Note what the kernel is told; whether it is news."""
        # No tuple: after `ls -l` of a large map there are as many inodes as entries.
        size, mtime_ns = attributes.size, attributes.mtime_ns
        changed = size != self.size or mtime_ns != self.mtime_ns
        self.size, self.mtime_ns = size, mtime_ns
        return changed


class InodeTable:
    """All inodes that the kernel knows."""

    def __init__(self, root: Node) -> None:
        self._by_number = {ROOT: Inode(ROOT, root, 1)}
        # The numbers of those that are not made of their identities.
        self._given: dict[Hashable, int] = {root.identity: ROOT}
        self._next = ROOT + 1 + _MADE
        self._exempted = 0  # so many were there
        self._exempt_at = _MANY

    def __getitem__(self, number: int) -> Inode:
        """The inode of this number. Raises KeyError: the kernel never asks for others."""
        return self._by_number[number]

    def node(self, number: int) -> Node | None:
        """The node of this number, if the kernel knows one."""
        inode = self._by_number.get(number)
        return inode.node if inode else None

    def __len__(self) -> int:
        return len(self._by_number)

    def enter(self, node: Node | StandIn) -> Inode:
        """The inode of a node: the one that it has, or a new one, which nobody refers to yet."""
        identity = node.identity
        return self.enter_as(node, identity, self.number(identity))

    def enter_as(self, node: Node | StandIn, identity: Hashable, number: int) -> Inode:
        """The same for a node whose `number` was told for its identity."""
        inode = self._by_number.get(number)
        if inode is not None and inode.known.identity == identity and not inode.renamed:
            if inode.known is not node:
                inode.known.renew(node)
            return inode
        if inode is not None:
            number = self._given[identity] = self._next
            self._next += 1
        inode = self._by_number[number] = Inode(number, node)
        if len(self._by_number) >= self._exempt_at:
            self._exempt()
        return inode

    def number(self, identity: Hashable) -> int:
        """The number of the inode with this identity. Were there none, it would have this one, but
        in the rare case that another has it then."""
        return self.numbers([identity])[0]

    def numbers(self, identities: Sequence[Hashable]) -> list[int]:
        """The numbers of the inodes with these identities."""
        given = self._given.get
        return [given(one) or hash(one) % _MADE + ROOT + 1 for one in identities]

    def renamed(self, identity: Hashable) -> None:
        """What had this identity goes by another name, and is another node by that. The kernel
        takes the new name, for a moment, for one of the inode: so that is nobody's any more, and
        what is made by the old name next has another."""
        inode = self._by_number.get(self.number(identity))
        if inode is not None and inode.known.identity == identity:
            inode.renamed = True

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gave back so many references."""
        inode = self._by_number[number]
        inode.lookups -= lookups
        self.release(inode)

    def release(self, inode: Inode) -> None:
        """Drop an inode that nobody refers to."""
        if inode.lookups <= 0 and inode.number != ROOT:
            del self._by_number[inode.number]
            identity = inode.known.identity
            if self._given.get(identity) == inode.number:
                del self._given[identity]
            self._exempt_at = min(self._exempt_at, len(self._by_number) + _MANY)
            if len(self._by_number) < self._exempted // 8:
                self._give_room_back()

    def _exempt(self) -> None:
        """Exempt all that there is from Python's search for garbage in cycles. Of a million inodes
        that takes a quarter of a second, in which nobody is served; and they are in none.

        What is garbage by now is found when the table grows again after most inodes were dropped.
        """
        least = self._exempt_at - _MANY
        if least < self._exempted // 2:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._exempted = len(self._by_number)
        self._exempt_at = self._exempted + _MANY

    def _give_room_back(self) -> None:
        """Most inodes were dropped: a dictionary keeps the room for them, 100 bytes for each."""
        gc.unfreeze()
        self._by_number = dict(self._by_number)
        self._exempted = len(self._by_number)
