"""A bare file system: the floor of pyfuse3, to measure against.

    python -m benchmark.bare MOUNTPOINT NAMES [TIMEOUT]

The root has a directory `entries` with NAMES files, `0` and so on, as the keys of a u32 map are
named, each of the same few bytes; and `stream`, which is as long as a reader cares to read.
Names and attributes may be cached for TIMEOUT seconds. What is written is accepted and forgotten.

It does for each request what pyfuse3 asks of it and nothing else: attributes, open files and
contents are made once, and pyfuse3's own loop serves it.
"""

from __future__ import annotations

import errno
import stat
import sys
from collections.abc import Sequence

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

CONTENT = b"12345\n"
BLOCK = b'{"key": 12345, "value": 67890}\n' * 40_000  # more than a read asks for
ROOT, ENTRIES, STREAM, FIRST = 1, 2, 3, 16  # inode numbers; of the files, that of `0`


def attributes(number: int, mode: int, size: int, timeout: float) -> EntryAttributes:
    """The attributes of an inode, which may be cached for `timeout` seconds."""
    entry = EntryAttributes()
    entry.st_ino = number
    entry.st_mode = mode
    entry.st_nlink = 2
    entry.st_size = size
    entry.st_blksize = 4096
    entry.st_mtime_ns = 1_000_000_000
    entry.entry_timeout = entry.attr_timeout = timeout
    return entry


class Bare(pyfuse3.Operations):
    """The handlers. pyfuse3 copies what it is given before another request is read."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, names: int, timeout: float) -> None:
        super().__init__()
        self._names = names
        self._directories = {
            ROOT: attributes(ROOT, stat.S_IFDIR | 0o755, 0, timeout),
            ENTRIES: attributes(ENTRIES, stat.S_IFDIR | 0o755, 0, timeout),
            STREAM: attributes(STREAM, stat.S_IFREG | 0o644, 0, timeout),
        }
        self._open_stream = FileInfo(fh=STREAM, direct_io=True, keep_cache=False)
        self._open_file = FileInfo(fh=FIRST, direct_io=True, keep_cache=False)
        self._file = attributes(FIRST, stat.S_IFREG | 0o644, len(CONTENT), timeout)

    def _entry(self, inode: int) -> EntryAttributes:
        if inode < FIRST:
            return self._directories[inode]
        self._file.st_ino = inode
        return self._file

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if parent_inode == ENTRIES and name.isdigit() and int(name) < self._names:
            return self._entry(FIRST + int(name))
        if parent_inode == ROOT and name in (b"entries", b"stream"):
            return self._directories[ENTRIES if name == b"entries" else STREAM]
        raise FUSEError(errno.ENOENT)

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(inode)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        return self._entry(inode)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if fh == ROOT:
            for number, name in [*enumerate((b"entries", b"stream"), ENTRIES)][start_id:]:
                pyfuse3.readdir_reply(token, name, self._directories[number], number - ROOT)
            return
        entry, reply = self._file, pyfuse3.readdir_reply
        for number in range(start_id, self._names):
            entry.st_ino = FIRST + number
            if not reply(token, b"%d" % number, entry, number + 1):
                return

    async def releasedir(self, fh: int) -> None:
        pass

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        return self._open_stream if inode == STREAM else self._open_file

    async def read(self, fh: int, off: int, size: int) -> bytes:
        if fh == STREAM:
            return BLOCK[:size]
        return CONTENT[off : off + size]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return len(buf)

    async def flush(self, fh: int) -> None:
        pass

    async def release(self, fh: int) -> None:
        pass


def main(mountpoint: str, names: int, timeout: float) -> None:
    options = {"default_permissions", "fsname=bare", "subtype=bare"}
    pyfuse3.init(Bare(names, timeout), mountpoint, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.0)
