"""What the tree is made of: directories, files, symbolic links, and open files.

A node stands for one thing with an inode. It knows nothing of FUSE: whoever serves the tree asks
it for attributes, children and contents, and gives it what users write. Methods raise OSError
with the errno that the user is to see; the defaults refuse, as a read-only file system would.

No method waits. What takes long is cut in pieces: `Directory.children` and `Handle.flush` are
iterators, and both the former and `Handle.read` may answer None, "not yet, ask again", so that
others can be served in between.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller

if TYPE_CHECKING:
    from fusefs.tree.alike import Alike, StandIn
    from fusefs.tree.sighting import Sighting

# How long names and attributes may lag behind a change made elsewhere, in seconds.
FRESH = 0.05
# What st_blksize says: programs that buffer by it then write a value in one piece.
BLOCK = 1 << 17


def refusal(number: int, reason: str = "") -> OSError:
    """An OSError with this errno, of the subclass that it has; `reason` is for the log."""
    return OSError(number, reason or os.strerror(number))


class Absent(OSError):  # noqa: N818 - a child's fate
    """ESTALE of a child that its directory does not have now; the object that it is of is there."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, os.strerror(errno.ESTALE))


def gone() -> OSError:
    """What stands behind a node is gone or was replaced.

    On ESTALE the kernel looks the path up again and repeats the request with what is there now,
    or says ENOENT (path_openat and retry_estale in fs/namei.c): the user never sees it.
    """
    return refusal(errno.ESTALE)


@dataclass(slots=True)
class Attributes:
    """What stat(2) shows of a node; `mode` has the file type's bits, times are in ns.

    Size and times of modification tell something of the contents. `known_by` are the permission
    bits, to read, of those who may know them, 0 for root alone; None for all who can look it up.
    """

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    size: int = 0
    nlink: int = 1
    known_by: int | None = None

    @classmethod
    def of(cls, status: os.stat_result, mode: int) -> Attributes:
        """Owner and times as in `status`, with another mode."""
        return cls(
            mode,
            status.st_uid,
            status.st_gid,
            status.st_atime_ns,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )

    def are_known_by(self, caller: Caller) -> bool:
        """Whether `caller` may know size and times."""
        if self.known_by is None or caller.is_root:
            return True
        if self.known_by and caller.reads_all:
            return True
        return bool(self._part_for(caller, self.known_by) & os.R_OK)

    def permit(self, caller: Caller, wanted: int) -> bool:
        """Whether the mode gives `caller` all that is `wanted`, a sum of those that access(2)
        takes."""
        return self._part_for(caller, self.mode) & wanted == wanted

    def _part_for(self, caller: Caller, mode: int) -> int:
        """The three bits of a mode that are for `caller`."""
        if caller.uid == self.uid:
            return mode >> 6 & 7
        if self.gid == caller.gid or self.gid in caller.groups:
            return mode >> 3 & 7
        return mode & 7


@dataclass(frozen=True, slots=True)
class Change:
    """Attributes to set; None where they stay."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How a file was opened: with `flags`, as for open(2), and by whom."""

    flags: int
    caller: Caller


class Handle:
    """An open file."""

    @property
    def awaited(self) -> int | None:
        """The descriptor that can be read when there may be more to read here; None where that
        does not have to be waited for."""
        return None

    @property
    def ready(self) -> bool:
        """Whether `read` would give something now."""
        return True

    @property
    def held(self) -> int:
        """How many bytes it keeps in memory, for as long as it is open or until they are committed;
        a few are not counted."""
        return 0

    @property
    def makes(self) -> bool:
        """Whether the file is not there before a value is written here."""
        return False

    def begin(self) -> Iterator[None]:
        """What is to be made before who opened it hears of that, so that its size can be told; in
        pieces between which others may have a turn. It may be left at any of them."""
        return iter(())

    def read(self, offset: int, size: int) -> bytes | None:
        """Up to `size` bytes from `offset`; nothing at the end; None for "not yet, ask again",
        when there is an `awaited` descriptor after it can be read."""
        raise refusal(errno.EBADF)

    def filler(self, offset: int, size: int) -> bytes:
        """What a reader that has waited for long may be given at `offset`: what there is by now, or
        what means nothing. Nothing where there is no such thing, and the reader waits on."""
        return b""

    def leave(self, offset: int, size: int) -> None:
        """Who was told "not yet" does not ask again."""

    def write(self, offset: int, data: bytes) -> int | None:
        """Take `data`, or as much of its beginning as is done with soon; how much was taken. None
        for "not yet, ask again" with the same, when the `awaited` descriptor can be read or after
        some time."""
        raise refusal(errno.EBADF)

    def truncate(self, size: int) -> None:
        """Set the length of what is being written."""
        raise refusal(errno.EINVAL)

    def flush(self) -> Iterator[None]:
        """One of the descriptors was closed: commit what is complete, in pieces between which
        others may have a turn. May come many times."""
        return iter(())

    def close(self) -> None:
        """The last descriptor was closed."""


