"""Formats: other ways to show keys and values, and parts of them."""

from __future__ import annotations

import ipaddress
import json
import struct
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs.bpf.btf import Btf, Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.arrays import PerCpu, PerCpuSum
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec
from fusefs.text.errors import Refused
from fusefs.text.formats import (
    FORMATS,
    Unfit,
    check_setting,
    formatted,
    in_order,
    is_part,
    parse_settings,
    with_format,
)
from fusefs.text.lpm import lpm_codec
from fusefs.text.names import from_name, looks_scratch, to_name
from fusefs.text.value import check_begins, from_text, to_text


class Types:
    """One blob with a type of every kind, and codecs of them by short names."""

    def __init__(self) -> None:
        made = BtfBuilder()
        sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "u128": 16}
        ids = {name: made.integer(f"__{name}", size) for name, size in sizes.items()}
        u8, u16, u32, u64 = ids["u8"], ids["u16"], ids["u32"], ids["u64"]
        ids["s32"] = made.integer("int", 4, signed=True)
        ids["bool"] = made.integer("_Bool", 1, bool_=True)
        char = made.integer("char", 1, signed=True)
        ids["be32"] = made.typedef("__be32", u32)
        ids["pointer"] = made.pointer(0)
        ids["float"], ids["double"] = made.floating("float", 4), made.floating("double", 8)
        ids["x87"] = made.floating("long double", 16)
        ids["mode"] = made.enum("mode", 4, [("OFF", 0), ("ON", 1)])
        ids["wide"] = made.enum("wide", 8, [("LOW", 1), ("HIGH", 1 << 40)])
        ids["text"] = made.array(char, 6, u32)
        ids["six"] = made.array(u8, 6, u32)
        ids["sixteen"] = made.array(u8, 16, u32)
        ids["table"] = made.array(made.array(u32, 2, u32), 2, u32)
        ids["big"] = made.array(u8, 17, u32)
        ids["nothing"] = made.array(u8, 0, u32)
        ids["in_addr"] = made.struct("in_addr", 4, [("s_addr", u32, 0)])
        pair = ids["pair"] = made.struct("pair", 8, [("first", u32, 0), ("second", u32, 32)])
        ids["gap"] = made.struct("gap", 8, [("a", u8, 0), ("b", u32, 32)])
        ids["word"] = made.struct("word", 4, [("x", u32, 0)])
        ids["either"] = made.struct("either", 4, [("n", u32, 0), ("b", u8, 0)], union=True)
        s32 = ids["s32"]
        ids["bits"] = made.struct(
            "bits", 4, [("low", u32, 0, 3), ("middle", s32, 3, 9), ("high", u32, 12, 20)]
        )
        lock = made.struct("bpf_spin_lock", 4, [("val", u32, 0)])
        ids["locked"] = made.struct("locked", 8, [("lock", lock, 0), ("n", u32, 32)])
        inner = made.struct("", 8, [("left", u32, 0), ("right", u32, 32)])
        choice = made.struct("", 8, [("whole", u64, 0), ("", inner, 0)], union=True)
        members: list[tuple[str, int, int] | tuple[str, int, int, int]] = [
            ("a", pair, 0),
            ("", choice, 64),
            ("list", made.array(u32, 2, u32), 128),
            ("pairs", made.array(pair, 2, u32), 192),
            ("low", u32, 320, 3),
            ("rest", u32, 323, 29),
            ("name", ids["text"], 352),
            ("port", u16, 400),
            ("mac", ids["six"], 416),
            ("either", ids["either"], 480),
        ]
        ids["event"] = made.struct("event", 64, members)
        self.ids = ids
        self.btf = Btf.parse(made.build())

    def codec(self, name: str) -> Codec:
        """The codec of a type, or of so many bytes without one."""
        if name.startswith("raw"):
            return raw_codec(int(name.removeprefix("raw")))
        return compile_codec(self.btf, self.ids[name])

    def find(self, kind: Kind, name: str) -> tuple[Btf, int] | None:
        """As `MapBtf.find`."""
        kinds = (Kind.ENUM, Kind.ENUM64) if kind == Kind.ENUM else (kind,)
        found = self.btf.find(name, *kinds)
        return (self.btf, found) if found else None


TYPES = Types()
# All but structs that do not show all of their bytes.
WHOLE = [name for name in TYPES.ids if name not in ("gap", "locked", "event", "nothing")]
WHOLE += [f"raw{size}" for size in (1, 2, 3, 4, 6, 8, 16, 17)]


def shaped(name: str, form: str, target: str = "value") -> Codec:
    """The codec of a type, with a format."""
    return with_format(TYPES.codec(name), target, form, TYPES.find)


