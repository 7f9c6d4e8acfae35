"""Structs, unions, arrays and per-CPU values."""

from __future__ import annotations

import struct

import pytest
from support.btf_strategies import Member

from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.arrays import PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec
from fusefs.text.errors import Refused
from fusefs.text.scalars import Integer
from fusefs.text.strings import CharArray
from fusefs.text.value import from_text, to_text

U8 = Integer("unsigned char", 1, signed=False)
U32 = Integer("unsigned int", 4, signed=False)


def compiled(types: BtfBuilder, type_id: int) -> Codec:
    return compile_codec(Btf.parse(types.build()), type_id)


def flow() -> Codec:
    """struct flow { u32 id; u8 port; (pad) struct { u8 x, y; } at[2]; union { u32 word;
    u8 low; }; spin lock; char name[4]; u8 a:3, b:5; }"""
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    u32 = types.integer("unsigned int", 4)
    char = types.integer("char", 1, signed=True, char=True)
    point = types.struct("point", 2, [("x", u8, 0), ("y", u8, 8)])
    union = types.struct("", 4, [("word", u32, 0), ("low", u8, 0)], union=True)
    lock = types.struct("bpf_spin_lock", 4, [("val", u32, 0)])
    name = types.array(char, 4, u32)
    members: list[Member] = [
        ("id", u32, 0),
        ("port", u8, 32),
        ("at", types.array(point, 2, u32), 64),
        ("", union, 96),
        ("lock", lock, 128),
        ("name", name, 160),
        ("a", u8, 192, 3),
        ("b", u8, 195, 5),
        ("flex", types.array(u8, 0, u32), 224),
    ]
    return compiled(types, types.struct("flow", 28, members))


FLOW = struct.pack("=IB3x4BIII", 7, 9, 1, 2, 3, 4, 0x0102, 0xAAAA, 0) + b"\x2b\xee\xee\xee"
FLOW_TEXT = (
    '{"id": 7, "port": 9, "at": [{"x": 1, "y": 2}, {"x": 3, "y": 4}], '
    '"word": 258, "low": 2, "name": "", "a": 3, "b": 5}\n'
)


def test_a_struct_is_shown() -> None:
    assert to_text(flow(), FLOW) == FLOW_TEXT


def test_fields_left_out_keep_their_bytes() -> None:
    codec = flow()
    assert from_text(codec, "{}", FLOW) == FLOW
    assert from_text(codec, "{b: 1, name: ab}", FLOW) == FLOW[:20] + b"ab\0\0\x0b\xee\xee\xee"
    assert from_text(codec, "{at: [{x: 8}, {}]}", FLOW) == FLOW[:8] + b"\x08" + FLOW[9:]


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ("{port: 300}", "port: 300 is out of range for unsigned char (0 to 255)", 7),
        ("{at: [{}, {y: 256}]}", "at[1].y: 256 is out of range for unsigned char (0 to 255)", 14),
        ("{at: [{}]}", "at: expected 2 elements, got 1", 5),
        ("{at: 1}", "at: expected an array for struct point[2], got '1'", 5),
        ("{at: {}}", "at: expected an array for struct point[2], got an object", 5),
        ("{at: [1, 2]}", "at[0]: expected an object for struct point, got '1'", 6),
        ("{at: [{z: 1}, {}]}", "at[0]: struct point has no field 'z'; its fields are x, y", 7),
        ("{lock: 1}", "struct flow has no field 'lock'; its fields are id, port, at, word, low, "
         "name, a, b", 1),
        ("{a: 8}", "a: 8 is out of range for unsigned char:3 (0 to 7)", 4),
        ("{word: -1}", "word: -1 is out of range for unsigned int (0 to 4294967295)", 7),
        ("{word: 1, low: 9}", "word and low share their bytes, and are given different ones", 0),
        ("[]", "expected an object for struct flow, got an array", 0),
        ("7", "expected an object for struct flow, got '7'", 0),
    ],
)  # fmt: skip
def test_refusals_name_the_field_and_the_place(text: str, reason: str, at: int) -> None:
    with pytest.raises(Refused) as caught:
        from_text(flow(), text, FLOW)
    assert (caught.value.reason, caught.value.at) == (reason, at)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{word: 258, low: 2}", 0x0102),
        ("{word: 258, low: 5}", 0x0105),  # only low says something new
        ("{word: 5, low: 2}", 5),  # only word does
        ("{word: 0x205, low: 5}", 0x0205),  # both do, and agree
        ("{low: 5}", 0x0105),
    ],
)
def test_a_union_takes_what_changed(text: str, word: int) -> None:
    written = from_text(flow(), text, FLOW)
    assert written == FLOW[:12] + struct.pack("=I", word) + FLOW[16:]


