"""Taking values apart: many values of one type into a column for each of their fields."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

from fusefs.text.codec import Cell, Codec, Column, Form, Texts, unpacked


class _Pass:
    """Fields that do not overlap: one `struct` format takes all of them out."""

    def __init__(self) -> None:
        self.format = "="
        self.end = 0
        self.width = 0

    def add(self, offset: int, codec: Codec) -> int:
        """Take in a field behind the others; its number among them."""
        self.format += f"{offset - self.end}x{codec.code}"
        self.end = offset + codec.size
        self.width += 1
        return self.width - 1


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
        self._passes = [(struct.Struct(f"{p.format}{size - p.end}x"), p.width) for p in passes]
        self._places = [places[offset, codec.code] for offset, codec in cells]

    def columns(self, data: bytes) -> list[Column]:
        """The column of each field, of the values that lie in `data` one after the other."""
        if len(self._cells) == 1 and self._cells[0][1].size == self._size:
            return [unpacked(self._cells[0][1], data)]
        flat = [
            (list(itertools.chain.from_iterable(layout.iter_unpack(data))), width)
            for layout, width in self._passes
        ]
        return [flat[number][0][place :: flat[number][1]] for number, place in self._places]

    def texts(self, data: bytes, form: Form) -> list[Texts]:
        """The same columns as texts."""
        columns = self.columns(data)
        return [
            form(codec, column)
            for (_offset, codec), column in zip(self._cells, columns, strict=True)
        ]