def shown(name: str, form: str, data: bytes, target: str = "value") -> str:
    """What it shows of some bytes."""
    return to_text(shaped(name, form, target), data).rstrip("\n")


# Each format by itself.

FOUR, SIX, EIGHT = b"\x0a\0\0\xff", b"\x52\x54\0\x12\x34\x56", b"\0\x01\x02\x03\x04\x05\x06\xff"


@pytest.mark.parametrize(
    ("name", "form", "data", "text"),
    [
        ("u32", "auto", FOUR, "4278190090"),
        ("u32", "hex", FOUR, '"0xff00000a"'),
        ("s32", "hex", FOUR, '"0xff00000a"'),
        ("be32", "hex", FOUR, '"0xa0000ff"'),
        ("raw4", "hex", FOUR, '"0a0000ff"'),
        ("mode", "hex", b"\1\0\0\0", '"0x1"'),
        ("bool", "hex", b"\1", '"0x1"'),
        ("double", "hex", EIGHT, '"00010203040506ff"'),
        ("pair", "hex", EIGHT, '"00010203040506ff"'),
        ("text", "hex", b"abc\0\0\0", '"616263000000"'),
        ("u128", "hex", FOUR + bytes(12), '"0xff00000a"'),
        ("u32", "int", b"\xff" * 4, "-1"),
        ("raw3", "int", b"\xfe\xff\xff", "-2"),
        ("mode", "int", b"\1\0\0\0", "1"),
        ("bool", "int", b"\xff", "-1"),
        ("pointer", "int", b"\xff" * 8, "-1"),
        ("float", "uint", b"\0\0\x80\x3f", str(0x3F800000)),
        ("s32", "uint", b"\xff" * 4, str((1 << 32) - 1)),
        ("be32", "uint", FOUR, "4278190090"),
        ("in_addr", "uint", FOUR, "4278190090"),
        ("pair", "uint", b"\1" + bytes(7), "1"),
        ("raw16", "uint", b"\xff" * 16, str((1 << 128) - 1)),
        ("u16", "be", b"\x01\xbb", "443"),
        ("raw6", "be", SIX, str(0x525400123456)),
        ("u128", "be", b"\xff" * 16, str((1 << 128) - 1)),
        ("be32", "be", FOUR, str(0x0A0000FF)),
        ("u32", "ipv4", FOUR, '"10.0.0.255"'),
        ("raw4", "ipv4", FOUR, '"10.0.0.255"'),
        ("float", "ipv4", FOUR, '"10.0.0.255"'),
        ("mode", "ipv4", FOUR, '"10.0.0.255"'),
        ("in_addr", "ipv4", FOUR, '"10.0.0.255"'),
        ("sixteen", "ipv6", bytes(15) + b"\1", '"::1"'),
        ("raw16", "ipv6", b"\x20\1\x0d\xb8" + bytes(12), '"2001:db8::"'),
        ("u128", "ipv6", bytes(10) + b"\xff\xff\x0a\0\0\1", '"::ffff:10.0.0.1"'),
        ("six", "mac", SIX, '"52:54:00:12:34:56"'),
        ("text", "mac", SIX, '"52:54:00:12:34:56"'),
        ("raw6", "mac", bytes(6), '"00:00:00:00:00:00"'),
        ("six", "str", b"eth0\0\0", '"eth0"'),
        ("raw6", "str", b"e\0h0\0\0", "[101, 0, 104, 48, 0, 0]"),
        ("u32", "str", b"abcd", '"abcd"'),
        ("big", "str", b"a" * 17, '"' + "a" * 17 + '"'),
        ("u64", "ktime", struct.pack("=Q", 1_500_000_000), "1.500000000"),
        ("pointer", "ktime", bytes(8), "0.000000000"),
        ("raw8", "ktime", b"\xff" * 8, "18446744073.709551615"),
        ("u64", "struct pair", struct.pack("=II", 1, 2), '{"first": 1, "second": 2}'),
        ("raw4", "union either", b"\1\0\0\0", '{"n": 1, "b": 1}'),
        ("u32", "enum mode", b"\1\0\0\0", '"ON"'),
        ("raw8", "enum wide", struct.pack("=Q", 1 << 40), '"HIGH"'),
        ("in_addr", "struct word", b"\1\0\0\0", '{"x": 1}'),
        ("u32", "struct in_addr", FOUR, '"10.0.0.255"'),
    ],
)
def test_what_a_format_shows(name: str, form: str, data: bytes, text: str) -> None:
    assert shown(name, form, data) == text
    json.loads(text)
    codec = shaped(name, form)
    assert from_text(codec, text, bytes(codec.size)) == data