def test_long_lists_of_fields_are_cut() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    codec = compiled(types, types.struct("wide", 9, [(f"f{n}", u8, n * 8) for n in range(9)]))
    with pytest.raises(Refused, match=r"its fields are f0, f1, f2, f3, f4, f5, f6, f7, \.\.\.$"):
        from_text(codec, "{x: 1}", bytes(9))


def test_names_are_unique_whatever_the_type_says() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    inner = types.struct("", 1, [("a", u8, 0)])
    fresh = types.struct("", 1, [("c", u8, 0)])
    members = [("a", u8, 0), ("", inner, 8), ("", fresh, 16), ("", u8, 24), ("a", u8, 32)]
    codec = compiled(types, types.struct("odd", 5, members))
    text = to_text(codec, bytes(range(5)))
    assert text == '{"a": 0, "anon0": {"a": 1}, "c": 2, "anon1": 3, "a_0": 4}\n'
    assert from_text(codec, text, bytes(5)) == bytes(range(5))


def test_data_section() -> None:
    types = BtfBuilder()
    u32 = types.integer("unsigned int", 4)
    lock = types.struct("bpf_spin_lock", 4, [("val", u32, 0)])
    variables = [types.variable("count", u32), types.variable("lock", lock)]
    hidden = types.function("bpf_kfunc", types.prototype(0))
    limit = types.variable("limit", types.alias(Kind.CONST, u32))
    entries = [(variables[0], 0, 4), (variables[1], 4, 4), (hidden, 0, 0), (limit, 12, 4)]
    codec = compiled(types, types.data_section(".bss", 16, entries))
    data = struct.pack("=4I", 1, 2, 3, 4)
    assert to_text(codec, data) == '{"count": 1, "limit": 4}\n'
    assert from_text(codec, "{limit: 9}", data) == struct.pack("=4I", 1, 2, 3, 9)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1, 2, 3]", [1, 2, 3]),
        ("7", [7, 7, 7]),
    ],
)
def test_per_cpu_scalars(text: str, values: list[int]) -> None:
    codec = PerCpu(U32, 3)
    assert codec.size == 24
    assert from_text(codec, text, b"\xff" * 24) == struct.pack("=I4xI4xI4x", *values)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1, 2]", "expected 3 elements, one for each CPU, got 2"),
        ("[1, 2, -3]", "[2]: -3 is out of range for unsigned int (0 to 4294967295)"),
        ("-1", "-1 is out of range for unsigned int (0 to 4294967295)"),
    ],
)
def test_per_cpu_refusals(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_text(PerCpu(U32, 3), text, bytes(24))
    assert caught.value.reason == reason


def test_per_cpu_arrays() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    inner = compiled(types, types.array(u8, 2, u8))
    codec = PerCpu(inner, 2)
    each = b"\1\2\0\0\0\0\0\0\3\4\0\0\0\0\0\0"
    assert from_text(codec, "[[1, 2], [3, 4]]", bytes(16)) == each
    assert from_text(codec, "[1, 2]", bytes(16)) == each[:8] * 2
    with pytest.raises(Refused, match=r"^\[0\]: expected 2 elements, got 1$"):
        from_text(codec, "[[1], [2]]", bytes(16))
    text = PerCpu(CharArray(8), 2)
    assert from_text(text, "[a, b]", bytes(16)) == b"a\0\0\0\0\0\0\0b\0\0\0\0\0\0\0"
    assert from_text(text, "ab", bytes(16)) == b"ab\0\0\0\0\0\0" * 2
    numbers = "[1, 2, 3, 4, 5, 6, 7, 8]"
    assert from_text(text, numbers, bytes(16)) == bytes(range(1, 9)) * 2


def test_per_cpu_partial_objects_keep_each_cpus_own() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    codec = PerCpu(compiled(types, types.struct("s", 2, [("x", u8, 0), ("y", u8, 8)])), 2)
    old = b"\1\2\0\0\0\0\0\0\3\4\0\0\0\0\0\0"
    assert from_text(codec, "{x: 9}", old) == b"\x09\2\0\0\0\0\0\0\x09\4\0\0\0\0\0\0"
    assert from_text(codec, "[{}, {y: 9}]", old) == b"\1\2\0\0\0\0\0\0\3\x09\0\0\0\0\0\0"
