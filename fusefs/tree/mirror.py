"""The directories and symbolic links of bpffs, as they are, and its pins, opened up."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from fusefs.bpf import bpffs
from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.tree.alike import StandIn
from fusefs.tree.context import Context
from fusefs.tree.kept import Kept
from fusefs.tree.node import Attributes, Change, Directory, File, Node, Symlink, gone, refusal
from fusefs.tree.subject import PinPlace, change_owner_and_times

# What is in directories deeper than that is not shown: a path is no longer (PATH_MAX). Who goes on
# from where they stand can make them as deep as they like, and have each request take as long.
_DEEPEST = 2048


class Mirror(Directory):
    """A directory of bpffs. What is done to it is done there, with the caller's rights."""

    __slots__ = ("_context", "_places", "directory")

    def __init__(self, directory: bpffs.Directory, context: Context) -> None:
        super().__init__(("directory", directory.inode))
        self.directory = directory
        self._context = context
        # The places that are known, as long as somebody knows them.
        self._places: WeakValueDictionary[str, PinPlace] = WeakValueDictionary()

    def attributes(self) -> Attributes:
        status = self.directory.status()
        attributes = Attributes.of(status, status.st_mode)
        attributes.nlink = status.st_nlink
        return attributes

    def change(self, change: Change, caller: Caller) -> None:
        with acting_as(caller):
            if change.mode is not None:
                self.directory.chmod(stat.S_IMODE(change.mode))
            change_owner_and_times(self.directory, change)

    def statvfs(self) -> os.statvfs_result:
        """What df(1) shows."""
        return self.directory.statvfs()

    @property
    def kept(self) -> Kept:
        """What stays open for a moment, and has to be closed."""
        return self._context.kept

    def turn(self) -> None:
        """A request begins, or goes on after others had a turn."""
        self._context.moment += 1
        self.directory.trim()

    def renew(self, newer: Node | StandIn) -> None:
        if isinstance(newer, Mirror):
            self.directory.place = newer.directory.place

    def enter(self) -> None:
        if self.directory.moved():
            raise gone()

    def lookup(self, name: str) -> Node:
        try:
            status = self.directory.stat(name)
        except FileNotFoundError:
            self.enter()  # it may be in what is now in this one's place
            raise
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EXDEV):
                raise
            # EPERM is the answer for any name with a dot, but those that the kernel made itself;
            # EXDEV for what is mounted there.
            if name in self.directory.names():
                return Sealed(self.directory, name)
            raise refusal(errno.ENOENT) from None
        return self._node(name, status)

    def _node(self, name: str, status: os.stat_result) -> Node:
        if stat.S_ISDIR(status.st_mode):
            if self.directory.depth >= _DEEPEST:
                return Sealed(self.directory, name)
            try:
                return Mirror(bpffs.Directory(name, self.directory), self._context)
            except (FileNotFoundError, NotADirectoryError):
                raise gone() from None  # it was replaced a moment ago
        if stat.S_ISLNK(status.st_mode):
            return MirrorLink(self.directory, name, status.st_ino)
        place = self._places.get(name)
        if place is None or not place.is_for(status):
            place = self._places[name] = PinPlace(self.directory, name, self._context)
        return _opened_up(place)

    def children(self) -> Iterator[tuple[str, Node]]:
        for listed in self.directory.each():  # others have turns: there may be millions
            if listed.stat is None:
                yield listed.name, Sealed(self.directory, listed.name)
                continue
            try:
                node = self._node(listed.name, listed.stat)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    continue
                raise
            yield listed.name, node

    def create(self, name: str, mode: int, caller: Caller) -> File:
        raise refusal(errno.EACCES)  # as bpffs answers

    def mkdir(self, name: str, mode: int, caller: Caller) -> Node:
        with acting_as(caller):
            self.directory.mkdir(name, stat.S_IMODE(mode))
        return self._made(name, self.directory.rmdir, caller)

    def symlink(self, name: str, target: str, caller: Caller) -> Node:
        with acting_as(caller):
            self.directory.symlink(name, target)
        return self._made(name, self.directory.unlink, caller)

    def _made(self, name: str, undo: Callable[[str], None], caller: Caller) -> Node:
        """What was made. If it cannot be told of, for want of descriptors, as it may be, who asked
        for it gets an error; so it is not to be there."""
        try:
            return self.lookup(name)
        except BaseException:
            with acting_as(caller), contextlib.suppress(OSError):
                undo(name)
            raise

    def unlink(self, name: str, caller: Caller) -> None:
        if stat.S_ISREG(self._mode(name)):
            raise refusal(errno.EISDIR)  # a pin is a directory here
        with acting_as(caller):
            self.directory.unlink(name)

    def rmdir(self, name: str, caller: Caller) -> None:
        """Remove an empty directory, or unpin, as cgroupfs removes a cgroup."""
        is_pin = stat.S_ISREG(self._mode(name))
        with acting_as(caller):
            if is_pin:
                self.directory.unlink(name)
            else:
                self.directory.rmdir(name)
        # To the kernel a directory that was removed is dead, and stays so as long as it is used:
        # what is pinned here next has to be another (vfs_rmdir, S_DEAD).
        self._places.pop(name, None)
        self._context.survey.forget()

    def rename(
        self, name: str, to: Directory, new_name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        """Rename within bpffs. Nothing is renamed over a pin: that would free its object."""
        if not isinstance(to, Mirror):
            raise refusal(errno.EXDEV)
        # A symbolic link may replace one, and a directory an empty one; the kernel refuses to
        # rename a directory over a pin. All else must find the new name free.
        mode = self._mode(name)
        replaces = stat.S_ISDIR(mode) or (stat.S_ISLNK(mode) and to.has_link(new_name))
        if not replaces and not flags & RenameFlags.EXCHANGE:
            flags |= RenameFlags.NOREPLACE
        with acting_as(caller):
            self.directory.rename(name, to.directory, new_name, flags)
        self._rename_places(name, to, new_name, flags)
        self._context.survey.forget()

    def _rename_places(self, name: str, to: Mirror, new_name: str, flags: RenameFlags) -> None:
        """Who stands in a pin's directory goes along with it."""
        old, new = (self.directory.inode, name), (to.directory.inode, new_name)
        exchange = bool(flags & RenameFlags.EXCHANGE)
        self._context.formats.rename(old, new, exchange=exchange)
        moved, other = self._places.pop(name, None), to._places.pop(new_name, None)
        if moved:
            moved.move(to.directory, new_name)
            to._places[new_name] = moved
        if other and exchange:
            other.move(self.directory, name)
            self._places[name] = other

    def _mode(self, name: str) -> int:
        """What the name is. Raises EBUSY when something is mounted there."""
        try:
            return self.directory.stat(name).st_mode
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise refusal(errno.EBUSY) from None
            raise

    def has_link(self, name: str) -> bool:
        """Whether there is a symbolic link of this name."""
        try:
            return stat.S_ISLNK(self._mode(name))
        except FileNotFoundError:
            return False


class MirrorLink(Symlink):
    """A symbolic link of bpffs."""

    __slots__ = ("_directory", "_inode", "_name")

    def __init__(self, directory: bpffs.Directory, name: str, inode: int) -> None:
        super().__init__(("link", directory.inode, name, inode))
        self._directory = directory
        self._name = name
        self._inode = inode

    def _itself(self) -> bpffs.Named:
        try:
            return self._directory.named(self._name, self._inode)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EXDEV):  # or something is mounted on its name
                raise gone() from None
            raise

    def attributes(self) -> Attributes:
        link = self._itself()
        status = link.status()
        attributes = Attributes.of(status, status.st_mode)
        attributes.size = len(os.fsencode(link.readlink()))
        return attributes

    def target(self) -> str:
        return self._itself().readlink()

    def change(self, change: Change, caller: Caller) -> None:
        if change.mode is not None:
            raise refusal(errno.EOPNOTSUPP)  # as for any symbolic link
        with acting_as(caller):
            change_owner_and_times(self._itself(), change)


class Sealed(Directory):
    """A name of which nothing is shown, an empty directory: the kernel tells no more of it, or
    something else is mounted there."""

    __slots__ = ("_directory",)

    def __init__(self, directory: bpffs.Directory, name: str) -> None:
        super().__init__(("sealed", directory.inode, name))
        self._directory = directory

    def attributes(self) -> Attributes:
        return Attributes.of(self._directory.status(), stat.S_IFDIR)

    def lookup(self, name: str) -> Node:
        raise refusal(errno.ENOENT)

    def children(self) -> Iterator[tuple[str, Node]]:
        return iter(())


def _opened_up(place: PinPlace) -> Directory:
    # Most of the program, and its types: a mount is there before anybody has seen a pin.
    from fusefs.tree.object_directory import ObjectDirectory  # noqa: PLC0415

    return ObjectDirectory(place)
