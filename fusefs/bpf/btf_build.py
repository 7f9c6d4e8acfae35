"""Writing BTF: type information for maps that are made without a compiler.

    types = BtfBuilder()
    u32 = types.integer("__u32", 4)
    pair = types.struct("pair", 8, [("first", u32, 0), ("second", u32, 32)])
    blob = types.build()

Each method adds a type and returns its id; ids may be used before the type that they name is
added. Source: Documentation/bpf/btf.rst in the kernel.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from fusefs.bpf.btf import MAGIC, Kind

BITFIELDS = 1 << 31  # kind_flag of a struct or union; of an enum it means signed


class BtfBuilder:
    """A BTF blob in the making. `build` gives what `BPF_BTF_LOAD` takes."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = bytearray(b"\0")
        self._offsets = {"": 0}

    def build(self) -> bytes:
        """The blob: header, types, strings."""
        types = b"".join(self._types)
        header = struct.pack(
            "=HBBIIIII", MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings)
        )
        return header + types + bytes(self._strings)

    def string(self, text: str) -> int:
        """The offset of a string; the information about source lines has those."""
        if text not in self._offsets:
            self._offsets[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._offsets[text]

    def _add(
        self,
        kind: Kind,
        name: str,
        size_or_type: int,
        body: Iterable[int] = (),
        *,
        length: int = 0,
        flag: int = 0,
    ) -> int:
        words = [self.string(name), flag | kind << 24 | length, size_or_type, *body]
        self._types.append(struct.pack(f"={len(words)}I", *(word & 0xFFFFFFFF for word in words)))
        return len(self._types)

    def integer(
        self, name: str, size: int, *, signed: bool = False, char: bool = False, bool_: bool = False
    ) -> int:
        """An integer of `size` bytes."""
        encoding = signed | char << 1 | bool_ << 2
        return self._add(Kind.INT, name, size, [encoding << 24 | size * 8])

    def old_bitfield(self, name: str, size: int, offset: int, bits: int, *, signed: bool) -> int:
        """An integer of `bits` bits at `offset`, as compilers before LLVM 8 described bitfields."""
        return self._add(Kind.INT, name, size, [signed << 24 | offset << 16 | bits])

    def floating(self, name: str, size: int) -> int:
        """A floating-point number of `size` bytes."""
        return self._add(Kind.FLOAT, name, size)

    def pointer(self, target: int) -> int:
        """A pointer to type id `target`; 0 for `void *`."""
        return self._add(Kind.PTR, "", target)

    def array(self, element: int, count: int, index: int) -> int:
        """`count` elements of type id `element`; `index` is the id of an integer type."""
        return self._add(Kind.ARRAY, "", 0, [element, index, count])

    def struct(
        self,
        name: str,
        size: int,
        members: Sequence[tuple[str, int, int] | tuple[str, int, int, int]],
        *,
        union: bool = False,
    ) -> int:
        """A struct or union of `size` bytes; a member is its name, type id and offset in bits, and
        its width in bits when it is a bitfield."""
        kind = Kind.UNION if union else Kind.STRUCT
        bitfields = any(len(member) == 4 for member in members)
        body: list[int] = []
        for member_name, type_id, offset, *bits in members:
            body += [self.string(member_name), type_id, offset | (bits[0] << 24 if bits else 0)]
        flag = BITFIELDS if bitfields else 0
        return self._add(kind, name, size, body, length=len(members), flag=flag)

    def enum(
        self, name: str, size: int, values: Sequence[tuple[str, int]], *, signed: bool = False
    ) -> int:
        """An enumeration; one of 8 bytes becomes an ENUM64."""
        wide = size == 8
        body: list[int] = []
        for value_name, value in values:
            body += [self.string(value_name), value, *([value >> 32] if wide else [])]
        kind = Kind.ENUM64 if wide else Kind.ENUM
        flag = BITFIELDS if signed else 0
        return self._add(kind, name, size, body, length=len(values), flag=flag)

    def forward(self, name: str, *, union: bool = False) -> int:
        """A struct or union that is declared but not defined."""
        return self._add(Kind.FWD, name, 0, flag=BITFIELDS if union else 0)

    def alias(self, kind: Kind, target: int, name: str = "") -> int:
        """A typedef, const, volatile, restrict or type tag over type id `target`."""
        return self._add(kind, name, target)

    def typedef(self, name: str, target: int) -> int:
        """A typedef of type id `target`."""
        return self.alias(Kind.TYPEDEF, target, name)

    def prototype(self, result: int, parameters: Sequence[tuple[str, int]] = ()) -> int:
        """A function type."""
        body = [word for name, type_id in parameters for word in (self.string(name), type_id)]
        return self._add(Kind.FUNC_PROTO, "", result, body, length=len(parameters))

    def function(self, name: str, prototype: int, *, linkage: int = 1) -> int:
        """A function; `linkage` 0 static, 1 global, 2 extern."""
        return self._add(Kind.FUNC, name, prototype, length=linkage)

    def variable(self, name: str, type_id: int, *, linkage: int = 1) -> int:
        """A global variable; `linkage` as for a function."""
        return self._add(Kind.VAR, name, type_id, [linkage])

    def decl_tag(self, name: str, target: int, component: int = -1) -> int:
        """A tag on the declaration `target`, or on its member or parameter `component`."""
        return self._add(Kind.DECL_TAG, name, target, [component])

    def data_section(self, name: str, size: int, variables: Sequence[tuple[int, int, int]]) -> int:
        """A data section of (type id of a variable, byte offset, byte size)."""
        body = [word for variable in variables for word in variable]
        return self._add(Kind.DATASEC, name, size, body, length=len(variables))
