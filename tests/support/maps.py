"""Maps for the tests: typed, and made with bpf(2) alone."""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object

HASHES = [MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH]
ARRAYS = [MapType.ARRAY, MapType.PERCPU_ARRAY]
SIX = HASHES + ARRAYS
NO_PREALLOC = 1  # BPF_F_NO_PREALLOC


@dataclass(frozen=True)
class Types:
    """The BTF that the maps share: type ids and sizes by a short name."""

    btf: BtfObject
    ids: dict[str, int]
    sizes: dict[str, int]


@functools.cache
def types() -> Types:
    """The C types of the maps."""
    made = BtfBuilder()
    sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
    ids = {name: made.integer(f"__{name}", size) for name, size in sizes.items()}

    def add(name: str, type_id: int, size: int) -> int:
        ids[name], sizes[name] = type_id, size
        return type_id

    signed = add("s32", made.integer("int", 4, signed=True), 4)
    boolean = made.integer("_Bool", 1, bool_=True)
    char = made.integer("char", 1, signed=True)
    be16 = add("be16", made.typedef("__be16", ids["u16"]), 2)
    be32 = made.typedef("__be32", ids["u32"])
    add("address", made.struct("in_addr", 4, [("s_addr", be32, 0)]), 4)
    text = add("text", made.array(char, 16, ids["u32"]), 16)
    mode = made.enum("mode", 4, [("MODE_OFF", 0), ("MODE_WATCH", 1), ("MODE_BLOCK", 2)])
    add("pair", made.struct("pair", 8, [("first", ids["u32"], 0), ("second", signed, 32)]), 8)
    members = [("enabled", boolean, 0), ("mode", mode, 32), ("port", be16, 64)]
    add("config", made.struct("config", 28, [*members, ("label", text, 80)]), 28)
    return Types(BtfObject.load(made.build()), ids, sizes)


def make_map(
    map_type: MapType = MapType.HASH,
    *,
    key: str | int = "u32",
    value: str | int = "u64",
    max_entries: int = 64,
    name: str = "sample",
    flags: int = 0,
) -> Map:
    """A map; `key` and `value` name one of `types()`, or are sizes, and then there is no BTF."""
    known = types()
    if isinstance(key, int) or isinstance(value, int):
        assert isinstance(key, int) and isinstance(value, int)
        return Map.create(
            map_type,
            key_size=key,
            value_size=value,
            max_entries=max_entries,
            name=name,
            flags=flags,
        )
    return Map.create(
        map_type,
        key_size=known.sizes[key],
        value_size=known.sizes[value],
        max_entries=max_entries,
        name=name,
        flags=flags,
        btf=known.btf,
        key_type=known.ids[key],
        value_type=known.ids[value],
    )


def u32(number: int) -> bytes:
    """A u32 as it lies in memory."""
    return struct.pack("=I", number)


def u64(number: int) -> bytes:
    """A u64 as it lies in memory."""
    return struct.pack("=Q", number)


def value_of(bpf_map: Map, number: int) -> bytes:
    """A u64 value for the map; for a per-CPU map, the same for each CPU."""
    return u64(number) * (possible_cpus() if bpf_map.per_cpu else 1)


def each_key(bpf_map: Map) -> Iterator[bytes]:
    """All keys of a map, one at a time."""
    return (key for key in bpf_map.each_key() if key is not None)


def dump(bpf_map: Map) -> dict[bytes, bytes]:
    """All that is in a map, by its keys."""
    entries: dict[bytes, bytes] = {}
    size, stride = bpf_map.key_size, bpf_map.stride
    for batch in bpf_map.batches():
        for number in range(batch.count):
            key = batch.keys[number * size : (number + 1) * size]
            assert key not in entries
            entries[key] = batch.values[number * stride : (number + 1) * stride]
    return entries


def exists(kind: type[Object], object_id: int) -> bool:
    """Whether the kernel has an object with this id."""
    with contextlib.suppress(FileNotFoundError), kind.from_id(object_id):
        return True
    return False


def pin(path: Path, obj: Object) -> None:
    """Pin `obj` in bpffs."""
    Directory(str(path.parent)).pin(path.name, obj)
