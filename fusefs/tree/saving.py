"""Directories whose files can be saved as tools do that: a scratch file is made, and renamed over
the file. To the file that is one write."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import ClassVar

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.object import Object
from fusefs.text.errors import Refused
from fusefs.text.names import looks_scratch
from fusefs.tree.alike import Alike
from fusefs.tree.editing import decoded
from fusefs.tree.files import WritableFile
from fusefs.tree.node import Change, Directory, File, Node, Opening, Symlink, gone, refusal
from fusefs.tree.scratch import Scratch, ScratchFile, ScratchLink, ScratchNode
from fusefs.tree.subject import Subject


class SavingDirectory(Directory):
    """A directory in which names that look like a tool's scratch files are just that, and all
    others are its own, which subclasses know of."""

    __slots__ = ()

    # What a rename into another directory is answered with.
    elsewhere: ClassVar[int] = errno.EXDEV

    @abstractmethod
    def subject(self) -> Subject:
        """What its files belong to. Raises `gone()`."""

    def owns(self, name: str) -> bool:
        """Whether a name that looks like a scratch file's is that of a child of its own."""
        return False

    @abstractmethod
    def find(self, name: str, caller: Caller | None = None) -> Node:
        """Its own child of this name, for `caller` if one is given. Raises FileNotFoundError."""

    @abstractmethod
    def listed(self) -> Iterator[tuple[str, Node] | Alike | None]:
        """Its own children, as `Directory.children` gives them."""

    @abstractmethod
    def save(self, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller) -> None:
        """Have its own child `name` take what a scratch file or link has. Raises OSError, and then
        nothing has changed."""

    def make(self, name: str, caller: Caller) -> File:
        """Its own new file of this name, see `Directory.create`."""
        raise refusal(errno.EPERM)

    def link(self, name: str, target: str, caller: Caller) -> Node:
        """Make a symbolic link of its own."""
        raise refusal(errno.EPERM)

    def check_link(self, target: str, caller: Caller) -> None:
        """Refuse the target of a scratch link, if nothing could be saved so."""

    def remove(self, name: str, caller: Caller) -> None:
        """Remove its own child."""
        raise refusal(errno.EPERM)

    def move(self, name: str, new_name: str, flags: RenameFlags, caller: Caller) -> Hashable | None:
        """Rename its own child, see `Directory.rename`."""
        raise refusal(errno.EPERM)

    # What those who serve the directory call.

    def change(self, change: Change, caller: Caller) -> None:
        """Those who copy a directory set what it has: accepted, and without effect."""

    def occupant(self) -> Subject:
        return self.subject()

    def lookup(self, name: str) -> Node:
        return self._scratch_named(name) if self._is_scratch(name) else self.find(name)

    def lookup_by(self, name: str, caller: Caller) -> Node:
        return self._scratch_named(name) if self._is_scratch(name) else self.find(name, caller)

    def children(self) -> Iterator[tuple[str, Node] | Alike | None]:
        scratch, here = self._scratch()
        yield from scratch.all_in(here)
        if self._scratch()[1] != here:  # others had turns, and have put another pin here
            raise gone()
        yield from self.listed()

    def create(self, name: str, mode: int, caller: Caller) -> File:
        if not self._is_scratch(name):
            return self.make(name, caller)
        scratch, here = self._scratch()
        file = ScratchFile(scratch, self.subject(), mode, caller)
        scratch.add(here, name, file)
        return file

    def symlink(self, name: str, target: str, caller: Caller) -> Node:
        if not self._is_scratch(name):
            return self.link(name, target, caller)
        self.check_link(target, caller)
        scratch, here = self._scratch()
        link = ScratchLink(self.subject(), target, caller)
        scratch.add(here, name, link)
        return link

    def unlink(self, name: str, caller: Caller) -> None:
        if not self._is_scratch(name):
            self.remove(name, caller)
            return
        scratch, here = self._scratch()
        scratch.remove(here, name)

    def rename(
        self, name: str, to: Directory, new_name: str, flags: RenameFlags, caller: Caller
    ) -> Hashable | None:
        if to.identity != self.identity:
            raise refusal(self.elsewhere)
        if not self._is_scratch(name):
            return self.move(name, new_name, flags, caller)
        if flags & ~RenameFlags.NOREPLACE:
            raise refusal(errno.EINVAL)
        scratch, here = self._scratch()
        if self._is_scratch(new_name):
            scratch.rename(here, name, new_name)
            return None
        node = scratch.get(here, name)
        if caller.uid != node.owner and not caller.is_root:  # it would show to others what is in it
            raise refusal(errno.EACCES)
        self.save(node, new_name, flags, caller)
        scratch.remove(here, name)
        return None

    def _is_scratch(self, name: str) -> bool:
        return looks_scratch(name) and not self.owns(name)

    def _scratch(self) -> tuple[Scratch, Hashable]:
        """Where scratch files are, and which of them are in this directory."""
        subject = self.subject()
        return subject.context.scratch, (self.identity, subject.identity)

    def _scratch_named(self, name: str) -> Node:
        scratch, here = self._scratch()
        return scratch.get(here, name)


def take(node: Node, obj: Object, scratch: ScratchNode, opening: Opening) -> None:
    """Have a file take the contents of a scratch file. Raises `Refused`, `Incomplete` or OSError,
    and then nothing has changed."""
    if not isinstance(node, WritableFile) or not isinstance(scratch, ScratchFile):
        raise refusal(errno.EPERM, "a file is replaced by a file, and a link by a link")
    node.admit(Opening(os.O_RDWR, opening.caller))  # none that takes commands, as `push`
    if reason := node.fixed():
        raise refusal(errno.EPERM, reason)
    if scratch.size > node.longest:  # others wait while a text is read
        raise Refused(f"the text is longer than {node.longest} bytes")
    node.accept(obj, decoded(bytes(scratch.contents)), opening)


class SetLink(Symlink):
    """A link that can be replaced. Tools set owner and times of what they save: accepted, and
    without effect."""

    __slots__ = ()

    def change(self, change: Change, caller: Caller) -> None:
        pass


class Replaceable(SetLink, ABC):
    """A link in an object's directory that is set by renaming another over it."""

    __slots__ = ()

    @abstractmethod
    def check(self, target: str, caller: Caller) -> None:
        """Refuse a target that it cannot lead to. Raises OSError."""

    @abstractmethod
    def replace(self, target: str, caller: Caller) -> None:
        """Have it lead to what a text leads to. Raises OSError, and then nothing has changed."""
