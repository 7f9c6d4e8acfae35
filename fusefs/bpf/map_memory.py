"""The memory of an array, where the kernel lets it be mapped, and stores that programs see whole.

Source: bpf_map_mmap in kernel/bpf/syscall.c and array_map_mmap in kernel/bpf/arraymap.c, since
Linux 5.5. Entry 0 is at offset 0. While a map is mapped for writing it cannot be frozen (EBUSY),
and a mapping keeps the map alive.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence

from fusefs.bpf.syscall import ENOTSUPP

_WORDS = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}


def load(fd: int, offset: int, size: int) -> bytes | None:
    """The bytes there, or None when the kernel does not map this map. Raises OSError."""
    memory = _pages(fd, offset, offset + size, mmap.ACCESS_READ)
    if memory is None:
        return None
    with memory:
        start = offset % mmap.PAGESIZE
        return memory[start : start + size]


def store(fd: int, pieces: Sequence[tuple[int, bytes]]) -> bool:
    """Put each piece at its offset, in this order, and touch nothing else; False when the kernel
    does not map this map. Raises OSError, and then nothing has changed."""
    start = min(offset for offset, _ in pieces)
    end = max(offset + len(data) for offset, data in pieces)
    memory = _pages(fd, start, end, mmap.ACCESS_WRITE)
    if memory is None:
        return False
    base = start - start % mmap.PAGESIZE
    with memory:
        for offset, data in pieces:
            _put(memory, offset - base, data)
    return True


def _pages(fd: int, start: int, end: int, access: int) -> mmap.mmap | None:
    """The pages with these bytes: to map the whole of a large value would take milliseconds."""
    first = start - start % mmap.PAGESIZE
    length = max(-(-end // mmap.PAGESIZE) * mmap.PAGESIZE - first, mmap.PAGESIZE)
    try:
        return mmap.mmap(fd, length, access=access, offset=first)
    except OSError as error:
        if error.errno == ENOTSUPP:  # the values have a field for the kernel, as bpf_spin_lock is
            return None
        raise


def _put(memory: mmap.mmap, offset: int, data: bytes) -> None:
    """Store `data` in aligned words, each as large as can be, of 8 bytes at most.

    Each is one store of the machine; a copy would be free to store a number in parts, or twice.
    """
    start, end = offset, offset + len(data)
    while start < end:
        size = min(start & -start or 8, 8)
        while size > end - start:
            size //= 2
        word = data[start - offset : start - offset + size]
        _WORDS[size].from_buffer(memory, start).value = int.from_bytes(word, sys.byteorder)
        start += size
