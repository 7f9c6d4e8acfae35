"""Hypothesis strategies: blobs of types as compilers lay them out, and as none would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder

Member = tuple[str, int, int] | tuple[str, int, int, int]


@dataclass(frozen=True)
class Typed:
    """A type id, the size of its values in bytes, and how a compiler would align them."""

    type_id: int
    size: int
    align: int


INTEGERS = [
    ("int", 4, True),
    ("unsigned int", 4, False),
    ("char", 1, True),
    ("signed char", 1, True),
    ("unsigned char", 1, False),
    ("short int", 2, True),
    ("long unsigned int", 8, False),
    ("long long int", 8, True),
    ("__int128 unsigned", 16, False),
    ("u8", 1, False),
    ("i64", 8, True),
    ("usize", 8, False),
    ("int24", 3, True),
    ("nine", 9, False),
]
FLOATS = [("float", 4), ("double", 8), ("long double", 16), ("f32", 4), ("half", 2), ("odd", 12)]
GAPS = [0, 0, 0, 0, 1, 2, 3, 8, 60, 200]


@dataclass
class Maker:
    """Draws types into a blob. Names are given once each, so that they stay what they are."""

    draw: st.DrawFn
    types: BtfBuilder = field(default_factory=BtfBuilder)
    names: int = 0
    structs: list[Typed] = field(default_factory=list)  # those with names
    scalars: list[Typed] = field(default_factory=list)  # that were made already

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def one_of(self, *makers: Callable[[], Typed]) -> Typed:
        return self.draw(st.sampled_from(makers))()

    def any(self, depth: int) -> Typed:
        nested: list[Callable[[], Typed]] = [
            lambda: self.array(depth - 1),
            lambda: self.alias(depth - 1),
            lambda: self.composite(depth - 1, self.draw(st.sampled_from(["", "struct"]))),
            lambda: self.pointer(depth - 1),
        ]
        if depth > 0 and self.draw(st.integers(0, 3)) == 0:
            return self.one_of(*nested)
        if self.structs and self.draw(st.integers(0, 7)) == 0:
            return self.draw(st.sampled_from(self.structs))
        return self.scalar()

    def scalar(self) -> Typed:
        if len(self.scalars) > 3 and self.draw(st.booleans()):
            return self.draw(st.sampled_from(self.scalars))
        made = self.one_of(self.integer, self.integer, self.boolean, self.floating, self.enum)
        self.scalars.append(made)
        return made

    def integer(self) -> Typed:
        name, size, signed = self.draw(st.sampled_from(INTEGERS))
        type_id = self.types.integer(name, size, signed=signed, char=name == "char")
        return Typed(type_id, size, size if size in (1, 2, 4, 8, 16) else 1)

    def boolean(self) -> Typed:
        return Typed(self.types.integer("_Bool", 1, bool_=True), 1, 1)

    def floating(self) -> Typed:
        name, size = self.draw(st.sampled_from(FLOATS))
        return Typed(self.types.floating(name, size), size, size if size != 12 else 1)

    def enum(self) -> Typed:
        size = self.draw(st.sampled_from([1, 2, 4, 4, 8]))
        signed = self.draw(st.booleans())
        low, high = (-1 << size * 8 - 1, 1 << size * 8 - 1) if signed else (0, 1 << size * 8)
        numbers = st.integers(low, high - 1) | st.integers(0, 3)
        values = self.draw(st.lists(numbers, min_size=1, max_size=3))
        pairs = [(self.fresh("E"), value) for value in values]
        name = self.fresh("enum") if self.draw(st.integers(0, 4)) else ""
        return Typed(self.types.enum(name, size, pairs, signed=signed), size, size)

    def pointer(self, depth: int) -> Typed:
        kind = self.draw(st.sampled_from(["void", "type", "tagged", "function", "forward"]))
        target = 0
        if kind in ("type", "tagged"):
            target = self.any(depth).type_id
        if kind == "tagged":
            target = self.types.alias(Kind.TYPE_TAG, target, "user")
        elif kind == "function":
            parameters = [
                ("", self.scalar_or_pointer()) for _ in range(self.draw(st.integers(0, 3)))
            ]
            result = self.draw(st.sampled_from([0, self.scalar_or_pointer()]))
            target = self.types.prototype(result, parameters)
        elif kind == "forward":
            target = self.types.forward(self.fresh("unseen"), union=self.draw(st.booleans()))
        return Typed(self.types.pointer(target), 8, 8)

    def scalar_or_pointer(self) -> int:
        made = self.one_of(self.integer, self.boolean, lambda: self.pointer(0))
        return made.type_id

    def array(self, depth: int) -> Typed:
        element = self.any(depth)
        count = self.draw(st.sampled_from([0, 1, 2, 3, 7]))
        array = self.types.array(element.type_id, count, element.type_id)
        return Typed(array, element.size * count, element.align)

    def alias(self, depth: int) -> Typed:
        below = self.any(depth)
        kind = self.draw(st.sampled_from([Kind.TYPEDEF, Kind.CONST, Kind.VOLATILE, Kind.RESTRICT]))
        name = self.fresh("alias") if kind == Kind.TYPEDEF else ""
        return Typed(self.types.alias(kind, below.type_id, name), below.size, below.align)

    def composite(self, depth: int, stem: str) -> Typed:
        """A struct or union: laid out as in C, or anyhow; anonymous without `stem`."""
        union, packed = self.draw(st.integers(0, 4)) == 0, self.draw(st.booleans())
        at, end, align = 0, 0, 1
        members: list[Member] = []
        bitfields = self.draw(st.sampled_from([None, self.bitfield, self.old_bitfield]))
        for _ in range(self.draw(st.integers(0, 6))):
            at = 0 if union else at
            if bitfields and self.draw(st.booleans()):
                member, typed = bitfields(at, union=union)
                at = end_of(member, typed)
            else:
                typed = self.any(depth)
                gap = 0 if union else self.draw(st.sampled_from(GAPS)) if packed else 0
                first = rounded((at + 7) // 8 + gap, 1 if packed else typed.align)
                name = self.fresh("m")
                if self.draw(st.integers(0, 5)) == 0 and depth > 0:
                    typed, name = self.composite(depth - 1, ""), ""
                    first = rounded(first, 1 if packed else typed.align)
                member = (name, typed.type_id, first * 8)
                at = (first + typed.size) * 8
            members.append(member)
            end, align = max(end, at), max(align, typed.align)
        size = (end + 7) // 8 + self.draw(st.sampled_from(GAPS if packed else [0]))
        size, align = (size, 1) if packed else (rounded(size, align), align)
        name = self.fresh(stem) if stem else ""
        typed = Typed(self.types.struct(name, size, members, union=union), size, align)
        if name:
            self.structs.append(typed)
        return typed

    def bitfield(self, at: int, *, union: bool) -> tuple[tuple[str, int, int, int], Typed]:
        typed = self.one_of(self.integer, self.boolean, self.enum)
        if self.draw(st.integers(0, 3)) == 0:
            named = self.types.typedef(self.fresh("alias"), typed.type_id)
            typed = Typed(named, typed.size, typed.align)
        bits = self.draw(st.integers(1, min(typed.size * 8, 100)))
        gap = 0 if union else self.draw(st.sampled_from(GAPS))
        return (self.fresh("b"), typed.type_id, at + gap, bits), typed

    def old_bitfield(self, at: int, *, union: bool) -> tuple[tuple[str, int, int], Typed]:
        """A bitfield as an integer at an offset, which is within its first byte."""
        gap = 0 if union else self.draw(st.sampled_from(GAPS))
        offset, bits = (at + gap) % 8, self.draw(st.integers(1, 24))
        number = self.types.old_bitfield("unsigned int", 4, offset, bits, signed=False)
        return (self.fresh("o"), number, (at + gap) // 8 * 8), Typed(number, 4, 4)


def end_of(member: Member, typed: Typed) -> int:
    """Where a bitfield ends at the latest."""
    return member[2] + (member[3] if len(member) == 4 else 31)


def rounded(number: int, unit: int) -> int:
    return -(-number // unit) * unit


@dataclass(frozen=True)
class Blob:
    """Types, and the ids of the named structs and unions among them."""

    btf: Btf
    structs: list[int]


@st.composite
def blobs(draw: st.DrawFn) -> Blob:
    """A dozen structs or so that are made of many kinds of types, and of one another."""
    maker = Maker(draw)
    for _ in range(8):
        maker.composite(3, "struct")
    return Blob(Btf.parse(maker.types.build()), [typed.type_id for typed in maker.structs])
