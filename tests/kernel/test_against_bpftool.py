"""Values of maps as bpftool shows them, and as we do: every difference has a reason.

Programs are compiled, their maps are filled, and `bpftool map dump` and the codecs are given the
same bytes. Both read the same BTF, but neither knows of the other. `Comparison` walks both values
by their type; where they are not equal, one of `RULES` or `SHAPES` must say why, or it is an error.

What bpftool does is in tools/bpf/bpftool/btf_dumper.c and json_writer.c of the kernel; it was
looked up there, and tried out with version 7.1.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import cast

import pytest
from support.maps import dump
from support.mounting import mounted_bpffs
from support.network import compile_program
from support.shell import checked

from fusefs.bpf import btf as bpf
from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from fusefs.text.codec import Codec
from fusefs.text.value import to_text
from fusefs.tree.map_view import MapView

SEED = 20261122
ENTRIES = 48  # in each hash; the maps have room for 64
FLOATS = {"floats", "doubles"}  # maps of which bpftool makes no JSON


class Members(list[tuple[str, object]]):
    """An object of bpftool's: its members in order. Those without a name are called ""."""


ABSENT = object()  # what we say of a member that we do not show


def scalars(value: object) -> Iterator[object]:
    """All scalars in a value of bpftool's."""
    if isinstance(value, Members):
        for _name, inner in value:
            yield from scalars(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from scalars(inner)
    else:
        yield value


@dataclass(frozen=True)
class Place:
    """What a value is: its type without typedefs and qualifiers, the names of the typedefs, and
    the bits that it has if it is a bitfield."""

    btf: Btf
    type: bpf.Type
    names: tuple[str, ...] = ()
    bits: int = 0

    @classmethod
    def of(cls, btf: Btf, type_id: int, bits: int = 0) -> Place:
        """The place of a value of type `type_id`."""
        names = []
        while isinstance(target := btf.type(type_id), bpf.Alias):
            if target.kind == Kind.TYPEDEF:
                names.append(target.name)
            type_id = target.target
        if isinstance(target, bpf.Int) and target.bits < target.size * 8 and not bits:
            bits = target.bits
        return cls(btf, target, tuple(names), bits)

    @property
    def size(self) -> int:
        """The size of an integer or enumeration, in bytes; 0 for anything else."""
        return self.type.size if isinstance(self.type, bpf.Int | bpf.Enum) else 0

    @property
    def element(self) -> Place | None:
        """The place of an array's elements."""
        return Place.of(self.btf, self.type.element) if isinstance(self.type, bpf.Array) else None

    @property
    def holds_text(self) -> bool:
        """Whether it is an array of char."""
        below = self.element.type if self.element else None
        return isinstance(below, bpf.Int) and (below.name, below.size) == ("char", 1)

    def enumerators(self, name: object) -> list[int]:
        """The values of the enumerators of this name."""
        values = self.type.values if isinstance(self.type, bpf.Enum) else ()
        return [value for label, value in values if label == name]


def congruent(one: object, other: object, bits: int) -> bool:
    """Whether two numbers have the same lowest `bits` bits."""
    return isinstance(one, int) and isinstance(other, int) and (one - other) % (1 << bits) == 0


def from_hex(text: object) -> int | None:
    """The number in bpftool's hexadecimal string, or None when it is no such string."""
    if isinstance(text, str) and re.fullmatch("0x[0-9a-f]+", text):
        return int(text, 16)
    return None


def number(place: Place, ours: object) -> int | None:
    """The number that we show, or None where that is not how to show a number of this type."""
    target, bits = place.type, place.bits or place.size * 8
    is_bool = isinstance(target, bpf.Int) and target.is_bool
    if isinstance(ours, str):
        return next(iter(place.enumerators(ours)), None)
    if not isinstance(ours, int) or not isinstance(target, bpf.Int | bpf.Enum):
        return None
    if is_bool != isinstance(ours, bool):
        return None  # where it is 2 or more, `odd_bool` has it
    if isinstance(target, bpf.Enum) and any(congruent(v, ours, bits) for _, v in target.values):
        return None  # there is a name for it
    low, high = (-(1 << bits - 1), 1 << bits - 1) if target.signed else (0, 1 << bits)
    return ours if low <= ours < high else None


def is_text(data: bytes) -> bool:
    """Whether the bytes are UTF-8 that nothing but NULs follows."""
    text, _nul, rest = data.partition(b"\0")
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return not any(rest)


def text_bytes(place: Place, value: object) -> bytes | None:
    """The bytes of a char array, from a string that is filled up with NULs or from numbers."""
    assert isinstance(place.type, bpf.Array)
    if isinstance(value, str):
        return value.encode().ljust(place.type.count, b"\0")
    if not isinstance(value, list):
        return None
    numbers = [ord(each) if isinstance(each, str) else each for each in value]
    return bytes(each % 256 for each in numbers)


# The predicates of `RULES`, where each one's meaning is told.


def hidden(place: Place, ours: object, theirs: object) -> bool:
    target = place.type
    if isinstance(target, bpf.Pointer):
        tag = place.btf.type(target.target)
        kept = isinstance(tag, bpf.Alias) and tag.kind == Kind.TYPE_TAG and tag.name == "kptr"
    else:
        kept = isinstance(target, bpf.Composite) and target.name in ("bpf_spin_lock", "bpf_timer")
    return ours is ABSENT and kept and not any(scalars(theirs))


def empty(place: Place, ours: object, theirs: object) -> bool:
    return ours is ABSENT and isinstance(theirs, list) and list(scalars(theirs)) == []


def address(place: Place, ours: object, theirs: object) -> bool:
    if not isinstance(place.type, bpf.Composite) or not isinstance(theirs, Members):
        return False
    match place.type.name, theirs:
        case "in_addr", [("s_addr", int(number))]:
            data = number.to_bytes(4, sys.byteorder)
            return ours == ".".join(str(byte) for byte in data)
        case "in6_addr", [("in6_u", [("u6_addr8", list(numbers)), *_others])]:
            groups = struct.unpack("!8H", bytes(cast(list[int], numbers)))
            return isinstance(ours, str) and groups == ipv6_groups(ours)
    return False


def ipv6_groups(text: str) -> tuple[int, ...]:
    """The eight numbers of an IPv6 address, the last two of which may be written as IPv4's."""
    if "." in text:
        text, _colon, dotted = text.rpartition(":")
        high, low = struct.unpack("!2H", bytes(int(part) for part in dotted.split(".")))
        text += f":{high:x}:{low:x}"
    left, _gap, right = text.partition("::")
    before, after = (
        [int(group, 16) for group in part.split(":") if group] for part in (left, right)
    )
    return (*before, *[0] * (8 - len(before) - len(after)), *after)


def network_order(place: Place, ours: object, theirs: object) -> bool:
    if not {"__be16", "__be32", "__be64"} & {*place.names} or not isinstance(theirs, int):
        return False
    return ours == int.from_bytes(theirs.to_bytes(place.size, sys.byteorder), "big")


def pointer(place: Place, ours: object, theirs: object) -> bool:
    return (
        isinstance(place.type, bpf.Pointer) and isinstance(theirs, int) and ours == f"{theirs:#x}"
    )


def int128(place: Place, ours: object, theirs: object) -> bool:
    wide = place.size == 16 and not place.bits
    return wide and congruent(number(place, ours), from_hex(theirs), 128)


def bitfield(place: Place, ours: object, theirs: object) -> bool:
    return place.bits > 0 and congruent(number(place, ours), from_hex(theirs), place.bits)


def odd_bool(place: Place, ours: object, theirs: object) -> bool:
    boolean = isinstance(place.type, bpf.Int) and place.type.is_bool
    return boolean and type(ours) is int and ours > 1 and theirs is True


def enum_number(place: Place, ours: object, theirs: object) -> bool:
    if not isinstance(place.type, bpf.Enum) or isinstance(ours, str):
        return False
    return congruent(number(place, ours), theirs, place.size * 8)


def enum_missed(place: Place, ours: object, theirs: object) -> bool:
    values = place.enumerators(ours)
    return any(congruent(value, theirs, place.size * 8) for value in values)


def enum_cut(place: Place, ours: object, theirs: object) -> bool:
    values = [value - (value >> 31 << 32) for value in place.enumerators(theirs)]
    return place.size == 8 and any(congruent(ours, value, 64) for value in values)


def text_as_numbers(place: Place, ours: object, theirs: object) -> bool:
    if not place.holds_text or not isinstance(theirs, list) or not isinstance(ours, str):
        return False
    return text_bytes(place, ours) == text_bytes(place, theirs)


def signed_numbers(place: Place, ours: object, theirs: object) -> bool:
    if not place.holds_text or not isinstance(theirs, list) or not isinstance(ours, list):
        return False
    return text_bytes(place, theirs) == bytes(ours) and not is_text(bytes(ours))


def after_nul(place: Place, ours: object, theirs: object) -> bool:
    if not place.holds_text or not isinstance(theirs, str) or not isinstance(ours, list):
        return False
    visible = bytes(ours).partition(b"\0")[0].decode("latin-1")
    return not is_text(bytes(ours)) and theirs in (visible, visible.replace("\\", "\n"))


def backslash(place: Place, ours: object, theirs: object) -> bool:
    return place.holds_text and isinstance(ours, str) and theirs == ours.replace("\\", "\n")


def character(place: Place, ours: object, theirs: object) -> bool:
    char = isinstance(place.type, bpf.Int) and place.type.is_char
    return char and isinstance(theirs, str) and len(theirs) == 1 and congruent(ours, ord(theirs), 8)


@dataclass(frozen=True)
class Rule:
    """Why two values that are not equal mean the same; `explains` tells for which that is so.

    A `lossy` one cannot tell all values apart. One that is not `certain` is about a mistake that
    other versions of bpftool, or other compilers, do not make.
    """

    explains: Callable[[Place, object, object], bool]
    why: str
    lossy: bool = False
    certain: bool = True

    @property
    def name(self) -> str:
        return self.explains.__name__


RULES = [
    Rule(hidden, "We do not show what the kernel keeps for itself; lookups give zeros for it."),
    Rule(empty, "We do not show members without contents: arrays of no elements, empty structs."),
    Rule(address, "We show in_addr and in6_addr as addresses, bpftool as the structs they are."),
    Rule(network_order, "We show __be types as numbers of this host, bpftool their raw bytes."),
    Rule(pointer, "We show pointers in hexadecimal, bpftool in decimal."),
    Rule(int128, "bpftool shows integers of 128 bits in hexadecimal, and without a sign."),
    Rule(bitfield, "bpftool shows the bits of bitfields in hexadecimal, of whatever type."),
    Rule(odd_bool, "We show a bool's byte that is not 0 or 1, bpftool says true.", lossy=True),
    Rule(enum_number, "bpftool takes all enumerations for signed, we those that are."),
    Rule(enum_missed, "bpftool misses enumerators whose sign bit is set, in 1, 2 and 8 bytes."),
    Rule(
        enum_cut,
        "LLVM 14 describes an enum of 8 bytes with the lowest 32 bits of its values, which bpftool"
        " takes for signed and we take for unsigned.",
        certain=False,
    ),
    Rule(
        text_as_numbers,
        "bpftool shows a char array as a string only if it is ASCII without control characters,"
        " a NUL follows, and its elements are no typedef.",
    ),
    Rule(
        signed_numbers, "The numbers of a char array are from 0 to 255 with us; bpftool's signed."
    ),
    Rule(after_nul, "bpftool leaves out what follows a NUL, we show it as numbers.", lossy=True),
    Rule(backslash, "bpftool up to 7.1 writes a backslash as \\n.", certain=False),
    Rule(character, "bpftool shows an integer that is marked as char as a string, we as a number."),
]

# Differences in shape, which the walk itself explains.
SHAPES = {
    "anonymous": 'bpftool gives a struct or union without a name the name "", we its members to'
    " the struct that it is in.",
    "section": "bpftool shows a data section as an array of objects of one variable each, under"
    " the section's name; we show one object.",
    "no_key": "bpftool shows no key of a map without a type for keys; we show the index.",
    "per_cpu": "bpftool shows the number of the CPU beside each value of a per-CPU map; we show"
    " them in order.",
}


@dataclass
class Comparison:
    """What was compared: the differences by the rule that explains them, and those that no rule
    does."""

    explained: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    equal: Counter[str] = field(default_factory=Counter)
    types: set[str] = field(default_factory=set)

    def fail(self, path: str, ours: object, theirs: object) -> None:
        """Note a difference without a reason."""
        self.unexplained.append(f"{path}: ours {ours!r}, theirs {theirs!r}")

    def key(self, name: str, typed: Typed, data: bytes, formatted: Members) -> None:
        """Compare what we make of a key with what is in an entry of bpftool's."""
        type_id = typed.map.info.btf_key_type_id
        ours, parts = shown(typed.view.key, data), dict(formatted)
        if type_id:
            self.value(f"{name} key", typed.place(type_id), ours, parts["key"])
        else:
            assert "key" not in parts
            assert ours == int.from_bytes(data, sys.byteorder)
            self.explained["no_key"] += 1

    def entry(self, name: str, typed: Typed, data: bytes, formatted: Members) -> None:
        """Compare what we make of a value with what is in an entry of bpftool's."""
        place = typed.place(typed.map.info.btf_value_type_id)
        ours, parts = shown(typed.view.value, data), dict(formatted)
        if not typed.map.per_cpu:
            self.value(name, place, ours, parts["value"])
            return
        self.explained["per_cpu"] += 1
        given = [dict(each) for each in cast(list[Members], parts["values"])]
        assert [each["cpu"] for each in given] == list(range(possible_cpus()))
        assert isinstance(ours, list) and len(ours) == len(given)
        for our, their in zip(ours, given, strict=True):
            self.value(f"{name} CPU {their['cpu']}", place, our, their["value"])

    def value(self, path: str, place: Place, ours: object, theirs: object) -> None:
        """Compare two values of the same type."""
        match place.type:
            case bpf.Array() if isinstance(ours, list) and not place.holds_text:
                self.array(path, place, ours, theirs)
            case bpf.Composite() if isinstance(ours, dict):
                self.composite(path, place, ours, theirs)
            case bpf.DataSection() if isinstance(ours, dict):
                self.section(path, place, ours, theirs)
            case _:
                self.scalar(path, place, ours, theirs)

    def array(self, path: str, place: Place, ours: list[object], theirs: object) -> None:
        """Compare arrays."""
        if not isinstance(theirs, list) or len(ours) != len(theirs):
            self.fail(path, ours, theirs)
            return
        assert place.element is not None
        for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            self.value(f"{path}[{index}]", place.element, our, their)

    def composite(self, path: str, place: Place, ours: dict[str, object], theirs: object) -> None:
        """Compare structs or unions; all that we show must be accounted for."""
        left = dict(ours)
        self.members(path, place, left, theirs)
        if left:
            self.fail(path, left, ABSENT)

    def members(self, path: str, place: Place, left: dict[str, object], theirs: object) -> None:
        """Compare the members of a struct or union with those of ours that are `left`, and take
        them from it."""
        assert isinstance(place.type, bpf.Composite)
        members = place.type.members
        names = [name for name, _ in theirs] if isinstance(theirs, Members) else None
        if not isinstance(theirs, Members) or names != [member.name for member in members]:
            self.fail(path, left, theirs)
            return
        for member, (_name, their) in zip(members, theirs, strict=True):
            inner = Place.of(place.btf, member.type_id, member.bits)
            if not member.name:
                self.explained["anonymous"] += 1
                self.members(path, inner, left, their)
            else:
                our = left.pop(member.name, ABSENT)
                self.value(f"{path}.{member.name}", inner, our, their)

    def section(self, path: str, place: Place, ours: dict[str, object], theirs: object) -> None:
        """Compare data sections."""
        self.explained["section"] += 1
        assert isinstance(place.type, bpf.DataSection)
        match theirs:
            case [(str(name), list(variables))] if name == place.type.name:
                given = [pair for variable in cast(list[Members], variables) for pair in variable]
            case _:
                given = []
        if [name for name, _ in given] != list(ours):
            self.fail(path, ours, theirs)
            return
        for (type_id, _offset, _size), (name, their) in zip(
            place.type.variables, given, strict=True
        ):
            variable = place.btf.type(type_id)
            assert isinstance(variable, bpf.Variable)
            self.value(f"{path}.{name}", Place.of(place.btf, variable.type_id), ours[name], their)

    def scalar(self, path: str, place: Place, ours: object, theirs: object) -> None:
        """Compare what is equal, or different for a reason."""
        self.types.add(f"{type(place.type).__name__} {getattr(place.type, 'name', '')}".strip())
        if type(ours) is type(theirs) and ours == theirs:
            self.equal[type(ours).__name__] += 1
            return
        reasons = [rule.name for rule in RULES if rule.explains(place, ours, theirs)]
        self.explained.update(reasons)
        if not reasons:
            self.fail(path, ours, theirs)


@dataclass(frozen=True)
class Typed:
    """A map with its types, and its codecs."""

    map: Map
    btf: Btf
    view: MapView

    @classmethod
    def of(cls, bpf_map: Map) -> Typed:
        """The types of a map."""
        assert bpf_map.info.btf_value_type_id
        with BtfObject.from_id(bpf_map.info.btf_id) as btf:
            return cls(bpf_map, btf.parse(), MapView(bpf_map))

    def place(self, type_id: int) -> Place:
        """The place of a key or value."""
        return Place.of(self.btf, type_id)


def shown(codec: Codec, data: bytes) -> object:
    """What our text says, read by a strict reader."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return cast(object, json.loads(to_text(codec, data), object_pairs_hook=unique))


@dataclass(frozen=True)
class Theirs:
    """The entries that bpftool shows, by their keys: the bytes of the value, and what it makes of
    key and value."""

    raw: dict[bytes, bytes]
    formatted: dict[bytes, Members]


def bpftool(bpf_map: Map) -> str:
    """What bpftool dumps of a map."""
    return checked("bpftool", "-j", "map", "dump", "id", str(bpf_map.info.id))


def their_entries(bpf_map: Map) -> Theirs:
    """The entries that bpftool dumps."""
    text = bpftool(bpf_map)
    try:
        entries = json.loads(text, object_pairs_hook=Members)
    except json.JSONDecodeError:
        # Up to version 7.1 it writes ' as \', which is no JSON, and \ never as \\.
        entries = json.loads(text.replace("\\'", "'"), object_pairs_hook=Members)
    raw, formatted = {}, {}
    for entry in entries:
        parts = dict(entry)
        key = bytes(int(byte, 16) for byte in parts["key"])
        if bpf_map.per_cpu:
            each = [bytes(int(byte, 16) for byte in dict(cpu)["value"]) for cpu in parts["values"]]
            raw[key] = b"".join(part.ljust(len(part) + 7 & ~7, b"\0") for part in each)
        else:
            raw[key] = bytes(int(byte, 16) for byte in parts["value"])
        formatted[key] = parts["formatted"]
    assert len(raw) == len(entries)
    return Theirs(raw, formatted)


CHUNKS = [
    b"ab\0\0",
    b"abcd",
    b"\xc3\xa9\0\0",
    b"a'b\0",
    b"c\\d\0",
    b'"\0\0\0',
    b"\t\0\0\0",
    bytes(4),
]
NUMBERS = [0, 1, 2, 5, 127, 200, 1000, 40000, 1 << 31, (1 << 32) - 1, -1, -128]


def contents(random: Random, size: int) -> bytes:
    """Bytes for a value: noise, text, one byte again and again, or telling numbers."""
    if size <= 8 and random.randrange(2):
        return (random.choice(NUMBERS) % (1 << size * 8)).to_bytes(size, sys.byteorder)
    match random.randrange(6):
        case 0:
            return random.randbytes(size)
        case 1:
            return bytes(random.choices(b"az'\\\"~ \0\0\0", k=size))
        case 2:
            return b"".join(random.choices(CHUNKS, k=size // 4 + 1))[:size]
        case 3:
            return bytes([random.choice(b"\x00\xff\x01\x80\x7f")]) * size
    width = random.choice([1, 2, 4, 8])
    numbers = random.choices(NUMBERS, k=size // width + 1)
    wrapped = (number % (1 << width * 8) for number in numbers)
    return b"".join(number.to_bytes(width, sys.byteorder) for number in wrapped)[:size]


# bpftool's JSON is broken by a quote or a backslash that is an integer marked as char.
NO_QUOTES = bytes.maketrans(b'"\\', b"qb")


def fill(name: str, bpf_map: Map) -> None:
    """Put entries into a map, all that an array has."""
    random = Random(f"{SEED} {name}")
    size: int = bpf_map.info.value_size
    parts = possible_cpus() if bpf_map.per_cpu else 1
    if bpf_map.info.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        indices = range(bpf_map.info.max_entries)
        keys = [index.to_bytes(4, sys.byteorder) for index in indices]
    else:
        many = (contents(random, bpf_map.key_size) for _ in range(8 * ENTRIES))
        keys = list(dict.fromkeys(many))[:ENTRIES]
    for key in keys:
        each = [contents(random, size).ljust(bpf_map.stride // parts, b"\0") for _ in range(parts)]
        value = b"".join(each)
        bpf_map.update(key, value.translate(NO_QUOTES) if name == "characters" else value)


def pinned_maps(directory: Path) -> Iterator[tuple[str, Map]]:
    """The maps that are pinned in a directory."""
    opened = Directory(str(directory))
    for listed in opened.list():
        assert listed.stat is not None
        bpf_map = opened.open_pin(listed.name, listed.stat.st_ino)
        assert isinstance(bpf_map, Map)
        yield listed.name, bpf_map


def without_gaps(bpf_map: Map, value: bytes) -> bytes:
    """A value with zeros between the CPUs' values, where bpftool shows nothing."""
    if not bpf_map.per_cpu:
        return value
    size, step = bpf_map.info.value_size, bpf_map.stride // possible_cpus()
    parts = (value[at : at + size] for at in range(0, len(value), step))
    return b"".join(part.ljust(step, b"\0") for part in parts)


def built_maps() -> Iterator[tuple[str, Map]]:
    """Maps of types that LLVM 14 does not make: enumerations of 64 bits, bitfields as old compilers
    describe them, and integers that are marked as char, as GCC does it."""
    types = BtfBuilder()
    u32 = types.integer("__u32", 4)
    char = types.integer("char", 1, signed=False, char=True)
    values = [("Z", 0), ("M", 1 << 40), ("T", 0xFFFFFFFFFFFFFFFF), ("F", 0xFFFFFFFF)]
    unsigned = types.enum("unsigned64", 8, values)
    signed = types.enum("signed64", 8, [("Z", 0), ("M", -1), ("O", 1)], signed=True)
    both = types.struct("wide", 16, [("unsigned", unsigned, 0), ("signed", signed, 64)])
    old = [
        ("low", types.old_bitfield("unsigned int", 4, 0, 3, signed=False), 0),
        ("middle", types.old_bitfield("int", 4, 3, 7, signed=True), 0),
        ("whole", types.old_bitfield("int", 4, 0, 16, signed=True), 32),
        ("late", types.old_bitfield("unsigned long", 8, 0, 33, signed=False), 67),
    ]
    bits = types.struct("old_bits", 16, old)
    members = [("one", char, 0), ("text", types.array(char, 7, u32), 8)]
    characters = types.struct("characters", 8, members)
    made = {"wide_enums": (both, 16), "old_bits": (bits, 16), "characters": (characters, 8)}
    with BtfObject.load(types.build()) as btf:
        for name, (value_type, size) in made.items():
            yield (
                name,
                Map.create(
                    MapType.HASH,
                    key_size=4,
                    value_size=size,
                    max_entries=ENTRIES,
                    name=name,
                    btf=btf,
                    key_type=u32,
                    value_type=value_type,
                ),
            )


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Typed]]:
    """Maps of all types, full of entries."""
    program = compile_program("many_types", tmp_path_factory.mktemp("programs"))
    with mounted_bpffs() as path, ExitStack() as stack:
        pins = path / "maps"
        pins.mkdir()
        pinned: tuple[str | Path, ...] = (path / "program", "type", "socket", "pinmaps", pins)
        checked("bpftool", "prog", "load", program, *pinned)
        made = {name: stack.enter_context(each) for name, each in built_maps()}
        made |= {name: stack.enter_context(each) for name, each in pinned_maps(pins)}
        for name, bpf_map in sorted(made.items()):
            if not bpf_map.frozen():
                fill(name, bpf_map)
        yield {name: Typed.of(bpf_map) for name, bpf_map in made.items()}