class Node(ABC):
    """One thing with an inode. Two nodes of the same `identity` are the same thing."""

    __slots__ = ("identity",)

    def __init__(self, identity: Hashable) -> None:
        self.identity = identity

    @property
    def private(self) -> bool:
        """Whether not all who can search its directory may know of it: each of them has to look it
        up, and none relies on what another has found."""
        return False

    @abstractmethod
    def attributes(self) -> Attributes:
        """Its attributes now. Raises `gone()` when it is."""

    def prepare(self) -> Iterator[int | None]:
        """What takes long and is to be done before it is opened, in pieces: None where others may
        have a turn, or a descriptor that is worth waiting for until it can be read."""
        return iter(())

    def change(self, change: Change, caller: Caller) -> None:
        """Set attributes."""
        raise refusal(errno.EPERM)

    def extended(self) -> dict[str, bytes]:
        """Its extended attributes, see xattr(7)."""
        return {}

    @property
    def has_listed_attributes(self) -> bool:
        """Whether who asks for the names of its attributes is told those.

        Else there is no such list, on which `ls -l` of coreutils from 9.6 on asks for no more in
        the whole directory (file_has_aclinfo in gnulib): it would take several times as long.
        """
        return False

    @property
    def sighting(self) -> Sighting | None:
        """What was last seen of its contents, if that is kept."""
        return None

    def renew(self, newer: Node | StandIn) -> None:
        """Take over what another node of the same identity has seen, if that is newer."""
        if self.sighting and newer.sighting:
            self.sighting.merge(newer.sighting)


class Directory(Node):
    """A node with named children. Of one that is `roots`, bpf(2) tells nobody else what is in it:
    for who is root by uid and no more, its mode is not enough."""

    __slots__ = ()
    roots: ClassVar[bool] = False

    def enter(self) -> None:
        """Raise `gone()` when it is no longer what its path leads to; it is opened to be read."""
        self.attributes()

    def occupant(self) -> object:
        """What is here now, by which the right to read the directory is judged, where there may be
        another before it is read; else None. Raises `gone()`."""
        return None

    @abstractmethod
    def lookup(self, name: str) -> Node:
        """The child of this name. Raises FileNotFoundError."""

    def lookup_by(self, name: str, caller: Caller) -> Node:
        """The same, for `caller`, whose right to know of a `private` child is checked."""
        return self.lookup(name)

    @abstractmethod
    def children(self) -> Iterator[tuple[str, Node] | Alike | None]:
        """All children that a listing shows, each with its name; None for "not yet, ask again"."""

    def create(self, name: str, mode: int, caller: Caller) -> File:
        """The regular file of this name, to be made by opening it with O_CREAT; with `mode`, if its
        mode is for users to choose."""
        raise refusal(errno.EPERM)

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        """Make a directory."""
        raise refusal(errno.EPERM)

    def symlink(self, name: str, target: str, caller: Caller) -> Node:
        """Make a symbolic link."""
        raise refusal(errno.EPERM)

    def unlink(self, name: str, caller: Caller) -> None:
        """Remove a child that is not a directory."""
        raise refusal(errno.EPERM)

    def rmdir(self, name: str, caller: Caller) -> None:
        """Remove a child that is a directory."""
        raise refusal(errno.EPERM)

    def rename(
        self, name: str, to: Directory, new_name: str, flags: RenameFlags, caller: Caller
    ) -> Hashable | None:
        """Rename a child, possibly into another directory. Gives the identity that it had, if it
        has another now."""
        raise refusal(errno.EPERM)


class Symlink(Node):
    """A symbolic link."""

    __slots__ = ()

    @abstractmethod
    def target(self) -> str:
        """Its text."""

    def target_for(self, caller: Caller) -> str:
        """The same for `caller`, whose right to know it is checked where that is not everybody's:
        the mode of a symbolic link keeps nobody from reading it."""
        return self.target()


class File(Node):
    """A regular file."""

    __slots__ = ()

    @abstractmethod
    def open(self, flags: int, caller: Caller) -> Handle:
        """Open it; `flags` as for open(2). Raises `gone()` when it is no longer there.

        With O_CREAT, the file is one that `Directory.create` gave, and need not be there.
        """


def wants_write(flags: int) -> bool:
    """Whether open(2) with these flags asks to write."""
    return flags & os.O_ACCMODE != os.O_RDONLY


def check_access(mode: int, flags: int) -> None:
    """Refuse an open that the mode has no bit for.

    The kernel has checked users already, but it lets root pass; a file that nobody can write
    refuses root too, as in sysfs (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK).
    """
    if wants_write(flags) and not mode & 0o222:
        raise refusal(errno.EACCES)
    if flags & os.O_ACCMODE != os.O_WRONLY and not mode & 0o444:
        raise refusal(errno.EACCES)


def searchable(mode: int) -> int:
    """The mode of a directory made of a file's: who may read or write may go inside."""
    return mode | (mode & 0o444) >> 2 | (mode & 0o222) >> 1


def readers_among(status: os.stat_result, readable: int) -> int | None:
    """`Attributes.known_by` of what is in the directory made of a file with this `status`, and can
    be read as `readable` says: None where all can who may go inside."""
    inside = (searchable(status.st_mode) & 0o111) << 2
    return readable & 0o444 if inside & ~readable else None
