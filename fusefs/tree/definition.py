"""What a map is made with, as `info.json` has it: by this it can be made anew."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from fusefs.bpf import names
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.text.jsontext import Json

NUMA_NODE = 1 << 2  # BPF_F_NUMA_NODE, linux/bpf.h
_RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
# The kernel sets flags itself that it does not take (dev_map_init_map in kernel/bpf/devmap.c).
_SET_BY_KERNEL: Mapping[int, int] = {
    MapType.DEVMAP: _RDONLY_PROG,
    MapType.DEVMAP_HASH: _RDONLY_PROG,
}
_LONGEST_NAME = 15  # BPF_OBJ_NAME_LEN, with its NUL
# Numbers that the kernel takes when it makes a map, and how many bits each has.
_NUMBERS = {
    "key_size": 32,
    "value_size": 32,
    "max_entries": 32,
    "map_extra": 64,
    "btf_id": 32,
    "btf_key_type_id": 32,
    "btf_value_type_id": 32,
    "ifindex": 32,  # of a network card that the map is in
}
_MAY_LACK = frozenset({"map_extra"})  # kernels before 5.16 have none
_NOT_OF_EXAMPLES = frozenset({"btf_id", "btf_key_type_id", "btf_value_type_id", "ifindex"})
# What the kernel means when it makes no map (map_create in kernel/bpf/syscall.c).
_REASONS = {
    errno.EINVAL: "the kernel makes no map of this type with these sizes, flags and types",
    errno.E2BIG: "the kernel makes none so large",
    errno.ENOMEM: "there is not enough memory for it",
    errno.EPERM: "the kernel does not let this process make it",
}


class Unmakable(Exception):  # noqa: N818 - a map's fate, as `Refused` is a text's
    """Why there can be no such map, in one line."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A map's type, sizes and flags, and where its types are in its BTF; the C names of those; of a
    map of maps, what one that was in it was like, if there was one.

    The kernel does not tell the NUMA node of a map that was made for one: that is 0 here.
    """

    type: int
    name: str
    flags: int
    frozen: bool
    numbers: Mapping[str, int]
    types: tuple[str | None, str | None]
    inner: Definition | None

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    @property
    def has_btf(self) -> bool:
        return self["btf_id"] != 0

    def make(self, btf: BtfObject | None = None, inner: Map | None = None) -> Map:
        """Make the map, empty. Raises `Unmakable`."""
        if self.type == MapType.STRUCT_OPS:
            raise Unmakable("a struct_ops map is its loader's to make, and to register")
        if self["ifindex"]:
            raise Unmakable("it was in a network card, and is its loader's to make")
        try:
            return Map.create(
                self.type,
                key_size=self["key_size"],
                value_size=self["value_size"],
                max_entries=self["max_entries"],
                name=self.name,
                flags=self.flags & ~_SET_BY_KERNEL.get(self.type, 0),
                btf=btf,
                key_type=self["btf_key_type_id"] if btf else 0,
                value_type=self["btf_value_type_id"] if btf else 0,
                inner=inner,
                extra=self["map_extra"],
            )
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
            raise Unmakable(reason) from None

    def difference(self, other: Map) -> str:
        """Why another map does not take what was in this one; empty when it does."""
        if self.type != other.info.type:
            here, there = (names.name_of(names.MAP_TYPE, n) for n in (other.info.type, self.type))
            return f"its type is {here}, and that of the copy {there}"
        for name in ("key_size", "value_size"):
            here, there = getattr(other.info, name), self[name]
            if here != there:
                return f"its {name} is {here}, and that of the copy {there}"
        return ""


def definition(info: Mapping[str, Json], *, inner: bool = False) -> Definition:
    """What a map is made with, of which `info.json` tells. Raises `Unmakable` when that is
    nonsense. `inner` is for an example of others."""
    example = info.get("inner_map")
    if example is not None and (inner or not isinstance(example, dict)):
        raise _wrong("inner_map", example)
    lacking = _NOT_OF_EXAMPLES if inner else _MAY_LACK
    return Definition(
        type=_number(names.MAP_TYPE, "type", info.get("type")),
        name="" if inner else _name(info),
        flags=_flags(info),
        frozen=info.get("frozen") is True,
        numbers={name: _size(info, name, bits, lacking) for name, bits in _NUMBERS.items()},
        types=(_text(info, "key_type"), _text(info, "value_type")),
        inner=definition(example, inner=True) if isinstance(example, dict) else None,
    )


def _flags(info: Mapping[str, Json]) -> int:
    given = info.get("map_flags")
    if not isinstance(given, list):
        raise _wrong("map_flags", given)
    flags = 0
    for flag in given:
        flags |= _number(names.MAP_FLAGS, "map_flags", flag)
    return flags


def _text(info: Mapping[str, Json], name: str) -> str | None:
    text = info.get(name)
    return text if isinstance(text, str) else None


def _wrong(name: str, value: Json) -> Unmakable:
    return Unmakable(f"{name} cannot be {str(value)[:40]!r}")


def _number(enumeration: names.Enumeration, field: str, name: Json) -> int:
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < 1 << 32:
        return name  # for which the kernel it was copied on had no name
    if not isinstance(name, str):
        raise _wrong(field, name)
    number = names.number_of(enumeration, name)
    if number is None:
        raise Unmakable(f"{field}: this kernel knows no {str(name)[:40]!r}")
    return number


def _size(info: Mapping[str, Json], name: str, bits: int, lacking: frozenset[str]) -> int:
    number = info.get(name, 0 if name in lacking else None)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << bits:
        raise _wrong(name, number)
    return number


def _name(info: Mapping[str, Json]) -> str:
    name = info.get("name")
    if not isinstance(name, str) or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise _wrong("name", name)
    if not all(c.isascii() and (c.isalnum() or c in "_.") for c in name):  # bpf_obj_name_cpy
        raise _wrong("name", name)
    return name
