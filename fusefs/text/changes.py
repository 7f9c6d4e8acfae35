"""What has to be stored for a value to become another: the fields that differ, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from fusefs.text.arrays import Array
from fusefs.text.codec import Codec
from fusefs.text.composite import Struct
from fusefs.text.scalars import Bitfield


def changes(codec: Codec, old: bytes, new: bytes) -> list[tuple[int, bytes]]:
    """Offsets and bytes that make `new` of `old`, in order.

    A field that differs is there as a whole, so that it can be stored at once; one that is the same
    is not there at all. What lies side by side is one piece. A union is one field.
    """
    runs: list[tuple[int, int]] = []
    for start, end in sorted(_differing(codec, 0, old, new)):
        if runs and start <= runs[-1][1]:
            first, last = runs.pop()
            runs.append((first, max(last, end)))
        else:
            runs.append((start, end))
    return [(start, new[start:end]) for start, end in runs]


def _differing(codec: Codec, at: int, old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Where the fields begin and end that differ, in what lies at `at`."""
    start, end = _extent(codec, at)
    if old[start:end] == new[start:end]:
        return
    match codec:
        case Struct():
            for part in codec.parts:
                yield from _differing(part.codec, at + part.offset, old, new)
        case Array():
            yield from _elements(codec, at, codec.count, old, new)
        case _:
            yield start, end


def _extent(codec: Codec, at: int) -> tuple[int, int]:
    """The bytes of what lies at `at`. A bitfield is read from more than those that it is in."""
    if not isinstance(codec, Bitfield):
        return at, at + codec.size
    lowest, highest = (codec.mask & -codec.mask).bit_length() - 1, codec.mask.bit_length()
    return at + lowest // 8, at + -(-highest // 8)


def _elements(
    codec: Array, at: int, count: int, old: bytes, new: bytes
) -> Iterator[tuple[int, int]]:
    """The same for `count` elements at `at`, by halves: large arrays differ in few places."""
    if count == 1:
        yield from _differing(codec.element, at, old, new)
        return
    half = count // 2
    middle, end = at + half * codec.stride, at + count * codec.stride
    if old[at:middle] != new[at:middle]:
        yield from _elements(codec, at, half, old, new)
    if old[middle:end] != new[middle:end]:
        yield from _elements(codec, middle, count - half, old, new)
