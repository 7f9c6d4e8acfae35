"""Codecs for what is one integer underneath: integers, bool, enumerations, pointers, bitfields."""

from __future__ import annotations

import copy
import re
import sys
from abc import abstractmethod
from collections.abc import Iterable
from typing import Literal, Self

from fusefs.text.codec import Codec, Json, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Node

# Names of an enumeration that a reason lists.
_LISTED = 8
# Python takes quadratic time over digits; no type here has as many as this.
_MAX_DIGITS = 400

_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)")
_BEGINS_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]*|0[bB][01]*|0[oO][0-7]*|[0-9]*)")
_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}

ByteOrder = Literal["little", "big"]


def to_integer(text: str) -> int | None:
    """The integer that `text` spells (decimal, 0x, 0b, 0o, each with an optional minus; leading
    zeros mean nothing), or None when it spells none."""
    if len(text) > _MAX_DIGITS or not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("-")
    prefixed = digits[1:2].isalpha()
    return int(text, 0 if prefixed else 10)


def begins_integer(token: str, low: int, high: int) -> bool:
    """Whether `token` begins an integer from `low` to `high`."""
    if len(token) > _MAX_DIGITS or not _BEGINS_INTEGER.fullmatch(token):
        return False
    value = to_integer(token)
    return value is None or low <= value <= high


class Number(Codec):
    """One integer of `bits` bits in `size` bytes; subclasses say how it is shown."""

    def __init__(
        self, name: str, size: int, *, signed: bool, order: ByteOrder = sys.byteorder
    ) -> None:
        self.name = name
        self.size = size
        self.signed = signed
        self.order: ByteOrder = order
        self._set_bits(size * 8)

    def _set_bits(self, bits: int) -> None:
        self.bits = bits
        self.low = -(1 << (bits - 1)) if self.signed else 0
        self.high = (1 << (bits - self.signed)) - 1

    def narrowed(self, bits: int) -> Self:
        """The same kind of number, of fewer bits."""
        narrow = copy.copy(self)
        narrow.name = f"{self.name}:{bits}"
        narrow.format = ""
        narrow._set_bits(bits)
        return narrow

    @property
    def wanted(self) -> str:
        """What belongs here, for reasons."""
        return f"an integer ({self.name})"

    @abstractmethod
    def show(self, value: int) -> Json:
        """The integer as it is shown."""

    def read(self, node: Node, path: str) -> int:
        """The integer that `node` gives, in range. Raises `Refused`."""
        text = scalar(node, path, self.name)
        value = to_integer(text)
        if value is None:
            raise refusal(path, f"expected {self.wanted}, got {clip(text)!r}", node.at)
        return self.checked(value, clip(text), node, path)

    def checked(self, value: int, text: str, node: Node, path: str) -> int:
        """`value` if it is in range, else refuses what `text` says."""
        if not self.low <= value <= self.high:
            message = f"{text} is out of range for {self.name} ({self.low} to {self.high})"
            raise refusal(path, message, node.at)
        return value

    def decode(self, data: bytes) -> Json:
        return self.show(int.from_bytes(data, self.order, signed=self.signed))

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        return self.read(node, path).to_bytes(self.size, self.order, signed=self.signed)

    def begins(self, token: str) -> bool:
        return begins_integer(token, self.low, self.high)


class Integer(Number):
    """An integer, shown as a number."""

    def __init__(
        self, name: str, size: int, *, signed: bool, order: ByteOrder = sys.byteorder
    ) -> None:
        super().__init__(name, size, signed=signed, order=order)
        if order == sys.byteorder:
            code = _FORMATS.get(size, "")
            self.format = code.lower() if signed else code

    def show(self, value: int) -> int:
        return value


class Pointer(Number):
    """A pointer, shown as a hexadecimal string."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size, signed=False)

    def show(self, value: int) -> str:
        return f"{value:#x}"


class Bool(Number):
    """A bool: 0 and 1 are shown as false and true, anything else that is there as a number."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1, signed=False)

    def show(self, value: int) -> bool | int:
        return bool(value) if value <= 1 else value

    def read(self, node: Node, path: str) -> int:
        text = scalar(node, path, self.name)
        return ("false", "true").index(text) if text in _WORDS else super().read(node, path)

    def begins(self, token: str) -> bool:
        return any(word.startswith(token) for word in _WORDS) or super().begins(token)


_WORDS = ("false", "true")


class Enumeration(Number):
    """An enum: an integer, shown as the name of its value, or as a number when it has none."""

    def __init__(
        self, name: str, size: int, *, signed: bool, values: Iterable[tuple[str, int]]
    ) -> None:
        super().__init__(name, size, signed=signed)
        self._values: dict[str, int] = {}
        self._names: dict[int, str] = {}
        for label, value in values:
            # A name that reads as a number, or comes twice, would not find its value again.
            if not label or to_integer(label) is not None or label in self._values:
                continue
            self._values[label] = self._wrapped(value)
            self._names.setdefault(self._wrapped(value), label)

    @property
    def wanted(self) -> str:
        names = list(self._values)
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        return f"one of {listed} ({self.name})" if names else super().wanted

    def _wrapped(self, value: int) -> int:
        # Compilers that do not mark signed enums give -1 as 0xffffffff, whatever the size.
        value &= (1 << self.size * 8) - 1
        return value - (1 << self.size * 8) if value > self.high else value

    def show(self, value: int) -> str | int:
        return self._names.get(value, value)

    def read(self, node: Node, path: str) -> int:
        text = scalar(node, path, self.name)
        value = self._values.get(text)
        if value is not None:
            return self.checked(value, f"{clip(text)} ({value})", node, path)
        return super().read(node, path)

    def begins(self, token: str) -> bool:
        return any(label.startswith(token) for label in self._values) or super().begins(token)


class Bitfield(Codec):
    """A number of `bits` bits, `first` bits into `size` bytes; the bits around it are others'.

    Bits count from the least significant on little-endian machines and from the most significant
    on big-endian ones (kernel/bpf/btf.c, btf_int_bits_show).
    """

    def __init__(self, number: Number, size: int, first: int, bits: int) -> None:
        self.number = number.narrowed(bits)
        self.name = self.number.name
        self.size = size
        self._shift = first if sys.byteorder == "little" else size * 8 - first - bits
        self._mask = (1 << bits) - 1

    def decode(self, data: bytes) -> Json:
        value = int.from_bytes(data, sys.byteorder) >> self._shift & self._mask
        if value > self.number.high:
            value -= self._mask + 1
        return self.number.show(value)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        value = self.number.read(node, path) & self._mask
        others = int.from_bytes(old, sys.byteorder) & ~(self._mask << self._shift)
        return (others | value << self._shift).to_bytes(self.size, sys.byteorder)

    def begins(self, token: str) -> bool:
        return self.number.begins(token)