@pytest.fixture(scope="module")
def dumps(maps: dict[str, Typed]) -> dict[str, Theirs]:
    """What bpftool makes of those maps of which it makes JSON."""
    return {name: their_entries(typed.map) for name, typed in maps.items() if name not in FLOATS}


@pytest.fixture(scope="module")
def comparison(maps: dict[str, Typed], dumps: dict[str, Theirs]) -> Comparison:
    """Everything, compared."""
    comparison = Comparison()
    for name, theirs in dumps.items():
        typed = maps[name]
        ours = dump(typed.map)
        assert theirs.raw == {key: without_gaps(typed.map, ours[key]) for key in ours}
        for key, value in ours.items():
            comparison.key(name, typed, key, theirs.formatted[key])
            comparison.entry(name, typed, value, theirs.formatted[key])
    return comparison


def test_every_difference_is_explained(comparison: Comparison) -> None:
    assert comparison.unexplained == []


def test_every_explanation_is_needed(comparison: Comparison) -> None:
    needed = [rule.name for rule in RULES if rule.certain] + [*SHAPES]
    assert [name for name in needed if comparison.explained[name] < 3] == []
    assert {*comparison.explained} <= {rule.name for rule in RULES} | {*SHAPES}


def test_much_is_compared(
    maps: dict[str, Typed], dumps: dict[str, Theirs], comparison: Comparison
) -> None:
    assert len(dumps) == len(maps) - len(FLOATS) > 45
    assert sum(len(theirs.raw) for theirs in dumps.values()) > 1500
    assert comparison.equal["int"] > 10_000
    assert comparison.equal["str"] > 100
    assert comparison.equal["bool"] > 50
    assert len(comparison.types) > 30


