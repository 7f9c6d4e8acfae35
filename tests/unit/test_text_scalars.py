"""Scalars: what they show, what they take, what they refuse and why."""

from __future__ import annotations

import math
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text.addresses import Ipv4, Ipv6
from fusefs.text.codec import Codec
from fusefs.text.compile import raw_codec
from fusefs.text.errors import Refused
from fusefs.text.floats import Float
from fusefs.text.jsontext import Json
from fusefs.text.scalars import Bitfield, Bool, Enumeration, Integer, Number, Pointer
from fusefs.text.strings import CharArray
from fusefs.text.value import from_text

U8 = Integer("unsigned char", 1, signed=False)
S8 = Integer("signed char", 1, signed=True)
U32 = Integer("unsigned int", 4, signed=False)
S64 = Integer("long long", 8, signed=True)
U128 = Integer("unsigned __int128", 16, signed=False)
BE16 = Integer("__be16", 2, signed=False, order="big")
BOOL = Bool("_Bool")
POINTER = Pointer("void *", 8)
ACTION = Enumeration(
    "enum xdp_action",
    4,
    signed=False,
    values=[("XDP_ABORTED", 0), ("XDP_DROP", 1), ("XDP_PASS", 2), ("XDP_ALIAS", 2)],
)
SIGNED = Enumeration("enum sign", 1, signed=True, values=[("MINUS", -1), ("PLUS", 1)])


def native(number: int, size: int) -> bytes:
    return number.to_bytes(size, sys.byteorder, signed=number < 0)


def encode(codec: Codec, text: str) -> bytes:
    return from_text(codec, text, bytes(codec.size))


@pytest.mark.parametrize(
    ("codec", "text", "data"),
    [
        (U8, "255", b"\xff"),
        (U8, "0xfF", b"\xff"),
        (U8, "0b101", b"\5"),
        (U8, "0o17", b"\x0f"),
        (U8, "007", b"\7"),
        (U8, "-0", b"\0"),
        (U8, '"42"', b"*"),
        (S8, "-0x80", b"\x80"),
        (S64, "-1", b"\xff" * 8),
        (U128, str(2**128 - 1), b"\xff" * 16),
        (BE16, "443", b"\x01\xbb"),
        (BOOL, "true", b"\1"),
        (BOOL, "false", b"\0"),
        (BOOL, "1", b"\1"),
        (BOOL, "7", b"\7"),
        (POINTER, "0xffff888000000000", native(0xFFFF888000000000, 8)),
        (POINTER, '"0x0"', bytes(8)),
        (POINTER, "4096", native(4096, 8)),
        (ACTION, "XDP_PASS", native(2, 4)),
        (ACTION, '"XDP_ALIAS"', native(2, 4)),
        (ACTION, "99", native(99, 4)),
        (SIGNED, "MINUS", b"\xff"),
        (SIGNED, "-128", b"\x80"),
        (Ipv4("struct in_addr"), "10.0.0.1", b"\x0a\0\0\1"),
        (Ipv6("struct in6_addr"), "fe80::1", b"\xfe\x80" + bytes(13) + b"\1"),
        (Ipv6("struct in6_addr"), "::ffff:1.2.3.4", bytes(10) + b"\xff\xff\1\2\3\4"),
        (CharArray(4), "eth0", b"eth0"),
        (CharArray(8), "a b", b"a b\0\0\0\0\0"),
        (CharArray(2), '"\\u00e9"', "é".encode()),
        (CharArray(4), '""', bytes(4)),
        (CharArray(4), "42", b"42\0\0"),
        (CharArray(3), "[255, -1, 0x41]", b"\xff\xffA"),
        (raw_codec(3), "0A0b0c", b"\x0a\x0b\x0c"),
        (raw_codec(3), '"0a 0b 0c"', b"\x0a\x0b\x0c"),
        (raw_codec(3), "0a 0b 0c\n", b"\x0a\x0b\x0c"),
        (raw_codec(4), "00000010", b"\0\0\0\x10"),
        (raw_codec(4), "10", native(10, 4)),
        (raw_codec(4), "0x00000010", native(16, 4)),
        (raw_codec(4), "-1", b"\xff" * 4),
        (raw_codec(1), "10", b"\x10"),
        (raw_codec(1), "5", b"\5"),
        (raw_codec(1), "255", b"\xff"),
    ],
)
def test_what_is_taken(codec: Codec, text: str, data: bytes) -> None:
    assert encode(codec, text) == data


