"""Entries that are to be set, kept as the kernel takes them: bytes one after the other."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from fusefs.bpf.batch import split
from fusefs.bpf.bulk import Stopped
from fusefs.bpf.map import Map
from fusefs.tree.map_view import MapView

# So many entries are set in one go, or as many as have so many bytes; others wait so long.
_TOGETHER = 2048
_TOGETHER_BYTES = 1 << 20


class Gathered:
    """Some entries that are to be set in one go.

    `kept` are the bits of each value that stay as they are in the map, and are zero here: of the
    first values, up to the last that keeps any.
    """

    def __init__(self, view: MapView) -> None:
        self._view = view
        self.count = 0
        self._keys = bytearray()
        self._values = bytearray()
        self._kept = bytearray()

    @property
    def full(self) -> bool:
        """Whether no more should be added."""
        size = len(self._keys) + len(self._values)
        return self.count >= _TOGETHER or size >= _TOGETHER_BYTES

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return len(self._keys) + len(self._values) + len(self._kept)

    def key(self, number: int) -> bytes:
        """One of the keys."""
        size = self._view.key_size
        return bytes(self._keys[number * size : (number + 1) * size])

    def add(self, count: int, keys: bytes, values: bytes, kept: bytes) -> None:
        """Add entries; `kept` is empty when they keep nothing."""
        if kept:
            self._pad()
            self._kept += kept
        self.count += count
        self._keys += keys
        self._values += values

    def _pad(self) -> None:
        """Have `kept` tell of as many values as there are."""
        self._kept += bytes(len(self._values) - len(self._kept))

    def set(self, bpf_map: Map) -> None:
        """Set them. Raises `Stopped`."""
        keys, values = bytes(self._keys), bytes(self._values)
        if not self._kept:
            bpf_map.update_all(keys, values)
            return
        self._pad()
        kept = bytes(self._kept)
        view = self._view
        for first, last in self._runs():
            key = slice(first * view.key_size, last * view.key_size)
            value = slice(first * view.stride, last * view.stride)
            try:
                old = bpf_map.values_of(keys[key])
                bpf_map.update_all(keys[key], _merged(values[value], old, kept[value]))
            except OSError as error:  # of a look-up too, which sets nothing
                done = error.done if isinstance(error, Stopped) else 0
                raise Stopped(error.errno or errno.EIO, first + done) from error

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Where runs begin and end in which no key comes twice: where one does, its later value is
        written over the earlier one."""
        seen: set[bytes] = set()
        first = 0
        keys = split(bytes(self._keys), self._view.key_size)
        for number, key in enumerate(map(self._view.same, keys)):
            if key in seen:
                yield first, number
                seen.clear()
                first = number
            seen.add(key)
        yield first, self.count


def _merged(values: bytes, old: bytes, kept: bytes) -> bytes:
    """Values with the bits of the old ones that are kept."""
    bits, before, mask = (int.from_bytes(data, "little") for data in (values, old, kept))
    return (bits | before & mask).to_bytes(len(values), "little")
