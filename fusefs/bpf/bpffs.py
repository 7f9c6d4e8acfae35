"""bpffs: directories, symbolic links and pins, reached by descriptors and never by a path.

A `Directory` holds a descriptor of one bpffs directory, and everything below it is named by that
descriptor and one name, so that nobody who renames or replaces things in between can lead us
elsewhere. Every method raises OSError with the kernel's errno.

Source: kernel/bpf/inode.c in the kernel.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fusefs.bpf import libc, syscall
from fusefs.bpf.held import Held
from fusefs.bpf.object import Object
from fusefs.bpf.syscall import Command

MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC, include/uapi/linux/magic.h


@functools.cache
def _kinds() -> dict[str, type[Pinned]]:
    """The kinds of objects, by what /proc/self/fd says of a descriptor that BPF_OBJ_GET gave
    (kernel/bpf/syscall.c)."""
    # They know far more of the kernel than directories do, which can be shown without.
    from fusefs.bpf.link import Link  # noqa: PLC0415
    from fusefs.bpf.map import Map  # noqa: PLC0415
    from fusefs.bpf.program import Program  # noqa: PLC0415

    return {
        "anon_inode:bpf-map": Map,
        "anon_inode:bpf-prog": Program,
        "anon_inode:bpf_link": Link,
        "anon_inode:bpf-link": Link,
    }


if TYPE_CHECKING:
    from fusefs.bpf.link import Link
    from fusefs.bpf.map import Map
    from fusefs.bpf.program import Program

    Pinned = Map | Program | Link

T = TypeVar("T")


class RenameFlags(enum.IntFlag):
    """Flags of renameat2(2)."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class _StatFs(ctypes.Structure):
    """The start of `struct statfs`; os.statvfs leaves out the type. See statfs(2)."""

    _fields_ = (("f_type", ctypes.c_long), ("_rest", ctypes.c_char * 256))


def is_bpffs(fd: int) -> bool:
    """Whether the descriptor is of a file in a bpffs."""
    buffer = _StatFs()
    libc.call("fstatfs", fd, ctypes.byref(buffer))
    return int(buffer.f_type) & 0xFFFFFFFF == MAGIC


@dataclass(frozen=True, slots=True)
class Listed:
    """A name in a directory, and its attributes: None where the kernel refuses to tell them, or
    something else is mounted there."""

    name: str
    stat: os.stat_result | None


# What says of a name that the directory is not there: it is gone, or something else is there, or on
# it; of a whole path also that it is too long.
_ELSEWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG})
_RDONLY = 1 << 3  # BPF_F_RDONLY, linux/bpf.h
# A name is opened without opening what it is: no side effect, no permission needed, and a
# symbolic link is not followed.
_O_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def _open_name(fd: int, name: str, flags: int = 0) -> int:
    """Open `name` in the directory `fd` as a mere name.

    Raises OSError: EXDEV when something else is mounted there. It is not even asked for its
    attributes: it could be a mount of ours, which could not answer while it asks.
    """
    return libc.openat2(fd, name, _O_NAME | flags, libc.RESOLVE_NO_XDEV)


class Named:
    """What had a name when it was looked up, open with O_PATH. It stays that, whatever has the name
    by now. The descriptor is given back when nothing refers to it any more."""

    def __init__(self, fd: int) -> None:
        """`fd` is owned by this from now on."""
        self._fd = fd

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def fd(self) -> int:
        """The descriptor, which opens nothing."""
        return self._fd

    def status(self) -> os.stat_result:
        """Its attributes."""
        return os.fstat(self.fd)

    def chmod(self, mode: int) -> None:
        """Set permission bits."""
        # There is no fchmodat on a descriptor opened with O_PATH before Linux 6.6: by /proc. Who
        # comes to a symbolic link so has come to the link itself (nd_jump_link in fs/namei.c).
        os.chmod(self._itself, mode)

    def chown(self, uid: int, gid: int) -> None:
        """Set owner and group, -1 for as it is."""
        os.chown(self._itself, uid, gid)

    def utime(self, atime_ns: int, mtime_ns: int) -> None:
        """Set both times."""
        os.utime(self._itself, ns=(atime_ns, mtime_ns))

    def readlink(self) -> str:
        """The text of a symbolic link."""
        return os.readlink("", dir_fd=self.fd)

    def open(
        self, make: Callable[[int], Object] | None = None, *, only_reads: bool = False
    ) -> Object:
        """The object of a pin; see `Directory.open_pin`."""
        return _get(self.fd, make or _typed, _RDONLY if only_reads else 0)

    @property
    def _itself(self) -> str:
        return f"/proc/self/fd/{self.fd}"