@pytest.mark.parametrize(
    ("codec", "text", "reason"),
    [
        (U8, "256", "256 is out of range for unsigned char (0 to 255)"),
        (U8, "-1", "-1 is out of range for unsigned char (0 to 255)"),
        (S8, "128", "128 is out of range for signed char (-128 to 127)"),
        (U32, "1e6", "expected an integer (unsigned int), got '1e6'"),
        (U32, "5.0", "expected an integer (unsigned int), got '5.0'"),
        (U32, "5 garbage", "expected an integer (unsigned int), got '5 garbage'"),
        (U32, '" 5"', "expected an integer (unsigned int), got ' 5'"),
        (U32, "1_000", "expected an integer (unsigned int), got '1_000'"),
        (U32, "٣", "expected an integer (unsigned int), got '٣'"),
        (U32, "+5", "expected an integer (unsigned int), got '+5'"),
        (U32, "true", "expected an integer (unsigned int), got 'true'"),
        (U32, "null", "expected an integer (unsigned int), got 'null'"),
        (U32, "0x", "expected an integer (unsigned int), got '0x'"),
        (U32, '""', "expected an integer (unsigned int), got ''"),
        (U32, "[1]", "expected unsigned int, got an array"),
        (U32, "{}", "expected unsigned int, got an object"),
        (U32, "9" * 1000, f"expected an integer (unsigned int), got '{'9' * 37}...'"),
        (BOOL, "True", "expected an integer (_Bool), got 'True'"),
        (BOOL, "256", "256 is out of range for _Bool (0 to 255)"),
        (
            ACTION,
            "XDP",
            "expected one of XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_ALIAS (enum xdp_action), "
            "got 'XDP'",
        ),
        (ACTION, "-1", "-1 is out of range for enum xdp_action (0 to 4294967295)"),
        (Ipv4("struct in_addr"), "10.0.0.256", "expected an IPv4 address, got '10.0.0.256'"),
        (Ipv4("struct in_addr"), "10", "expected an IPv4 address, got '10'"),
        (Ipv6("struct in6_addr"), "fe80::1%eth0", "expected an IPv6 address, got 'fe80::1%eth0'"),
        (CharArray(4), "eth0x", "'eth0x' has 5 bytes, too long for char[4]"),
        (CharArray(4), '"a\\u0000b"', "a string cannot hold a NUL character"),
        (CharArray(4), "[1]", "expected 4 elements, got 1"),
        (CharArray(2), "[0, 256]", "[1]: 256 is out of range for char (-128 to 255)"),
        (CharArray(2), "[0, x]", "[1]: expected a char, got 'x'"),
        (raw_codec(3), "10", "expected 6 hexadecimal digits, got '10'"),
        (raw_codec(2), "0x10000", "0x10000 is out of range for 2 bytes (-32768 to 65535)"),
        (raw_codec(2), "xy", "expected 4 hexadecimal digits or an integer, got 'xy'"),
        (raw_codec(2), "[]", "expected 4 hexadecimal digits or an integer, got an array"),
        (Float("float", 4), "1e39", "1e39 is out of range for float"),
        (Float("double", 8), "1e999", "1e999 is out of range for double"),
        (Float("double", 8), "1_0", "expected a number (double), got '1_0'"),
        (Float("double", 8), "0x10", "expected a number (double), got '0x10'"),
    ],
)
def test_what_is_refused(codec: Codec, text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        encode(codec, text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("codec", "data", "value"),
    [
        (S8, b"\xff", -1),
        (BE16, b"\x01\xbb", 443),
        (BOOL, b"\1", True),
        (BOOL, b"\2", 2),
        (ACTION, native(2, 4), "XDP_PASS"),
        (ACTION, native(7, 4), 7),
        (SIGNED, b"\xff", "MINUS"),
        (POINTER, native(0xFF, 8), "0xff"),
        (CharArray(4), b"eth0", "eth0"),
        (CharArray(4), b"ab\0\0", "ab"),
        (CharArray(4), b"a\0b\0", [97, 0, 98, 0]),
        (CharArray(2), b"\xff\0", [255, 0]),
        (raw_codec(2), b"\x0a\xff", "0aff"),
    ],
)
def test_what_is_shown(codec: Codec, data: bytes, value: Json) -> None:
    assert codec.decode(data) == value
    assert type(codec.decode(data)) is type(value)


def test_enumerators_that_would_mislead_are_left_out() -> None:
    odd = Enumeration("enum", 4, signed=False, values=[("5", 7), ("A", 1), ("A", 2), ("", 3)])
    assert [odd.decode(native(n, 4)) for n in (7, 1, 2, 3)] == [7, "A", 2, 3]
    assert encode(odd, "5") == native(5, 4)


def test_unmarked_negative_enumerators() -> None:
    old = Enumeration("enum", 1, signed=False, values=[("ERROR", 0xFFFFFFFF)])
    assert old.decode(b"\xff") == "ERROR"
    assert encode(old, "ERROR") == b"\xff"


BEGINS: list[tuple[Codec, list[str], list[str]]] = [
    (U8, ["", "-", "0x", "0b1", "25", "255", "0x0ff", "000", "-0"], ["256", "abc", "1.", "0x100"]),
    (S8, ["-", "-12", "-128", "-0x8", "127"], ["-129", "128", "--", "-0x81"]),
    (BOOL, ["t", "tru", "fals", "true", "7"], ["truee", "x", "300"]),
    (ACTION, ["X", "XDP_P", "XDP_PASS", "1", "0x"], ["XDP_Q", "xdp", "-1", "5000000000"]),
    (POINTER, ["0xffff", "1"], ["-1", "0x1" + "0" * 16]),
    (Ipv4(""), ["", "1", "10.0.", "10.0.0.1"], ["10.0.0.0.", "x", "1000"]),
    (Ipv6(""), ["", "f", "fe80::", "::ffff:1.2.3.4"], ["g", "fe80%", ":" * 46]),
    (CharArray(4), ["", "a", "eth0"], ["eth00", "éé1"]),
    (raw_codec(4), ["", "-", "0a", "0a0", "0a 0b", "0x0a", "4294967295"], ["0g", "-x", "0" * 9000]),
    (raw_codec(3), ["", "0", "0a0b0c"], ["-", "0x", "0a0b0c0"]),
    (Float("float", 4), ["", "-", "1", "1.", "1e", "1e-", ".5", "na", "-inf", "0x7f"], ["x", "1x"]),
]


@pytest.mark.parametrize(("codec", "good", "bad"), BEGINS)
def test_begins(codec: Codec, good: list[str], bad: list[str]) -> None:
    assert [token for token in good if not codec.begins(token)] == []
    assert [token for token in bad if codec.begins(token)] == []


def test_float_forms() -> None:
    double, single = Float("double", 8), Float("float", 4)
    assert single.decode(struct.pack("=f", 0.1)) == 0.1
    assert str(double.decode(struct.pack("=d", -0.0))) == "-0.0"
    assert double.decode(struct.pack("=d", math.inf)) == "inf"
    assert double.decode(struct.pack("=d", -math.inf)) == "-inf"
    assert single.decode(native(0x7FC00000, 4)) == "nan"
    assert single.decode(native(0x7F800001, 4)) == "0x7f800001"
    assert encode(single, "0xffc00000") == native(0xFFC00000, 4)
    assert encode(double, "Infinity") == struct.pack("=d", math.inf)
    assert encode(double, "NaN") == native(0x7FF8 << 48, 8)


@pytest.mark.parametrize(("size", "code"), [(2, "e"), (4, "f"), (8, "d")])
@given(data=st.data())
def test_floats_keep_every_bit(size: int, code: str, data: st.DataObject) -> None:
    codec = Float("float", size)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    shown = codec.decode(raw)
    assert encode(codec, str(shown)) == raw
    if isinstance(shown, float):
        assert struct.pack("=" + code, shown) == raw


@given(st.integers(1, 16), st.booleans(), st.integers())
def test_integers_are_taken_in_range_only(size: int, signed: bool, number: int) -> None:
    codec = Integer("integer", size, signed=signed)
    for text in (str(number), hex(number), bin(number), oct(number)):
        try:
            assert codec.decode(encode(codec, text)) == number
            assert codec.low <= number <= codec.high
        except Refused:
            assert not codec.low <= number <= codec.high


@given(st.integers(0, 7), st.integers(1, 32), st.booleans(), st.data())
def test_bitfields_leave_their_neighbours_alone(
    first: int, bits: int, signed: bool, data: st.DataObject
) -> None:
    number: Number = Integer("int", 4, signed=signed)
    size = (first + bits + 7) // 8
    codec = Bitfield(number, size, first, bits)
    old = data.draw(st.binary(min_size=size, max_size=size))
    value = data.draw(st.integers(codec.number.low, codec.number.high))
    new = from_text(codec, str(value), old)
    assert codec.decode(new) == value
    changed = int.from_bytes(old, sys.byteorder) ^ int.from_bytes(new, sys.byteorder)
    shift = first if sys.byteorder == "little" else size * 8 - first - bits
    assert changed & ~((1 << bits) - 1 << shift) == 0
