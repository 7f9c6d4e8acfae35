"""What every codec can do: values of one type, from bytes to text and from parsed text to bytes.

Bytes become text a column at a time: the same field of many values at once, so that what is done
for each value is done in C. A single value is a column of one.
"""

from __future__ import annotations

import functools
import itertools
import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Any

from fusefs.text.errors import refusal
from fusefs.text.jsontext import Json
from fusefs.text.parse import Node, Scalar, Sequence

# What the kernel gives of the same field of many values, as `Codec.code` unpacks it.
Column = SequenceOf[Any]
# For each of those, something whose str() is its text.
Texts = SequenceOf[object]
# One of the ways to write a column: `Codec.shown`, `Codec.named`.
Form = Callable[["Codec", Column], Texts]
# A field: where it begins, in bytes, and what it is.
Cell = tuple[int, "Codec"]

# A value is taken apart into so many fields, and no more: a hostile type may have as many as there
# are paths through it.
MOST_CELLS = 256


@dataclass(frozen=True, slots=True)
class Flat:
    """A value as a row of fields, and what is between them in JSON and in file names: `%s` stands
    for each field, in the same order."""

    cells: tuple[Cell, ...]
    json: str
    bare: str

    def at(self, offset: int) -> tuple[Cell, ...]:
        """The fields, when the value begins at `offset`."""
        return tuple((offset + start, codec) for start, codec in self.cells)


def undivided(codec: Codec) -> Flat:
    """A value as one field."""
    return Flat(((0, codec),), "%s", "%s")


class Codec(ABC):
    """Bytes of one type, to and from values.

    `size` is in bytes. `name` is the type in C, for reasons. `shows` is False for a type of which
    nothing is shown. `weight` bounds the number of scalars that one value has, and `depth` is the
    number of types that are within one another. `takes_sequence` tells the codecs that read arrays.
    """

    size: int
    name: str
    shows: bool = True
    weight: int = 1
    depth: int = 1
    takes_sequence: bool = False

    @property
    def code(self) -> str:
        """What a column of these values is unpacked with: a native `struct` code of standard size,
        an integer's or that of some bytes."""
        return f"{self.size}s"

    @property
    def flat(self) -> Flat:
        """The fields of a value; itself when it is not made of others, or of too many."""
        return undivided(self)

    @abstractmethod
    def shown(self, column: Column) -> Texts:
        """The JSON of each value of a column. Any bytes are a value."""

    def named(self, column: Column) -> Texts:
        """The same for file names: bare where JSON has quotes, see `fusefs.text.names`."""
        return list(map(str.strip, map(str, self.shown(column)), itertools.repeat('"')))

    def summed(self, column: Column, count: int) -> Texts:
        """The JSON of each `count` values taken together: numbers are added up, and for what is
        no number, null unless they are all the same."""
        texts = list(map(str, self.shown(column)))
        groups = (texts[at : at + count] for at in range(0, len(texts), count))
        return [group[0] if len(set(group)) == 1 else "null" for group in groups]

    @abstractmethod
    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        """The bytes of the value that `node` gives, over `old`, the `size` bytes of before.

        What is not in the text keeps its bytes of `old`: fields that are left out, padding, and
        fields that are not shown. `path` names the value in reasons. Raises `Refused`.
        """

    @property
    def plain(self) -> str:
        """A regular expression for the JSON of a value as it is nearly always written, with one
        group, of which `packed` takes the text; empty where there is none."""
        return ""

    def packed(self, texts: SequenceOf[bytes]) -> bytes:
        """The bytes of the values that these texts give, one after the other; as `encode` would
        have them. Raises ValueError, OSError or struct.error when one of them gives none."""
        raise NotImplementedError(f"{self.name} has no plain form")

    def begins(self, token: str) -> bool:
        """Whether the bare `token` can still become a value by adding characters to it."""
        return not token

    @functools.cached_property
    def mask(self) -> int:
        """The bits that the text tells, byte 0 of the value being the lowest."""
        return (1 << self.size * 8) - 1

    @functools.cached_property
    def kept(self) -> int:
        """The bits that stay as they were, whatever text is written over them."""
        return (1 << self.size * 8) - 1 & ~self.mask

    def decode(self, data: bytes) -> Json:
        """The value of `data`, which is `size` bytes, as Python's json module has it."""
        value: Json = json.loads(str(self.shown(unpacked(self, data))[0]))
        return value


def shown(codec: Codec, column: Column) -> Texts:
    """`Codec.shown`, as a `Form`."""
    return codec.shown(column)


def named(codec: Codec, column: Column) -> Texts:
    """`Codec.named`, as a `Form`."""
    return codec.named(column)


def unpacked(codec: Codec, data: bytes, pad: int = 0) -> Column:
    """The column of the values that lie in `data` one after the other, `pad` bytes apart."""
    if not codec.size:
        return [b""]
    if pad == 0 and len(codec.code) == 1:
        return struct.unpack(f"={len(data) // codec.size}{codec.code}", data)
    rows = struct.iter_unpack(f"={codec.code}{pad}x", data)
    return list(itertools.chain.from_iterable(rows))


def scalar(node: Node, path: str, wanted: str) -> str:
    """The text of a scalar; refuses an array or object where `wanted` belongs."""
    if isinstance(node, Scalar):
        return node.text
    got = "an array" if isinstance(node, Sequence) else "an object"
    raise refusal(path, f"expected {wanted}, got {got}", node.at)
