"""Codec for floating-point numbers."""

from __future__ import annotations

import re
import struct
import sys

from fusefs.text.codec import Codec, Json, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Node

# struct format, bits of the fraction, and decimal digits: those that any number of them survives
# in, and those that keep any value (IEEE 754).
_KINDS = {2: ("e", 10, 3, 5), 4: ("f", 23, 6, 9), 8: ("d", 52, 15, 17)}
SIZES = frozenset(_KINDS)

_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]++\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE
)
_BEGINS_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]*(?:[eE][-+]?[0-9]*)?")
_MAX_LENGTH = 2000


class Float(Codec):
    """A float of 2, 4 or 8 bytes, shown as the shortest number that reads back as the same bits.

    What JSON has no number for is a string: "inf", "-inf", "nan", and any other NaN as its bits,
    "0x" and two hexadecimal digits a byte, most significant first.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        code, self._fraction, self._fewest, self._most = _KINDS[size]
        self._struct = struct.Struct("=" + code)
        self._infinity = (1 << size * 8 - 1) - (1 << self._fraction)
        self._nan = self._infinity | 1 << self._fraction - 1

    def decode(self, data: bytes) -> Json:
        bits = int.from_bytes(data, sys.byteorder)
        magnitude = bits & ~(1 << self.size * 8 - 1)
        if magnitude > self._infinity:
            return "nan" if bits == self._nan else f"0x{bits:0{self.size * 2}x}"
        if magnitude == self._infinity:
            return "inf" if bits == magnitude else "-inf"
        value: float = self._struct.unpack(data)[0]
        return value if self.size == 8 else self._shortest(value)

    def _shortest(self, value: float) -> float:
        data = self._struct.pack(value)
        for digits in range(self._fewest, self._most):
            short = float(f"{value:.{digits}g}")
            try:
                if self._struct.pack(short) == data:
                    return short
            except OverflowError:  # the largest values, rounded up
                continue
        return value

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, self.name)
        if re.fullmatch(f"0[xX][0-9a-fA-F]{{{self.size * 2}}}", text):
            return int(text, 16).to_bytes(self.size, sys.byteorder)
        if len(text) > _MAX_LENGTH or not _NUMBER.fullmatch(text):
            raise refusal(path, f"expected a number ({self.name}), got {clip(text)!r}", node.at)
        if text.lower() == "nan":
            return self._nan.to_bytes(self.size, sys.byteorder)
        value = float(text)
        infinite = value in (float("inf"), float("-inf"))
        try:
            if infinite and "inf" not in text.lower():
                raise OverflowError
            return self._struct.pack(value)
        except OverflowError:
            raise refusal(path, f"{clip(text)} is out of range for {self.name}", node.at) from None

    def begins(self, token: str) -> bool:
        if len(token) > _MAX_LENGTH:
            return False
        unsigned = token.lower().removeprefix("-").removeprefix("+")
        return (
            _BEGINS_NUMBER.fullmatch(token) is not None
            or "infinity".startswith(unsigned)
            or "nan".startswith(unsigned)
            or re.fullmatch(f"0[xX][0-9a-fA-F]{{0,{self.size * 2}}}", token) is not None
        )
