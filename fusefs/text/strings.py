"""Codecs for bytes that are text, and for bytes of which nothing is known."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence as SequenceOf

from fusefs.text.codec import Codec, Column, Texts, scalar
from fusefs.text.errors import clip, refusal
from fusefs.text.escaping import escape
from fusefs.text.jsontext import to_json
from fusefs.text.parse import Node, Sequence
from fusefs.text.scalars import begins_integer, to_integer

_BEGINS_HEX = re.compile(r"(?:[0-9a-fA-F]{2}[ \t]*)*[0-9a-fA-F]?")
_INTEGER_SIZES = (1, 2, 4, 8)
# Bytes that stand for themselves in JSON: printable ASCII without the quote and the backslash. NUL
# is what `CharArray` puts between texts.
_PLAIN = bytes({0, *range(0x20, 0x7F)} - set(b'"\\'))


class CharArray(Codec):
    """A char[N]: text up to its first NUL, or up to its end when it has none.

    Shown as a string when the text is UTF-8 and nothing but NULs follows it, else as an array of N
    numbers from 0 to 255, which keeps every byte. Both can be written; numbers may be negative
    too, as a signed char's are.
    """

    takes_sequence = True

    def __init__(self, size: int) -> None:
        self.size = size
        self.name = f"char[{size}]"
        self.shows = size > 0

    def shown(self, column: Column) -> Texts:
        texts = list(map(bytes.rstrip, column, itertools.repeat(b"\0")))
        # Nearly always all of them are plain words, and then they can be quoted all at once.
        joined = b"\0".join(texts)
        if not joined.translate(None, _PLAIN) and joined.count(b"\0") == len(texts) - 1:
            return f'"{joined.decode()}"'.replace("\0", '"\0"').split("\0")
        return [_quoted(text, whole) for text, whole in zip(texts, column, strict=True)]

    def named(self, column: Column) -> Texts:
        # Of bytes without any text the name says one: no name is empty.
        return [
            escape((item.rstrip(b"\0") or b"\0").decode("utf-8", "surrogateescape"))
            for item in column
        ]

    @property
    def plain(self) -> str:
        return r'"([ !#-\[\]-~]*+)"'  # as `_PLAIN`

    def packed(self, texts: SequenceOf[bytes]) -> bytes:
        if max(map(len, texts)) > self.size:
            raise ValueError(f"too long for {self.name}")
        each = itertools.repeat
        return b"".join(map(bytes.ljust, texts, each(self.size), each(b"\0")))

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if isinstance(node, Sequence):
            return self._from_numbers(node, path)
        text = scalar(node, path, self.name)
        if "\0" in text:
            raise refusal(path, "a string cannot hold a NUL character", node.at)
        data = text.encode()
        if len(data) > self.size:
            message = f"{clip(text)!r} has {len(data)} bytes, too long for {self.name}"
            raise refusal(path, message, node.at)
        return data.ljust(self.size, b"\0")

    def _from_numbers(self, node: Sequence, path: str) -> bytes:
        if len(node.items) != self.size:
            message = f"expected {self.size} elements, got {len(node.items)}"
            raise refusal(path, message, node.at)
        numbers = bytearray()
        for index, item in enumerate(node.items):
            where = f"{path}[{index}]"
            text = scalar(item, where, "char")
            number = to_integer(text)
            if number is None:
                raise refusal(where, f"expected a char, got {clip(text)!r}", item.at)
            if not -128 <= number <= 255:
                message = f"{clip(text)} is out of range for char (-128 to 255)"
                raise refusal(where, message, item.at)
            numbers.append(number & 0xFF)
        return bytes(numbers)

    def begins(self, token: str) -> bool:
        return len(token.encode()) <= self.size and "\0" not in token


def _quoted(text: bytes, whole: bytes) -> str:
    """The JSON of `whole` bytes, whose text without the NULs at the end is `text`."""
    if b"\0" not in text:
        try:
            return to_json(text.decode())
        except UnicodeDecodeError:
            pass
    return to_json(list(whole))


class Raw(Codec):
    """Bytes without a type, shown as two lowercase hexadecimal digits a byte, in memory order.

    Written as the same digits, of either case, with white space between bytes if need be. Where
    there are 1, 2, 4 or 8 bytes they can be written as an integer too, from the least that fits
    signed to the greatest that fits unsigned. A text of just 2 * `size` hexadecimal digits is
    bytes: `00000010` sets four bytes in memory order, `10` or `0x00000010` sets the integer.
    """

    def __init__(self, size: int, name: str = "") -> None:
        self.size = size
        self.shows = size > 0
        self.name = name or f"{size} bytes"
        self._low = -(1 << size * 8 - 1) if size in _INTEGER_SIZES else 0
        self._high = (1 << size * 8) - 1 if size in _INTEGER_SIZES else -1

    def shown(self, column: Column) -> Texts:
        return [f'"{item.hex()}"' for item in column]

    @property
    def plain(self) -> str:
        return f'"([0-9a-f]{{{2 * self.size}}})"'

    def packed(self, texts: SequenceOf[bytes]) -> bytes:
        return bytes.fromhex(b"".join(texts).decode())

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        text = scalar(node, path, self._wanted())
        try:
            data = bytes.fromhex(text)
        except ValueError:
            data = None
        if data is not None and len(data) == self.size:
            return data
        number = to_integer(text) if self.size in _INTEGER_SIZES else None
        if number is None:
            raise refusal(path, f"expected {self._wanted()}, got {clip(text)!r}", node.at)
        if not self._low <= number <= self._high:
            message = f"{clip(text)} is out of range for {self.name} ({self._low} to {self._high})"
            raise refusal(path, message, node.at)
        return (number & self._high).to_bytes(self.size, sys.byteorder)

    def _wanted(self) -> str:
        digits = f"{2 * self.size} hexadecimal digits"
        return f"{digits} or an integer" if self.size in _INTEGER_SIZES else digits

    def begins(self, token: str) -> bool:
        if self.size in _INTEGER_SIZES and begins_integer(token, self._low, self._high):
            return True
        digits = sum(not char.isspace() for char in token)
        return digits <= 2 * self.size and _BEGINS_HEX.fullmatch(token) is not None
