"""What a directory shows: a BPF object, reached in some way, with an owner and a mode."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager

from fusefs.bpf import bpffs
from fusefs.bpf.bpffs import Named
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.object import Object
from fusefs.tree.context import Context
from fusefs.tree.error_log import ErrorLogs
from fusefs.tree.node import Change, gone, refusal


class Subject(ABC):
    """A BPF object as somebody finds it. Each request opens it, or borrows it for a moment."""

    def __init__(self, identity: Hashable, context: Context) -> None:
        self.identity = identity
        self.context = context

    @property
    def roots(self) -> bool:
        """Whether all of it is root's, whatever `status` says."""
        return False

    @property
    def logs(self) -> ErrorLogs:
        """Where it is noted why something was refused."""
        return self.context.logs

    @abstractmethod
    def status(self) -> os.stat_result:
        """Owner, permission bits and times. Raises `gone()`."""

    @abstractmethod
    def open(self) -> Object:
        """Open the object. Raises `gone()`; another OSError when the kernel does not open it."""

    def borrow(self) -> AbstractContextManager[Object]:
        """The open object, for as long as nobody else has a turn. Raises what `open` does."""
        return self.open()

    def open_by(self, caller: Caller, *, only_reads: bool = False) -> Object:
        """Open the object to read and write it, if the kernel lets `caller` do so, or only to read
        it.

        Raises PermissionError when it does not.
        """
        if self.roots and not caller.is_root:
            raise refusal(errno.EACCES)
        return self.open()

    def change(self, change: Change, caller: Caller) -> None:
        """Set owner, permission bits or times."""
        raise refusal(errno.EPERM)


class Place(ABC):
    """Where an object is found. A directory stays at its place when the object there is replaced,
    as when a loader starts again: who stands in it sees the new one."""

    def __init__(self, context: Context) -> None:
        self.context = context

    @property
    def by_id(self) -> bool:
        """Whether the object is found by its id, pinned or not."""
        return False

    @abstractmethod
    def find(self) -> Subject:
        """What is there now, the same `Subject` as long as it is the same object.

        Raises `gone()` when there is nothing.
        """

    @property
    @abstractmethod
    def where(self) -> Hashable:
        """Which place it is; another after it was renamed."""

    @abstractmethod
    def path(self) -> tuple[str, ...] | None:
        """The names that lead to it from the root of the mount; None while they are not known."""

    def settings(self) -> dict[str, str]:
        """The formats that are set for what is there."""
        return self.context.formats.settings(self.where, self.path() or ())

    def remember(self, settings: Mapping[str, str]) -> None:
        """Keep formats that were set, for what is there and what will be."""
        self.context.formats.write(self.where, settings)

    @abstractmethod
    def confirm(self) -> None:
        """Raise `gone()` unless whoever looks it up by its path now comes here."""


class PinPlace(Place):
    """A name in a directory of bpffs. Renamed through the mount, it is the same place still; but a
    pin with another owner, group or mode is in a place of its own. What the kernel keeps of a place
    for a moment, as the keys that are there, it tells to those who may look at the pin by then."""

    def __init__(self, directory: bpffs.Directory, name: str, context: Context) -> None:
        super().__init__(context)
        self.directory = directory
        self.name = name
        self._pin: weakref.ref[Pin] | None = None  # that refers to its place
        self._status: os.stat_result | None = None
        self._mark = b""  # what was told of it before
        self._moment = -1  # when that was seen

    def move(self, directory: bpffs.Directory, name: str) -> None:
        """It has another name now."""
        self.directory, self.name, self._mark = directory, name, b""
        self.changed()

    def is_for(self, status: os.stat_result) -> bool:
        """Whether it is the place of a pin with these attributes, if there is one by its name."""
        seen = self._status
        return seen is None or seen.st_ino == status.st_ino or _rights(seen) == _rights(status)

    def changed(self) -> None:
        """What this request has seen of it is no longer so."""
        self._moment = -1

    def find(self) -> Subject:
        status = self.status()
        if not stat.S_ISREG(status.st_mode):
            raise gone()
        pin = self._pin() if self._pin else None
        if pin is None or pin.inode != status.st_ino:
            pin = Pin(self, status.st_ino)
            self._pin = weakref.ref(pin)
        return pin

    def path(self) -> tuple[str, ...] | None:
        path = self.directory.path()
        return None if path is None else (*path, self.name)

    @property
    def where(self) -> tuple[int, str]:
        return self.directory.inode, self.name

    def confirm(self) -> None:
        if self.directory.moved():
            raise gone()
        self.find()

    def status(self) -> os.stat_result:
        """The attributes of what has the name now, the same for all of a request. Raises
        `gone()`."""
        if self._status is None or self._moment != self.context.moment:
            self._status, self._moment = self._look(), self.context.moment
        return self._status

    def _look(self) -> os.stat_result:
        try:
            mark = self.directory.mark(self.name)
            if self._status and mark and mark == self._mark:
                return self._status
            status = self.directory.stat(self.name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EXDEV):  # removed, or something mounted on it
                raise gone() from None
            raise
        if not self.is_for(status):
            raise gone()
        self._status, self._mark = status, mark
        return status


