"""Reading BTF: what the builder wrote, and what nobody should have written."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.bpf import btf
from fusefs.bpf.btf import Btf, BtfError, Kind
from fusefs.bpf.btf_build import BtfBuilder

SAMPLE_NAMES = ["int", "pair", "mode", "wide", "some_t", "variable", ".data", "absent", ""]


def sample() -> BtfBuilder:
    """A bit of everything; types 1 to 20."""
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    types.old_bitfield("", 4, 3, 5, signed=False)
    types.floating("double", 8)
    pointer = types.pointer(number)
    types.array(number, 7, number)
    types.struct("pair", 8, [("first", number, 0), ("second", number, 32)])
    types.struct("bits", 4, [("low", number, 0, 3), ("high", number, 3, 29)])
    types.struct("either", 8, [("number", number, 0), ("pointer", pointer, 0)], union=True)
    types.enum("mode", 4, [("MODE_OFF", 0), ("MODE_ON", 0xFFFFFFFF)])
    types.enum("signed_mode", 1, [("LOW", -1), ("HIGH", 1)], signed=True)
    types.enum("wide", 8, [("LARGE", 1 << 63), ("SMALL", 1)])
    types.enum("signed_wide", 8, [("LEAST", -(1 << 63))], signed=True)
    types.forward("later", union=True)
    typedef = types.typedef("some_t", number)
    types.alias(Kind.CONST, typedef)
    prototype = types.prototype(number, [("argument", pointer), ("", 0)])
    types.function("call", prototype, linkage=2)
    variable = types.variable("variable", number, linkage=1)
    types.data_section(".data", 4, [(variable, 0, 4)])
    types.alias(Kind.TYPE_TAG, number, "kptr")
    return types


BLOB = sample().build()


def test_each_kind_is_read_as_it_was_written() -> None:
    read = Btf.parse(BLOB)
    assert [read.type(number) for number in range(len(read))] == [
        btf.Void(),
        btf.Int("int", 4, True, False, False, 0, 32),
        btf.Int("", 4, False, False, False, 3, 5),
        btf.Float("double", 8),
        btf.Pointer(1),
        btf.Array(1, 7),
        btf.Composite(
            "pair", 8, (btf.Member("first", 1, 0, 0), btf.Member("second", 1, 32, 0)), False
        ),
        btf.Composite("bits", 4, (btf.Member("low", 1, 0, 3), btf.Member("high", 1, 3, 29)), False),
        btf.Composite(
            "either", 8, (btf.Member("number", 1, 0, 0), btf.Member("pointer", 4, 0, 0)), True
        ),
        btf.Enum("mode", 4, False, (("MODE_OFF", 0), ("MODE_ON", 0xFFFFFFFF))),
        btf.Enum("signed_mode", 1, True, (("LOW", -1), ("HIGH", 1))),
        btf.Enum("wide", 8, False, (("LARGE", 1 << 63), ("SMALL", 1))),
        btf.Enum("signed_wide", 8, True, (("LEAST", -(1 << 63)),)),
        btf.Forward("later", True),
        btf.Alias(Kind.TYPEDEF, "some_t", 1),
        btf.Alias(Kind.CONST, "", 14),
        btf.Prototype(1, (("argument", 4), ("", 0))),
        btf.Function("call", 16, 2),
        btf.Variable("variable", 1, 1),
        btf.DataSection(".data", 4, ((18, 0, 4),)),
        btf.Alias(Kind.TYPE_TAG, "kptr", 1),
    ]


def test_find() -> None:
    read = Btf.parse(BLOB)
    assert read.find("pair", Kind.STRUCT) == 6
    assert read.find("pair", Kind.UNION) is None
    assert read.find("pair", Kind.UNION, Kind.STRUCT) == 6
    assert read.find("wide", Kind.ENUM, Kind.ENUM64) == 11
    assert read.find("absent", Kind.STRUCT) is None
    assert read.find("air", Kind.STRUCT) is None


def test_find_enumerator() -> None:
    read = Btf.parse(BLOB)
    assert read.find_enumerator("MODE_ON") == 9
    assert read.find_enumerator("SMALL") == 11
    assert read.find_enumerator("LEAST") == 12
    assert read.find_enumerator("first") is None  # a member, not an enumerator
    assert read.find_enumerator("ABSENT") is None


def test_strip() -> None:
    read = Btf.parse(BLOB)
    assert (read.strip(15), read.strip(14), read.strip(20), read.strip(6)) == (1, 1, 1, 6)
    assert read.strip(0) == 0


def test_types_that_refer_to_themselves() -> None:
    types = BtfBuilder()
    types.typedef("a", 2)
    types.typedef("b", 1)
    with pytest.raises(BtfError):
        Btf.parse(types.build()).strip(1)


@pytest.mark.parametrize("number", [21, 1000, 1 << 31])
def test_types_that_are_not_there(number: int) -> None:
    with pytest.raises(BtfError):
        Btf.parse(BLOB).type(number)


def split(base: Btf, strings_before: int) -> Btf:
    """A module's blob: `typedef int module_t; union pair`, after the types of `base`, which has the
    name `pair`, too."""
    strings = b"\0module_t\0"
    pair = BLOB[-strings_before:].index(b"\0pair\0") + 1
    words = [strings_before + 1, Kind.TYPEDEF << 24, 1, pair, Kind.UNION << 24, 0]
    types = struct.pack("=6I", *words)
    header = struct.pack("=HBBIIIII", btf.MAGIC, 1, 0, 24, 0, len(types), len(types), len(strings))
    return Btf.parse(header + types + strings, base)


def test_a_blob_that_continues_another() -> None:
    base = Btf.parse(BLOB)
    strings = struct.unpack_from("=I", BLOB, 20)[0]
    module = split(base, strings)
    assert len(module) == len(base) + 2
    assert module.type(len(base)) == btf.Alias(Kind.TYPEDEF, "module_t", 1)
    assert module.type(6) == base.type(6)
    assert module.find("module_t", Kind.TYPEDEF) == len(base)
    assert module.find("pair", Kind.STRUCT) == 6
    assert module.find("pair", Kind.UNION) == len(base) + 1
    assert list(module.of_kind(Kind.TYPEDEF, Kind.UNION)) == [8, 14, len(base), len(base) + 1]
    assert module.find_enumerator("MODE_ON") == 9
    assert module.strip(len(base)) == 1


def read_all(blob: bytes) -> None:
    """Ask everything of a blob: it answers, or raises `BtfError`."""
    with contextlib.suppress(BtfError):
        read = Btf.parse(blob)
        for name in SAMPLE_NAMES:
            with contextlib.suppress(BtfError):
                read.find(name, *Kind)
            with contextlib.suppress(BtfError):
                read.find_enumerator(name)
        for number in range(len(read) + 1):
            with contextlib.suppress(BtfError):
                read.type(number)
            with contextlib.suppress(BtfError):
                read.strip(number)


def test_a_blob_that_is_cut_off_anywhere() -> None:
    for size in range(len(BLOB)):
        with pytest.raises(BtfError):
            Btf.parse(BLOB[:size])


def test_any_byte_that_is_changed() -> None:
    for at in range(len(BLOB)):
        for value in (0, 0xFF, BLOB[at] ^ 1, BLOB[at] ^ 0x80):
            read_all(BLOB[:at] + bytes([value]) + BLOB[at + 1 :])


@given(st.lists(st.tuples(st.integers(0, len(BLOB) * 8 - 1)), max_size=8))
def test_any_bits_that_are_flipped(flips: list[tuple[int]]) -> None:
    blob = bytearray(BLOB)
    for (bit,) in flips:
        blob[bit // 8] ^= 1 << bit % 8
    read_all(bytes(blob))


@given(st.binary(max_size=200))
def test_noise(noise: bytes) -> None:
    read_all(noise)
    header = struct.pack("=HBBIIIII", btf.MAGIC, 1, 0, 24, 0, len(noise) & ~3, len(noise) & ~3, 1)
    read_all(header + noise[: len(noise) & ~3] + b"\0")
