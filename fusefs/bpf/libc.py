"""System calls that Python has no function for, by the C library."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
import struct
from collections.abc import Callable, Collection

_library = ctypes.CDLL(None, use_errno=True)
_library.syscall.restype = ctypes.c_long

_MNT_DETACH = 2  # umount2(2)
# __NR_setgroups for ids of 32 bits, from arch/*/include/*/unistd.h; newer architectures share the
# generic table's 159.
_SETGROUPS = {"x86_64": 116, "i686": 206, "s390x": 206, "ppc64le": 81, "armv7l": 206}.get(
    platform.machine(), 159
)
_CLONE_FILES = 0x400  # linux/sched.h
_PIDFD_GETFD = 438  # on every architecture
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h


def call(function: str, *arguments: object) -> int:
    """Call a function that returns -1 and sets errno when it fails. Raises OSError then."""
    result: int = getattr(_library, function)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def attempt(function: str, *arguments: object) -> Callable[[], int]:
    """The call of a function, to be made over and over with the same arguments: it gives the errno
    when the function fails, else 0. To raise an exception each time would take three times as
    long."""
    call = functools.partial(getattr(_library, function), *arguments)
    return lambda: ctypes.get_errno() if call() < 0 else 0


class _OpenHow(ctypes.Structure):
    """`struct open_how` of openat2(2)."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@functools.lru_cache(16)
def _how(flags: int, resolve: int) -> _OpenHow:
    """Made once, since names are opened all the time; the kernel only reads it."""
    return _OpenHow(flags=flags, resolve=resolve)


_OPENAT2 = 437  # on every architecture
RESOLVE_NO_XDEV = 1
_RESOLVE_NO_MAGICLINKS = 2
RESOLVE_NO_SYMLINKS = 4
_RESOLVE_BENEATH = 8
# So often a path is tried that is looked up while something is renamed, see EAGAIN in openat2(2).
_ATTEMPTS = 32


def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2): a descriptor of `path` in the directory `fd`; `resolve` bounds where it may lead.

    Raises OSError: EXDEV when it leads elsewhere.
    """
    how = ctypes.byref(_how(flags, resolve))
    return call("syscall", _OPENAT2, fd, os.fsencode(path), how, ctypes.sizeof(_OpenHow))


def may_openat2() -> bool:
    """Whether there is openat2(2): not before Linux 5.6, nor under some filters of system calls."""
    try:
        os.close(openat2(-1, "/", os.O_PATH | os.O_CLOEXEC, 0))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def open_beneath(fd: int, path: str, flags: int) -> int:
    """A descriptor of `path`, which must lead neither out of the directory `fd` nor into another
    file system. Raises OSError: EXDEV when it does."""
    resolve = _RESOLVE_BENEATH | RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS
    for _ in range(_ATTEMPTS - 1):
        # With `..` on the way the kernel is not sure when anything was renamed meanwhile, anywhere.
        with contextlib.suppress(BlockingIOError):
            return openat2(fd, path, flags, resolve)
    return openat2(fd, path, flags, resolve)


_AT_SYMLINK_NOFOLLOW, _AT_STATX_DONT_SYNC = 0x100, 0x4000
_STATX_ATTR_MOUNT_ROOT = 0x2000  # since Linux 5.8
_STATX = struct.Struct("=8xQ40xQ192x")  # struct statx: stx_attributes, and which of them are known
_statx = ctypes.create_string_buffer(_STATX.size)
# What is answered without it: the C library's makeshift does not know the flags.
_NO_STATX = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL})


def mark(fd: int, name: str) -> bytes:
    """All that statx(2) tells of `name` in the directory `fd`, which is not followed; empty where
    that is the root of a mount, or where it cannot be told. Whatever is mounted there is not asked:
    it may be a mount of this process, which would wait for itself.

    For one thread alone.
    """
    if not hasattr(_library, "statx"):
        return b""
    flags = _AT_SYMLINK_NOFOLLOW | _AT_STATX_DONT_SYNC
    try:
        call("statx", fd, os.fsencode(name), flags, 0, _statx)
    except OSError as error:
        if error.errno in _NO_STATX:
            return b""
        raise
    attributes, known = _STATX.unpack(_statx)
    told = known & _STATX_ATTR_MOUNT_ROOT and not attributes & _STATX_ATTR_MOUNT_ROOT
    return _statx.raw if told else b""


def keep_freed_memory(size: int) -> None:
    """Let the C library keep up to `size` bytes that were given back, and not ask the kernel for
    each piece of some 100 kB anew, which costs a page fault for each page of it. Pieces of a
    quarter of that it still asks for, and gives back. See mallopt(3); only glibc has it."""
    if hasattr(_library, "mallopt"):
        _library.mallopt(_M_TRIM_THRESHOLD, size)
        _library.mallopt(_M_MMAP_THRESHOLD, size // 4)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsgid(2) and setfsuid(2), of this thread alone. Raises PermissionError.

    They report no failure, but give the id that was set before; and -1 is never set.
    """
    for change, wanted in ((_library.setfsgid, gid), (_library.setfsuid, uid)):
        change(wanted)
        if change(-1) & 0xFFFFFFFF != wanted:
            raise PermissionError(errno.EPERM, "this process may not act as others")


def set_groups(groups: Collection[int]) -> None:
    """setgroups(2), of this thread alone.

    The C library's function has every thread call it and waits for all of them (nptl(7)): one that
    hangs in the kernel would hold up the others. Raises PermissionError.
    """
    array = (ctypes.c_uint32 * len(groups))(*groups)
    call("syscall", _SETGROUPS, len(groups), ctypes.byref(array))


def capabilities(thread: int = 0) -> int:
    """The effective capabilities of a thread, or of this one, as bits: capget(2). They are those in
    its own user namespace. Raises ProcessLookupError."""
    effective, _permitted, _inheritable = _capability_sets(thread)
    return effective


def _capability_sets(thread: int) -> tuple[int, int, int]:
    words = (ctypes.c_uint32 * 6)()
    call("capget", ctypes.byref(_capability_header(thread)), ctypes.byref(words))
    low, high = words[:3], words[3:]
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _capability_header(thread: int) -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, thread)


def use_capabilities(wanted: int) -> None:
    """Make `wanted` the effective capabilities of this thread, which may take back others that it
    is permitted: capset(2). Raises PermissionError for one that it is not."""
    _effective, permitted, inheritable = _capability_sets(0)
    _set_capabilities(wanted, permitted, inheritable)


def keep_capabilities(kept: int) -> None:
    """Take all capabilities but `kept` from this thread, for good."""
    effective, permitted, _inheritable = _capability_sets(0)
    _set_capabilities(effective & kept, permitted & kept, 0)


def _set_capabilities(*sets: int) -> None:
    words = [part >> shift & 0xFFFFFFFF for shift in (0, 32) for part in sets]
    array = (ctypes.c_uint32 * 6)(*words)
    call("capset", ctypes.byref(_capability_header(0)), ctypes.byref(array))


def unshare_descriptors() -> None:
    """Give this thread a table of descriptors of its own, a copy, which goes with it: unshare(2).
    Raises OSError."""
    call("unshare", _CLONE_FILES)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a descriptor of the file that a process has open as `fd`. Raises OSError."""
    return call("syscall", _PIDFD_GETFD, pidfd, fd, 0)


def detach(mountpoint: str) -> None:
    """Take a mount away at once, though it be dead or in use: umount2(2) with MNT_DETACH."""
    call("umount2", os.fsencode(mountpoint), _MNT_DETACH)
