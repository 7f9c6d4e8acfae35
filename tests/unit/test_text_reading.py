"""Lines of entries read back: many at once the same as one by one, and one as its parts."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.btf_strategies import Sample, contents, samples

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.addresses import Ipv4, Ipv6, Mac
from fusefs.text.arrays import Array, PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec
from fusefs.text.composite import Part, Union
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.lines import Entry, from_line
from fusefs.text.lpm import Lpm
from fusefs.text.reading import LinesReader
from fusefs.text.scalars import Bool, Enumeration, Integer, Pointer, Seconds
from fusefs.text.strings import CharArray, Raw
from fusefs.text.value import Lines, from_text, to_text

U32 = Integer("__u32", 4, signed=False)
U64 = Integer("__u64", 8, signed=False)


def one_by_one(key: Codec, value: Codec, text: bytes) -> list[Entry] | None:
    """What lines say; None when one is refused."""
    try:
        return [
            from_line(key, value, line.decode(), lambda key: bytes(value.size))
            for line in text.removesuffix(b"\n").split(b"\n")
        ]
    except (Refused, Incomplete, UnicodeDecodeError):
        return None


def check_same(reader: LinesReader, text: bytes) -> bool:
    """What is read at once is what is read one by one; whether it could be read at once."""
    read = reader.read(text)
    if read is None:
        return False
    entries = one_by_one(reader.key, reader.value, text)
    assert entries is not None
    assert read == (
        b"".join(entry.key for entry in entries),
        b"".join(entry.value for entry in entries),
    )
    kept = int.from_bytes(reader.kept, "little")
    assert {entry.kept for entry in entries} == {kept}
    return True


def lines(reader: LinesReader, keys: list[bytes], values: list[bytes]) -> bytes:
    """The text that reading gives."""
    return Lines(reader.key, reader.value).text(b"".join(keys), b"".join(values)).encode()


@given(samples(), samples(), st.data())
def test_what_is_written_is_read_the_same(key: Sample, value: Sample, data: st.DataObject) -> None:
    assume(key.codec.size and value.codec.size)
    keys = [key.data, data.draw(contents(key.codec.size))]
    values = [value.data, data.draw(contents(value.codec.size))]
    reader = LinesReader(key.codec, value.codec)
    text = lines(reader, keys, values)
    check_same(reader, text)
    entries = one_by_one(key.codec, value.codec, text)
    assert entries is not None
    for entry, own_key, own_value in zip(entries, keys, values, strict=True):
        assert entry.key == own_key
        assert entry.kept == value.codec.kept
        told = int.from_bytes(own_value, "little") & ~entry.kept
        assert int.from_bytes(entry.value, "little") == told


ENUM = Enumeration("mode", 4, signed=False, values=[("OFF", 0), ("ON", 1), ("SAME", 1), ("5", 2)])
PLAIN: list[tuple[Codec, bytes]] = [
    (U32, struct.pack("=I", 4_000_000_000)),
    (Integer("int", 4, signed=True), struct.pack("=i", -5)),
    (Integer("__int128", 16, signed=True), bytes(range(100, 116))),
    (Integer("__be16", 2, signed=False, order="big"), b"\x01\xbb"),
    (Integer("le16", 2, signed=False, order="little"), b"\x01\xbb"),
    (Integer("be24", 3, signed=False, order="big"), b"\1\2\3"),
    (Pointer("void *", 8), struct.pack("=Q", 0xFFFF_8880_1234_5678)),
    (Seconds("__u64", 8), struct.pack("=Q", 12_000_000_034)),
    (Bool("bool"), b"\1"),
    (Bool("bool"), b"\7"),
    (ENUM, struct.pack("=I", 1)),
    (ENUM, struct.pack("=I", 2)),
    (CharArray(16), b"eth0: 'a' [b]\0\0\0"),
    (CharArray(4), b"full"),
    (CharArray(4), bytes(4)),
    (Raw(5), bytes.fromhex("00ff10aa7f")),
    (Ipv4("in_addr"), bytes([10, 0, 0, 1])),
    (Ipv6("in6_addr"), bytes.fromhex("20010db8000000000000000000000001")),
    (Mac("6 bytes"), bytes.fromhex("525400123456")),
    (Array(U32, 3, "__u32[3]"), struct.pack("=3I", 1, 2, 3)),
    (PerCpu(U32, 2), struct.pack("=I4xI4x", 5, 6)),
    (Lpm("key", Ipv4("in_addr")), struct.pack("=I4B", 24, 10, 1, 2, 0)),
    (Lpm("key", Ipv6("in6_addr")), struct.pack("=I16s", 64, b" \1\r\xb8")),
    (Lpm("key", Raw(3)), struct.pack("=I3s", 24, b"abc")),
    (Lpm("key", U32), struct.pack("=II", 24, 77)),
]


PIECES = [b"", b" ", b"0", b"-", b"1", b".", b'"', b"\\", b"\n", b"{", b"}", b"]", b",", b":"]
PIECES += [b"x", b"\r", b"\t", b"\0", b"\xff", b"\x7f", b"true", b"9" * 30, "\u00e9".encode()]


def any_samples() -> st.SearchStrategy[Sample]:
    """Of generated types, and of those that are read at once."""
    return st.one_of(samples(depth=2), st.sampled_from(PLAIN).map(lambda one: Sample(*one, True)))


@given(any_samples(), any_samples(), st.data())
def test_no_other_text_is_read_otherwise(key: Sample, value: Sample, data: st.DataObject) -> None:
    assume(key.codec.size and value.codec.size)
    reader = LinesReader(key.codec, value.codec)
    text = lines(reader, [key.data] * 2, [value.data] * 2)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        end = at + data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[end:]
    check_same(reader, text.removesuffix(b"\n") + b"\n")


@pytest.mark.parametrize(("codec", "data"), PLAIN, ids=lambda part: getattr(part, "name", ""))
def test_plain_lines_are_read_at_once(codec: Codec, data: bytes) -> None:
    for key, value in ((codec, U64), (U32, codec)):
        reader = LinesReader(key, value)
        own = [data if part is codec else bytes(range(part.size)) for part in (key, value)]
        text = lines(reader, [own[0]] * 3, [own[1]] * 3)
        assert check_same(reader, text)
        assert reader.read(text) == (own[0] * 3, own[1] * 3)
        assert check_same(reader, text.replace(b": ", b":").replace(b", ", b","))


def a_struct() -> Codec:
    """A struct with a struct in it, one without a name, and padding."""
    types = BtfBuilder()
    u8, u32, u64 = (types.integer(f"u{8 * size}", size) for size in (1, 4, 8))
    inner = types.struct("inner", 8, [("a", u8, 0), ("b", u32, 32)])
    unnamed = types.struct("", 8, [("c", u64, 0)])
    members = [("first", inner, 0), ("", unnamed, 64), ("last", types.array(u8, 2, u32), 128)]
    outer = types.struct("outer", 24, members)
    return compile_codec(Btf.parse(types.build()), outer)


def test_structs_are_read_at_once() -> None:
    codec = a_struct()
    data = struct.pack("=B3xIQBB6x", 1, 2, 3, 4, 5)
    reader = LinesReader(U32, codec)
    text = lines(reader, [bytes(4)] * 2, [data] * 2)
    assert check_same(reader, text)
    assert reader.read(text) == (bytes(8), data * 2)
    assert reader.kept == struct.pack("=B3sIQBB6s", 0, b"\xff" * 3, 0, 0, 0, 0, b"\xff" * 6)


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": 4294967296, "value": 1}',
        b'{"key": -1, "value": 1}',
        b'{"key": 1, "value": 18446744073709551616}',
        b'{"key": 1, "value": 1.0}',
        b'{"key": 1, "value": "1"}',
        b'{"key": 1, "value": 0x1}',
        b'{"value": 1, "key": 1}',
        b'{"key": 1, "value": 1} ',
        b' {"key": 1, "value": 1}',
        b'{"key": 1, "value": 1}\r',
        b"",
        b'x{"key": 1, "value": 1}',
        '{"key": \u0661, "value": 1}'.encode(),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_one_line_that_is_not_plain_leaves_all_to_others(line: bytes, at: int) -> None:
    plain = [b'{"key": 1, "value": 1}'] * 2
    text = b"".join(one + b"\n" for one in (*plain[:at], line, *plain[at:]))
    assert LinesReader(U32, U64).read(text) is None


def test_a_text_too_long_is_left_to_others() -> None:
    reader = LinesReader(U32, CharArray(4))
    assert reader.read(b'{"key": 1, "value": "four"}\n') == (U32_ONE, b"four")
    assert reader.read(b'{"key": 1, "value": "fives"}\n') is None


U32_ONE = (1).to_bytes(4, sys.byteorder)


@given(samples(), st.data())
def test_what_a_line_leaves_out_is_kept(sample: Sample, data: st.DataObject) -> None:
    """A value in part, put over any other, is what writing it there makes of that."""
    codec = sample.codec
    assume(codec.size)
    old = data.draw(contents(codec.size))
    text = data.draw(st.sampled_from([to_text(codec, sample.data), "{}\n"]))
    line = f'{{"key": 1, "value": {text.strip()}}}'
    try:
        expected = from_text(codec, text, old)
        entry = from_line(U32, codec, line, lambda key: old)
    except Refused:
        with pytest.raises(Refused):
            from_text(codec, text, old)
        return
    bits, before = (int.from_bytes(part, "little") for part in (entry.value, old))
    assert (bits | before & entry.kept).to_bytes(codec.size, "little") == expected


def test_a_member_of_a_union_may_be_changed_beside_others() -> None:
    half = Integer("__u16", 2, signed=False)
    codec = Union("either", 4, [Part("word", 0, U32), Part("half", 0, half)])
    old = struct.pack("=I", 0x10005)
    line = '{"key": 1, "value": {"word": 65541, "half": 7}}'
    entry = from_line(U32, codec, line, lambda key: old)
    assert entry == Entry(U32_ONE, struct.pack("=I", 0x10007), 0)
    with pytest.raises(Refused, match="share their bytes"):
        from_line(U32, codec, line, lambda key: bytes(4))


def test_a_key_needs_all_of_its_fields() -> None:
    line = '{"key": {"first": {"a": 1}, "c": 1, "last": [1, 2]}, "value": 1}'
    with pytest.raises(Refused, match=r"a key needs all of its fields, and first\.b is left out"):
        from_line(a_struct(), U32, line, bytes)


HIDING = struct.pack("=B3sIQBB6s", 1, b"abc", 2, 3, 4, 5, b"defghi")


def test_a_key_that_is_not_told_in_full() -> None:
    codec = a_struct()
    plain = struct.pack("=B3xIQBB6x", 1, 2, 3, 4, 5)
    text = lines(LinesReader(codec, U32), [HIDING, plain, HIDING], [bytes(4)] * 3)
    assert [b'"raw": "%s", ' % HIDING.hex().encode() in line for line in text.splitlines()] == [
        True,
        False,
        True,
    ]
    entries = one_by_one(codec, U32, text)
    assert entries is not None
    assert [entry.key for entry in entries] == [HIDING, plain, HIDING]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("02" + HIDING.hex()[2:], "raw is not what key tells"),
        (HIDING.hex()[2:], "raw: expected 48 hexadecimal digits"),
    ],
)
def test_raw_bytes_of_another_key_are_refused(raw: str, reason: str) -> None:
    codec = a_struct()
    line = f'{{"key": {to_text(codec, HIDING).strip()}, "raw": "{raw}", "value": 1}}'
    with pytest.raises(Refused, match=reason):
        from_line(codec, U32, line, bytes)
