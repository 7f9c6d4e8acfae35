"""Children that are alike, as a listing finds them: many, of which it tells little.

A node for each would be most of a listing's work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar

from fusefs.tree.node import Attributes, Node
from fusefs.tree.sighting import Sighting


class Origin(ABC):
    """What has children that are alike, each known by its key."""

    file_type: ClassVar[int]  # the bits of their type, S_IFREG and the like

    @abstractmethod
    def identity(self, key: bytes) -> Hashable:
        """The identity of a child."""

    @abstractmethod
    def node(self, key: bytes) -> Node:
        """The node of a child."""

    @abstractmethod
    def shared(self) -> Attributes:
        """The attributes of every child, but for size and times of modification: to be filled in
        and used before anybody else asks. Raises `gone()`."""


class StandIn(Sighting):
    """Stands in for a child of which no more is known than what a listing has seen."""

    __slots__ = ("_key", "_origin")
    private: ClassVar[bool] = False

    def __init__(
        self, origin: Origin, key: bytes, contents: bytes, mtime_ns: int, seen: float
    ) -> None:
        """The `contents`, all that the node would show, were seen at `seen`, and are from
        `mtime_ns` if nobody has seen some before."""
        # Not one call more than it takes: a listing makes one for each child.
        self._origin = origin
        self._key = key
        self._digest = hash(contents)
        self._seen = seen
        self.mtime_ns = mtime_ns
        self.size = len(contents)

    @property
    def sighting(self) -> Sighting:
        """What was seen."""
        return self

    @property
    def identity(self) -> Hashable:
        """The identity of the node."""
        return self._origin.identity(self._key)

    def attributes(self) -> Attributes | None:
        """The attributes of the node, if what was seen is still good enough to tell them; to be
        used at once. Raises `gone()`."""
        if not self.fresh:
            return None
        attributes = self._origin.shared()
        attributes.size = self.size
        attributes.mtime_ns = attributes.ctime_ns = self.mtime_ns
        return attributes

    def renew(self, newer: Node | StandIn) -> None:
        """Take over what another one, or the node, has seen, if that is newer."""
        if newer.sighting:
            self.merge(newer.sighting)

    def node(self) -> Node:
        """The node, which has seen as much."""
        node = self._origin.node(self._key)
        node.renew(self)
        return node


class Alike(ABC):
    """Children of `origin` that a listing has found in one go, one at least."""

    origin: Origin
    names: Sequence[str]
    keys: Sequence[bytes]

    def identities(self, most: int) -> list[Hashable]:
        """The identities of the first `most`."""
        return list(map(self.origin.identity, self.keys[:most]))

    @abstractmethod
    def rest(self, done: int) -> Alike | None:
        """The same but for the first `done`; None where there are no others."""

    @abstractmethod
    def expire(self) -> None:
        """One of them was removed or renamed: what was seen is no longer believed."""

    @abstractmethod
    def first(self) -> Node:
        """The node of the first. Raises `gone()`."""

    @abstractmethod
    def stand_ins(self, most: int) -> list[StandIn]:
        """What stands in for the first `most`; nothing where they have to be nodes."""
