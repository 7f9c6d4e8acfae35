"""Scratch files: what tools make beside a file while they save it, to rename it over that.

They are in memory, and end with the mount; what they are called, `text/names.py` knows.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING
from weakref import WeakSet

from fusefs.bpf.credentials import Caller
from fusefs.tree.node import Attributes, Change, File, Handle, Node, Symlink, gone, refusal

if TYPE_CHECKING:
    from fusefs.tree.subject import Subject

# So many may root have in a mount, and so many bytes in all of them: a backup and a swap file of
# every value that is edited, many times over. So many may others have together, and each of them a
# part of that.
_MOST = 1024
_MOST_BYTES = 1 << 25
_SHARES = 4


class Scratch:
    """All that there are in a mount, by their directories and names."""

    def __init__(self) -> None:
        self._named: dict[tuple[Hashable, str], ScratchNode] = {}
        # Those too that were removed and are still open.
        self._alive: WeakSet[ScratchNode] = WeakSet()

    def get(self, directory: Hashable, name: str) -> ScratchNode:
        """The one of this name. Raises FileNotFoundError."""
        try:
            return self._named[directory, name]
        except KeyError:
            raise refusal(errno.ENOENT) from None

    def all_in(self, directory: Hashable) -> list[tuple[str, ScratchNode]]:
        """Those in a directory, by name."""
        return [(name, node) for (where, name), node in self._named.items() if where == directory]

    def add(self, directory: Hashable, name: str, node: ScratchNode) -> None:
        """Give one a name, in place of what has it. Raises OSError: ENOSPC when they are too
        many."""
        if node not in self._alive:
            try:
                self._check(node.owner, 1, node.size)
            except OSError:
                self._sweep()
                self._check(node.owner, 1, node.size)
            self._alive.add(node)
        if replaced := self._named.get((directory, name)):
            replaced.unlinked()
        self._named[directory, name] = node

    def remove(self, directory: Hashable, name: str) -> None:
        """Remove one. Raises FileNotFoundError."""
        self.get(directory, name).unlinked()
        del self._named[directory, name]

    def rename(self, directory: Hashable, name: str, new_name: str) -> None:
        """Give one another name. Raises FileNotFoundError."""
        node = self.get(directory, name)
        if name != new_name:
            del self._named[directory, name]
            self.add(directory, new_name, node)

    def check_room(self, owner: int, more: int) -> None:
        """Raise OSError, ENOSPC, when the files of a user may not have so many bytes more."""
        if more > 0:
            self._check(owner, 0, more)

    def _check(self, owner: int, number: int, size: int) -> None:
        """Raise OSError, ENOSPC, when a user may not have so many more, of that size together."""
        peers = [n for n in self._alive if n.is_used and (n.owner == 0) == (owner == 0)]
        own = [node for node in peers if node.owner == owner]
        for nodes, part in ((peers, 1), (own, 1 if owner == 0 else _SHARES)):
            used = sum(node.size for node in nodes)
            if len(nodes) + number > _MOST // part or used + size > _MOST_BYTES // part:
                raise refusal(errno.ENOSPC, "there are too many scratch files, or too large ones")

    def _sweep(self) -> None:
        """Remove those that nobody can reach, since the object that they were beside is gone."""
        for (directory, name), node in list(self._named.items()):
            try:
                node.subject.status()
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
                self.remove(directory, name)


class ScratchNode(Node):
    """A scratch file or link, beside files of `subject`."""

    __slots__ = ("__weakref__", "_attributes", "subject")

    def __init__(self, subject: Subject, mode: int, caller: Caller) -> None:
        super().__init__(("scratch", id(self)))  # no other has it while the kernel refers to this
        self.subject = subject
        now = time.time_ns()
        self._attributes = Attributes(mode, caller.uid, caller.gid, now, now, now)

    @property
    def private(self) -> bool:
        # Once it is renamed, its name stands for something else, at once.
        return True

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return 0

    @property
    def text(self) -> str:
        """What it holds, for the log."""
        return ""

    @property
    def owner(self) -> int:
        """The user that it belongs to."""
        return self._attributes.uid

    @property
    def is_used(self) -> bool:
        """Whether it has a name, or somebody has it open. The kernel may know others for long."""
        return self._attributes.nlink > 0

    def attributes(self) -> Attributes:
        self._attributes.size = self.size
        return self._attributes

    def change(self, change: Change, caller: Caller) -> None:
        # The kernel has seen to it that the caller may.
        own = self._attributes
        if change.mode is not None:
            own.mode = stat.S_IFMT(own.mode) | change.mode & 0o777
        own.uid = own.uid if change.uid is None else change.uid
        own.gid = own.gid if change.gid is None else change.gid
        own.atime_ns = own.atime_ns if change.atime_ns is None else change.atime_ns
        own.mtime_ns = own.mtime_ns if change.mtime_ns is None else change.mtime_ns
        own.ctime_ns = time.time_ns()

    def unlinked(self) -> None:
        """It has no name any more, but may be open."""
        self._attributes.nlink = 0


class ScratchFile(ScratchNode, File):
    """A scratch file. `contents` are its bytes, `handles` counts those who have it open."""

    __slots__ = ("_scratch", "contents", "handles")

    def __init__(self, scratch: Scratch, subject: Subject, mode: int, caller: Caller) -> None:
        super().__init__(subject, stat.S_IFREG | mode & 0o777, caller)
        self._scratch = scratch
        self.contents = bytearray()
        self.handles = 0

    @property
    def size(self) -> int:
        return len(self.contents)

    @property
    def is_used(self) -> bool:
        return super().is_used or self.handles > 0

    @property
    def text(self) -> str:
        return self.contents.decode("utf-8", "replace")

    def open(self, flags: int, caller: Caller) -> Handle:
        if not self._attributes.nlink:
            raise gone()
        if flags & os.O_TRUNC:
            self.resize(0)
        return _OpenScratch(self, appends=bool(flags & os.O_APPEND))

    def change(self, change: Change, caller: Caller) -> None:
        if change.size is not None:
            self.resize(change.size)
        super().change(change, caller)

    def resize(self, size: int) -> None:
        """Cut it, or add zeros. Raises OSError, ENOSPC."""
        self._scratch.check_room(self.owner, size - self.size)
        self.contents = self.contents[:size].ljust(size, b"\0")
        self._changed()

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Raises OSError, ENOSPC."""
        self._scratch.check_room(self.owner, offset + len(data) - self.size)
        if offset > self.size:
            self.resize(offset)
        self.contents[offset : offset + len(data)] = data
        self._changed()

    def _changed(self) -> None:
        self._attributes.mtime_ns = self._attributes.ctime_ns = time.time_ns()


class _OpenScratch(Handle):
    """An open scratch file."""

    def __init__(self, file: ScratchFile, *, appends: bool) -> None:
        self._file = file
        self._appends = appends
        file.handles += 1

    def read(self, offset: int, size: int) -> bytes | None:
        return bytes(self._file.contents[offset : offset + size])

    def write(self, offset: int, data: bytes) -> int:
        self._file.write(self._file.size if self._appends else offset, data)
        return len(data)

    def truncate(self, size: int) -> None:
        self._file.resize(size)

    def close(self) -> None:
        self._file.handles -= 1
        if not self._file.is_used:
            self._file.contents = bytearray()


class ScratchLink(ScratchNode, Symlink):
    """A scratch link. It leads nowhere but where its text says."""

    __slots__ = ("_target",)

    def __init__(self, subject: Subject, target: str, caller: Caller) -> None:
        super().__init__(subject, stat.S_IFLNK | 0o777, caller)
        self._target = target

    @property
    def size(self) -> int:
        return len(os.fsencode(self._target))

    def target(self) -> str:
        return self._target