@pytest.mark.parametrize(
    ("name", "form", "reason"),
    [
        ("u32", "ipv6", "it has 4 bytes, and the format is for 16"),
        ("u64", "ipv4", "it has 8 bytes, and the format is for 4"),
        ("u64", "mac", "it has 8 bytes, and the format is for 6"),
        ("u32", "ktime", "it has 4 bytes, and the format is for 8"),
        ("raw3", "ipv4", "it has 3 bytes, and the format is for 4"),
        ("event", "uint", "it has 64 bytes, and an integer has 1 to 16"),
        ("big", "be", "it has 17 bytes, and an integer has 1 to 16"),
        ("nothing", "int", "it has 0 bytes, and an integer has 1 to 16"),
        ("u32", "struct pair", "it has 4 bytes, and struct pair has 8"),
        ("raw16", "union either", "it has 16 bytes, and union either has 4"),
        ("u32", "enum wide", "it has 4 bytes, and enum wide has 8"),
        (
            "u32",
            "struct none",
            "no BTF of the map, the kernel or a configured file has struct none",
        ),
        ("u32", "union pair", "no BTF of the map, the kernel or a configured file has union pair"),
        ("u32", "enum pair", "no BTF of the map, the kernel or a configured file has enum pair"),
        (
            "u32",
            "struct mode",
            "no BTF of the map, the kernel or a configured file has struct mode",
        ),
    ],
)
def test_what_does_not_fit(name: str, form: str, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        shaped(name, form)
    assert caught.value.reason == f"value: {reason}"
    assert caught.value.target == "value"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", [*WHOLE, "gap", "locked", "event", "nothing"])
def test_every_format_fits_or_is_refused(name: str, form: str) -> None:
    """It depends on the size alone, and nothing else is ever raised."""
    codec = TYPES.codec(name)
    sizes = {"ipv4": [4], "ipv6": [16], "mac": [6], "ktime": [8]}
    sizes |= {number: list(range(1, 17)) for number in ("int", "uint", "be")}
    fits = codec.size in sizes.get(form, [codec.size])
    try:
        made = shaped(name, form)
    except Unfit:
        assert not fits
    else:
        assert fits
        assert made.size == codec.size
        json.loads(to_text(made, bytes(codec.size)))


def test_auto_changes_nothing() -> None:
    codec = TYPES.codec("event")
    assert with_format(codec, "value", "auto", TYPES.find) is codec


# Laws.


@st.composite
def written(draw: st.DrawFn, names: Sequence[str] = WHOLE) -> tuple[Codec, bytes]:
    """A type with a format that fits, and any bytes for it."""
    name = draw(st.sampled_from(names))
    forms = [*FORMATS, "struct pair", "union either", "enum mode", "enum wide", "struct bits"]
    codec = TYPES.codec(name)
    try:
        codec = with_format(codec, "value", draw(st.sampled_from(forms)), TYPES.find)
    except Unfit:
        codec = with_format(codec, "value", "hex", TYPES.find)
    return codec, draw(st.binary(min_size=codec.size, max_size=codec.size))


@given(written(), st.data())
def test_what_is_shown_is_written_back(sample: tuple[Codec, bytes], data: st.DataObject) -> None:
    codec, value = sample
    text = to_text(codec, value)
    json.loads(text)
    old = data.draw(st.binary(min_size=codec.size, max_size=codec.size))
    assert from_text(codec, text, value) == value
    other = from_text(codec, text, old)  # padding is not written
    told = codec.mask.to_bytes(codec.size, "little")
    assert all((a ^ b) & c == 0 for a, b, c in zip(other, value, told, strict=True))
    for end in range(len(text) - 1):
        check_begins(codec, text[:end])


@given(written())
def test_a_name_finds_its_key(sample: tuple[Codec, bytes]) -> None:
    codec, key = sample
    name = to_name(codec, key)
    assert from_name(codec, name) == key
    assert not looks_scratch(name)
    assert "/" not in name and name not in ("", ".", "..")


@st.composite
def settled(draw: st.DrawFn) -> tuple[Codec, bytes]:
    """`struct event` with formats for some of its parts, and bytes for it."""
    forms = st.sampled_from([*FORMATS, "struct pair", "enum mode", "struct word"])
    codec = TYPES.codec("event")
    for target in draw(st.lists(st.sampled_from(PARTS), unique=True)):
        try:
            codec = with_format(codec, target, draw(forms), TYPES.find)
        except Unfit as error:
            assert error.target == target
    return codec, draw(st.binary(min_size=codec.size, max_size=codec.size))


PARTS = """
    value.a value.a.first value.a.second value.whole value.left value.right value.list value.list[]
    value.pairs value.pairs[] value.pairs[].first value.low value.rest value.name value.port
    value.mac value.mac[] value.either value.either.n value.either.b
""".split()


@given(settled(), st.data())
def test_parts_are_written_back(sample: tuple[Codec, bytes], data: st.DataObject) -> None:
    codec, value = sample
    text = to_text(codec, value)
    json.loads(text)
    assert from_text(codec, text, value) == value
    old = data.draw(st.binary(min_size=codec.size, max_size=codec.size))
    over = from_text(codec, text, old)
    assert to_text(codec, over) == text
    name = to_name(codec, value)
    if "%#" not in name:
        assert from_name(codec, name) == value


@given(settled(), st.sampled_from(["port", "low", "rest", "left"]), st.integers(0, 7))
def test_writing_one_field_leaves_the_others(
    sample: tuple[Codec, bytes], field: str, number: int
) -> None:
    codec, old = sample
    before = json.loads(to_text(codec, old))
    try:
        new = from_text(codec, json.dumps({field: number}), old)
    except Refused:
        return
    after = json.loads(to_text(codec, new))
    shared = {"left", "right", "whole"}
    for other in before.keys() - ({field} | (shared if field in shared else set())):
        assert before[other] == after[other]


# Parts.

EVENT = bytes(range(64))


@pytest.mark.parametrize(
    ("target", "form", "path", "value"),
    [
        ("value.a.first", "ipv4", ["a", "first"], "0.1.2.3"),
        ("value.a", "hex", ["a"], "0001020304050607"),
        ("value.left", "ipv4", ["left"], "8.9.10.11"),
        ("value.whole", "be", ["whole"], 0x08090A0B0C0D0E0F),
        ("value.list[]", "ipv4", ["list"], ["16.17.18.19", "20.21.22.23"]),
        ("value.list", "be", ["list"], int.from_bytes(EVENT[16:24], "big")),
        ("value.pairs[].second", "be", ["pairs", 1, "second"], 0x24252627),
        ("value.pairs[]", "hex", ["pairs"], ["18191a1b1c1d1e1f", "2021222324252627"]),
        ("value.low", "hex", ["low"], "0x0"),
        ("value.rest", "int", ["rest"], 0x2B2A2928 >> 3),
        ("value.name", "mac", ["name"], "2c:2d:2e:2f:30:31"),
        ("value.mac", "mac", ["mac"], "34:35:36:37:38:39"),
        ("value.mac[]", "hex", ["mac", 5], "0x39"),
        ("value.either.n", "ipv4", ["either", "n"], "60.61.62.63"),
        ("value.either", "enum mode", ["either"], 0x3F3E3D3C),
        ("value.port", "be", ["port"], 0x3233),
    ],
)
def test_a_part(target: str, form: str, path: list[str | int], value: object) -> None:
    codec = shaped("event", form, target)
    plain = json.loads(to_text(TYPES.codec("event"), EVENT))
    found = formatted_value = json.loads(to_text(codec, EVENT))
    for step in path:
        found = found[step]
    assert found == value
    top = path[0]
    del plain[top], formatted_value[top]
    assert plain == formatted_value
    assert from_text(codec, to_text(codec, EVENT), bytes(64)) == from_text(
        TYPES.codec("event"), to_text(TYPES.codec("event"), EVENT), bytes(64)
    )


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("event", "value.none", "struct event has no field 'none'"),
        ("event", "value.a.none", "struct pair has no field 'none'"),
        ("event", "value[]", "struct event has no elements"),
        ("event", "value.a[]", "struct pair has no elements"),
        ("event", "value.port[]", "__u16 has no elements"),
        ("event", "value.port.x", "__u16 has no field 'x'"),
        ("event", "value.list.x", "__u32[2] has no field 'x'"),
        ("event", "value.list[][]", "__u32 has no elements"),
        ("event", "value.name[]", "char[6] has no elements"),
        ("raw4", "value.x", "4 bytes has no field 'x'"),
        ("locked", "value.lock", "struct locked has no field 'lock'"),
        ("event", "value." + "x" * 50, f"struct event has no field '{'x' * 37}...'"),
    ],
)
def test_parts_that_are_not_there(name: str, target: str, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        shaped(name, "hex", target)
    assert caught.value.reason == f"{target}: {reason}"


def test_elements_of_elements() -> None:
    data = b"\x0a\0\0\1" * 4
    rows = [["10.0.0.1"] * 2] * 2
    assert json.loads(shown("table", "ipv4", data, "value[][]")) == rows
    assert json.loads(shown("table", "hex", data, "value[]")) == [(b"\x0a\0\0\1" * 2).hex()] * 2


def test_what_would_be_too_large_is_refused() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    many = types.struct("many", 1, [(f"m{n}", u8, 0) for n in range(60)], union=True)
    array = types.array(u8, 400_000, u8)
    btf = Btf.parse(types.build())
    with pytest.raises(Unfit) as caught:
        with_format(compile_codec(btf, array), "value[]", "union many", lambda *_: (btf, many))
    assert caught.value.reason == "value[]: the value would be too large, or nested too deep"


# Bitfields: others are in the bytes that they are read from.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("field", ["low", "middle", "high"])
@settings(max_examples=25)
@given(data=st.binary(min_size=4, max_size=4))
def test_a_bitfield_stays_one(field: str, form: str, data: bytes) -> None:
    target = f"value.{field}"
    if form in ("be", "ipv4", "ipv6", "mac", "str", "ktime"):
        with pytest.raises(Unfit):
            shaped("bits", form, target)
        return
    codec = shaped("bits", form, target)
    value, plain = json.loads(to_text(codec, data)), json.loads(shown("bits", "auto", data))
    assert from_text(codec, to_text(codec, data), bytes(4)) == data
    width = {"low": 3, "middle": 9, "high": 20}[field]
    bits = plain[field] & (1 << width) - 1
    signed = bits - (1 << width) if bits >> (width - 1) else bits
    assert value[field] == {"auto": plain[field], "hex": hex(bits), "int": signed}.get(form, bits)
    del value[field], plain[field]
    assert value == plain


@pytest.mark.parametrize("form", ["enum mode", "struct word", "union either"])
def test_a_type_for_a_bitfield_does_not_touch_the_other_bits(form: str) -> None:
    """Either it does not fit, or it is shown and written in the bits of the field alone."""
    try:
        codec = shaped("bits", form, "value.low")
    except Unfit:
        return
    old = b"\xff\xff\xff\xff"
    text = '"ON"' if form == "enum mode" else '{"x": 1}' if form == "struct word" else '{"n": 1}'
    new = from_text(codec, f'{{"low": {text}}}', old)
    assert int.from_bytes(new, "little") == 0xFFFFFFF9
    assert json.loads(to_text(codec, old))["low"] == 7


@pytest.mark.parametrize("form", ["int", "uint", "hex", "auto"])
def test_the_name_of_a_bitfield_in_reasons(form: str) -> None:
    codec = shaped("bits", form, "value.low")
    with pytest.raises(Refused) as caught:
        from_text(codec, '{"low": 100}', bytes(4))
    low, high = (-4, 3) if form == "int" else (0, 7)
    reason = f"low: 100 is out of range for __u32:3 ({low} to {high})"
    assert caught.value.reason == reason


# What can be written.


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1", 10**9),
        ("1.5", 15 * 10**8),
        ("12.000000001", 12 * 10**9 + 1),
        ('"1.5"', 15 * 10**8),
        ("000001.100000000", 11 * 10**8),
        ("18446744073.709551615", 2**64 - 1),
    ],
)
def test_times_that_can_be_written(text: str, nanoseconds: int) -> None:
    assert from_text(shaped("u64", "ktime"), text, bytes(8)) == struct.pack("=Q", nanoseconds)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-1", "expected a number of seconds (__u64), got '-1'"),
        ("1.0000000001", "expected a number of seconds (__u64), got '1.0000000001'"),
        ("1e9", "expected a number of seconds (__u64), got '1e9'"),
        ("0x10", "expected a number of seconds (__u64), got '0x10'"),
        ("1.", "expected a number of seconds (__u64), got '1.'"),
        (".5", "expected a number of seconds (__u64), got '.5'"),
        ("soon", "expected a number of seconds (__u64), got 'soon'"),
        ("\u0661", "expected a number of seconds (__u64), got '\u0661'"),
        ("[1]", "expected a number of seconds (__u64), got an array"),
        ("18446744073.709551616", "18446744073.709551616 seconds (18446744073709551616 ns) is out "
         "of range for __u64 (0 to 18446744073709551615)"),
        ("9" * 5000, f"expected a number of seconds (__u64), got '{'9' * 37}...'"),
    ],
)  # fmt: skip
def test_what_is_no_time(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_text(shaped("u64", "ktime"), text, bytes(8))
    assert caught.value.reason == reason


@given(st.integers(0, 2**64 - 1))
def test_times_are_exact(nanoseconds: int) -> None:
    text = shown("u64", "ktime", struct.pack("=Q", nanoseconds))
    seconds, _, fraction = text.partition(".")
    assert (int(seconds) * 10**9 + int(fraction), len(fraction)) == (nanoseconds, 9)


@pytest.mark.parametrize(
    "text",
    ["52:54:0:12:34:56", "52-54-00-12-34-56", '"52:54:00:12:34:56"', "52:54:00:12:34:56"],
)
def test_hardware_addresses_that_can_be_written(text: str) -> None:
    assert from_text(shaped("raw6", "mac"), text, bytes(6)) == SIX


@pytest.mark.parametrize("text", ["525400123456", "52:54:00:12:34", "52:54:00:12:34:5g", "1", ""])
def test_what_is_no_hardware_address(text: str) -> None:
    with pytest.raises(Refused) as caught:
        from_text(shaped("raw6", "mac"), f'"{text}"', bytes(6))
    assert caught.value.reason == f"expected a hardware address, got {text!r}"


@given(st.integers(0, 2**32 - 1))
def test_hexadecimal_digits_of_big_endian_numbers(number: int) -> None:
    """They are those of the number, not of its bytes."""
    data = struct.pack(">I", number)
    assert shown("be32", "hex", data) == f'"{number:#x}"'
    assert from_text(shaped("be32", "hex"), f"{number:#x}", bytes(4)) == data


@given(st.binary(min_size=16, max_size=16))
def test_addresses_are_those_of_others(data: bytes) -> None:
    text = json.loads(shown("raw16", "ipv6", data))
    assert ipaddress.IPv6Address(text).packed == data


# Settings.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n \n\t\n\r\n", {}),
        ("key: ipv4", {"key": ("ipv4", 5)}),
        ("key: ipv4\n", {"key": ("ipv4", 5)}),
        ("  key  :  ipv4  \n", {"key": ("ipv4", 10)}),
        ("\tkey:ipv4", {"key": ("ipv4", 5)}),
        ("key: ipv4\r\nvalue: hex\r\n", {"key": ("ipv4", 5), "value": ("hex", 18)}),
        ("\n\nvalue.a[].b: be", {"value.a[].b": ("be", 15)}),
        ("key: hex\nkey: ipv4\n", {"key": ("ipv4", 14)}),
        ("value: struct   pair\n", {"value": ("struct pair", 7)}),
        ("value:\tunion\tu", {"value": ("union u", 7)}),
        ("percpu: sum\nkey: auto", {"percpu": ("sum", 8), "key": ("auto", 17)}),
        ("value.count[][]: hex", {"value.count[][]": ("hex", 17)}),
        ("value.päckets: hex", {"value.päckets": ("hex", 15)}),
    ],
)
def test_settings(text: str, expected: dict[str, tuple[str, int]]) -> None:
    assert parse_settings(text) == expected