def test_a_wrong_value_is_found(maps: dict[str, Typed], dumps: dict[str, Theirs]) -> None:
    """A byte that is not what bpftool was given is noticed wherever it shows in our text."""
    random = Random(SEED)
    lossy = {rule.name for rule in RULES if rule.lossy}
    found = overlooked = 0
    for name, theirs in dumps.items():
        typed = maps[name]
        for key, value in sorted(dump(typed.map).items()):
            wrong = bytearray(value)
            wrong[random.randrange(len(wrong))] ^= 1 << random.randrange(8)
            if to_text(typed.view.value, bytes(wrong)) == to_text(typed.view.value, value):
                continue  # padding, or what is hidden
            comparison = Comparison()
            comparison.entry(name, typed, bytes(wrong), theirs.formatted[key])
            if comparison.unexplained:
                found += 1
            else:
                # Where the true or the wrong value is one that bpftool does not show in full.
                comparison.entry(name, typed, value, theirs.formatted[key])
                assert lossy & {*comparison.explained}, (name, bytes(wrong), theirs.formatted[key])
                overlooked += 1
    assert found > 1000
    assert overlooked < found / 10


def test_bpftool_makes_no_json_of_floats(maps: dict[str, Typed]) -> None:
    """So what we show is held against the bytes, which bpftool shows as well."""
    compared = 0
    for name in FLOATS:
        typed = maps[name]
        text = bpftool(typed.map)
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
        assert "(unsupported-kind" in text
        entries = dump(typed.map)
        for data in entries.values():
            listed = ",".join(f'"0x{byte:02x}"' for byte in data)
            assert f'"value":[{listed}]' in text
            value = shown(typed.view.value, data)
            if isinstance(value, dict):
                assert list(value) == ["before", "single", "both", "extended", "after"]
                assert struct.unpack_from("=I", data)[0] == value["before"]
                assert float_bytes("f", value["single"]) == data[4:8]
                assert float_bytes("d", value["both"]) == data[8:16]
                assert float_bytes("d", value["extended"]) == data[16:24]
                compared += 3
            else:
                assert float_bytes("d", value) == data
                compared += 1
        assert len(entries) > 20
    assert compared > 100


def float_bytes(code: str, value: object) -> bytes:
    """The bytes of a float, from what is shown."""
    bits = from_hex(value)
    if bits is not None:
        return bits.to_bytes(struct.calcsize(f"={code}"), sys.byteorder)
    assert isinstance(value, float) or value in ("inf", "-inf", "nan")
    return struct.pack(f"={code}", float(value))
