"""System calls that Python has no function for, by the C library."""

from __future__ import annotations

import ctypes
import os

_library = ctypes.CDLL(None, use_errno=True)
_library.syscall.restype = ctypes.c_long

_MNT_DETACH = 2  # umount2(2)


def call(function: str, *arguments: object) -> int:
    """Call a function that returns -1 and sets errno when it fails. Raises OSError then."""
    result: int = getattr(_library, function)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsgid(2) and setfsuid(2), of this thread alone; they report no failure."""
    _library.setfsgid(gid)
    _library.setfsuid(uid)


def detach(mountpoint: str) -> None:
    """Take a mount away at once, though it be dead or in use: umount2(2) with MNT_DETACH."""
    call("umount2", os.fsencode(mountpoint), _MNT_DETACH)
