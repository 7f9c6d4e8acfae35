"""The programs that a struct_ops map holds.

Its value is a struct of the kernel or of one of its modules, and in it, as `data`, the struct of
functions that is registered. A lookup gives the ids of the programs where the addresses of the
functions would be. Source: bpf_struct_ops_map_update_elem in kernel/bpf/bpf_struct_ops.c.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence

from fusefs.bpf.btf import Btf, BtfError, Composite, Member, Pointer, Prototype, kernel_btf
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.troubles import raise_own

_DATA = "data"  # in `struct bpf_struct_ops_…`
_WORD = struct.Struct("@L")  # room for a function's address


def programs(bpf_map: Map) -> list[int]:
    """The ids of the programs that a struct_ops map holds, each once, lowest first.

    Empty for other maps, for one that has no value yet, and where the BTF that tells which members
    are functions is not to be had. Raises OSError when the map cannot be read.
    """
    info = bpf_map.info
    if info.type != MapType.STRUCT_OPS or not info.btf_vmlinux_value_type_id:
        return []
    try:
        places = _places(info.btf_vmlinux_id, info.btf_vmlinux_value_type_id)
    except (BtfError, OSError) as error:
        raise_own(error)
        return []
    value = bpf_map.lookup(bytes(bpf_map.key_size)) if places else b""
    held = {_WORD.unpack_from(value, at)[0] for at in places if at + _WORD.size <= len(value)}
    return sorted(held - {0})


@functools.lru_cache(256)
def _places(btf_id: int, type_id: int) -> Sequence[int]:
    """Where functions are in a value of this type, in bytes. Remembered: neither the ids of BTF nor
    those of types in it are given to others. Raises BtfError, OSError."""
    btf = _kernel(btf_id)
    return tuple(_functions(btf, type_id)) if btf else ()


def _kernel(btf_id: int) -> Btf | None:
    """The BTF with this id; a kernel that tells none (before Linux 6.9) means its own."""
    if not btf_id:
        return kernel_btf()
    with BtfObject.from_id(btf_id) as found:
        return found.parse()


def _functions(btf: Btf, type_id: int) -> Iterator[int]:
    for member in _members(btf, type_id):
        if member.name == _DATA:
            for function in _members(btf, member.type_id):
                if _is_function(btf, function.type_id):
                    yield (member.bit_offset + function.bit_offset) // 8


def _members(btf: Btf, type_id: int) -> Sequence[Member]:
    found = btf.type(btf.strip(type_id))
    return found.members if isinstance(found, Composite) else ()


def _is_function(btf: Btf, type_id: int) -> bool:
    found = btf.type(btf.strip(type_id))
    if not isinstance(found, Pointer):
        return False
    return isinstance(btf.type(btf.strip(found.target)), Prototype)
