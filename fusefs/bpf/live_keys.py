"""Keys that are live things: threads, cgroups, open files and sockets.

The local storages (kernel/bpf/bpf_local_storage.c) keep values in the things themselves, and take
a descriptor of the thing for a key. Here each kind of thing has names; a descriptor is opened for a
moment, so that nothing is kept alive.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fusefs.bpf import cgroups
from fusefs.bpf.apart import held
from fusefs.bpf.credentials import Caller, acting_as, become
from fusefs.bpf.libc import pidfd_getfd

# PIDFD_THREAD, linux/pidfd.h; since Linux 6.9.
_PIDFD_THREAD = os.O_EXCL
# How long it is taken for granted where the cgroup2 file system is mounted, in seconds.
_KNOWN = 0.05


@dataclass(frozen=True, slots=True)
class Live:
    """A thing that is held: its descriptor, and what tells it from another one of the same name,
    before or after it."""

    fd: int
    serial: tuple[int, ...]

    @property
    def key(self) -> bytes:
        """The key, as bpf(2) takes it."""
        return self.fd.to_bytes(4, sys.byteorder)


class LiveKeys(ABC):
    """A kind of things. `judges` tells whether it matters who asks for one."""

    judges: ClassVar[bool] = True

    @abstractmethod
    def open(self, name: str, caller: Caller | None) -> contextlib.AbstractContextManager[Live]:
        """Hold the thing of this name, with the rights of `caller`, or with those of this process.

        Raises FileNotFoundError when there is none, PermissionError, and other OSErrors.
        """

    def names(self) -> Iterator[str]:
        """All that there are, as far as everybody may know; those that come and go meanwhile may
        be missed. Where they cannot be enumerated, none."""
        return iter(())


class Tasks(LiveKeys):
    """Threads, by their ids as this process sees them.

    Before Linux 6.9, which has PIDFD_THREAD, only those that lead a process can be reached: the
    others are not seen. And only since then does a new thread differ from an old one of the same
    id. Everybody may know of them: pidfd_open(2) takes no right.
    """

    judges = False

    @contextlib.contextmanager
    def open(self, name: str, caller: Caller | None) -> Iterator[Live]:
        fd = _pidfd(name)
        try:
            yield Live(fd, (os.fstat(fd).st_ino,))
        finally:
            os.close(fd)

    def names(self) -> Iterator[str]:
        for process in os.listdir("/proc"):
            if process.isdecimal():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                    yield from os.listdir(f"/proc/{process}/task")


def _pidfd(name: str) -> int:
    try:
        if _threads_can_be_opened():
            return os.pidfd_open(int(name), _PIDFD_THREAD)
        return os.pidfd_open(int(name))
    except (OSError, OverflowError) as error:
        # ESRCH: there is none; EINVAL or ENOENT: none that leads a process.
        absent = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
        if isinstance(error, OSError) and error.errno not in absent:
            raise
        raise FileNotFoundError(errno.ENOENT, f"there is no thread {name}") from None


@functools.cache
def _threads_can_be_opened() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid(), _PIDFD_THREAD))
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


class Cgroups(LiveKeys):
    """cgroups, by their paths below the root of the cgroup2 hierarchy, which is "/" itself.

    Whoever may search the directories on the way may hold one.
    """

    def __init__(self) -> None:
        self._root: str | None = None
        self._looked = float("-inf")

    def root(self) -> str | None:
        """Where the hierarchy is mounted, or None where it is not."""
        if time.monotonic() - self._looked > _KNOWN:
            self._root, self._looked = cgroups.hierarchy(), time.monotonic()
        return self._root

    @contextlib.contextmanager
    def open(self, name: str, caller: Caller | None) -> Iterator[Live]:
        root = self.root()
        if root is None:
            raise FileNotFoundError(errno.ENOENT, "the cgroup2 file system is not mounted")
        with acting_as(caller) if caller else contextlib.nullcontext():
            fd = cgroups.open_below(root, name)
        try:
            # Of the file system of cgroups, whose numbers are not used again (kernfs).
            yield Live(fd, (os.fstat(fd).st_ino,))
        finally:
            os.close(fd)

    def names(self) -> Iterator[str]:
        root = self.root()
        return cgroups.paths(root) if root else iter(())


class Inodes(LiveKeys):
    """Inodes, by the process that has one open and the descriptor there: `1234.5`.

    The descriptor is opened by its name in /proc with O_PATH (open(2)). That leads to the file
    itself, along no path, and to close it flushes nothing; so a file system is asked for nothing,
    not even one that this process serves, but for those of a network that look whether the file is
    still there (d_weak_revalidate). Whoever may look into the process may do it
    (PTRACE_MODE_READ_FSCREDS, ptrace(2)), and the kernel judges that. It may have to wait while the
    process replaces itself by execve(2), as for `Sockets`.
    """

    @contextlib.contextmanager
    def open(self, name: str, caller: Caller | None) -> Iterator[Live]:
        with held(functools.partial(_open_inode, name, caller)) as fd:
            yield Live(fd, _place(fd))


def _open_inode(name: str, caller: Caller | None) -> int:
    path = _in_proc(name)
    if caller:
        become(caller)
    with _absent(f"there is no descriptor {name}"):
        return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _place(fd: int) -> tuple[int, ...]:
    """The mount and the inode that a descriptor is of, without asking the file system."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return tuple(int(fields[field]) for field in ("mnt_id", "ino") if field in fields)


