"""Hypothesis strategies: types of every kind, and bytes for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import strategies as st

from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.codec import Codec
from fusefs.text.compile import SPECIAL_STRUCTS, compile_codec

Member = tuple[str, int, int] | tuple[str, int, int, int]

NAMES = ["a", "b", "saddr", "dport", "raw", "anon0", "sed", "tmp", "x1", "\u00e9t\u00e9"]

ALIASES = [Kind.TYPEDEF, Kind.CONST, Kind.VOLATILE, Kind.RESTRICT, Kind.TYPE_TAG]
TAGS = ["user", "kptr", "rcu"]

MAX_TYPES = 12  # so that an example is drawn quickly, and can be read when it fails


@dataclass(frozen=True)
class Typed:
    """A type id and what a C compiler would know of it.

    `holes` tells that some of its bytes may be padding, or not shown.
    """

    type_id: int
    size: int
    holes: bool = False


@dataclass
class Maker:
    """Draws types into a blob."""

    draw: st.DrawFn
    types: BtfBuilder = field(default_factory=BtfBuilder)
    names: int = 0
    drawn: int = 0

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def any(self, depth: int) -> Typed:
        simple = [
            self.integer,
            self.integer,
            self.boolean,
            self.enum,
            self.floating,
            self.pointer,
            self.big_endian,
            self.address,
            self.text,
        ]
        nested = [self.array, self.struct, self.struct, self.union, self.bitfields, self.alias]
        self.drawn += 1
        if depth > 0 and self.drawn <= MAX_TYPES and self.draw(st.integers(0, 4)) > 2:
            return self.draw(st.sampled_from(nested))(depth)
        return self.draw(st.sampled_from(simple))()

    def integer(self) -> Typed:
        size = self.draw(st.sampled_from([1, 2, 4, 8, 16, 3]))
        signed = self.draw(st.booleans())
        return Typed(self.types.integer(f"int{size}", size, signed=signed), size)

    def boolean(self) -> Typed:
        return Typed(self.types.integer("_Bool", 1, bool_=True), 1)

    def enum(self) -> Typed:
        size = self.draw(st.sampled_from([1, 2, 4, 8]))
        signed = self.draw(st.booleans())
        numbers = st.one_of(st.integers(0, 3), st.integers(-128 if signed else 0, 127))
        values = self.draw(st.lists(numbers, max_size=4))
        pairs = [(f"VALUE_{index}", value) for index, value in enumerate(values)]
        return Typed(self.types.enum(self.fresh("enum"), size, pairs, signed=signed), size)

    def floating(self) -> Typed:
        size = self.draw(st.sampled_from([2, 4, 8, 16]))
        # Of a long double some bytes are padding on most machines.
        return Typed(self.types.floating(f"float{size}", size), size, holes=size == 16)

    def pointer(self) -> Typed:
        """A pointer to nothing, to what is not defined, or to a function."""
        targets: list[Callable[[], int]] = [
            lambda: 0,
            lambda: self.types.forward(self.fresh("forward")),
            lambda: self.types.prototype(0, [("argument", 0)]),
            lambda: self.types.alias(Kind.TYPE_TAG, 0, self.draw(st.sampled_from(TAGS))),
        ]
        target = self.draw(st.sampled_from(targets))()
        pointer = self.types.pointer(target)
        return Typed(pointer, 8, holes=True)  # a tag may hide it

    def big_endian(self) -> Typed:
        size = self.draw(st.sampled_from([2, 4, 8]))
        below = self.types.integer(f"__u{size * 8}", size)
        return Typed(self.types.typedef(f"__be{size * 8}", below), size)

    def address(self) -> Typed:
        byte = self.types.integer("unsigned char", 1)
        name, size = self.draw(st.sampled_from([("in_addr", 4), ("in6_addr", 16)]))
        member = self.types.array(byte, size, byte)
        return Typed(self.types.struct(name, size, [("bytes", member, 0)]), size)

    def text(self) -> Typed:
        char = self.types.integer("char", 1, signed=True, char=True)
        size = self.draw(st.integers(1, 12))
        return Typed(self.types.array(char, size, char), size)

    def alias(self, depth: int) -> Typed:
        below = self.any(depth - 1)
        kind = self.draw(st.sampled_from(ALIASES))
        name = self.fresh("alias") if kind in (Kind.TYPEDEF, Kind.TYPE_TAG) else ""
        return Typed(self.types.alias(kind, below.type_id, name), below.size, below.holes)

    def array(self, depth: int) -> Typed:
        element = self.any(depth - 1)
        count = self.draw(st.integers(0 if depth < 3 else 1, 4))
        array = self.types.array(element.type_id, count, element.type_id)
        return Typed(array, element.size * count, element.holes)

    def members(self, depth: int) -> list[tuple[str, Typed]]:
        count = self.draw(st.integers(1, 3))
        names = self.draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
        names = [f"{name}{index}" if index else name for index, name in enumerate(names)]
        members = [(name, self.any(depth - 1)) for name in names]
        if depth > 0 and self.draw(st.integers(0, 3)) == 0:
            inner = self.struct(depth - 1) if self.draw(st.booleans()) else self.union(depth - 1)
            members.insert(self.draw(st.integers(0, count)), ("", inner))
        if self.draw(st.integers(0, 5)) == 0:
            special = self.draw(st.sampled_from(sorted(SPECIAL_STRUCTS)))
            lock = Typed(self.types.struct(special, 4, []), 4, holes=True)
            members.append(("lock", lock))
        return members

    def struct(self, depth: int) -> Typed:
        members = self.members(depth)
        packed = self.draw(st.booleans())
        at, holes = 0, any(typed.holes for _name, typed in members)
        laid: list[Member] = []
        for name, typed in members:
            gap = 0 if packed else self.draw(st.integers(0, 3))
            holes = holes or gap > 0
            laid.append((name, typed.type_id, (at + gap) * 8))
            at += gap + typed.size
        if self.draw(st.integers(0, 5)) == 0:  # a flexible array
            laid.append(("flex", self.types.array(members[0][1].type_id, 0, 0), at * 8))
        tail = 0 if packed else self.draw(st.integers(0, 3))
        name = self.fresh("struct")
        return Typed(self.types.struct(name, at + tail, laid), at + tail, holes or tail > 0)

    def union(self, depth: int) -> Typed:
        members = self.members(depth)
        size = max(typed.size for _name, typed in members)
        laid: list[Member] = [(name, typed.type_id, 0) for name, typed in members]
        union = self.types.struct(self.fresh("union"), size, laid, union=True)
        return Typed(union, size, any(typed.holes for _name, typed in members))

    def bitfields(self, depth: int) -> Typed:
        """Bitfields in either encoding."""
        old = self.draw(st.booleans())
        at = 0
        members: list[Member] = []
        for index in range(self.draw(st.integers(1, 5))):
            at += self.draw(st.integers(0, 5))
            number = self.draw(st.sampled_from([self.integer, self.boolean, self.enum]))()
            bits = self.draw(st.integers(1, min(number.size * 8, 64)))
            if old:
                signed = self.draw(st.booleans())
                integer = self.types.old_bitfield("int", 8, at % 8, min(bits, 50), signed=signed)
                members.append((f"bits{index}", integer, at // 8 * 8))
            else:
                members.append((f"bits{index}", number.type_id, at, bits))
            at += bits
        size = at // 8 + 1
        return Typed(self.types.struct(self.fresh("bits"), size, members), size, holes=True)

    def section(self, depth: int) -> Typed:
        """A data section of variables, which are apart."""
        members = [typed for _name, typed in self.members(depth) if typed.size]
        at = 0
        variables = []
        for number, typed in enumerate(members):
            at += self.draw(st.integers(0, 3))
            variable = self.types.variable(f"variable{number}", typed.type_id)
            self.types.decl_tag("tag", variable)
            variables.append((variable, at, typed.size))
            at += typed.size
        return Typed(self.types.data_section(".data", at, variables), at, holes=True)

    def outermost(self, depth: int) -> Typed:
        """A type of a key or value."""
        return (self.section if self.draw(st.integers(0, 15)) == 0 else self.any)(depth)


class Compiled(NamedTuple):
    """A generated type: where it is, its codec, and whether all of its bytes are shown."""

    btf: Btf
    type_id: int
    codec: Codec
    complete: bool


@dataclass(frozen=True)
class Sample:
    """A codec, some bytes for it, and whether all of its bytes are shown."""

    codec: Codec
    data: bytes
    complete: bool

    def __repr__(self) -> str:
        return f"Sample({self.codec.name!r}, {self.data!r}, complete={self.complete})"


@st.composite
def compiled(draw: st.DrawFn, depth: int = 3) -> Compiled:
    """A generated type."""
    maker = Maker(draw)
    typed = maker.outermost(depth)
    btf = Btf.parse(maker.types.build())
    codec = compile_codec(btf, typed.type_id)
    assert codec.size == typed.size
    return Compiled(btf, typed.type_id, codec, not typed.holes)


def contents(size: int) -> st.SearchStrategy[bytes]:
    """Bytes as they are found in maps: noise, small numbers, text, nothing."""
    drawn = min(size, 100)
    noise = st.binary(min_size=drawn, max_size=drawn).map(
        lambda data: (data * (size // 50 + 1))[:size]
    )
    text = st.text(max_size=min(size, 20))
    return st.one_of(
        noise,
        noise.map(lambda data: bytes(b"\0\0\0\0\1\2\xff"[byte % 7] for byte in data)),
        text.map(lambda text: text.encode()[:size].ljust(size, b"\0")),
        st.just(bytes(size)),
    )


@st.composite
def samples(draw: st.DrawFn, depth: int = 3) -> Sample:
    """A generated type with contents."""
    made = draw(compiled(depth))
    return Sample(made.codec, draw(contents(made.codec.size)), made.complete)
