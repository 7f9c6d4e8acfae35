"""What keys and values are in maps whose type, and not their BTF, says it."""

from __future__ import annotations

import socket

from fusefs.bpf.kallsyms import kernel_symbols
from fusefs.bpf.map import Map, MapType
from fusefs.text.codec import Codec
from fusefs.text.composite import Part, Struct, Union
from fusefs.text.jsontext import printable
from fusefs.text.labels import Headed, Label
from fusefs.text.records import Records
from fusefs.text.scalars import Integer
from fusefs.text.sockets import Socket
from fusefs.text.stacks import BuildIdStack, Stack
from fusefs.tree.map_types import Shape, traits_of
from fusefs.tree.seen_sockets import seen_sockets

_INDEX = Integer("__u32", 4, signed=False)
# Types whose keys are numbers, though they are no indices.
_NUMBERED = frozenset({MapType.DEVMAP_HASH, MapType.STACK_TRACE})

# Those whose keys name a cgroup and how a program is attached to it (linux/bpf.h); or the cgroup
# alone, for maps that all attachments share.
_OF_CGROUPS = frozenset({MapType.CGROUP_STORAGE, MapType.PERCPU_CGROUP_STORAGE})
_CGROUP_ID = Integer("__u64", 8, signed=False)
_CGROUP = Struct(
    "struct bpf_cgroup_storage_key",
    16,
    [Part("cgroup_inode_id", 0, _CGROUP_ID), Part("attach_type", 8, _INDEX)],
)


def key_codec(bpf_map: Map) -> Codec | None:
    """The codec of the keys unless their BTF type says more, or None where nothing is known."""
    if bpf_map.info.type in _OF_CGROUPS:
        return _CGROUP if bpf_map.key_size == _CGROUP.size else _CGROUP_ID
    return _INDEX if bpf_map.indexed or bpf_map.info.type in _NUMBERED else None


def value_codec(bpf_map: Map) -> Codec | None:
    """The codec of the values, or None where only their BTF type can tell."""
    size: int = bpf_map.info.value_size
    traits = traits_of(bpf_map.info.type, size)
    match traits.shape if traits else None:
        case Shape.RECORDS | Shape.USER_RECORDS:
            return Records()
        case Shape.MAPS | Shape.PROGRAMS:
            return Integer("id", 4, signed=False)
        case Shape.DEVICES:
            return _Device(
                "struct bpf_devmap_val", size, [Part("", 0, _INTERFACE), *_program(size)]
            )
        case Shape.CPUS:
            queue = Integer("__u32", 4, signed=False)
            return _Cpu("struct bpf_cpumap_val", size, [Part("qsize", 0, queue), *_program(size)])
        case Shape.SOCKETS:
            return Socket(size, seen_sockets.recent)
        case Shape.STACKS:
            by_build_id = bpf_map.info.map_flags & _STACK_BUILD_ID
            return (BuildIdStack if by_build_id else Stack)(size, kernel_symbols.names)
    return None


_STACK_BUILD_ID = 1 << 5  # BPF_F_STACK_BUILD_ID


# `struct bpf_devmap_val` and `struct bpf_cpumap_val` of linux/bpf.h. Both may be made without
# their second half, a program that runs on what was redirected: an id when it is read.


def _program(size: int) -> list[Part]:
    return [Part("prog_id", 4, Integer("__u32", 4, signed=False))] if size > 4 else []


def _interface_name(index: int) -> str | None:
    try:
        return printable(socket.if_indextoname(index))
    except OSError:
        return None  # it is in another network namespace


def _interface_index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):  # a NUL in it
        return None


_INTERFACE = Union(
    "interface",
    4,
    [
        Part("ifindex", 0, Integer("__u32", 4, signed=False)),
        Part("interface", 0, Label("interface", 4, _interface_name, _interface_index)),
    ],
)


class _Device(Headed):
    number = "ifindex"
    word = "interface"


class _Cpu(Headed):
    number = word = "qsize"
