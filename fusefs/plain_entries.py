"""Entries of a listing that are a name, a type and an inode number, and no more.

pyfuse3 answers every request to read a directory with READDIRPLUS entries. The kernel makes an
inode of each, which holds about a kilobyte, and refers to it. An entry whose node id is 0 is a
plain one to it: it makes nothing of it (fuse_direntplus_link in fs/fuse/readdir.c).

pyfuse3 has no way to say so: setting `st_ino` sets both the node id and the number that is shown.
Both lie in the memory of the EntryAttributes (`struct fuse_entry_param`, in libfuse's
fuse_lowlevel.h), and are set there. Where they lie is found out by looking for a number that was
set; unless that is found at just the two places, nothing is ever written, and there are no plain
entries.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import stat

from pyfuse3 import EntryAttributes

log = logging.getLogger(__name__)

_MARKERS = (0x5EED_0FF5_E7A1_B2C3, 0x1234_5678_9ABC_DEF1)
_WORD = ctypes.sizeof(ctypes.c_uint64)


class PlainEntry:
    """A plain entry, to be filled anew for each name."""

    def __init__(self, node_id: int, number: int) -> None:
        """Takes the offsets of both in an EntryAttributes."""
        self._attributes = EntryAttributes()
        address = id(self._attributes)
        ctypes.c_uint64.from_address(address + node_id).value = 0
        self._number = ctypes.c_uint64.from_address(address + number)

    def fill(self, number: int, kind: int) -> EntryAttributes:
        """The entry of an inode number; `kind` has the bits of its type."""
        self._number.value = number
        self._attributes.st_mode = kind
        return self._attributes


def plain_entry() -> PlainEntry | None:
    """One to fill; None where there are no plain entries."""
    offsets = find_offsets()
    return PlainEntry(*offsets) if offsets else None


@functools.cache
def find_offsets() -> tuple[int, int] | None:
    """Where the node id and the number that is shown lie in an EntryAttributes; None if that
    cannot be told for certain."""
    offsets = {tuple(_places(marker)) for marker in _MARKERS}
    found = offsets.pop()
    if offsets or len(found) != 2:
        log.info("listings have no plain entries: pyfuse3 keeps its attributes in another way")
        return None
    node_id, number = found
    if PlainEntry(node_id, number).fill(1, stat.S_IFREG).st_ino != 0:  # it gives the node id
        log.info("listings have no plain entries: pyfuse3 keeps node ids elsewhere")
        return None
    return node_id, number


def _places(marker: int) -> list[int]:
    """Where a number lies that is set as `st_ino`."""
    entry = EntryAttributes()
    entry.st_mode = stat.S_IFREG
    entry.st_ino = marker
    memory = ctypes.string_at(id(entry), EntryAttributes.__basicsize__)
    words = (memory[at : at + _WORD] for at in range(0, len(memory), _WORD))
    return [number * _WORD for number, word in enumerate(words) if word == _bytes(marker)]


def _bytes(marker: int) -> bytes:
    return bytes(ctypes.c_uint64(marker))