KNOWN = "auto, hex, int, uint, be, ipv4, ipv6, mac, str, ktime"
NAMED = "struct NAME, union NAME, enum NAME"


@pytest.mark.parametrize(
    ("text", "reason", "at"),
    [
        ("nonsense", "expected TARGET: FORMAT, got 'nonsense'", 0),
        ("key: ipv4\nno colon\n", "expected TARGET: FORMAT, got 'no colon'", 10),
        ("keys: ipv4", "'keys' is no target: it is key, value, or a part of them, or percpu", 0),
        ("\n  keys: ipv4", "'keys' is no target: it is key, value, or a part of them, or percpu",
         3),
        ("value.: hex", "'value.' is no target: it is key, value, or a part of them, or percpu", 0),
        ("value[3]: hex",
         "'value[3]' is no target: it is key, value, or a part of them, or percpu", 0),
        ("value a: hex", "'value a' is no target: it is key, value, or a part of them, or percpu",
         0),
        (": hex", "'' is no target: it is key, value, or a part of them, or percpu", 0),
        ("key: ipv5", f"'ipv5' is no format of key: {KNOWN}, {NAMED}", 5),
        ("key: IPV4", f"'IPV4' is no format of key: {KNOWN}, {NAMED}", 5),
        ("key:", f"'' is no format of key: {KNOWN}, {NAMED}", 4),
        ("key: struct", f"'struct' is no format of key: {KNOWN}, {NAMED}", 5),
        ("key: typedef x", f"'typedef x' is no format of key: {KNOWN}, {NAMED}", 5),
        ("value.a: sum", f"'sum' is no format of value.a: {KNOWN}, {NAMED}", 9),
        ("key: hex\n percpu:  all", "'all' is no format of percpu: each, sum", 19),
        ("percpu: auto", "'auto' is no format of percpu: each, sum", 8),
        ("percpu: hex", "'hex' is no format of percpu: each, sum", 8),
    ],
)  # fmt: skip
def test_what_is_no_setting(text: str, reason: str, at: int) -> None:
    with pytest.raises(Refused) as caught:
        parse_settings(text)
    assert (caught.value.reason, caught.value.at) == (reason, at)


