"""Codec for floating-point numbers."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from fusefs.text.codec import Codec, Column, Texts, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Node
from fusefs.text.scalars import CODES


@dataclass(frozen=True, slots=True)
class _Kind:
    """A format of IEEE 754: its `struct` code, the bits of its fraction; the decimal digits that a
    number may have to survive in it, and those that keep any value; the least number that has all
    bits of precision, and the least that is rounded to infinity."""

    code: str
    fraction: int
    fewest: int
    most: int
    normal: float
    infinite: float


_KINDS = {
    2: _Kind("e", 10, 3, 5, 2.0**-14, 2.0**16 - 2.0**4),
    4: _Kind("f", 23, 6, 9, 2.0**-126, 2.0**128 - 2.0**103),
    8: _Kind("d", 52, 15, 17, 2.0**-1022, float("inf")),
}
SIZES = frozenset(_KINDS)

_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]++\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE
)
_BEGINS_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]*(?:[eE][-+]?[0-9]*)?")
_MAX_LENGTH = 2000


class Float(Codec):
    """A float of 2, 4 or 8 bytes, shown as the number of fewest digits, rounded from it, that is
    read back as the same bits.

    What JSON has no number for is a string: "inf", "-inf", "nan", and any other NaN as its bits,
    "0x" and two hexadecimal digits a byte, most significant first.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._kind = _KINDS[size]
        self._infinity = (1 << size * 8 - 1) - (1 << self._kind.fraction)
        self._nan = self._infinity | 1 << self._kind.fraction - 1

    @property
    def code(self) -> str:
        return CODES[self.size]  # as bits: a NaN does not keep its own on its way through a float

    def shown(self, column: Column) -> Texts:
        floats = self._floats(column)
        if self.size < 8:
            floats = self._shortest(column, floats)
        # A float minus itself is zero, unless it is infinite or none.
        return [
            number if number - number == 0 else self._odd(bits)
            for bits, number in zip(column, floats, strict=True)
        ]

    def summed(self, column: Column, count: int) -> Texts:
        floats = self._floats(column)
        totals = [sum(floats[at : at + count]) for at in range(0, len(floats), count)]
        return [f'"{total}"' if total - total else total for total in totals]

    def _floats(self, column: Column) -> Sequence[float]:
        length = len(column)
        return struct.unpack(
            f"={length}{self._kind.code}", struct.pack(f"={length}{self.code}", *column)
        )

    def _odd(self, bits: int) -> str:
        magnitude = bits & ~(1 << self.size * 8 - 1)
        if magnitude == self._infinity:
            return '"inf"' if bits == magnitude else '"-inf"'
        return '"nan"' if bits == self._nan else f'"0x{bits:0{self.size * 2}x}"'

    def _shortest(self, column: Column, floats: Sequence[float]) -> Sequence[float]:
        """For each finite one the number with the fewest digits that has the same bits."""
        found = list(floats)
        left = [at for at, number in enumerate(floats) if number - number == 0]
        kind = self._kind
        least = min([abs(floats[at]) for at in left if floats[at]], default=kind.normal)
        for digits in range(kind.fewest if least >= kind.normal else 1, kind.most + 1):
            shorter = [float(f"{floats[at]:.{digits}g}") for at in left]
            fitting = [number if abs(number) < kind.infinite else 0.0 for number in shorter]
            packed = struct.pack(f"={len(left)}{kind.code}", *fitting)
            back = struct.unpack(f"={len(left)}{self.code}", packed)
            pairs = list(zip(left, shorter, back, strict=True))
            for at, number, bits in pairs:
                if bits == column[at]:
                    found[at] = number
            left = [at for at, _number, bits in pairs if bits != column[at]]
        return found

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, self.name)
        if re.fullmatch(f"0[xX][0-9a-fA-F]{{{self.size * 2}}}", text):
            return int(text, 16).to_bytes(self.size, sys.byteorder)
        number = to_number(text)
        if number is None:
            raise refusal(path, f"expected a number ({self.name}), got {clip(text)!r}", node.at)
        if number.is_nan():
            return self._nan.to_bytes(self.size, sys.byteorder)
        value = float(text)
        try:
            if value - value and not number.is_infinite():
                raise OverflowError
            return struct.pack(f"={self._kind.code}", value)
        except OverflowError:
            raise refusal(path, f"{clip(text)} is out of range for {self.name}", node.at) from None

    def begins(self, token: str) -> bool:
        return begins_number(token, self.size * 2)


def to_number(text: str) -> Decimal | None:
    """The number that `text` spells: decimal, with an exponent or not, inf, or nan. None when it
    spells none."""
    if len(text) > _MAX_LENGTH or not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal(0) if "e-" in text.lower() else Decimal("1e99999")


def begins_number(token: str, digits: int) -> bool:
    """Whether `token` begins a number, or so many hexadecimal digits after 0x."""
    if len(token) > _MAX_LENGTH:
        return False
    unsigned = token.lower().removeprefix("-").removeprefix("+")
    return (
        _BEGINS_NUMBER.fullmatch(token) is not None
        or "infinity".startswith(unsigned)
        or "nan".startswith(unsigned)
        or re.fullmatch(f"0[xX][0-9a-fA-F]{{0,{digits}}}", token) is not None
    )
