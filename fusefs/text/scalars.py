"""Codecs for what is one integer underneath: integers, bool, enumerations, pointers, bitfields."""

from __future__ import annotations

import copy
import functools
import re
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from fusefs.text.codec import Codec, Column, Texts, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.escaping import escape_word
from fusefs.text.jsontext import to_json
from fusefs.text.parse import Node

# Names of an enumeration that a reason lists.
_LISTED = 8
# Python takes quadratic time over digits; no type here has as many as this.
_MAX_DIGITS = 400

_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)")
_BEGINS_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]*|0[bB][01]*|0[oO][0-7]*|[0-9]*)")
# `struct` codes of unsigned integers, by their size; the signed ones are in lower case.
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SECONDS = re.compile(r"([0-9]+)(?:\.([0-9]{1,9}))?")
_BEGINS_SECONDS = re.compile(r"(?:[0-9]+(?:\.[0-9]{0,9})?)?")
_NANO = 10**9
_ORDERS = {"little": "<", "big": ">"}

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
        narrow._set_bits(bits)
        return narrow

    @property
    def wanted(self) -> str:
        """What belongs here, for reasons."""
        return f"an integer ({self.name})"

    @functools.cached_property
    def code(self) -> str:
        if self.order != sys.byteorder or self.size not in CODES:
            return super().code
        return CODES[self.size].lower() if self.signed else CODES[self.size]

    def numbers(self, column: Column) -> Sequence[int]:
        """The integers of a column."""
        if len(self.code) == 1:
            return column
        if self.size in CODES:
            code = CODES[self.size].lower() if self.signed else CODES[self.size]
            return struct.unpack(f"{_ORDERS[self.order]}{len(column)}{code}", b"".join(column))
        return [int.from_bytes(item, self.order, signed=self.signed) for item in column]

    def spelled(self, numbers: Sequence[int]) -> Texts:
        """The JSON of each number."""
        return numbers

    def spelled_bare(self, numbers: Sequence[int]) -> Texts:
        """The text of each number in a file name."""
        return self.spelled(numbers)

    def shown(self, column: Column) -> Texts:
        return self.spelled(self.numbers(column))

    def named(self, column: Column) -> Texts:
        return self.spelled_bare(self.numbers(column))

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

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        return self.read(node, path).to_bytes(self.size, self.order, signed=self.signed)

    @property
    def plain(self) -> str:
        return "(-?+[0-9]{1,40}+)"

    def parsed(self, texts: Sequence[bytes]) -> Sequence[int]:
        """The integers of texts as `plain` has them. Raises ValueError."""
        return list(map(int, texts))

    def packed(self, texts: Sequence[bytes]) -> bytes:
        numbers = self.parsed(texts)
        if self.size in CODES:
            code = CODES[self.size].lower() if self.signed else CODES[self.size]
            return struct.pack(f"{_ORDERS[self.order]}{len(numbers)}{code}", *numbers)
        if not self.low <= min(numbers) <= max(numbers) <= self.high:
            raise ValueError(f"out of range for {self.name}")
        return b"".join(n.to_bytes(self.size, self.order, signed=self.signed) for n in numbers)

    def begins(self, token: str) -> bool:
        return begins_integer(token, self.low, self.high)


class Integer(Number):
    """An integer, shown as a number."""

    def summed(self, column: Column, count: int) -> Texts:
        return self.spelled(sums(self.numbers(column), count))


class Pointer(Number):
    """A pointer, or another number that is best read so, shown as a hexadecimal string."""

    def __init__(self, name: str, size: int, *, order: ByteOrder = sys.byteorder) -> None:
        super().__init__(name, size, signed=False, order=order)

    def spelled(self, numbers: Sequence[int]) -> Texts:
        return [f'"{number:#x}"' for number in numbers]

    def spelled_bare(self, numbers: Sequence[int]) -> Texts:
        return [f"{number:#x}" for number in numbers]

    @property
    def plain(self) -> str:
        return '"(0x[0-9a-f]{1,32}+)"'

    def parsed(self, texts: Sequence[bytes]) -> Sequence[int]:
        return [int(text, 16) for text in texts]


class Seconds(Integer):
    """A number of nanoseconds, shown as seconds with nine digits behind the point, as dmesg(1)
    shows a time since boot, and /proc/uptime."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size, signed=False)

    @property
    def wanted(self) -> str:
        return f"a number of seconds ({self.name})"

    def spelled(self, numbers: Sequence[int]) -> Texts:
        return [f"{number // _NANO}.{number % _NANO:09}" for number in numbers]

    @property
    def plain(self) -> str:
        return r"([0-9]{1,12}\.[0-9]{9})"

    def parsed(self, texts: Sequence[bytes]) -> Sequence[int]:
        return [int(text.replace(b".", b"")) for text in texts]

    def read(self, node: Node, path: str) -> int:
        text = scalar(node, path, self.wanted)
        match = _SECONDS.fullmatch(text)
        if not match or len(text) > _MAX_DIGITS:
            raise refusal(path, f"expected {self.wanted}, got {clip(text)!r}", node.at)
        value = int(match[1]) * _NANO + int((match[2] or "").ljust(9, "0"))
        return self.checked(value, f"{clip(text)} seconds ({value} ns)", node, path)

    def begins(self, token: str) -> bool:
        return len(token) <= _MAX_DIGITS and _BEGINS_SECONDS.fullmatch(token) is not None


class Bool(Number):
    """A bool: 0 and 1 are shown as false and true, anything else that is there as a number."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1, signed=False)

    def spelled(self, numbers: Sequence[int]) -> Texts:
        return named_or_number(_BOOLS, numbers)

    @property
    def plain(self) -> str:
        return f"({'|'.join(_WORDS)}|[0-9]{{1,3}})"

    def parsed(self, texts: Sequence[bytes]) -> Sequence[int]:
        return named_as_numbers(_PLAIN_BOOLS, texts)

    def read(self, node: Node, path: str) -> int:
        text = scalar(node, path, self.name)
        return _WORDS.index(text) if text in _WORDS else super().read(node, path)

    def begins(self, token: str) -> bool:
        return any(word.startswith(token) for word in _WORDS) or super().begins(token)


