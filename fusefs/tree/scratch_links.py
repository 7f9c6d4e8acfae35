"""Symbolic links that a tool makes for a moment, to rename them over others: `ln -sf` does."""

from __future__ import annotations

import errno
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.text.names import looks_scratch
from fusefs.tree.node import Attributes, Change, Node, Symlink, gone, refusal
from fusefs.tree.subject import Place


class SetLink(Symlink):
    """A link that can be replaced. Tools set owner and times of what they save: accepted, and
    without effect."""

    __slots__ = ()

    def change(self, change: Change, caller: Caller) -> None:
        pass


class ScratchLink(SetLink):
    """Such a link. It is in memory, and leads nowhere but where its text says."""

    __slots__ = ("_links", "_name")

    def __init__(self, links: ScratchLinks, name: str) -> None:
        super().__init__((links.place, "scratch", name))
        self._links = links
        self._name = name

    def target(self) -> str:
        target = self._links.target(self._name)
        if target is None:
            raise gone()
        return target

    def attributes(self) -> Attributes:
        status = self._links.place.find().status()
        attributes = Attributes.of(status, stat.S_IFLNK | 0o777)
        attributes.size = len(self.target().encode())
        return attributes


class ScratchLinks:
    """Those at a place. They are private to the mount; of those of all places the oldest are
    forgotten when they are too many."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __contains__(self, name: str) -> bool:
        return self.target(name) is not None

    def target(self, name: str) -> str | None:
        """The text of the link of this name; None when there is none."""
        return self.place.context.links.get((self.place.where, name))

    def add(self, name: str, target: str) -> None:
        """Make one, or make it anew."""
        self.place.context.links[self.place.where, name] = target

    def remove(self, name: str) -> bool:
        """Remove one; whether there was one."""
        return self.place.context.links.pop((self.place.where, name), None) is not None

    def node(self, name: str) -> ScratchLink:
        """The node of one."""
        return ScratchLink(self, name)


class Replaceable(SetLink, ABC):
    """A link in an object's directory that is set by renaming another over it."""

    __slots__ = ()

    @abstractmethod
    def check(self, target: str, caller: Caller) -> None:
        """Refuse a target that it cannot lead to. Raises OSError."""

    @abstractmethod
    def replace(self, target: str, caller: Caller) -> None:
        """Have it lead to what a text leads to. Raises OSError, and then nothing has changed."""


class ReplacedLinks:
    """Those of an object's directory, `links` by their names, and what goes on around them."""

    def __init__(self, place: Place, files: Mapping[str, Node]) -> None:
        self._scratch = ScratchLinks(place)
        self._links = {name: node for name, node in files.items() if isinstance(node, Replaceable)}

    def find(self, name: str) -> Node | None:
        """The scratch link of this name, or None."""
        return self._scratch.node(name) if name in self._scratch else None

    def make(self, name: str, target: str, caller: Caller) -> Node:
        """Make a scratch link. Raises OSError: EPERM for any other name."""
        if not self._links or not looks_scratch(name):
            raise refusal(errno.EPERM)
        for link in self._links.values():
            link.check(target, caller)
        self._scratch.add(name, target)
        return self._scratch.node(name)

    def remove(self, name: str) -> bool:
        """Remove a scratch link; whether there was one."""
        return self._scratch.remove(name)

    def rename(self, name: str, new_name: str, flags: RenameFlags, caller: Caller) -> None:
        """Rename a scratch link over the one that it replaces. Raises OSError: EPERM for any other
        name."""
        target, link = self._scratch.target(name), self._links.get(new_name)
        if target is None or link is None:
            raise refusal(errno.EPERM)
        if flags:
            raise refusal(errno.EEXIST if flags == RenameFlags.NOREPLACE else errno.EINVAL)
        link.replace(target, caller)
        self._scratch.remove(name)