def _rights(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_uid, status.st_gid, status.st_mode


class Pin(Subject):
    """An object by its pin: what is at a place, as long as it is the same inode."""

    def __init__(self, place: PinPlace, inode: int) -> None:
        super().__init__((place, inode), place.context)
        self._place = place
        self.inode = inode
        self._make: Callable[[int], Object] | None = None

    def status(self) -> os.stat_result:
        status = self._place.status()
        if status.st_ino != self.inode:
            raise gone()
        return status

    def open(self) -> Object:
        if self._place.directory.moved():
            raise gone()
        self.status()  # it is still what has the name
        kept = self.context.kept.get(self)
        return self._make(os.dup(kept.fd)) if kept and self._make else self._open()

    def borrow(self) -> AbstractContextManager[Object]:
        if self._place.directory.moved():
            raise gone()
        self.status()
        kept = self.context.kept.get(self)
        return contextlib.nullcontext(kept) if kept else self._open()

    def open_by(self, caller: Caller, *, only_reads: bool = False) -> Object:
        if self._place.directory.moved():
            raise gone()
        with acting_as(caller):
            return self._open(only_reads=only_reads)

    def _open(self, *, only_reads: bool = False) -> Object:
        place = self._place
        try:
            pin = place.directory.named(place.name, self.inode)
        except FileNotFoundError:
            place.changed()
            raise gone() from None
        try:
            obj = pin.open(self._make, only_reads=only_reads)
        except FileNotFoundError:
            # The kernel's own maps.debug can be a name that is there and does not open.
            raise refusal(errno.ENXIO, "the kernel says that it is not there") from None
        self._make = self._make or obj.maker()
        if obj.kind == "map" and not only_reads:
            self.context.kept.keep(self, obj.fd, self._make)
        return obj

    def change(self, change: Change, caller: Caller) -> None:
        self.status()
        self._place.changed()
        with acting_as(caller):
            pin = self._place.directory.named(self._place.name)
            status = pin.status()
            if status.st_ino != self.inode:
                raise gone()
            if change.mode is not None:
                # The directory's x bits were made from its r bits; they are none of the pin's.
                pin.chmod(change.mode & 0o7666 | status.st_mode & 0o111)
            change_owner_and_times(pin, change)


def change_owner_and_times(named: Named, change: Change) -> None:
    """Set what `change` has of them."""
    if change.uid is not None or change.gid is not None:
        uid = -1 if change.uid is None else change.uid
        gid = -1 if change.gid is None else change.gid
        named.chown(uid, gid)
    if change.atime_ns is not None or change.mtime_ns is not None:
        status = named.status()
        atime = status.st_atime_ns if change.atime_ns is None else change.atime_ns
        mtime = status.st_mtime_ns if change.mtime_ns is None else change.mtime_ns
        named.utime(atime, mtime)