_WORDS = ("false", "true")
_BOOLS = dict(enumerate(_WORDS))
_PLAIN_BOOLS = {word.encode(): value for value, word in _BOOLS.items()}


class Enumeration(Number):
    """An enum: an integer, shown as the name of its value, or as a number when it has none."""

    def __init__(
        self, name: str, size: int, *, signed: bool, values: Iterable[tuple[str, int]]
    ) -> None:
        values = list(values)
        # Compilers that do not mark signed enums give -1 as 0xffffffff, whatever the size.
        signed = signed or any(value >> size * 8 for _label, value in values)
        super().__init__(name, size, signed=signed)
        self._values: dict[str, int] = {}
        names: dict[int, str] = {}
        for label, value in values:
            # A name that reads as a number, or comes twice, would not find its value again.
            if not label or to_integer(label) is not None or label in self._values:
                continue
            self._values[label] = self._wrapped(value)
            names.setdefault(self._wrapped(value), label)
        self._quoted = {value: to_json(label) for value, label in names.items()}
        self._bare = {value: escape_word(label) for value, label in names.items()}

    @property
    def wanted(self) -> str:
        names = list(self._values)
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        return f"one of {listed} ({self.name})" if names else super().wanted

    @property
    def labels(self) -> Iterable[str]:
        """The names that it has."""
        return self._values.keys()

    def _wrapped(self, value: int) -> int:
        value &= (1 << self.size * 8) - 1
        return value - (1 << self.size * 8) if value > self.high else value

    def spelled(self, numbers: Sequence[int]) -> Texts:
        return named_or_number(self._quoted, numbers)

    def spelled_bare(self, numbers: Sequence[int]) -> Texts:
        return named_or_number(self._bare, numbers)

    @property
    def plain(self) -> str:
        return r'("[^"\\\x00-\x1f]*+"|-?+[0-9]{1,20}+)'

    @functools.cached_property
    def _plain(self) -> dict[bytes, int]:
        return {to_json(label).encode(): value for label, value in self._values.items()}

    def parsed(self, texts: Sequence[bytes]) -> Sequence[int]:
        return named_as_numbers(self._plain, texts)

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
        self.whole = number
        self.number = number.narrowed(bits)
        self.name = self.number.name
        self.size = size
        self.first = first
        self._shift = first if sys.byteorder == "little" else size * 8 - first - bits
        self._ones = (1 << bits) - 1

    def of(self, number: Number) -> Bitfield:
        """The same bits, shown as another kind of number."""
        return Bitfield(number, self.size, self.first, self.number.bits)

    @property
    def code(self) -> str:
        return CODES.get(self.size, super().code)

    @functools.cached_property
    def mask(self) -> int:
        told = (self._ones << self._shift).to_bytes(self.size, sys.byteorder)
        return int.from_bytes(told, "little")

    def _numbers(self, column: Column) -> Sequence[int]:
        if len(self.code) > 1:
            column = [int.from_bytes(item, sys.byteorder) for item in column]
        shift, ones = self._shift, self._ones
        if self.number.signed:
            sign = (ones + 1) >> 1
            return [((item >> shift & ones) ^ sign) - sign for item in column]
        return [item >> shift & ones for item in column]

    def shown(self, column: Column) -> Texts:
        return self.number.spelled(self._numbers(column))

    def named(self, column: Column) -> Texts:
        return self.number.spelled_bare(self._numbers(column))

    def summed(self, column: Column, count: int) -> Texts:
        if isinstance(self.number, Integer):
            return self.number.spelled(sums(self._numbers(column), count))
        return super().summed(column, count)

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        value = self.number.read(node, path) & self._ones
        others = int.from_bytes(old, sys.byteorder) & ~(self._ones << self._shift)
        return (others | value << self._shift).to_bytes(self.size, sys.byteorder)

    def begins(self, token: str) -> bool:
        return self.number.begins(token)


def named_or_number(names: Mapping[int, str], numbers: Sequence[int]) -> Texts:
    """The name of each number, or itself where it has none."""
    return list(map(names.get, numbers, numbers))


def named_as_numbers(names: Mapping[bytes, int], texts: Sequence[bytes]) -> Sequence[int]:
    """The number of each name, or of each text that is one. Raises ValueError for others."""
    return [names[text] if text in names else int(text) for text in texts]


def sums(numbers: Sequence[int], count: int) -> Sequence[int]:
    """The sum of each `count` numbers."""
    return [sum(numbers[at : at + count]) for at in range(0, len(numbers), count)]
