"""Keys of LPM tries: a prefix and its length in bits."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

from fusefs.text.addresses import Ipv4, Ipv6
from fusefs.text.arrays import Array
from fusefs.text.codec import Codec, Column, Flat, Texts, scalar, undivided
from fusefs.text.columns import Layout, joined
from fusefs.text.composite import Composite, Part, Struct
from fusefs.text.errors import clip, refusal
from fusefs.text.parse import Mapping, Node, Scalar
from fusefs.text.scalars import Integer
from fusefs.text.strings import CharArray, Raw

LENGTH, DATA = "prefixlen", "data"
_LENGTH_SIZE = 4
_ADDRESSES: dict[int, type[Ipv4 | Ipv6]] = {4: Ipv4, 16: Ipv6}


def lpm_codec(key: Codec) -> Codec:
    """The codec of the keys of an LPM trie, from that of their type.

    They begin with a u32, whatever the type calls those bytes: structs and unions of linux/bpf.h
    (bpf_lpm_trie_key_u8 and its like) are in use for them. A type with a field across their end
    stays as it is.
    """
    size = key.size - _LENGTH_SIZE
    if isinstance(key, Raw):
        return Lpm(key.name, _data(Raw(size)))
    if not isinstance(key, Struct):
        return key
    rest = [part for part in key.parts if part.end > _LENGTH_SIZE]
    if not rest or any(part.offset < _LENGTH_SIZE for part in rest):
        return key
    if len(rest) == 1 and rest[0].codec.size == size:
        return Lpm(key.name, _data(rest[0].codec), rest[0].name)
    parts = [Part(part.name, part.offset - _LENGTH_SIZE, part.codec) for part in rest]
    return Lpm(key.name, Struct(key.name, size, parts))


def prefix(key: bytes) -> bytes:
    """`key` without the bits after its prefix: the kernel takes keys for the same that differ in
    those alone (kernel/bpf/lpm_trie.c, longest_prefix_match)."""
    length = int.from_bytes(key[:_LENGTH_SIZE], sys.byteorder)
    size = len(key) - _LENGTH_SIZE
    rest = max(size * 8 - length, 0)
    data = int.from_bytes(key[_LENGTH_SIZE:], "big") >> rest << rest
    return key[:_LENGTH_SIZE] + data.to_bytes(size, "big")


def _data(codec: Codec) -> Codec:
    """Four or sixteen bytes of no other meaning are taken for an address: a trie compares from
    the first bit of the first byte, as routes do."""
    plain = isinstance(codec, Raw | Integer) or (
        isinstance(codec, Array) and isinstance(codec.element, Integer) and codec.element.size == 1
    )
    if not plain:
        return codec
    address = _ADDRESSES.get(codec.size)
    return address(codec.name) if address else Raw(codec.size)


class _Length(Integer):
    """The length of a prefix of up to `most` bits."""

    def __init__(self, most: int) -> None:
        super().__init__("prefixlen", _LENGTH_SIZE, signed=False)
        self._most = most

    @property
    def plain(self) -> str:
        return "([0-9]{1,5}+)"

    def packed(self, texts: Sequence[bytes]) -> bytes:
        if max(map(int, texts)) > self._most:
            raise ValueError("a prefix is too long")
        return super().packed(texts)


class _Octet(Integer):
    """A number in an IPv4 address, in the one spelling that `Ipv4` takes."""

    def __init__(self) -> None:
        super().__init__("octet", 1, signed=False)

    @property
    def plain(self) -> str:
        return "(0|[1-9][0-9]{0,2}+)"


class Lpm(Codec):
    """A prefix `data` of a length in bits, shown as "10.1.0.0/16"; where the prefix is no string
    but an object or array, as {"prefixlen": 16, "data": ...}.

    Both are taken, and `10.1.0.0_16`. Bits after the prefix are part of the key, and kept.
    """

    def __init__(self, name: str, data: Codec, member: str = DATA) -> None:
        """`member` is what the type calls the prefix."""
        self.name = name
        self.data = data
        self.member = member
        self.size = _LENGTH_SIZE + data.size
        self.length = _Length(data.size * 8)
        self.weight = 1 + data.weight
        self.depth = 1 + data.depth

    def of(self, change: Callable[[Codec], Codec]) -> Lpm:
        """The same with another codec for the prefix."""
        return Lpm(self.name, change(self.data), self.member)

    @functools.cached_property
    def mask(self) -> int:
        return self.data.mask << 8 * _LENGTH_SIZE | self.length.mask

    @functools.cached_property
    def _layout(self) -> Layout:
        return Layout(self.size, ((0, self.length), (_LENGTH_SIZE, self.data)))

    @functools.cached_property
    def flat(self) -> Flat:
        if not isinstance(self.data, Ipv4):
            return undivided(self)
        # To write numbers takes a third of the time that texts of addresses do.
        octets = ((_LENGTH_SIZE + at, _Octet()) for at in range(self.data.size))
        cells = (*octets, (0, self.length))
        return Flat(cells, '"%s.%s.%s.%s/%s"', "%s.%s.%s.%s_%s")

    def _columns(self, column: Column) -> list[Column]:
        return self._layout.columns(b"".join(column))

    def shown(self, column: Column) -> Texts:
        lengths, data = self._columns(column)
        form = f'{{"{LENGTH}": %s, "{DATA}": %s}}'
        if isinstance(self.data, Composite | Array | CharArray):
            return list(map(form.__mod__, zip(lengths, self.data.shown(data), strict=True)))
        words = (str(text).strip('"') for text in self.data.shown(data))
        return [f'"{word}/{length}"' for word, length in zip(words, lengths, strict=True)]

    @property
    def plain(self) -> str:
        bare = self.data.plain.strip('"')
        if not bare or isinstance(self.data, Composite | Array | CharArray):
            return ""
        return f'"({bare[1:-1]}/[0-9]{{1,5}})"'

    def packed(self, texts: Sequence[bytes]) -> bytes:
        words, lengths = zip(*(text.split(b"/") for text in texts), strict=True)
        length = 0, _LENGTH_SIZE, self.length.packed(lengths)
        data = _LENGTH_SIZE, self.data.size, self.data.packed(words)
        return joined(self.size, (length, data))

    def named(self, column: Column) -> Texts:
        lengths, data = self._columns(column)
        return list(map("%s_%s".__mod__, zip(self.data.named(data), lengths, strict=True)))

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        if not isinstance(node, Mapping):
            node = self._split(scalar(node, path, "a prefix"), node, path)
        members = {name: value for name, _at, value in node.members}
        if unknown := members.keys() - {LENGTH, DATA}:
            message = f"a prefix has no field {min(unknown)!r}; its fields are {LENGTH}, {DATA}"
            raise refusal(path, message, node.at)
        length, data = old[:_LENGTH_SIZE], old[_LENGTH_SIZE:]
        if DATA in members:
            data = self.data.encode(members[DATA], data, path)
        if LENGTH in members:
            length = self.length.encode(members[LENGTH], length, path)
            if int.from_bytes(length, sys.byteorder) > self.data.size * 8:
                message = f"a prefix of {self.name} has at most {self.data.size * 8} bits"
                raise refusal(path, message, members[LENGTH].at)
        return length + data

    @property
    def of_addresses(self) -> bool:
        """Whether prefixes are addresses, in which no separator can be: the first one ends them."""
        return isinstance(self.data, Ipv4 | Ipv6)

    def _cut(self, text: str) -> int:
        """Where a prefix ends; -1 without a separator."""
        if self.of_addresses:
            return min((at for at in (text.find("/"), text.find("_")) if at >= 0), default=-1)
        return max(text.rfind("/"), text.rfind("_"))

    def _split(self, text: str, node: Node, path: str) -> Mapping:
        """The parts of a text like 10.1.0.0/16."""
        cut = self._cut(text)
        if cut < 0:
            message = f"expected a prefix and its length in bits, as {clip(text)}/8"
            raise refusal(path, message, node.at)
        data = Scalar(node.at, text[:cut], quoted=True)
        length = Scalar(node.at, text[cut + 1 :], quoted=True)
        return Mapping(node.at, ((LENGTH, node.at, length), (DATA, node.at, data)))

    def begins(self, token: str) -> bool:
        cut = self._cut(token)
        return self.length.begins(token[cut + 1 :]) if cut >= 0 else self.data.begins(token)