class Directory(Named):
    """A bpffs directory. `depth` is how many names lead to it from the directory that was opened by
    a path.

    Below that, its descriptor may be closed by `trim`, and is opened again when it is needed, by
    its name. Should it have been moved by then, it cannot be reached any more: ESTALE.
    """

    def __init__(self, path: str, parent: Directory | None = None) -> None:
        """Open `path`, or the directory named so in `parent`, which is not followed if it is a
        symbolic link. What is mounted in a bpffs is not part of it: EXDEV."""
        super().__init__(-1)
        self.place = (parent, path) if parent else None
        self._is_top = parent is None
        self._held: Held = parent._held if parent else Held()
        self.depth: int = parent.depth + 1 if parent else 0
        if parent is None:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            self._hold(_open_name(parent.fd, path, os.O_DIRECTORY))
        self.inode = os.fstat(self._fd).st_ino

    def __del__(self) -> None:
        self.let_go()

    @property
    def fd(self) -> int:
        if self._fd < 0:
            self._open_again()
        return self._fd

    def _hold(self, fd: int) -> None:
        self._fd = fd
        self._held.add(fd, self)

    def let_go(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            self._held.remove(self._fd)
            os.close(self._fd)
            self._fd = -1

    def trim(self) -> None:
        """Close descriptors of directories below this one, if they are too many. To be called where
        nobody uses one."""
        self._held.trim()

    def _open_again(self) -> None:
        closed, directory = [], self
        while directory._fd < 0:  # no recursion: there may be thousands
            closed.append(directory)
            if directory.place is None:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            directory, _ = directory.place
        for each in reversed(closed):
            assert each.place
            parent, name = each.place
            try:
                fd = _open_name(parent._fd, name, os.O_DIRECTORY)
            except OSError as error:
                if error.errno in _ELSEWHERE:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name) from None
                raise
            if os.fstat(fd).st_ino != each.inode:
                os.close(fd)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)
            each._hold(fd)

    def path(self) -> tuple[str, ...] | None:
        """The names that lead to it from the directory that was opened by a path; None while they
        are not known, since something on the way has moved."""
        names: list[str] = []
        directory = self
        while directory.place is not None:  # no recursion: there may be thousands
            directory, name = directory.place
            names.append(name)
        return tuple(reversed(names)) if directory._is_top else None

    def moved(self) -> bool:
        """Whether it, or one above it, is no longer where it was found. Says so once.

        After that its place is unknown, and no longer looked at: who reached it by a path has to
        look that up again, and who stands in it may stay.
        """
        way: list[Directory] = []
        names: list[str] = []
        directory = self
        while directory.place is not None:
            way.append(directory)
            directory, name = directory.place
            names.append(name)
        if not way or self._is_at("/".join(reversed(names)), directory):
            return False
        return _first_moved(directory, reversed(way))

    def _is_at(self, path: str, above: Directory) -> bool:
        """Whether a path leads here, through directories alone."""
        resolve = libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_SYMLINKS
        try:
            fd = libc.openat2(above.fd, path, _O_NAME | os.O_DIRECTORY, resolve)
        except OSError as error:
            if error.errno in _ELSEWHERE:
                return False
            raise
        try:
            return os.fstat(fd).st_ino == self.inode
        finally:
            os.close(fd)

    def named(self, name: str, inode: int | None = None) -> Named:
        """What has a name, which is not followed.

        Raises OSError: EXDEV when something else is mounted there, ENOENT when it is not the inode
        `inode`, if that is given: what was put in its place is not what was meant.
        """
        found = Named(_open_name(self.fd, name))
        if inode is not None and found.status().st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return found

    def mark(self, name: str) -> bytes:
        """What is the same as long as the attributes of `name` are, and costs a third of them;
        empty where that is not known, or something is mounted there. That is asked nothing."""
        return libc.mark(self.fd, name)

    def stat(self, name: str) -> os.stat_result:
        """The attributes of `name`, which is not followed.

        Raises OSError: EXDEV when something else is mounted there.
        """
        fd = _open_name(self.fd, name)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def statvfs(self) -> os.statvfs_result:
        """What df(1) asks."""
        return os.statvfs(self.fd)

    def list(self) -> list[Listed]:
        """The names in it, in the kernel's order, without `.` and `..`."""
        return [*self.each()]

    def each(self) -> Iterator[Listed]:
        """The same, one after the other."""
        for name in self.names():
            if listed := self._listed(name):
                yield listed

    def names(self) -> Sequence[str]:
        """The names alone. To read them leaves no trace, as a time of access is one, where this
        process may do without."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            fd = os.open(".", flags | os.O_NOATIME, dir_fd=self.fd)
        except PermissionError:  # for who is neither root nor its owner (open(2))
            fd = os.open(".", flags, dir_fd=self.fd)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _listed(self, name: str) -> Listed | None:
        try:
            return Listed(name, self.stat(name))
        except FileNotFoundError:
            return None  # removed in between
        except OSError as error:
            # Names with a dot, which only the kernel itself can make, may be EPERM.
            if error.errno not in (errno.EPERM, errno.EXDEV):
                raise
            return Listed(name, None)

    def open_pin(
        self,
        name: str,
        inode: int,
        make: Callable[[int], Object] | None = None,
        *,
        only_reads: bool = False,
    ) -> Object:
        """Open the object that is pinned as `name`. `make` is the `Object.maker` of one that was
        opened by the same inode: that stands for the same object as long as it is
        (bpf_mkobj_ops in kernel/bpf/inode.c). What is opened to be read only may not be a link; in
        a bpffs that is mounted read-only, no more can be had.

        Raises FileNotFoundError when that name is gone, or is no longer the inode `inode`: what
        is opened is never something that was put in its place.
        """
        return self.named(name, inode).open(make, only_reads=only_reads)

    def open_path(self, names: Sequence[str]) -> Pinned:
        """Open the map or program that `names` lead to, to be read; symbolic links are followed,
        but not out of this directory. All of it is done with the rights that this thread has.

        Raises OSError: EISDIR when it is no pin, EINVAL when it is a link.
        """
        pin = libc.open_beneath(self.fd, "/".join(names) or ".", os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(pin).st_mode):
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            return _get(pin, _typed, _RDONLY)
        finally:
            os.close(pin)

    def pin(self, name: str, obj: Object) -> None:
        """Pin `obj` as `name`."""
        _pin(self.fd, name, obj)

    def pin_below(self, names: Sequence[str], obj: Object) -> None:
        """Pin `obj` where `names` lead to; symbolic links are followed, but not out of this
        directory. All of it is done with the rights that this thread has."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        parent = libc.open_beneath(self.fd, "/".join(names[:-1]) or ".", flags)
        try:
            _pin(parent, names[-1], obj)
        finally:
            os.close(parent)

    def mkdir(self, name: str, mode: int) -> None:
        """Make a directory."""
        os.mkdir(name, mode, dir_fd=self.fd)

    def symlink(self, name: str, target: str) -> None:
        """Make a symbolic link to `target`, which may be any text."""
        os.symlink(target, name, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """Remove a pin or a symbolic link."""
        os.unlink(name, dir_fd=self.fd)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=self.fd)

    def rename(self, name: str, to: Directory, new_name: str, flags: RenameFlags) -> None:
        """Rename `name` to `new_name` in the directory `to`, as renameat2(2) does."""
        old, new = os.fsencode(name), os.fsencode(new_name)
        libc.call("renameat2", self.fd, old, to.fd, new, int(flags))


