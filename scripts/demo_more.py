"""Samples of the types of maps that are not among the others, each pinned under its type's name,
and the programs that fill some of them.

What a kernel does not know is left out.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

from demo_programs import (
    EXIT,
    Statement,
    add_number,
    call,
    list_names,
    load,
    load64,
    load_map,
    move,
    move_number,
    store64,
)

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType

NO_PREALLOC = 1  # BPF_F_NO_PREALLOC, which local storages must have
MMAPABLE = 1 << 10  # BPF_F_MMAPABLE, which arenas must have
CGROUP_SKB, RAW_TRACEPOINT = 8, 17  # enum bpf_prog_type
GET_STACKID, GET_LOCAL_STORAGE, RINGBUF_OUTPUT = 27, 81, 130  # enum bpf_func_id
LOOPBACK = 1  # the index of the interface lo


class Kind(NamedTuple):
    """How a map of a type is made: what its key and value are, by name or size, and how many
    entries it has."""

    key: str | int
    value: str | int
    room: int
    flags: int = 0


KINDS = {
    MapType.LRU_PERCPU_HASH: Kind("__u32", "__u64", 64),
    MapType.STACK: Kind(0, 8, 16),
    MapType.BLOOM_FILTER: Kind(0, 4, 64),
    MapType.DEVMAP_HASH: Kind(4, 8, 16),
    MapType.CPUMAP: Kind(4, 8, 4),
    MapType.SOCKMAP: Kind(4, 8, 4),
    MapType.SOCKHASH: Kind("__u32", 8, 16),
    MapType.REUSEPORT_SOCKARRAY: Kind(4, 8, 4),
    MapType.XSKMAP: Kind(4, 4, 4),
    MapType.PERF_EVENT_ARRAY: Kind(4, 4, 4),
    MapType.CGROUP_ARRAY: Kind(4, 4, 4),
    MapType.STACK_TRACE: Kind(4, 16 * 8, 64),
    MapType.RINGBUF: Kind(0, 0, mmap.PAGESIZE),
    MapType.USER_RINGBUF: Kind(0, 0, mmap.PAGESIZE),
    MapType.CGROUP_STORAGE: Kind(16, 8, 0),
    MapType.PERCPU_CGROUP_STORAGE: Kind(16, 8, 0),
    MapType.TASK_STORAGE: Kind("int", "__u64", 0, NO_PREALLOC),
    MapType.INODE_STORAGE: Kind("int", "__u64", 0, NO_PREALLOC),
    MapType.SK_STORAGE: Kind("int", "__u64", 0, NO_PREALLOC),
    MapType.CGRP_STORAGE: Kind("int", "__u64", 0, NO_PREALLOC),
    MapType.ARENA: Kind(0, 0, 4, MMAPABLE),
}
SIZES = {"int": 4, "__u32": 4, "__u64": 8}


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def u64(number: int) -> bytes:
    return struct.pack("=Q", number)


ENTRIES = {
    MapType.LRU_PERCPU_HASH: [(u32(7), u64(1500) * possible_cpus())],
    MapType.STACK: [(b"", u64(1)), (b"", u64(2))],
    MapType.BLOOM_FILTER: [(b"", bytes([192, 0, 2, 7]))],
    MapType.DEVMAP_HASH: [(u32(70), struct.pack("=II", LOOPBACK, 0))],
    MapType.CPUMAP: [(u32(0), struct.pack("=II", 192, 0))],
}


def pin_more(directory: Directory) -> None:
    """Pin them, but for those that are there."""
    there = {listed.name for listed in directory.list()}
    types = BtfBuilder()
    ids = {name: types.integer(name, size, signed=name == "int") for name, size in SIZES.items()}
    with BtfObject.load(types.build()) as btf:
        for map_type, kind in KINDS.items():
            if map_type.name.lower() not in there:
                _pin(directory, map_type, kind, btf, ids)
    if "hash_of_maps" not in there:
        _pin_hash_of_maps(directory)
    _pin_programs(directory, there)


def _pin(
    directory: Directory, map_type: MapType, kind: Kind, btf: BtfObject, ids: dict[str, int]
) -> None:
    typed = isinstance(kind.key, str) and isinstance(kind.value, str)
    try:
        made = Map.create(
            map_type,
            key_size=kind.key if isinstance(kind.key, int) else SIZES[kind.key],
            value_size=kind.value if isinstance(kind.value, int) else SIZES[kind.value],
            max_entries=kind.room, name=map_type.name.lower()[:15], flags=kind.flags,
            btf=btf if typed else None,
            key_type=ids[kind.key] if typed and isinstance(kind.key, str) else 0,
            value_type=ids[kind.value] if typed and isinstance(kind.value, str) else 0,
        )  # fmt: skip
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            return  # the kernel is too old for it
        raise
    with made:
        for key, value in ENTRIES.get(map_type, []):
            made.update(key, value)
        directory.pin(map_type.name.lower(), made)


def _pin_hash_of_maps(directory: Directory) -> None:
    inner = Map.create(MapType.HASH, key_size=4, value_size=8, max_entries=16, name="zone")
    with inner, Map.create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=8, name="hash_of_maps",
        inner=inner,
    ) as made:  # fmt: skip
        inner.update(u32(80), u64(5120))
        made.update(u32(7), u32(inner.fd))
        directory.pin("hash_of_maps", made)


# The programs.

Code = Callable[[Map, Map], list[Statement]]


def _fill(ring: Map, stacks: Map) -> list[Statement]:
    return [
        Statement(
            "    __u64 record = 42;", move(6, 1) + move_number(1, 42) + store64(10, -8, 1)
        ),
        Statement(
            "    bpf_ringbuf_output(&ringbuf, &record, sizeof(record), 0);",
            load_map(1, ring) + move(2, 10) + add_number(2, -8) + move_number(3, 8)
            + move_number(4, 0) + call(RINGBUF_OUTPUT),
        ),
        Statement(
            "    return bpf_get_stackid(ctx, &stack_trace, 0);",
            move(1, 6) + load_map(2, stacks) + move_number(3, 0) + call(GET_STACKID) + EXIT,
        ),
    ]  # fmt: skip


def _egress(each: Map, here: Map) -> list[Statement]:
    count = load64(1, 0, 0) + add_number(1, 1) + store64(0, 0, 1)
    storage = move_number(2, 0) + call(GET_LOCAL_STORAGE) + count
    return [
        Statement("    *(__u64 *)bpf_get_local_storage(&cgroup_storage, 0) += 1;",
                  load_map(1, each) + storage),
        Statement("    *(__u64 *)bpf_get_local_storage(&percpu_cgroup_storage, 0) += 1;",
                  load_map(1, here) + storage),
        Statement("    return 1;", move_number(0, 1) + EXIT),
    ]  # fmt: skip


def _pin_programs(directory: Directory, there: set[str]) -> None:
    """Pin those that fill the maps when they are run, and one for the iterator to be given."""

    def pin(name: str, kind: int, context: str, code: Code, first: str, second: str) -> None:
        if name in there:
            return
        with contextlib.suppress(FileNotFoundError):  # of a map that the kernel is too old for
            with _opened(directory, first) as one, _opened(directory, second) as other:
                program = load(kind, name, context, code(one, other))
            with program:
                directory.pin(name, program)

    pin("fill", RAW_TRACEPOINT, "bpf_raw_tracepoint_args", _fill, "ringbuf", "stack_trace")
    pin("egress", CGROUP_SKB, "__sk_buff", _egress, "cgroup_storage", "percpu_cgroup_storage")
    if "list_names" not in there and (program := list_names()):
        with program:
            directory.pin("list_names", program)


def _opened(directory: Directory, name: str) -> Map:
    found = directory.open_pin(name, directory.stat(name).st_ino)
    assert isinstance(found, Map)
    return found
