"""The layout of structs and unions in C, and what must be written to get the one that BTF tells.

The rules are those of the System V ABI as clang and GCC have them on x86-64 and for BPF:

- A member begins at a multiple of its alignment, and a struct is as aligned as its members, its
  size a multiple of that.
- A bitfield begins where the member before it ends, unless it would cross a boundary of its type;
  then at that boundary. A named one aligns the struct like its type.
- In a packed struct nothing is aligned, but to bytes what is no bitfield.

Offsets and widths are in bits, sizes and alignments in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import BtfError
from fusefs.text.c_scalars import UNSIGNED, Enumeration, base_type, enumeration, integer
from fusefs.text.decoded import KEPT, Types

MAX_SIZE = 1 << 32  # bytes of a type
POINTER_SIZE = 8
_PADDINGS = 8  # bitfields in a row at most; what takes more of them becomes an array


@dataclass(frozen=True, slots=True)
class Extent:
    """How much room a type takes, as it is written; both in bytes."""

    size: int
    align: int


@dataclass(frozen=True, slots=True)
class Field:
    """A member to be written, a bitfield where `bits`; as a `plain` integer if not empty."""

    index: int
    name: str
    type_id: int
    bits: int
    plain: str
    start: int
    end: int
    align: int


@dataclass(frozen=True, slots=True)
class Padding:
    """An unnamed bitfield of `bits` in `plain`, or `bytes` that must have a name."""

    plain: str
    bits: int
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write for a struct or union."""

    packed: bool
    items: tuple[Field | Padding, ...]
    extent: Extent


class Layouts:
    """What the types of one blob take, as they are written; each is worked out once.

    Ask for what a type is made of before the type, and no question goes deep.
    """

    def __init__(self, types: Types) -> None:
        self._types = types
        self._extents: dict[int, Extent] = {}
        self._plans: dict[int, Plan] = {}
        self._enumerations: dict[int, Enumeration] = {}

    def extent(self, type_id: int) -> Extent:
        """The room that a type takes. Raises `BtfError` when it is malformed, or none of values."""
        if type_id not in self._extents:
            self._extents[type_id] = self._extent(type_id)
        return self._extents[type_id]

    def _extent(self, type_id: int) -> Extent:
        match self._types[type_id]:
            case bpf.Int() | bpf.Float() as number:
                base = base_type(number)
                return Extent(base.size, base.align)
            case bpf.Enum(size=size):
                self.enumeration(type_id)
                return Extent(size, size)
            case bpf.Pointer():
                return Extent(POINTER_SIZE, POINTER_SIZE)
            case bpf.Array(element_id, count):
                element = self.extent(element_id)
                if element.size * count >= MAX_SIZE:
                    raise BtfError(f"type {type_id} is too large")
                return Extent(element.size * count, element.align)
            case bpf.Alias(target=target):
                return self.extent(target)
            case bpf.Composite():
                return self.plan(type_id).extent
        raise BtfError(f"type {type_id} has no values")

    def enumeration(self, type_id: int) -> Enumeration:
        """What to write for an enumeration. Raises `BtfError` when C cannot have it."""
        if type_id not in self._enumerations:
            enum = self._types[type_id]
            assert isinstance(enum, bpf.Enum)
            if len(self._enumerations) == KEPT:
                self._enumerations.clear()
            self._enumerations[type_id] = enumeration(enum)
        return self._enumerations[type_id]

    def plan(self, type_id: int) -> Plan:
        """What to write for a struct or union. Raises `BtfError` when C cannot have it."""
        if type_id not in self._plans:
            composite = self._types[type_id]
            assert isinstance(composite, bpf.Composite)
            if len(self._plans) == KEPT:
                self._plans.clear()
            self._plans[type_id] = self._plan(composite)
        return self._plans[type_id]

    def _plan(self, composite: bpf.Composite) -> Plan:
        fields = [
            self._field(composite, index, member)
            for index, member in enumerate(composite.members)
            if member.name or not member.bits
        ]
        natural = max((field.align for field in fields), default=1)
        packed = composite.size % natural != 0 or any(map(_misplaced, fields))
        align = 1 if packed else natural
        lay = _union if composite.is_union else _struct
        items = tuple(lay(composite, fields, align, packed=packed))
        return Plan(packed, items, Extent(composite.size, align))

    def _field(self, composite: bpf.Composite, index: int, member: bpf.Member) -> Field:
        below = self._types.below(member.type_id)
        start, bits = member.bit_offset, member.bits
        if (
            not bits
            and isinstance(below, bpf.Int)
            and (below.offset or below.bits != below.size * 8)
        ):
            start, bits = start + below.offset, below.bits or below.size * 8  # as before LLVM 8
        if bits:
            plain, align = self._bitfield(self._types.strip(member.type_id), bits)
            end = start + bits
        else:
            extent = self.extent(member.type_id)
            plain, align, end = "", extent.align, start + extent.size * 8
        if start % 8 and not bits:
            raise BtfError(f"{composite.name}: {member.name} is at bit {start}, but no bitfield")
        if end > composite.size * 8:
            raise BtfError(f"{composite.name}: {member.name} ends outside of it")
        return Field(index, member.name, member.type_id, bits, plain, start, end, align)

    def _bitfield(self, below: int, bits: int) -> tuple[str, int]:
        """The plain integer that a bitfield needs, if any, and the alignment of its type."""
        match self._types[below]:
            case bpf.Enum(size=size, signed=signed) if bits <= size * 8:
                form = self.enumeration(below)
                signed = signed or any(value < 0 for _name, value in form.values)
                return "" if form.signed == signed else integer(size, signed=signed), size
            case bpf.Int(size=size, signed=signed, is_bool=is_bool) as number if bits <= size * 8:
                base_type(number)
                if size in UNSIGNED and not (is_bool and size == 1 and bits > 1):
                    return "", size
                size = next(least for least in UNSIGNED if least >= size)
                return integer(size, signed=signed), size
        raise BtfError(f"a bitfield of {bits} bits in type {below}, which has no room for it")