def _first_moved(directory: Directory, way: Iterable[Directory]) -> bool:
    """Whether one of those that lead down from `directory` is no longer where it was found; the
    first such has no place any more."""
    fd = os.dup(directory.fd)
    try:
        for each in way:
            assert each.place
            try:
                below = _open_name(fd, each.place[1], os.O_DIRECTORY)
            except OSError as error:
                if error.errno not in _ELSEWHERE:
                    raise
                each.place = None
                return True
            os.close(fd)
            fd = below
            if os.fstat(fd).st_ino != each.inode:
                each.place = None
                return True
        return False
    finally:
        os.close(fd)


def _pin(directory: int, name: str, obj: Object) -> None:
    path = ctypes.create_string_buffer(b"/proc/self/fd/%d/" % directory + os.fsencode(name))
    arguments = syscall.ObjectArguments(pathname=ctypes.addressof(path), bpf_fd=obj.fd)
    syscall.bpf(Command.OBJ_PIN, arguments)


def _get(pin: int, make: Callable[[int], T], flags: int = 0) -> T:
    """The object of a pin, which is open as a mere name, as `make` has it."""
    path = ctypes.create_string_buffer(b"/proc/self/fd/%d" % pin)
    arguments = syscall.ObjectArguments(pathname=ctypes.addressof(path), file_flags=flags)
    try:
        fd = syscall.bpf(Command.OBJ_GET, arguments)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # Where bpffs is mounted read-only, maps and programs are to be had for reading alone, and
        # links not at all (bpf_obj_get_user in kernel/bpf/inode.c).
        arguments.file_flags = _RDONLY
        try:
            fd = syscall.bpf(Command.OBJ_GET, arguments)
        except OSError:
            raise error from None
    return make(fd)


def _typed(fd: int) -> Pinned:
    """The object behind a descriptor that BPF_OBJ_GET gave."""
    try:
        what = os.readlink(f"/proc/self/fd/{fd}")
        kind = _kinds().get(what)
        if kind is None:
            raise OSError(errno.EOPNOTSUPP, f"{what} is no map, program or link")
    except OSError:
        os.close(fd)
        raise
    return kind(fd)
