"""Which bytes are stored for a value to become another."""

from __future__ import annotations

import struct

import pytest

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.changes import changes
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec
from fusefs.text.formats import with_format
from fusefs.text.value import from_text


def sample() -> Codec:
    """struct { u32 one, two; u8 level; u16 ports[3]; u32 low : 4, high : 20; u8 beside; char
    name[8]; union { u32 word; u16 half; }; u64 many[1000]; }"""
    types = BtfBuilder()
    u8, u16, u32, u64 = (types.integer(f"u{size * 8}", size) for size in (1, 2, 4, 8))
    ports, name = types.array(u16, 3, u32), types.array(types.integer("char", 1), 8, u32)
    many = types.array(u64, 1000, u32)
    either = types.struct("", 4, [("word", u32, 0), ("half", u16, 0)], union=True)
    members = [
        ("one", u32, 0, 0),
        ("two", u32, 32, 0),
        ("level", u8, 64, 0),
        ("ports", ports, 80, 0),
    ]
    members += [("low", u32, 128, 4), ("high", u32, 132, 20), ("beside", u8, 152, 0)]
    members += [("name", name, 160, 0), ("", either, 224, 0), ("many", many, 256, 0)]
    whole = types.struct("sample", 32 + 8000, members)
    return compile_codec(Btf.parse(types.build()), whole)


SAMPLE = sample()
OLD = struct.pack("=IIBxHHHIQI", 0x01FF, 2, 3, 80, 443, 22, 0, 0, 7) + bytes(8000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", []),
        ("{one: 0x1ff}", []),
        ("{one: 0x200}", [(0, "=I", 0x200)]),  # as a whole, though one byte is the same
        ("{one: 1, two: 1}", [(0, "=II", 1, 1)]),
        ("{one: 1, level: 9}", [(0, "=I", 1), (8, "=B", 9)]),
        ("{ports: [80, 444, 22]}", [(12, "=H", 444)]),
        ("{ports: [81, 443, 23]}", [(10, "=H", 81), (14, "=H", 23)]),
        ("{level: 0, beside: 5}", [(8, "=B", 0), (19, "=B", 5)]),
        ("{name: web}", [(20, "=8s", b"web")]),
        ("{half: 8}", [(28, "=I", 8)]),
    ],
)
def test_fields_that_differ_are_stored_as_a_whole(
    text: str, expected: list[tuple[int, str, *tuple[int | bytes, ...]]]
) -> None:
    new = from_text(SAMPLE, text, OLD)
    stored = [(at, struct.pack(form, *values)) for at, form, *values in expected]
    assert changes(SAMPLE, OLD, new) == stored


def test_bitfields_leave_the_bytes_beside_theirs() -> None:
    new = from_text(SAMPLE, "{low: 3, high: 0xfffff, beside: 0}", OLD)
    ((at, data),) = changes(SAMPLE, OLD, new)
    assert (at, len(data)) == (16, 3)


def test_few_elements_of_a_large_array() -> None:
    many = [0] * 1000
    for index in (0, 1, 499, 500, 999):
        many[index] = index + 1
    new = from_text(SAMPLE, f"{{many: {many}}}", OLD)
    stored = changes(SAMPLE, OLD, new)
    assert [(at - 32, len(data)) for at, data in stored] == [(0, 16), (499 * 8, 16), (999 * 8, 8)]


def test_a_part_with_a_format_is_one_field() -> None:
    shown = with_format(SAMPLE, "value.ports", "hex", lambda kind, name: None)
    new = from_text(shown, '{ports: "515100000000"}', OLD)
    assert changes(shown, OLD, new) == [(10, bytes.fromhex("515100000000"))]