_WORDS = ["key", "value", "percpu", ":", " ", "\n", "\r", ".", "[]", "ipv4", "struct x", "sum", "["]


@given(st.one_of(st.text(), st.lists(st.sampled_from(_WORDS), max_size=20).map("".join)))
def test_any_text_is_settings_or_refused(text: str) -> None:
    try:
        parsed = parse_settings(text)
    except Refused as error:
        assert 0 <= error.at <= len(text)
        assert "\n" not in error.reason
        return
    for target, (name, at) in parsed.items():
        check_setting(target, name)
        assert text[at:].split()[: len(name.split())] == name.split()
        assert target in text[:at]


@given(st.text(), st.text())
def test_any_setting_is_one_or_refused(target: str, name: str) -> None:
    try:
        check_setting(target, name)
    except Refused as error:
        assert error.reason
        return
    for type_name in ("u32", "event", "raw4"):
        try:
            formatted(TYPES.codec(type_name), TYPES.codec(type_name), {target: name}, TYPES.find)
        except Unfit as error:
            assert error.target == target


def test_the_whole_comes_before_its_parts() -> None:
    targets = ["value.a.b", "value[]", "key.x", "value", "value.a", "key", "value[][].x"]
    ordered = in_order(dict.fromkeys(targets, "hex"))
    for target in targets:
        for whole in targets:
            if is_part(target, whole):
                assert ordered.index(whole) < ordered.index(target)


