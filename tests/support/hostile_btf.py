"""BTF made to harm: blobs that the kernel takes, blobs with words changed, and a reader of all that
can be made of one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.codec import Codec, unpacked
from fusefs.text.compile import compile_codec, type_name
from fusefs.text.declarations import declarations, every_declaration
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.names import LONGEST, from_name, longest_name, to_name
from fusefs.text.parse import parse

MANY = 8192  # as many members as are read
MOST = 65535  # as many as there can be


class Hostile(NamedTuple):
    """A type, and how many bytes its values have."""

    type_id: int
    size: int


Maker = Callable[[BtfBuilder], Hostile]


def _int(types: BtfBuilder) -> int:
    return types.integer("int", 4, signed=True)


def wide(count: int, length: int = 0) -> Maker:
    """A struct of so many members, with names of such a length."""

    def make(types: BtfBuilder) -> Hostile:
        number = _int(types)
        names = (f"m{index}".ljust(length, "_") for index in range(count))
        members = [(name, number, 32 * index) for index, name in enumerate(names)]
        return Hostile(types.struct("wide", 4 * count, members), 4 * count)

    return make


def wide_union(types: BtfBuilder) -> Hostile:
    """Each member of which is shown, and compared when it is written."""
    number = _int(types)
    members = [(f"m{index}", number, 0) for index in range(MANY)]
    return Hostile(types.struct("wide", 4, members, union=True), 4)


def anonymous(types: BtfBuilder) -> Hostile:
    """Unions that lend their members to the next, 30 deep."""
    number = _int(types)
    inner = types.struct("", 4, [("m", number, 0)], union=True)
    for depth in range(30):
        own = [(f"m{depth}_{index}", number, 0) for index in range(250)]
        inner = types.struct("", 4, [("", inner, 0), *own], union=True)
    return Hostile(types.struct("top", 4, [("", inner, 0)]), 4)


def fan(types: BtfBuilder) -> Hostile:
    """Anonymous structs, each of which has the one before eight times."""
    inner = types.struct("", 4, [("m", _int(types), 0)], union=True)
    for _ in range(28):
        inner = types.struct("", 4, [("", inner, 0)] * 8, union=True)
    return Hostile(types.struct("top", 4, [("", inner, 0)]), 4)


def enumerators(count: int, stem: str = "E{}") -> Maker:
    """An enumeration of so many names, which may all be the same."""

    def make(types: BtfBuilder) -> Hostile:
        values = [(stem.format(index), index) for index in range(count)]
        return Hostile(types.enum("many", 4, values), 4)

    return make


def enumerations(types: BtfBuilder) -> Hostile:
    """A struct of enumerations, of all that there can be."""
    values = [(f"E{index}", index) for index in range(MOST)]
    made = [types.enum(f"many{number}", 4, values) for number in range(16)]
    members = [(f"m{number}", type_id, 32 * number) for number, type_id in enumerate(made)]
    return Hostile(types.struct("all", 64, members), 64)


def nested_arrays(types: BtfBuilder) -> Hostile:
    """Arrays 20 deep."""
    made = types.integer("unsigned char", 1)
    for _ in range(16):
        made = types.array(made, 2, 1)
    return Hostile(made, 1 << 16)


def endless_arrays(types: BtfBuilder) -> Hostile:
    """Arrays 31 deep, each of 2^32 - 1 elements, of what has no bytes."""
    made = types.struct("nothing", 0, [])
    number = _int(types)
    for _ in range(31):
        made = types.array(made, 0xFFFFFFFF, number)
    return Hostile(types.struct("top", 4, [("none", made, 0), ("m", number, 0)]), 4)


def aliases(types: BtfBuilder) -> Hostile:
    """Typedefs of typedefs, as deep as the kernel goes."""
    made = _int(types)
    for number in range(31):
        made = types.typedef(f"t{number}", made)
    return Hostile(types.struct("top", 4, [("m", made, 0)]), 4)


def prototypes(types: BtfBuilder) -> Hostile:
    """Pointers to functions that take and give pointers to functions: as many paths as 3^14."""
    made = types.pointer(_int(types))
    for _ in range(14):
        made = types.pointer(types.prototype(made, [("a", made), ("b", made)]))
    return Hostile(types.struct("top", 8, [("m", made, 0)]), 8)


def tags(types: BtfBuilder, text: str = "tag", count: int = 100_000) -> Hostile:
    """A struct with very many tags."""
    made = types.struct("top", 4, [("m", _int(types), 0)])
    for _ in range(count):
        types.decl_tag(text, made)
    return Hostile(made, 4)


def long_tags(types: BtfBuilder) -> Hostile:
    """Each of half a mebibyte: 1.5 GB in all, if one were to decode them."""
    return tags(types, "x" * (1 << 19), 3000)


def too_many_types(types: BtfBuilder) -> Hostile:
    """More bytes than are read."""
    made = wide(3)(types)
    for _ in range(180_000):
        types.pointer(0)
    return made


def structs(types: BtfBuilder) -> Hostile:
    """A struct of thousands of others."""
    number = _int(types)
    made = [types.struct(f"s{n}", 4, [("m", number, 0)]) for n in range(MANY // 2 - 2)]
    members = [(f"m{n}", type_id, 32 * n) for n, type_id in enumerate(made)]
    return Hostile(types.struct("all", 4 * len(made), members), 4 * len(made))


def bitfields(types: BtfBuilder) -> Hostile:
    """A bit each."""
    number = _int(types)
    members = [(f"m{n}", number, n, 1) for n in range(MANY)]
    return Hostile(types.struct("bits", MANY // 8, members), MANY // 8)


MAKERS: dict[str, Maker] = {
    "wide": wide(MANY),
    "wide, and more so": wide(MOST),
    "wide, with long names": wide(MANY, 500),
    "wide union": wide_union,
    "anonymous": anonymous,
    "fan": fan,
    "enumerators": enumerators(MANY),
    "enumerators, and more": enumerators(MOST),
    "the same enumerators": enumerators(MANY, "same"),
    "enumerations": enumerations,
    "nested arrays": nested_arrays,
    "endless arrays": endless_arrays,
    "aliases": aliases,
    "prototypes": prototypes,
    "tags": tags,
    "long tags": long_tags,
    "too many types": too_many_types,
    "structs": structs,
    "bitfields": bitfields,
}

_HEADER = 24  # bytes before the types
_LETTERS = bytes(range(1, 256))


def changed(blob: bytes, changes: list[tuple[int, int]]) -> bytes:
    """`blob` with other words, each at its number among the words of types, which may be passed."""
    words = bytearray(blob)
    (length,) = struct.unpack_from("=I", words, 12)
    for number, word in changes:
        struct.pack_into("=I", words, _HEADER + number % (length // 4) * 4, word)
    return bytes(words)


def read_all(blob: bytes, most: int = 64) -> int:
    """Make all that can be made of the first `most` types of a blob, or of none; how many codecs
    there were. What is malformed raises `BtfError` inside, and nothing else may be raised."""
    try:
        btf = Btf.parse(blob)
    except BtfError:
        return 0
    codecs = 0
    for type_id in range(min(len(btf), most) + 1):
        attempted(btf.type, type_id)
        attempted(btf.strip, type_id)
        attempted(type_name, btf, type_id)
        attempted(declarations, btf, [type_id])
        codec = attempted(compile_codec, btf, type_id)
        if isinstance(codec, Codec):
            codecs += 1
            check_codec(codec)
    attempted(list, every_declaration(btf))
    for name in ("int", "struct", "", "bpf_kfunc"):
        attempted(btf.find, name, *Kind)
        attempted(btf.find_enumerator, name)
    return codecs


def attempted(make: Callable[..., object], *arguments: object) -> object:
    """What `make` gives; None when the blob is malformed there."""
    try:
        return make(*arguments)
    except BtfError:
        return None


def check_codec(codec: Codec) -> None:
    """What a codec shows can be written, and names a key."""
    if codec.size > 1 << 16:
        return
    for byte in (b"\0", b"\xff", b"\x01"):
        data = byte * codec.size
        text = str(codec.shown(unpacked(codec, data))[0])
        kept = codec.encode(parse(text), data)
        assert kept == data, codec.name
        if codec.size:
            name = to_name(codec, data)
            assert len(name.encode("utf-8", "surrogateescape")) <= LONGEST
            if longest_name(codec) <= LONGEST:
                assert from_name(codec, name) == data, (codec.name, name)
        for wrong in ("{", "[1,", '"', "nothing", '{"x": [1]}', "9" * 50):
            try:
                codec.encode(parse(wrong), data)
            except (Refused, Incomplete):
                continue
