"""Some entries of a map, as the kernel copies them: keys and values, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batch:
    """`count` entries: their keys, and their values, one after the other."""

    count: int
    keys: bytes
    values: bytes

    def pieces(self, key_size: int, stride: int, most: int) -> Iterator[tuple[bytes, bytes]]:
        """The keys and the values of `most` entries at a time."""
        for first in range(0, self.count, most):
            last = min(first + most, self.count)
            yield (
                self.keys[first * key_size : last * key_size],
                self.values[first * stride : last * stride],
            )

    def pairs(self, key_size: int, stride: int) -> Iterator[tuple[bytes, bytes]]:
        """Each key with its value."""
        return zip(split(self.keys, key_size), split(self.values, stride), strict=True)


def split(items: bytes, size: int) -> Iterator[bytes]:
    """Each of the items of `size` bytes that lie one after the other."""
    return (items[at : at + size] for at in range(0, len(items), size))