@pytest.mark.parametrize(
    "given_settings",
    [
        {"value.first": "ipv4", "value": "struct pair"},
        {"value": "struct pair", "value.first": "ipv4"},
    ],
)
def test_settings_apply_in_any_order(given_settings: dict[str, str]) -> None:
    key, value = formatted(TYPES.codec("u32"), raw_codec(8), given_settings, TYPES.find)
    assert to_text(value, FOUR + bytes(4)) == '{"first": "10.0.0.255", "second": 0}\n'
    assert to_text(key, FOUR) == "4278190090\n"


@pytest.mark.parametrize(
    ("target", "whole", "part"),
    [
        ("value.a", "value", True),
        ("value[]", "value", True),
        ("value.a.b", "value.a", True),
        ("value.ab", "value.a", False),
        ("value", "value", False),
        ("value", "value.a", False),
        ("key.a", "value", False),
    ],
)
def test_parts_of_a_whole(target: str, whole: str, part: bool) -> None:
    assert is_part(target, whole) is part


def test_keys_of_lpm_tries() -> None:
    key = lpm_codec(raw_codec(8))
    data = struct.pack("=I", 24) + b"\x0a\0\0\0"
    for form, text in [
        ("auto", '"10.0.0.0/24"'),
        ("hex", '"0a000000/24"'),
        ("be", f'"{0x0A000000}/24"'),
        ("ipv4", '"10.0.0.0/24"'),
        ("str", '{"prefixlen": 24, "data": "\\n"}'),
    ]:
        codec = with_format(key, "key", form, TYPES.find)
        assert to_text(codec, data) == f"{text}\n"
        assert from_text(codec, text, bytes(8)) == data
        assert from_name(codec, to_name(codec, data)) == data
    with pytest.raises(Unfit) as caught:
        with_format(key, "key", "ipv6", TYPES.find)
    assert caught.value.reason == "key: it has 4 bytes, and the format is for 16"