class Sockets(LiveKeys):
    """Sockets, named as inodes are. They are for the user that this process runs as.

    The kernel takes no descriptor with O_PATH for one: pidfd_getfd(2) makes a copy of the process's
    own. It waits while the process replaces itself (exec_update_lock), which in turn may wait until
    a file is closed that this process serves; and the last one who closes a socket may have to wait
    until all is sent (SO_LINGER, socket(7)). Nothing but sockets is copied: to close a file would
    flush it. Who gets a socket has it counted to their own group (net_cls, net_prio of cgroups-v1),
    where that is not the one it was in.
    """

    @contextlib.contextmanager
    def open(self, name: str, caller: Caller | None) -> Iterator[Live]:
        if caller and caller.is_lesser:
            raise PermissionError(errno.EACCES, "only root may reach into sockets of processes")
        with held(functools.partial(_copy_socket, name)) as fd:
            yield Live(fd, (os.fstat(fd).st_ino,))


def _copy_socket(name: str) -> int:
    path = _in_proc(name)
    process, _, number = name.partition(".")
    with _absent(f"there is no socket with the descriptor {name}"):
        _check_socket(path)
        pidfd = os.pidfd_open(int(process))
        try:
            fd = pidfd_getfd(pidfd, int(number))
        finally:
            os.close(pidfd)
        try:
            _check_socket(f"/proc/self/fd/{fd}")  # it may have been replaced meanwhile
        except BaseException:
            os.close(fd)
            raise
        return fd


def _check_socket(path: str) -> None:
    if not os.readlink(path).startswith("socket:["):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


def _in_proc(name: str) -> str:
    """What has a name like `1234.5` in /proc. Raises FileNotFoundError for those of this process:
    they are no key, and to itself it may do what no caller may."""
    process, _, number = name.partition(".")
    if os.path.exists(f"/proc/self/task/{process}"):
        raise FileNotFoundError(errno.ENOENT, f"{name} is of this very file system")
    return f"/proc/{process}/fd/{number}"


@contextlib.contextmanager
def _absent(reason: str) -> Iterator[None]:
    """Raise FileNotFoundError for a process or descriptor that is not there, or is another kind."""
    try:
        yield
    except (OSError, OverflowError) as error:
        absent = (errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
        if isinstance(error, OSError) and error.errno not in absent:
            raise
        raise FileNotFoundError(errno.ENOENT, reason) from None
