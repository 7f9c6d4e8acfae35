"""Memory that is not there until somebody gives it: who reads it sleeps until then, the kernel too.

Source: userfaultfd(2), ioctl_userfaultfd(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator

from fusefs.bpf import libc

_NUMBERS = {"x86_64": 323}  # __NR_userfaultfd; newer architectures share the generic table's 282
_API, _REGISTER, _ZEROPAGE = 0xC018AA3F, 0xC020AA00, 0xC020AA04
_VERSION, _MISSING = 0xAA, 1


class Absent:
    """A page that is absent. `address` is where it is."""

    def __init__(self, fd: int, address: int) -> None:
        self._fd = fd
        self.address = address

    def give(self) -> None:
        """Have it be there, and full of zeros; again is no error."""
        with contextlib.suppress(FileExistsError):
            arguments = struct.pack("QQQq", self.address, mmap.PAGESIZE, 0, 0)
            fcntl.ioctl(self._fd, _ZEROPAGE, bytearray(arguments))


@contextlib.contextmanager
def absent_page() -> Iterator[Absent]:
    """A page that is absent until it is given, at the end of this at the latest."""
    number = _NUMBERS.get(os.uname().machine, 282)
    fd = libc.call("syscall", number, os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _API, bytearray(struct.pack("QQQ", _VERSION, 0, 0)))
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        fcntl.ioctl(
            fd, _REGISTER, bytearray(struct.pack("QQQQ", address, mmap.PAGESIZE, _MISSING, 0))
        )
        absent = Absent(fd, address)
        try:
            yield absent
        finally:
            absent.give()
    finally:
        os.close(fd)