def _misplaced(field: Field) -> bool:
    """Whether C would not put the field there of itself, whatever comes before it."""
    unit = field.align * 8
    return field.start % unit + field.bits > unit if field.bits else field.start % unit != 0


def _struct(
    composite: bpf.Composite, fields: list[Field], align: int, *, packed: bool
) -> Iterator[Field | Padding]:
    at = 0
    unit = 64 if packed or not fields else min(align * 8, 64)
    for field in fields:
        if field.start < at:
            raise BtfError(f"{composite.name}: {field.name} begins before the last member ends")
        if field.start != _natural(field, at, packed=packed):
            yield from _padding(at, field.start, unit)
        yield field
        at = field.end
    end = composite.size * 8
    if _round(at, align * 8) != end:
        yield from _padding(at, end, unit)


def _natural(field: Field, at: int, *, packed: bool) -> int:
    """Where C puts a field after one that ends at bit `at`."""
    if packed:
        return at if field.bits else _round(at, 8)
    unit = field.align * 8
    return at if field.bits and at % unit + field.bits <= unit else _round(at, unit)


def _union(
    composite: bpf.Composite, fields: list[Field], align: int, *, packed: bool
) -> Iterator[Field | Padding]:
    for field in fields:
        if field.start:
            raise BtfError(f"{composite.name}: {field.name} is not at the union's beginning")
        yield field
    end = max((field.end for field in fields), default=0)
    if _round(end, align * 8) != composite.size * 8:
        yield Padding("", 0, composite.size)


def _padding(start: int, end: int, unit: int) -> Iterator[Padding]:
    """Fills the bits from `start` to `end`, with bitfields of at most `unit` bits that cross no
    boundary of their types. (They do not align the struct, but with AArch64, where they must not
    be more aligned than it is.)"""
    if -(-end // unit) - start // unit > _PADDINGS:
        first, last = _round(start, 8), end // 8 * 8
        yield from _padding(start, first, 8)
        yield Padding("", 0, (last - first) // 8)
        start = last
    while start < end:
        stop = min(end, start // unit * unit + unit)
        size = next(
            size for size in (1, 2, 4, 8) if start // (size * 8) == (stop - 1) // (size * 8)
        )
        yield Padding(UNSIGNED[size], stop - start)
        start = stop


def _round(number: int, unit: int) -> int:
    return -(-number // unit) * unit