# The sum over all CPUs.


def cpus(name: str, values: Sequence[bytes]) -> tuple[Codec, bytes]:
    """A per-CPU value that is shown as a sum."""
    inner = TYPES.codec(name)
    codec = PerCpuSum(inner, len(values))
    data = b"".join(value.ljust((inner.size + 7) // 8 * 8, b"\0") for value in values)
    return codec, data


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("u32", [b"\1\0\0\0", b"\2\0\0\0"], "3"),
        ("u32", [b"\xff" * 4] * 3, str(3 * (2**32 - 1))),
        ("u64", [b"\xff" * 8] * 2, str(2 * (2**64 - 1))),
        ("u128", [b"\xff" * 16] * 2, str(2 * (2**128 - 1))),
        ("s32", [b"\xff" * 4, b"\2\0\0\0"], "1"),
        ("be32", [b"\0\0\0\1", b"\0\0\1\0"], "257"),
        ("double", [struct.pack("=d", 1.5), struct.pack("=d", 2.25)], "3.75"),
        ("mode", [b"\1\0\0\0"] * 2, '"ON"'),
        ("mode", [b"\1\0\0\0", bytes(4)], "null"),
        ("bool", [b"\1", b"\1"], "true"),
        ("bool", [b"\1", b"\0"], "null"),
        ("pointer", [bytes(8), bytes(8)], '"0x0"'),
        ("pointer", [bytes(8), b"\1" * 8], "null"),
        ("in_addr", [FOUR, FOUR], '"10.0.0.255"'),
        ("in_addr", [FOUR, bytes(4)], "null"),
        ("text", [b"abc\0\0\0"] * 2, '"abc"'),
        ("text", [b"abc\0\0\0", b"abd\0\0\0"], "null"),
        ("raw4", [FOUR, FOUR], '"0a0000ff"'),
        ("raw4", [FOUR, bytes(4)], "null"),
        ("pair", [struct.pack("=II", 1, 2)] * 2, '{"first": 2, "second": 4}'),
        ("bits", [b"\x0f\0\0\0"] * 2, '{"low": 14, "middle": 2, "high": 0}'),
        ("six", [b"\xff" * 6] * 2, "[510, 510, 510, 510, 510, 510]"),
        ("table", [struct.pack("=4I", 1, 2, 3, 4)] * 3, "[[3, 6], [9, 12]]"),
        ("either", [b"\1\1\0\0"] * 2, '{"n": 514, "b": 2}'),
        ("nothing", [b"", b""], "[]"),
        ("locked", [struct.pack("=II", 0, 5)] * 2, '{"n": 10}'),
        ("u32", [b"\5\0\0\0"], "5"),
    ],
)
def test_sums(name: str, values: list[bytes], text: str) -> None:
    codec, data = cpus(name, values)
    assert to_text(codec, data) == f"{text}\n"
    json.loads(text)


