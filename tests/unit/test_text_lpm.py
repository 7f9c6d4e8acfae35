"""Keys of LPM tries: a prefix and its length, whatever the type of the prefix."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec
from fusefs.text.errors import Refused
from fusefs.text.formats import with_format
from fusefs.text.lpm import Lpm, lpm_codec, prefix
from fusefs.text.names import digest_of, from_name, key_digest, looks_scratch, to_name
from fusefs.text.strings import CharArray
from fusefs.text.value import from_text, to_text

# Makes the members behind the length, and gives them with the size of the whole.
Members = tuple[list[tuple[str, int, int]], int]
Make = Callable[[BtfBuilder, dict[str, int]], Members]


def typed(make: Make) -> Codec:
    """The codec of `struct key { __u32 prefixlen; ... }` with the members that `make` gives."""
    made = BtfBuilder()
    sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
    ids = {name: made.integer(f"__{name}", size) for name, size in sizes.items()}
    ids["char"] = made.integer("char", 1, signed=True)
    ids["in_addr"] = made.struct("in_addr", 4, [("s_addr", ids["u32"], 0)])
    bytes16 = made.array(ids["u8"], 16, ids["u32"])
    ids["in6_addr"] = made.struct("in6_addr", 16, [("bytes", bytes16, 0)])
    members, size = make(made, ids)
    key = made.struct("key", size, [("prefixlen", ids["u32"], 0), *members])
    return lpm_codec(compile_codec(Btf.parse(made.build()), key))


def array(element: str, count: int) -> Make:
    """An array behind the length."""
    return lambda made, ids: (
        [("data", made.array(ids[element], count, ids["u32"]), 32)],
        4 + count * (4 if element == "u32" else 1),
    )


def nested(made: BtfBuilder, ids: dict[str, int]) -> tuple[list[tuple[str, int, int]], int]:
    """A struct behind the length."""
    at = made.struct("at", 8, [("zone", ids["u32"], 0), ("address", ids["u32"], 32)])
    return [("at", at, 32)], 12


CODECS = {
    **{f"raw{size}": lpm_codec(raw_codec(4 + size)) for size in (1, 2, 3, 4, 6, 8, 16, 20, 256)},
    "u32": typed(lambda made, ids: ([("address", ids["u32"], 32)], 8)),
    "be32": typed(lambda made, ids: ([("address", made.typedef("__be32", ids["u32"]), 32)], 8)),
    "in_addr": typed(lambda made, ids: ([("address", ids["in_addr"], 32)], 8)),
    "in6_addr": typed(lambda made, ids: ([("address", ids["in6_addr"], 32)], 20)),
    "u8[4]": typed(array("u8", 4)),
    "u8[6]": typed(array("u8", 6)),
    "u8[16]": typed(array("u8", 16)),
    "char[4]": typed(array("char", 4)),
    "char[10]": typed(array("char", 10)),
    "str": Lpm("14 bytes", CharArray(10)),
    "u32[4]": typed(array("u32", 4)),
    "u64": typed(lambda made, ids: ([("n", ids["u64"], 64)], 16)),
    "fields": typed(
        lambda made, ids: ([("vrf", ids["u32"], 32), ("address", ids["in_addr"], 64)], 12)
    ),
    "nested": typed(nested),
    "gap": typed(lambda made, ids: ([("a", ids["u8"], 32), ("b", ids["u32"], 64)], 12)),
    "mode": typed(
        lambda made, ids: ([("mode", made.enum("mode", 4, [("A_1", 0), ("sed_ab", 1)]), 32)], 8)
    ),
}
each = pytest.mark.parametrize("name", CODECS)


def key(length: int, data: bytes) -> bytes:
    """A key as the kernel has it."""
    return struct.pack("=I", length) + data


@st.composite
def keys(draw: st.DrawFn, name: str) -> bytes:
    """Any key that an LPM trie can have."""
    size = CODECS[name].size - 4
    length = draw(st.integers(0, size * 8))
    return key(length, draw(st.binary(min_size=size, max_size=size)))


V4 = bytes([10, 1, 3, 77])
V6 = bytes.fromhex("20010db8000000000000000000000001")


@pytest.mark.parametrize(
    ("name", "data", "length", "text", "file"),
    [
        ("raw4", V4, 24, "10.1.3.77/24", "10.1.3.77_24"),
        ("u32", V4, 24, "10.1.3.77/24", "10.1.3.77_24"),
        ("be32", V4, 24, "10.1.3.77/24", "10.1.3.77_24"),
        ("in_addr", V4, 32, "10.1.3.77/32", "10.1.3.77_32"),
        ("u8[4]", bytes(4), 0, "0.0.0.0/0", "0.0.0.0_0"),
        ("char[4]", b"com\0", 24, {"prefixlen": 24, "data": "com"}, "com_24"),
        ("raw16", V6, 64, "2001:db8::1/64", "2001:db8::1_64"),
        ("u8[16]", bytes(16), 0, "::/0", "::_0"),
        ("in6_addr", V6, 128, "2001:db8::1/128", "2001:db8::1_128"),
        ("raw6", b"\x52\x54\0\x12\x34\x56", 24, "525400123456/24", "525400123456_24"),
        ("u8[6]", b"abc\0\0\0", 24, "616263000000/24", "616263000000_24"),
        ("raw1", b"\x80", 1, "80/1", "80_1"),
        ("mode", b"\1\0\0\0", 32, "sed_ab/32", "%73ed_ab_32"),
        ("mode", b"\0\0\0\0", 32, "A_1/32", "A_1_32"),
    ],
)
def test_what_is_shown(name: str, data: bytes, length: int, text: object, file: str) -> None:
    codec, whole = CODECS[name], key(length, data)
    assert isinstance(codec, Lpm)
    assert json.loads(to_text(codec, whole)) == text
    assert to_name(codec, whole) == file
    assert from_name(codec, file) == whole


def test_structs_are_objects() -> None:
    codec, whole = CODECS["fields"], key(48, struct.pack("=I", 7) + V4)
    shown = {"prefixlen": 48, "data": {"vrf": 7, "address": "10.1.3.77"}}
    assert json.loads(to_text(codec, whole)) == shown
    assert to_name(codec, whole) == "{vrf=7,address=10.1.3.77}_48"
    assert json.loads(to_text(CODECS["nested"], whole))["data"].keys() == {"zone", "address"}
    text = CODECS["str"]
    assert to_text(text, key(24, b"abc".ljust(10, b"\0"))) == '{"prefixlen": 24, "data": "abc"}\n'
    assert to_name(text, key(24, b"abc".ljust(10, b"\0"))) == "abc_24"
    assert to_name(text, key(0, bytes(10))) == "%00_0"


@each
@settings(max_examples=40)
@given(data=st.data())
def test_what_is_shown_is_written_back(name: str, data: st.DataObject) -> None:
    codec, whole = CODECS[name], data.draw(keys(name))
    text = to_text(codec, whole)
    json.loads(text)
    assert text.count("\n") == 1
    assert from_text(codec, text, whole) == whole
    written = from_text(codec, text, bytes(codec.size))
    assert to_text(codec, written) == text
    if name not in ("gap", "u64"):
        assert written == whole


@each
@settings(max_examples=40)
@given(data=st.data())
def test_a_name_finds_its_key(name: str, data: st.DataObject) -> None:
    codec, whole = CODECS[name], data.draw(keys(name))
    file = to_name(codec, whole)
    if digest := digest_of(file):
        assert digest == key_digest(whole)
    else:
        assert from_name(codec, file) == whole
    assert len(file.encode()) <= 255
    assert not looks_scratch(file)
    assert "/" not in file and "\0" not in file


@each
@settings(max_examples=40)
@given(data=st.data())
def test_names_differ(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    one, other = data.draw(keys(name)), data.draw(keys(name))
    assert (to_name(codec, one) == to_name(codec, other)) == (one == other)


@given(st.binary(min_size=10, max_size=10), st.integers(0, 80))
@example(b"a_8\0\0\0\0\0\0\0", 16)
@example(b"a/8_\0\0\0\0\0\0", 16)
@example(b"a%2F8\0\0\0\0\0", 16)
@example(b".hidden\0\0\0", 8)
@example(b"raw=\0\0\0\0\0\0", 8)
@example(b'{"a": 1}\0\0', 8)
@example(b"sedab\0\0\0\0\0", 80)
@example(b"\xff\xfe\x00\x01abcdef", 80)
def test_any_text_is_a_prefix(data: bytes, length: int) -> None:
    codec, whole = CODECS["str"], key(length, data)
    assert from_name(codec, to_name(codec, whole)) == whole
    assert from_text(codec, to_text(codec, whole), bytes(14)) == whole


@pytest.mark.parametrize(
    "file",
    [
        "10.1.0.0_16",
        "10.1.0.0%2F16",
        "10.1.0.0%2f16",
        "10.1.0.0/16",
        "10.1.0.0_0x10",
        "10.1.0.0_016",
        "10.1.0.0_0b10000",
        '{"prefixlen": 16, "data": "10.1.0.0"}',
        '{"data": "10.1.0.0", "prefixlen": "16"}',
        '"10.1.0.0"_16',
        "%31%30.1.0.0_16",
    ],
)
@pytest.mark.parametrize("name", ["raw4", "u32", "be32", "in_addr", "u8[4]"])
def test_other_spellings_of_a_name(name: str, file: str) -> None:
    assert from_name(CODECS[name], file) == key(16, bytes([10, 1, 0, 0]))


@pytest.mark.parametrize(
    "text",
    [
        '"10.1.0.0/16"',
        "10.1.0.0/16",
        "10.1.0.0_16",
        '"10.1.0.0_0x10"',
        '{"prefixlen": 16, "data": "10.1.0.0"}',
        "{data: 10.1.0.0, prefixlen: 16}",
    ],
)
def test_other_spellings_of_a_text(text: str) -> None:
    assert from_text(CODECS["raw4"], text, bytes(8)) == key(16, bytes([10, 1, 0, 0]))


@pytest.mark.parametrize(
    "file",
    [
        "{vrf=7,address=10.1.0.0}_48",
        "{address=10.1.0.0,vrf=0x7}_0x30",
        "{vrf=7,address=10.1.0.0}%2F48",
        '{"prefixlen": 48, "data": {"vrf": 7, "address": "10.1.0.0"}}',
        "vrf=7,address=10.1.0.0_48",
    ],
)
def test_other_spellings_of_a_struct(file: str) -> None:
    wanted = key(48, struct.pack("=I", 7) + bytes([10, 1, 0, 0]))
    assert from_name(CODECS["fields"], file) == wanted


V6_SPELLINGS = ["2001:db8::1_64", "2001:DB8:0:0:0:0:0:1_64", "2001:db8::0.0.0.1%2F64"]


@pytest.mark.parametrize("file", V6_SPELLINGS)
@pytest.mark.parametrize("name", ["raw16", "in6_addr", "u8[16]"])
def test_other_spellings_of_ipv6(name: str, file: str) -> None:
    assert from_name(CODECS[name], file) == key(64, V6)


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("raw4", "10.1.0.0_33", "a prefix of 8 bytes has at most 32 bits"),
        ("u32", "10.1.0.0_33", "a prefix of struct key has at most 32 bits"),
        ("raw16", "::_129", "a prefix of 20 bytes has at most 128 bits"),
        ("raw1", "80_9", "a prefix of 5 bytes has at most 8 bits"),
        ("raw4", "10.1.0.0", "expected a prefix and its length in bits, as 10.1.0.0_8"),
        ("raw4", "", "expected a prefix and its length in bits, as _8"),
        ("raw4", "10.1.0.0_-1", "-1 is out of range for prefixlen (0 to 4294967295)"),
        ("raw4", "10.1.0.0_4294967296",
         "4294967296 is out of range for prefixlen (0 to 4294967295)"),
        ("raw4", "10.1.0.0_x", "expected an integer (prefixlen), got 'x'"),
        ("raw4", "10.1.0.0_", "expected an integer (prefixlen), got ''"),
        ("raw4", "10.1.0_16", "expected an IPv4 address, got '10.1.0'"),
        ("raw4", "_16", "expected an IPv4 address, got ''"),
        ("raw4", "::_16", "expected an IPv4 address, got '::'"),
        ("raw4", '{"prefixlen": 16}',
         "a key needs all of its fields, and data is left out"),
        ("raw4", '{"data": "10.1.0.0"}',
         "a key needs all of its fields, and prefixlen is left out"),
        ("raw4", '{"prefixlen": 16, "data": "10.1.0.0", "x": 1}',
         "a prefix has no field 'x'; its fields are prefixlen, data"),
        ("raw4", "raw=00", "expected 16 hexadecimal digits after raw="),
        ("fields", "{vrf=7}_48",
         "a key needs all of its fields, and data.address is left out"),
        ("fields", "7_48", "no '=' after the field name '7'"),
        ("raw6", "5254_8", "expected 12 hexadecimal digits, got '5254'"),
        ("raw4", "10.15.0.0%2F1_6", "expected an integer (prefixlen), got '1_6'"),
        ("in6_addr", "2001:db8::_1/6", "expected an integer (prefixlen), got '1/6'"),
    ],
)  # fmt: skip
def test_what_is_no_name(name: str, file: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_name(CODECS[name], file)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.1.0.0", "expected a prefix and its length in bits, as 10.1.0.0/8"),
        ("10.1.0.0/33", "a prefix of 8 bytes has at most 32 bits"),
        ('{"prefixlen": 33}', "a prefix of 8 bytes has at most 32 bits"),
        ("[10, 1, 0, 0, 16]", "expected a prefix, got an array"),
        ("10.1/16", "expected an IPv4 address, got '10.1'"),
        ("10.1.0.0/a", "expected an integer (prefixlen), got 'a'"),
        ("10.15.0.0/1_6", "expected an integer (prefixlen), got '1_6'"),
    ],
)
def test_what_is_no_text(text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_text(CODECS["raw4"], text, bytes(8))
    assert caught.value.reason == reason


@given(st.text())
def test_any_name_is_a_key_or_refused(file: str) -> None:
    for name in ("raw4", "str", "fields", "mode"):
        try:
            whole = from_name(CODECS[name], file)
        except Refused:
            continue
        assert from_name(CODECS[name], to_name(CODECS[name], whole)) == whole


@each
@settings(max_examples=40)
@given(data=st.data())
def test_bits_after_the_prefix_are_kept_and_do_not_tell_prefixes_apart(
    name: str, data: st.DataObject
) -> None:
    codec, whole = CODECS[name], data.draw(keys(name))
    assert isinstance(codec, Lpm)
    length = int.from_bytes(whole[:4], "little")
    bit = data.draw(st.integers(0, (codec.size - 4) * 8 - 1))
    changed = bytearray(whole)
    changed[4 + bit // 8] ^= 0x80 >> bit % 8
    assert (prefix(bytes(changed)) == prefix(whole)) == (bit >= length)
    assert to_name(codec, bytes(changed)) != to_name(codec, whole)


def whole_type(make: Callable[[BtfBuilder], int]) -> Codec:
    """What becomes of a key of the type that `make` gives."""
    made = BtfBuilder()
    type_id = make(made)
    return lpm_codec(compile_codec(Btf.parse(made.build()), type_id))


def header(made: BtfBuilder, *, union: bool = False) -> tuple[int, int]:
    """`struct bpf_lpm_trie_key` or `struct bpf_lpm_trie_key_hdr` of linux/bpf.h, and `__u32`."""
    u32 = made.integer("__u32", 4)
    nothing = made.array(made.integer("__u8", 1), 0, u32)
    if union:
        return made.struct("bpf_lpm_trie_key_hdr", 4, [("prefixlen", u32, 0)]), u32
    return made.struct("bpf_lpm_trie_key", 4, [("prefixlen", u32, 0), ("data", nothing, 32)]), u32


def embedded(made: BtfBuilder) -> int:
    """struct key { struct bpf_lpm_trie_key trie_key; __u32 address; }, as the kernel's own tests
    and many programs have it."""
    trie_key, u32 = header(made)
    return made.struct("key", 8, [("trie_key", trie_key, 0), ("address", u32, 32)])


def embedded_header(made: BtfBuilder) -> int:
    """struct key { struct bpf_lpm_trie_key_hdr hdr; __u32 address; }."""
    hdr, u32 = header(made, union=True)
    return made.struct("key", 8, [("hdr", hdr, 0), ("address", u32, 32)])


def with_union(made: BtfBuilder) -> int:
    """struct bpf_lpm_trie_key_u8 of linux/bpf.h, with four bytes of data."""
    hdr, u32 = header(made, union=True)
    either = made.struct("", 4, [("hdr", hdr, 0), ("prefixlen", u32, 0)], union=True)
    data = made.array(made.integer("__u8", 1), 4, u32)
    return made.struct("key", 8, [("", either, 0), ("data", data, 32)])


@pytest.mark.parametrize("make", [embedded, embedded_header, with_union])
def test_forms_of_the_kernels_header(make: Callable[[BtfBuilder], int]) -> None:
    """The length may be within a struct or union: all of these are keys of LPM tries."""
    codec = whole_type(make)
    assert isinstance(codec, Lpm)
    whole = key(24, V4)
    assert to_name(codec, whole) == "10.1.3.77_24"
    assert from_name(codec, "10.1.3.77_24") == whole


@pytest.mark.parametrize(
    "make",
    [
        lambda made: made.integer("__u64", 8),
        lambda made: made.struct("key", 4, [("prefixlen", made.integer("__u32", 4), 0)]),
        lambda made: made.struct(
            "key", 8, [("a", made.integer("__u64", 8), 0), ("b", made.integer("__u8", 1), 0)]
        ),
        lambda made: made.array(made.integer("__u8", 1), 8, 1),
    ],
)
def test_types_of_another_form_stay(make: Callable[[BtfBuilder], int]) -> None:
    codec = whole_type(make)
    assert not isinstance(codec, Lpm)
    data = bytes(range(codec.size))
    assert from_name(codec, to_name(codec, data)) == data


def test_the_prefix_has_a_format_by_its_own_name() -> None:
    for target in ("key", "key.data", "key.address"):
        codec = with_format(CODECS["in_addr"], target, "hex", lambda *_: None)
        assert to_name(codec, key(24, V4)) == f"{V4.hex()}_24"
