"""BTF types to codecs."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.text import floats
from fusefs.text.addresses import Ipv4, Ipv6
from fusefs.text.arrays import Array
from fusefs.text.codec import Codec
from fusefs.text.composite import Composite, Part, Struct, Union
from fusefs.text.decoded import Types
from fusefs.text.longdouble import LongDouble, layout_of
from fusefs.text.scalars import Bitfield, Bool, Enumeration, Integer, Number, Pointer
from fusefs.text.spelling import type_name
from fusefs.text.strings import CharArray, Raw

__all__ = ["compile_codec", "raw_codec", "type_name"]

MAX_SIZE = 64 << 20  # bytes of a value
MAX_WEIGHT = 1 << 20  # scalars of a value: about a second's work
MAX_MEMBERS = bpf.MAX_MEMBERS  # of all structs, unions, enums and sections of a type; a long name
_LONG_NAME = 64  # counts as several: it is in every text
MAX_DEPTH = 32  # kernel/bpf/btf.c: MAX_RESOLVE_DEPTH
POINTER_SIZE = 8  # in BPF programs, whatever the kernel's

# Structs that the kernel keeps for itself: lookups give zeros for them, updates leave them alone
# (kernel/bpf/btf.c, btf_get_field_type).
SPECIAL_STRUCTS = frozenset(
    {
        "bpf_list_head",
        "bpf_list_node",
        "bpf_rb_node",
        "bpf_rb_root",
        "bpf_refcount",
        "bpf_res_spin_lock",
        "bpf_spin_lock",
        "bpf_task_work",
        "bpf_timer",
        "bpf_wq",
    }
)
# Tags on what a pointer points to, that make the pointer such a field (same place; `kptr_ref` up to
# Linux 6.3).
SPECIAL_TAGS = frozenset({"kptr", "kptr_ref", "kptr_untrusted", "percpu_kptr", "uptr"})
_BIG_ENDIAN = {"__be16": 2, "__be32": 4, "__be64": 8}
_ADDRESSES: dict[tuple[str, int], type[Ipv4 | Ipv6]] = {
    ("in_addr", 4): Ipv4,
    ("in6_addr", 16): Ipv6,
}


def compile_codec(btf: Btf, type_id: int) -> Codec:
    """The codec of a type. Raises `BtfError` when the type is malformed, or beyond all bounds."""
    return _Compiler(btf).codec(type_id, 0)


def raw_codec(size: int) -> Codec:
    """The codec of `size` bytes without a type: see `Raw` for what can be written."""
    return Raw(size)


class _Compiler:
    """Compiles types of one blob, each once."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._types = Types(btf)
        self._codecs: dict[int, Codec] = {}
        self._members = 0

    def codec(self, type_id: int, depth: int) -> Codec:
        if depth > MAX_DEPTH:
            raise BtfError(f"type {type_id} is nested more than {MAX_DEPTH} deep, or within itself")
        if type_id not in self._codecs:
            codec = self._compile(type_id, depth + 1)
            if codec.size > MAX_SIZE or codec.weight > MAX_WEIGHT:
                raise BtfError(f"type {type_id}, {codec.name}, is too large")
            if codec.depth > MAX_DEPTH:
                raise BtfError(f"type {type_id}, {codec.name}, is nested too deep")
            self._codecs[type_id] = codec
        return self._codecs[type_id]

    def _compile(self, type_id: int, depth: int) -> Codec:
        match self._types[type_id]:
            case bpf.Alias(kind, name, target):
                return self._alias(kind, name, target, depth)
            case bpf.Int() as integer:
                return _integer(integer)
            case bpf.Float(name, size):
                return _floating(name, size)
            case bpf.Pointer(target):
                return self._pointer(type_id, target)
            case bpf.Enum(size=size, signed=signed, values=values):
                if size not in (1, 2, 4, 8):
                    raise BtfError(f"enum of {size} bytes")
                self._count(label for label, _value in values)
                name = type_name(self._btf, type_id)
                return Enumeration(name, size, signed=signed, values=values)
            case bpf.Array(element, count):
                return self._array(type_name(self._btf, type_id), element, count, depth)
            case bpf.Composite() as composite:
                return self._composite(type_id, composite, depth)
            case bpf.Variable(type_id=target):
                return self.codec(target, depth)
            case bpf.DataSection() as section:
                return self._section(section, depth)
        raise BtfError(f"type {type_id}, {type_name(self._btf, type_id)}, has no values")

    def _count(self, names: Iterable[str]) -> None:
        self._members += sum(1 + len(name) // _LONG_NAME for name in names)
        if self._members > MAX_MEMBERS:
            raise BtfError(f"the type has more than {MAX_MEMBERS} members in all")

    def _alias(self, kind: Kind, name: str, target: int, depth: int) -> Codec:
        codec = self.codec(target, depth)
        if kind != Kind.TYPEDEF:
            return codec
        if isinstance(codec, Integer) and codec.size == _BIG_ENDIAN.get(name):
            return Integer(name, codec.size, signed=False, order="big")
        named = copy.copy(codec)  # reasons speak of the type as its users call it
        named.name = name
        return named

    def _pointer(self, type_id: int, target: int) -> Codec:
        name = type_name(self._btf, type_id)
        match self._types[target]:
            case bpf.Alias(Kind.TYPE_TAG, tag) if tag in SPECIAL_TAGS:
                return Struct(name, POINTER_SIZE, ())
        return Pointer(name, POINTER_SIZE)

    def _array(self, name: str, element_id: int, count: int, depth: int) -> Codec:
        element = self.codec(element_id, depth)
        below = self._types.below(element_id)
        if isinstance(below, bpf.Int) and below.name == "char" and below.size == 1:
            return CharArray(count)
        if max(element.size, element.shows) * count > MAX_SIZE:
            raise BtfError(f"{name} is too large")
        if element.shows and element.weight * count > MAX_WEIGHT // 2:
            return Raw(element.size * count, name)  # all else in the value is shown by its type
        return Array(element, count, name)

    def _composite(self, type_id: int, composite: bpf.Composite, depth: int) -> Codec:
        name = type_name(self._btf, type_id)
        if not composite.is_union and composite.name in SPECIAL_STRUCTS:
            return Struct(name, composite.size, ())
        address = _ADDRESSES.get((composite.name, composite.size))
        if address and not composite.is_union:
            return address(name)
        self._count(member.name for member in composite.members)
        parts = [self._member(name, composite, member, depth) for member in composite.members]
        kind = Union if composite.is_union else Struct
        return kind(name, composite.size, _shown(parts))

    def _member(self, name: str, composite: bpf.Composite, member: bpf.Member, depth: int) -> Part:
        codec = self.codec(member.type_id, depth)
        below = self._types.below(member.type_id)
        first, bits = member.bit_offset, member.bits
        if isinstance(below, bpf.Int) and isinstance(codec, Bitfield) and not bits:
            first, bits = first + below.offset, below.bits
        if bits:
            part = self._bitfield(member.name, composite.size, below, codec, first, bits)
        elif first % 8:
            raise BtfError(f"{name}: {member.name} is at bit {first}, but is no bitfield")
        else:
            part = Part(member.name, first // 8, codec)
        if part.end > composite.size:
            raise BtfError(f"{name}: {member.name} ends outside of it")
        return part

    def _bitfield(
        self, name: str, size: int, below: bpf.Type, codec: Codec, first: int, bits: int
    ) -> Part:
        """The member `bits` bits wide, `first` bits into a struct of `size` bytes."""
        number = codec.whole if isinstance(codec, Bitfield) else codec
        if isinstance(below, bpf.Int):  # a bitfield has no byte order, whatever its typedef says
            number = _number(below)
        if not isinstance(number, Number) or bits > number.size * 8:
            raise BtfError(f"a bitfield of {bits} bits in {codec.name}")
        # Bitfields of one storage unit are read from it together.
        unit = number.size * 8
        start = first // unit * unit
        if first + bits > start + unit or start + unit > size * 8:
            start, unit = first // 8 * 8, (first % 8 + bits + 7) // 8 * 8
        return Part(name, start // 8, Bitfield(number, unit // 8, first - start, bits))

    def _section(self, section: bpf.DataSection, depth: int) -> Codec:
        parts = []
        for type_id, offset, size in section.variables:
            variable = self._types[type_id]
            if not isinstance(variable, bpf.Variable):
                continue  # a function, in the sections of kernel symbols
            self._count([variable.name])
            part = Part(variable.name, offset, self._variable(variable, size, depth))
            if part.end > section.size:
                raise BtfError(f"{section.name}: {variable.name} ends outside of it")
            parts.append(part)
        return Struct(section.name, section.size, _shown(parts))

    def _variable(self, variable: bpf.Variable, size: int, depth: int) -> Codec:
        below = self._types.below(variable.type_id)
        if isinstance(below, bpf.Void | bpf.Forward | bpf.Function | bpf.Prototype):
            return Raw(size, type_name(self._btf, variable.type_id))
        codec = self.codec(variable.type_id, depth)
        if (
            size > codec.size
            and isinstance(codec, Struct)
            and isinstance(below, bpf.Composite)
            and below.members
        ):
            return self._extended(below, codec, size, depth)
        return codec

    def _extended(self, composite: bpf.Composite, codec: Codec, size: int, depth: int) -> Codec:
        """A struct that ends in a flexible array, as a variable of `size` bytes has it: of such a
        struct the type alone does not tell how many elements there are."""
        *members, last = composite.members
        flexible = self._types.below(last.type_id)
        if not isinstance(flexible, bpf.Array) or flexible.count:
            return codec
        element, start = self.codec(flexible.element, depth), last.bit_offset // 8
        count = (size - start) // element.size if element.size else 0
        array = self._array(f"{element.name}[{count}]", flexible.element, count, depth)
        parts = [self._member(codec.name, composite, member, depth) for member in members]
        return Struct(codec.name, size, _shown([*parts, Part(last.name, start, array)]))


def _number(integer: bpf.Int) -> Number:
    """The codec of all bits of an integer."""
    if not 1 <= integer.size <= 16 or not integer.bits:
        raise BtfError(f"{integer.name}: an integer of {integer.size} bytes, {integer.bits} bits")
    if integer.offset + integer.bits > integer.size * 8:
        raise BtfError(f"{integer.name}: {integer.bits} bits at {integer.offset} are outside of it")
    if integer.is_bool and integer.size == 1:
        return Bool(integer.name)
    return Integer(integer.name, integer.size, signed=integer.signed)


def _floating(name: str, size: int) -> Codec:
    if size in floats.SIZES:
        return floats.Float(name, size)
    layout = layout_of(size)
    return LongDouble(name, size, layout) if layout else Raw(size, name)


def _integer(integer: bpf.Int) -> Codec:
    number = _number(integer)
    if integer.bits == integer.size * 8:
        return number
    return Bitfield(number, integer.size, integer.offset, integer.bits)


def _shown(parts: Iterable[Part]) -> list[Part]:
    """Those of `parts` that are shown, under names that differ.

    A struct or union without a name lends its members to its parent; where their names are taken,
    and for anything else without a name, it becomes `anon0` and so on.
    """
    shown: list[Part] = []
    numbers: Counter[str] = Counter()
    taken = {part.name for part in parts if part.name}
    seen: set[str] = set()
    for part in parts:
        if not part.codec.shows:
            continue
        name = part.name
        if not name and not (
            isinstance(part.codec, Composite) and taken.isdisjoint(part.codec.names)
        ):
            name = _free("anon", taken, numbers)
        elif name in seen:
            name = _free(f"{name}_", taken, numbers)
        renamed = Part(name, part.offset, part.codec)
        taken.update(renamed.names)
        seen.update(renamed.names)
        shown.append(renamed)
    return shown


def _free(stem: str, taken: set[str], numbers: Counter[str]) -> str:
    """`stem` and the next number that makes a name which is not taken."""
    while True:
        name = f"{stem}{numbers[stem]}"
        numbers[stem] += 1
        if name not in taken:
            return name