@pytest.mark.parametrize(
    "value", [struct.pack("=d", float("nan")), struct.pack("=d", float("inf")), b"\xff" * 8]
)
def test_sums_of_odd_floats_are_json(value: bytes) -> None:
    codec, data = cpus("double", [value, struct.pack("=d", -1e308), bytes(8)])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(to_text(codec, data), parse_constant=refuse)
    overflow, data = cpus("double", [struct.pack("=d", 1.7e308)] * 2)
    json.loads(to_text(overflow, data), parse_constant=refuse)


def sum_of(items: Sequence[object]) -> object:
    """What the sum of JSON values must be."""
    first = items[0]
    match first:
        case dict():
            objects = [item for item in items if isinstance(item, dict)]
            return {name: sum_of([item[name] for item in objects]) for name in first}
        case list():
            columns = zip(*(item for item in items if isinstance(item, list)), strict=True)
            return [sum_of(list(column)) for column in columns]
        case bool() | str():
            return first if all(item == first for item in items) else None
        case int():
            return sum(item for item in items if isinstance(item, int))
    raise AssertionError(first)


_SUMMED = ["u8", "u32", "s32", "be32", "u64", "u128", "pair", "bits", "six", "table", "either"]


@given(st.sampled_from(_SUMMED), st.integers(1, 5), st.data())
def test_sums_are_sums(name: str, count: int, data: st.DataObject) -> None:
    size = TYPES.codec(name).size
    values = [data.draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]
    codec, value = cpus(name, values)
    each = json.loads(to_text(PerCpu(TYPES.codec(name), count), value))
    assert json.loads(to_text(codec, value)) == sum_of(each)


@pytest.mark.parametrize("text", ["5", "[1, 2]", "{}", '{"first": 1}', "null"])
@pytest.mark.parametrize("name", ["u32", "pair"])
def test_sums_cannot_be_written(name: str, text: str) -> None:
    codec, data = cpus(name, [bytes(TYPES.codec(name).size)] * 2)
    with pytest.raises(Refused) as caught:
        from_text(codec, text, data)
    assert caught.value.reason == "a sum over all CPUs cannot be written; set `percpu: each`"


def test_a_table_of_formats_makes_codecs_of_the_same_size() -> None:
    make: Callable[[Codec], Codec]
    for name, make in FORMATS.items():
        for size in (4, 6, 8, 16):
            try:
                assert make(raw_codec(size)).size == size
            except Refused:
                assert name not in ("auto", "hex", "int", "uint", "be", "str")
