"""Key file names."""

from __future__ import annotations

import hashlib
import os
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.addresses import Ipv4
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec, raw_codec
from fusefs.text.errors import Refused
from fusefs.text.names import (
    digest_of,
    from_name,
    key_digest,
    looks_scratch,
    text_from_name,
    text_to_name,
    to_name,
)
from fusefs.text.scalars import Bool, Enumeration, Integer
from fusefs.text.strings import CharArray

U16 = Integer("unsigned short", 2, signed=False)
S32 = Integer("int", 4, signed=True)


def flow_key() -> Codec:
    """struct flow_key { struct in_addr saddr; __be16 dport; struct { u8 x; u16 y; } a;
    u8 b[2]; char name[4]; }"""
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    u16 = types.integer("unsigned short", 2)
    char = types.integer("char", 1, char=True)
    be16 = types.typedef("__be16", u16)
    addr = types.struct("in_addr", 4, [("s_addr", types.integer("unsigned int", 4), 0)])
    inner = types.struct("inner", 4, [("x", u8, 0), ("y", u16, 16)])
    pair, name = types.array(u8, 2, u16), types.array(char, 4, u16)
    members = [
        ("saddr", addr, 0),
        ("dport", be16, 32),
        ("a", inner, 48),
        ("b", pair, 80),
        ("name", name, 96),
    ]
    key = types.struct("flow_key", 16, members)
    return compile_codec(Btf.parse(types.build()), key)


KEY = b"\x0a\0\0\1\x01\xbb" + struct.pack("=BxH", 1, 2) + b"\3\4" + b"a,/\0"
NAME = "saddr=10.0.0.1,dport=443,a={x=1,y=2},b=[3,4],name=a%2C%2F"


def test_a_struct() -> None:
    assert to_name(flow_key(), KEY) == NAME
    assert from_name(flow_key(), NAME) == KEY


@pytest.mark.parametrize(
    "name",
    [
        f"{{{NAME}}}",
        NAME.replace("443", "0x1bb"),
        NAME.replace("443", '"443"'),
        NAME.replace(",", ", "),
        NAME.replace("name", "%6eame"),
        "b=[3,4],name=[97,44,47,0],a={y=2,x=1},dport=443,saddr=10.0.0.1",
        '{"saddr": "10.0.0.1", "dport": 443, "a": {"x": 1, "y": 2}, "b": [3, 4], "name": "a,/"}',
        f"raw={KEY.hex()}",
    ],
)
def test_other_spellings_find_the_same_key(name: str) -> None:
    assert from_name(flow_key(), name) == KEY


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "a key needs all of its fields, and saddr is left out"),
        (NAME.replace("y=2", "x=2"), "a field is given twice"),
        (NAME.replace(",y=2", ""), "a key needs all of its fields, and a.y is left out"),
        (NAME.replace("dport=443,", ""), "a key needs all of its fields, and dport is left out"),
        (NAME.replace("3,4", "3"), "b: expected 2 elements, got 1"),
        (NAME.replace("443", "99999"), "dport: 99999 is out of range for __be16 (0 to 65535)"),
        (NAME.replace("dport", "port"), "struct flow_key has no field 'port'; its fields are "
         "saddr, dport, a, b, name"),
        (NAME.replace("%2C", "%2"), "'%' is not followed by two hexadecimal digits"),
        (NAME.replace("%2C", "%zz"), "'%' is not followed by two hexadecimal digits"),
        (NAME.replace("%2C", "%2Cab"), "name: 'a,ab/' has 5 bytes, too long for char[4]"),
        (NAME + "}", "'}' where ',' or the end belongs"),
        (NAME + ",", "no '=' after the field name ''"),
        (NAME.removesuffix(",name=a%2C%2F"), "a key needs all of its fields, and name is left out"),
        ("a={x=1", "the end where ',' or '}' belongs"),
        ("saddr", "no '=' after the field name 'saddr'"),
        ("{" + NAME + "}x", "'x' follows the key"),
        ("raw=00", "expected 32 hexadecimal digits after raw="),
        ('{"saddr": ', "the text ends within the value"),
        ("a=" + "[" * 5000, "nested more than 64 deep"),
        ("a=" + "{a=" * 5000, "nested more than 64 deep"),
        ("\ud800", "the name is not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_key(name: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        from_name(flow_key(), name)
    assert caught.value.reason == reason


def test_what_a_name_does_not_tell_is_raw() -> None:
    padded = bytearray(KEY)
    padded[7] = 1
    assert to_name(flow_key(), bytes(padded)) == f"raw={padded.hex()}"


def raw_field() -> Codec:
    types = BtfBuilder()
    u16 = types.integer("unsigned short", 2)
    field = types.struct("s", 2, [("raw", u16, 0)])
    return compile_codec(Btf.parse(types.build()), field)


def test_a_field_named_raw_is_escaped() -> None:
    codec = raw_field()
    assert to_name(codec, struct.pack("=H", 1000)) == "%72aw=1000"
    assert from_name(codec, "%72aw=1000") == struct.pack("=H", 1000)
    assert from_name(codec, "raw=77") == struct.pack("=H", 77)
    assert from_name(codec, "raw=1000") == b"\x10\0"


ACTION = Enumeration("enum e", 1, signed=False, values=[("XXabcdef", 1), ("tmp.12345678", 2)])


@pytest.mark.parametrize(
    ("codec", "key", "name"),
    [
        (U16, struct.pack("=H", 42), "42"),
        (S32, b"\xff" * 4, "-1"),
        (Bool("bool"), b"\1", "true"),
        (Ipv4("struct in_addr"), b"\x0a\0\0\1", "10.0.0.1"),
        (raw_codec(3), b"\0\x0a\xff", "000aff"),
        (ACTION, b"\1", "%58Xabcdef"),
        (ACTION, b"\2", "tmp.12345678"),
        (CharArray(8), b"eth0\0\0\0\0", "eth0"),
        (CharArray(8), b"a b c\0\0\0", "a b c"),
        (CharArray(8), bytes(8), "%00"),
        (CharArray(4), b"a\0b\0", "a%00b"),
        (CharArray(4), b"\xff/\x1b%", "%FF%2F%1B%25"),
        (CharArray(4), b".\0\0\0", "%2E"),
        (CharArray(4), b"..\0\0", "%2E."),
        (CharArray(8), b"=,{}[]\0\0", "%3D%2C%7B%7D%5B%5D"),
        (CharArray(4), b"a~\0\0", "a%7E"),
        (CharArray(4), b".~\0\0", "%2E%7E"),
        (CharArray(4), b"#a#\0", "%23a#"),
        (CharArray(9), b"sedAbCdEf", "%73edAbCdEf"),
        (CharArray(12), b"sedAbCdEf\0\0\0", "%73edAbCdEf"),
        (CharArray(4), b"4913", "4913"),
        (CharArray(4), b"\xc2\x85\0\0", "%C2%85"),
        (CharArray(4), b"\xe2\x80\xae\0", "%E2%80%AE"),
        (CharArray(4), "é".encode() * 2, "éé"),
        (CharArray(6), b"raw=00", "raw%3D00"),
        (CharArray(4), b'"a"\0', '"a"'),
    ],
)
def test_scalars(codec: Codec, key: bytes, name: str) -> None:
    assert to_name(codec, key) == name
    assert from_name(codec, name) == key


def test_arrays() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    codec = compile_codec(Btf.parse(types.build()), u8)
    rows = types.array(types.array(u8, 2, u8), 2, u8)
    codec = compile_codec(Btf.parse(types.build()), rows)
    assert to_name(codec, b"\1\2\3\4") == "[[1,2],[3,4]]"
    assert from_name(codec, "[ [1, 2], [3, 4] ]".replace(" [", "[").replace("] ", "]"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"a" * 300, "a" * 221),
        (b"\xff" * 300, "%FF" * 73),
        (b"a" + b"\xff" * 300, "a" + "%FF" * 73),
        ("é".encode() * 150, "é" * 110),
        (b"." * 300, "%2E" + "." * 218),
    ],
)
def test_long_names_end_in_a_digest(text: bytes, kept: str) -> None:
    codec = CharArray(len(text))
    name = to_name(codec, text)
    assert name == f"{kept}%#{hashlib.sha256(text).hexdigest()[:32]}"
    assert len(name.encode()) <= 255
    assert digest_of(name) == key_digest(text)
    with pytest.raises(Refused):
        from_name(codec, name)


