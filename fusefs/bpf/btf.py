"""BTF: the type information that the kernel keeps for its maps, programs and itself.

A reader of BTF blobs. `Btf.parse` indexes a blob in one pass without decoding its types; a type
is decoded when it is asked for. So the kernel's own blob (about 126,000 types) costs some tens
of milliseconds, and a map's costs microseconds.

Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h in the kernel.
"""

from __future__ import annotations

import enum
import functools
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0xEB9F
KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

# Others wait while a type is decoded. The kernel takes 65535 members, and its own types have 272 at
# most; names have up to 511 bytes (KSYM_NAME_LEN in linux/kallsyms.h), tags and source lines any.
MAX_MEMBERS = 1 << 13
MAX_STRING = 1 << 12

_HEADER = struct.Struct("=HBBIIIII")


class BtfError(ValueError):
    """A blob is not well-formed BTF, or a type in it is not."""


class Kind(enum.IntEnum):
    """The kinds of BTF types (`BTF_KIND_*` in linux/btf.h)."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


# Four-byte words that follow a type's three header words: a fixed number, and a number for each
# of its `vlen` members.
_FIXED_WORDS = [0] * 32
_FIXED_WORDS[Kind.INT] = 1
_FIXED_WORDS[Kind.ARRAY] = 3
_FIXED_WORDS[Kind.VAR] = 1
_FIXED_WORDS[Kind.DECL_TAG] = 1
_MEMBER_WORDS = [0] * 32
_MEMBER_WORDS[Kind.STRUCT] = 3
_MEMBER_WORDS[Kind.UNION] = 3
_MEMBER_WORDS[Kind.ENUM] = 2
_MEMBER_WORDS[Kind.FUNC_PROTO] = 2
_MEMBER_WORDS[Kind.DATASEC] = 3
_MEMBER_WORDS[Kind.ENUM64] = 3


@dataclass(frozen=True, slots=True)
class Void:
    """No type at all: type id 0."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer of `bits` bits, `offset` bits into `size` bytes (the old bitfield encoding;
    nowadays `offset` is 0 and `bits` is 8 * `size`)."""

    name: str
    size: int
    signed: bool
    is_char: bool
    is_bool: bool
    offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number of `size` bytes."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to type id `target`."""

    target: int


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements of type id `element`."""

    element: int
    count: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union, at `bit_offset` bits; `bits` is a bitfield's width, or 0."""

    name: str
    type_id: int
    bit_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Composite:
    """A struct, or a union where `is_union`, of `size` bytes; anonymous when `name` is empty."""

    name: str
    size: int
    members: tuple[Member, ...]
    is_union: bool


@dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration of `size` bytes (ENUM and ENUM64 alike); `values` in order of declaration."""

    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Forward:
    """A struct or union that is declared but not defined."""

    name: str
    is_union: bool


@dataclass(frozen=True, slots=True)
class Alias:
    """A typedef, a qualifier (const, volatile, restrict) or a type tag over type id `target`.

    `name` is the typedef's or the tag's name, and empty for a qualifier.
    """

    kind: Kind
    name: str
    target: int


@dataclass(frozen=True, slots=True)
class Function:
    """A function whose prototype is type id `prototype`; `linkage` 0 static, 1 global, 2 extern."""

    name: str
    prototype: int
    linkage: int


@dataclass(frozen=True, slots=True)
class Prototype:
    """A function type: its result's type id, and (name, type id) of each parameter."""

    result: int
    parameters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A global variable; `linkage` as in `Function`."""

    name: str
    type_id: int
    linkage: int


@dataclass(frozen=True, slots=True)
class DataSection:
    """A data section: (type id of a `Variable`, byte offset, byte size) of each variable."""

    name: str
    size: int
    variables: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class DeclTag:
    """A tag on a declaration: on the whole of type id `target`, or on its member `component`."""

    name: str
    target: int
    component: int


Type = (
    Void
    | Int
    | Float
    | Pointer
    | Array
    | Composite
    | Enum
    | Forward
    | Alias
    | Function
    | Prototype
    | Variable
    | DataSection
    | DeclTag
)

_ALIASES = frozenset(
    {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG},
)


class Btf:
    """The types of one BTF blob, numbered from 1 (or on from those of the blob it is split from).

    Raises `BtfError` from every method when the blob turns out to be malformed.
    """

    def __init__(self, words: memoryview, strings: bytes, base: Btf | None) -> None:
        self._words = words
        self._strings = strings
        self._base = base
        self._first = len(base) if base else 1
        self._first_string: int = base._string_end if base else 0
        self._string_end: int = self._first_string + len(strings)
        self._positions = self._index()

    @classmethod
    def parse(cls, blob: bytes, base: Btf | None = None) -> Btf:
        """Index `blob`, as `BPF_OBJ_GET_INFO_BY_FD` or /sys/kernel/btf give it.

        `base` is the BTF that a split blob (a kernel module's) continues.
        """
        if len(blob) < _HEADER.size:
            raise BtfError(f"{len(blob)} bytes are too few for a BTF header")
        magic, version, _flags, header, types_at, types_len, strings_at, strings_len = (
            _HEADER.unpack_from(blob)
        )
        if magic != MAGIC:
            raise BtfError(f"magic {magic:#x} is not {MAGIC:#x}")
        if version != 1:
            raise BtfError(f"version {version} is not 1")
        types_end = header + types_at + types_len
        strings_end = header + strings_at + strings_len
        if header < _HEADER.size or max(types_end, strings_end) > len(blob) or types_len % 4:
            raise BtfError("the header points outside the blob")
        strings = blob[header + strings_at : strings_end]
        if strings and strings[-1]:
            raise BtfError("the last string does not end")
        words = memoryview(blob[header + types_at : types_end]).cast("I")
        return cls(words, strings, base)

    def _index(self) -> array[int]:
        """The position of each type, in words."""
        words, end, position = self._words, len(self._words), 0
        positions = array("I")
        append = positions.append
        while position < end:
            append(position)
            if position + 3 > end:
                raise BtfError(f"type {self._first + len(positions) - 1} is cut off")
            info = words[position + 1]
            kind = info >> 24 & 0x1F
            if kind == 0 or kind > Kind.ENUM64:
                raise BtfError(f"type {self._first + len(positions) - 1} has kind {kind}")
            position += 3 + _FIXED_WORDS[kind] + _MEMBER_WORDS[kind] * (info & 0xFFFF)
        if position != end:
            raise BtfError("the last type is cut off")
        return positions

    def __len__(self) -> int:
        """One more than the highest type id."""
        return self._first + len(self._positions)

    def _string(self, offset: int) -> str:
        if offset < self._first_string:
            if self._base is None:
                raise BtfError(f"string offset {offset} has no base")
            return self._base._string(offset)
        start = offset - self._first_string
        if start >= len(self._strings):
            if offset == 0:
                return ""
            raise BtfError(f"string offset {offset} is outside the blob")
        end = self._strings.find(0, start, start + MAX_STRING)
        text = self._strings[start : end if end >= 0 else start + MAX_STRING]
        return text.decode("utf-8", "replace")

    def string(self, offset: int) -> str:
        """The string at an offset of its strings, as the information about source lines has it;
        no more than `MAX_STRING` bytes of it."""
        return self._string(offset)

    def type(self, type_id: int) -> Type:
        """The type with this id."""
        if type_id == 0:
            return Void()
        if not 0 < type_id < len(self):
            raise BtfError(f"there is no type {type_id}")
        if type_id < self._first:
            assert self._base is not None  # a blob without a base starts at 1
            return self._base.type(type_id)
        position = self._positions[type_id - self._first]
        name_at, info, size_or_type = self._words[position : position + 3]
        kind, length, flag = Kind(info >> 24 & 0x1F), info & 0xFFFF, bool(info >> 31)
        if length > MAX_MEMBERS and _MEMBER_WORDS[kind]:
            raise BtfError(f"type {type_id} has {length} members, more than {MAX_MEMBERS}")
        body = self._words[
            position + 3 : position + 3 + _FIXED_WORDS[kind] + _MEMBER_WORDS[kind] * length
        ]
        if kind == Kind.FUNC:
            return Function(self._string(name_at), size_or_type, length)
        return self._decode(kind, self._string(name_at), size_or_type, flag, body)

    def _decode(
        self, kind: Kind, name: str, size_or_type: int, flag: bool, body: memoryview
    ) -> Type:
        match kind:
            case Kind.INT:
                encoding, offset, bits = body[0] >> 24 & 0xF, body[0] >> 16 & 0xFF, body[0] & 0xFF
                return Int(
                    name,
                    size_or_type,
                    signed=bool(encoding & 1),
                    is_char=bool(encoding & 2),
                    is_bool=bool(encoding & 4),
                    offset=offset,
                    bits=bits,
                )
            case Kind.FLOAT:
                return Float(name, size_or_type)
            case Kind.PTR:
                return Pointer(size_or_type)
            case Kind.ARRAY:
                return Array(body[0], body[2])
            case Kind.STRUCT | Kind.UNION:
                members = tuple(
                    Member(
                        self._string(body[at]),
                        body[at + 1],
                        body[at + 2] & 0xFFFFFF if flag else body[at + 2],
                        body[at + 2] >> 24 if flag else 0,
                    )
                    for at in range(0, len(body), 3)
                )
                return Composite(name, size_or_type, members, kind == Kind.UNION)
            case Kind.ENUM:
                values = (
                    (self._string(body[at]), _signed(body[at + 1], 32) if flag else body[at + 1])
                    for at in range(0, len(body), 2)
                )
                return Enum(name, size_or_type, flag, tuple(values))
            case Kind.ENUM64:
                pairs = (
                    (self._string(body[at]), body[at + 1] | body[at + 2] << 32)
                    for at in range(0, len(body), 3)
                )
                values64 = tuple((n, _signed(v, 64) if flag else v) for n, v in pairs)
                return Enum(name, size_or_type, flag, values64)
            case Kind.FWD:
                return Forward(name, flag)
            case Kind.FUNC_PROTO:
                parameters = tuple(
                    (self._string(body[at]), body[at + 1]) for at in range(0, len(body), 2)
                )
                return Prototype(size_or_type, parameters)
            case Kind.VAR:
                return Variable(name, size_or_type, body[0])
            case Kind.DATASEC:
                variables = tuple(
                    (body[at], body[at + 1], body[at + 2]) for at in range(0, len(body), 3)
                )
                return DataSection(name, size_or_type, variables)
            case Kind.DECL_TAG:
                return DeclTag(name, size_or_type, _signed(body[0], 32))
            case _ if kind in _ALIASES:
                return Alias(kind, name, size_or_type)
        raise BtfError(f"kind {kind} is not known")

    def of_kind(self, *kinds: Kind) -> Iterator[int]:
        """The ids of all types of these kinds, lowest first, without decoding any."""
        if self._base:
            yield from self._base.of_kind(*kinds)
        words = self._words
        for number, position in enumerate(self._positions, self._first):
            if words[position + 1] >> 24 & 0x1F in kinds:
                yield number

    def decl_tags(self) -> Iterator[tuple[int, int, int]]:
        """The tags of declarations, without decoding any: what each is on, which component of that,
        -1 for the whole, and where its name is."""
        if self._base:
            yield from self._base.decl_tags()
        words = self._words
        for position in self._positions:
            if words[position + 1] >> 24 & 0x1F == Kind.DECL_TAG:
                yield words[position + 2], _signed(words[position + 3], 32), words[position]

    def find(self, name: str, *kinds: Kind) -> int | None:
        """An id of a type of this name and one of these kinds, or None: the lowest, but of a split
        blob's own before those of the blob that it continues."""
        offset = self.string_offset(name)
        words = self._words
        for number, position in enumerate(self._positions if offset else (), self._first):
            if words[position] == offset and words[position + 1] >> 24 & 0x1F in kinds:
                return number
        return self._base.find(name, *kinds) if self._base else None

    def string_offset(self, name: str) -> int | None:
        """Where the string of a name is, or None. A split blob shares those of its base."""
        offset = self._base.string_offset(name) if self._base else None
        if offset is None:
            at = self._strings.find(b"\0" + name.encode() + b"\0")
            offset = self._first_string + at + 1 if at >= 0 else None
        return offset

    def find_enumerator(self, name: str) -> int | None:
        """The lowest id of an enumeration that has an enumerator of this name, or None."""
        offset = self.string_offset(name)
        words = self._words
        for number, position in enumerate(self._positions if offset else (), self._first):
            info = words[position + 1]
            step = _MEMBER_WORDS[info >> 24 & 0x1F]
            if info >> 24 & 0x1F in (Kind.ENUM, Kind.ENUM64):
                first, count = position + 3, info & 0xFFFF
                if offset in words[first : first + step * count].tolist()[::step]:
                    return number
        return self._base.find_enumerator(name) if self._base else None

    def strip(self, type_id: int) -> int:
        """The id below all typedefs, qualifiers and tags."""
        for _ in range(len(self)):
            target = self.type(type_id)
            if not isinstance(target, Alias):
                return type_id
            type_id = target.target
        raise BtfError(f"type {type_id} refers to itself")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


@functools.cache
def kernel_btf() -> Btf | None:
    """The running kernel's own types, or None when it has none (no CONFIG_DEBUG_INFO_BTF).

    Read once: it takes a tenth of a second and some megabytes. Raises BtfError, PermissionError.
    """
    try:
        return Btf.parse(KERNEL_BTF.read_bytes())
    except FileNotFoundError:
        return None
