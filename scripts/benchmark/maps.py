"""The maps that are measured: typed, and filled with many entries in little time."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import struct
from collections.abc import Callable, Iterator

from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType

_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC, which LPM tries must have
_AT_ONCE = 16384  # entries


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the entries of a map are: in words, and entry number N as the fields of its key and of
    its value, with the `struct` format of each."""

    words: str
    key_format: str
    key: Callable[[int], tuple[int | bytes, ...]]
    value_format: str
    value: Callable[[int], tuple[int | bytes, ...]]
    key_type: str
    value_type: str
    map_type: MapType = MapType.HASH

    def of(self, map_type: MapType) -> Kind:
        """The same entries in another type of map."""
        words = f"per-CPU {self.words}" if map_type == MapType.PERCPU_HASH else self.words
        return dataclasses.replace(self, map_type=map_type, words=words)


def _number(n: int) -> tuple[int]:
    return (n * 1_000_003 % (1 << 40),)


def _flow(n: int) -> tuple[int, ...]:
    return 0xC0A80000 + n, 0x0A000001 + n % 251, 1024 + n % 60_000, 443, 6


def _traffic(n: int) -> tuple[int | bytes, ...]:
    return n % 5000, n * 1500, n * 1_000_003, b"eth%d" % (n % 16)


def _prefix(n: int) -> tuple[int, bytes]:
    """One in eight is a /22, which covers some of the /24 that follow."""
    return 24 if n % 8 else 22, (0x01000000 + (n << 8)).to_bytes(4, "big")


NUMBERS = Kind("u32 → u64", "I", lambda n: (n,), "Q", _number, "u32", "u64")
STRUCTS = Kind("struct → struct", "IIHHI", _flow, "QQQ16s", _traffic, "flow", "traffic")
PREFIXES = Kind(
    "IPv4 prefix → u32", "I4s", _prefix, "I", lambda n: (n % 64,), "prefix", "u32",
    MapType.LPM_TRIE,
)  # fmt: skip


@functools.cache
def _types() -> tuple[BtfObject, dict[str, int]]:
    """The C types of the maps, by the names that `Kind` has for them."""
    made = BtfBuilder()
    char = made.integer("char", 1, signed=True)
    u16 = made.typedef("__u16", made.integer("unsigned short", 2))
    u32 = made.typedef("__u32", made.integer("unsigned int", 4))
    u64 = made.typedef("__u64", made.integer("unsigned long long", 8))
    be32 = made.typedef("__be32", u32)
    address = made.struct("in_addr", 4, [("s_addr", be32, 0)])
    flow = [("saddr", u32, 0), ("daddr", u32, 32), ("sport", u16, 64), ("dport", u16, 80)]
    device = made.array(char, 16, u32)
    traffic = [("packets", u64, 0), ("bytes", u64, 64), ("seen", u64, 128), ("device", device, 192)]
    ids = {
        "u32": u32,
        "u64": u64,
        "flow": made.struct("flow", 16, [*flow, ("proto", u32, 96)]),
        "traffic": made.struct("traffic", 40, traffic),
        "prefix": made.struct("prefix", 8, [("length", u32, 0), ("address", address, 32)]),
    }
    return BtfObject.load(made.build()), ids


def make(kind: Kind, entries: int) -> Map:
    """A map with so many entries, and room for no more."""
    btf, ids = _types()
    made = Map.create(
        kind.map_type,
        key_size=struct.calcsize("=" + kind.key_format),
        value_size=struct.calcsize("=" + kind.value_format),
        max_entries=entries,
        name="bench",
        flags=_NO_PREALLOC if kind.map_type == MapType.LPM_TRIE else 0,
        btf=btf,
        key_type=ids[kind.key_type],
        value_type=ids[kind.value_type],
    )
    for first in range(0, entries, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, entries))
        made.update_all(*pack(made, kind, numbers))
    return made


def pack(bpf_map: Map, kind: Kind, numbers: range) -> tuple[bytes, bytes]:
    """Keys and values of those entries, one after the other as the kernel takes them."""
    copies = possible_cpus() if bpf_map.per_cpu else 1
    keys = _packed(kind.key_format, map(kind.key, numbers), len(numbers))
    each = (kind.value(n) for n in numbers for _ in range(copies))
    return keys, _packed(kind.value_format, each, len(numbers) * copies)


def _packed(fmt: str, rows: Iterator[tuple[int | bytes, ...]], count: int) -> bytes:
    return struct.pack("=" + fmt * count, *itertools.chain.from_iterable(rows))


def hex_bytes(data: bytes) -> list[str]:
    """Bytes as bpftool takes them on its command line."""
    return ["hex", *(f"{byte:02x}" for byte in data)]


def write_bpftool_batch(path: str, pin: str, bpf_map: Map, kind: Kind, count: int) -> None:
    """Make a file of updates for `bpftool batch file`: the first entries of the map."""
    with open(path, "w", encoding="ascii") as file:
        for number in range(count):
            key, value = pack(bpf_map, kind, range(number, number + 1))
            words = ["key", *hex_bytes(key), "value", *hex_bytes(value)]
            file.write(f"map update pinned {pin} {' '.join(words)}\n")