def test_short_names_have_no_digest() -> None:
    for length in (250, 255):
        name = to_name(CharArray(300), (b"a" * length).ljust(300, b"\0"))
        assert name == "a" * length
        assert digest_of(name) is None
    assert digest_of(to_name(CharArray(40), b"%#" + b"a" * 32 + bytes(6))) is None


@pytest.mark.parametrize(
    ("name", "scratch"),
    [
        (".", True),
        (".eth0.swp", True),
        ("eth0~", True),
        ("#eth0#", True),
        ("sedabcdef", True),
        ("XXabcdef", True),
        ("tmpabcdefgh", True),
        ("eth0", False),
        ("sedabcde", False),
        ("4913", False),
        ("", False),
    ],
)
def test_scratch_names(name: str, scratch: bool) -> None:
    assert looks_scratch(name) is scratch


@given(st.binary(min_size=12, max_size=12))
@example(b"sed\n\n\n\n\n\n\0\0\0")
@example(b"tmp12345678~")
@example(b"%00\0\0\0\0\0\0\0\0\0")
def test_any_text_has_a_name(key: bytes) -> None:
    codec = CharArray(12)
    name = to_name(codec, key)
    assert from_name(codec, name) == key
    assert not looks_scratch(name)


@given(st.text(min_size=1, max_size=400).map(lambda text: text.encode("utf-8", "ignore") or b"/"))
@example(b"/system.slice/sshd.service")
@example(b".hidden/a~")
@example(b"raw=00")
@example(b"/\xff\xfe")
def test_a_text_as_a_name(key: bytes) -> None:
    text = os.fsdecode(key)
    name = text_to_name(text)
    assert not looks_scratch(name) and "/" not in name and len(os.fsencode(name)) <= 255
    if digest := digest_of(name):
        assert digest == key_digest(key)
    else:
        assert text_from_name(name) == text


@given(st.text())
def test_names_that_are_no_text_are_refused(name: str) -> None:
    try:
        key = from_name(CharArray(4), name)
    except Refused:
        return
    assert from_name(CharArray(4), to_name(CharArray(4), key)) == key
