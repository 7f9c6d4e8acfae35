"""Taking values apart: many values of one type into a column for each of their fields."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Literal

from fusefs.text.codec import Cell, Codec, Column, Form, Texts, unpacked

# What takes apart so many bytes is kept for the next as many, as those of a dump.
_KEPT = 1 << 17
# `struct` codes of so many bytes.
_UNITS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class _Pass:
    """Fields that do not overlap: one `struct` format takes all of them out."""

    def __init__(self) -> None:
        self.format = ""
        self.end = 0
        self.width = 0
        self._whole = struct.Struct("=")

    def add(self, offset: int, codec: Codec) -> int:
        """Take in a field behind the others; its number among them."""
        self.format += f"{offset - self.end}x{codec.code}"
        self.end = offset + codec.size
        self.width += 1
        return self.width - 1

    def unpack(self, data: bytes, size: int) -> tuple[Any, ...]:
        """The fields of all values in `data`, of `size` bytes, those of the first before others."""
        if self._whole.size == len(data):
            return self._whole.unpack(data)
        one = f"{self.format}{size - self.end}x"
        whole = struct.Struct("=" + one * (len(data) // size))
        if len(data) <= _KEPT:
            self._whole = whole
        return whole.unpack(data)


class Layout:
    """The fields of values of `size` bytes: each a codec at an offset in bytes, in any order.

    Those that overlap, as in unions, are taken out one pass after the other. Bitfields that share
    their bytes are taken out together.
    """

    def __init__(self, size: int, cells: Sequence[Cell]) -> None:
        self._size = size
        self._cells = cells
        passes: list[_Pass] = []
        places: dict[tuple[int, str], tuple[int, int]] = {}
        for offset, codec in sorted(cells, key=lambda cell: cell[0]):
            if (offset, codec.code) not in places:
                number = next((n for n, p in enumerate(passes) if p.end <= offset), len(passes))
                if number == len(passes):
                    passes.append(_Pass())
                places[offset, codec.code] = number, passes[number].add(offset, codec)
        self._passes = passes
        self._places = [places[offset, codec.code] for offset, codec in cells]

    def columns(self, data: bytes) -> list[Column]:
        """The column of each field, of the values that lie in `data` one after the other."""
        if len(self._cells) == 1 and self._cells[0][1].size == self._size:
            return [unpacked(self._cells[0][1], data)]
        rows = [(each.unpack(data, self._size), each.width) for each in self._passes]
        return [rows[number][0][place :: rows[number][1]] for number, place in self._places]

    def texts(self, data: bytes, form: Form) -> list[Texts]:
        """The same columns as texts."""
        columns = self.columns(data)
        return [
            form(codec, column)
            for (_offset, codec), column in zip(self._cells, columns, strict=True)
        ]


def joined(size: int, fields: Sequence[tuple[int, int, bytes]]) -> bytes:
    """The other way: values of `size` bytes, one after the other, of the column of each field; it
    is given by its offset, its size and its bytes, those of all values one after the other. What
    belongs to no field is zero."""
    if len(fields) == 1 and fields[0][1] == size:
        return fields[0][2]
    _offset, width, column = fields[0]
    data = bytearray(len(column) // width * size)
    for offset, width, column in fields:
        unit = math.gcd(8, offset, width, size)  # so many bytes are copied at once
        source, target = (memoryview(part).cast(_UNITS[unit]) for part in (column, data))
        for at in range(width // unit):
            target[offset // unit + at :: size // unit] = source[at :: width // unit]
    return bytes(data)
