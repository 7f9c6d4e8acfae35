"""Reading directories with the system call itself: some names at a time, from any position."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("=QqHB")  # struct linux_dirent64, getdents64(2)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.getdents64.restype = ctypes.c_ssize_t


@dataclass(frozen=True)
class Name:
    """A name in a directory, its inode's number and type, and the position after it."""

    name: str
    inode: int
    type: int
    after: int


class Reader:
    """An open directory."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def some(self, size: int = 4096) -> list[Name]:
        """The next names, as many as fit into `size` bytes; none at the end."""
        buffer = ctypes.create_string_buffer(size)
        length = _libc.getdents64(self._fd, buffer, size)
        if length < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        names: list[Name] = []
        at = 0
        while at < length:
            inode, after, length_of, kind = _HEAD.unpack_from(buffer, at)
            name = buffer.raw[at + _HEAD.size : at + length_of].split(b"\0")[0]
            names.append(Name(os.fsdecode(name), inode, stat.S_IFMT(kind << 12), after))
            at += length_of
        return [each for each in names if each.name not in (".", "..")] or (
            self.some(size) if names else []
        )

    def rest(self, size: int = 4096) -> list[Name]:
        """All names from here on."""
        names: list[Name] = []
        while some := self.some(size):
            names += some
        return names

    def seek(self, position: int) -> None:
        """Go to a position."""
        os.lseek(self._fd, position, os.SEEK_SET)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """A directory, open to be read."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Reader(fd)
    finally:
        os.close(fd)
