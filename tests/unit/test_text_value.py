"""Values as they are read and written, and text that is still on its way."""

from __future__ import annotations

import json
import time

import pytest

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.arrays import PerCpu
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.scalars import Integer
from fusefs.text.strings import CharArray
from fusefs.text.value import check_begins, from_text, to_text

U8 = Integer("unsigned char", 1, signed=False)


def pair() -> Codec:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    struct = types.struct("pair", 2, [("x", u8, 0), ("y", u8, 8)])
    return compile_codec(Btf.parse(types.build()), struct)


def test_text_and_back() -> None:
    assert to_text(pair(), b"\1\2") == '{"x": 1, "y": 2}\n'
    assert from_text(pair(), '{"x": 1}', b"\7\7") == b"\1\7"
    with pytest.raises(Incomplete):
        from_text(pair(), '{"x": 1', b"\7\7")
    with pytest.raises(Incomplete):
        from_text(U8, "\n", b"\0")


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (U8, ""),
        (U8, "25"),
        (U8, "255"),
        (U8, " 0x"),
        (U8, '"25'),
        (pair(), "{"),
        (pair(), '{"x": 300'),
        (pair(), '{"x": 1}'),
        (pair(), ""),
        (CharArray(4), "eth0"),
        (PerCpu(U8, 2), "[1,"),
        (PerCpu(U8, 2), "12"),
    ],
)
def test_what_may_become_a_value(codec: Codec, text: str) -> None:
    check_begins(codec, text)


@pytest.mark.parametrize(
    ("codec", "text", "reason"),
    [
        (U8, "abc", "expected an integer (unsigned char), got 'abc'"),
        (U8, "256", "256 is out of range for unsigned char (0 to 255)"),
        (U8, "5 garbage", "expected an integer (unsigned char), got '5 garbage'"),
        (U8, "5\n6", "a second line follows the value"),
        (pair(), "abc", "expected an object for struct pair, got 'abc'"),
        (pair(), "{x:: 1}", "'1' within an object, where ',' or '}' belongs"),
        (pair(), "{,", "unexpected ','"),
        (CharArray(4), "eth00", "'eth00' has 5 bytes, too long for char[4]"),
        (PerCpu(U8, 2), "x", "expected an integer (unsigned char), got 'x'"),
    ],
)
def test_what_can_become_no_value(codec: Codec, text: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        check_begins(codec, text)
    assert caught.value.reason == reason


def test_a_complete_text_is_tried_on_the_old_value() -> None:
    check_begins(pair(), '{"x": 300}')
    with pytest.raises(Refused, match=r"^x: 300 is out of range"):
        check_begins(pair(), '{"x": 300}', bytes(2))
    check_begins(pair(), '{"x": 30}', bytes(2))


def test_large_values_are_quick() -> None:
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    array = types.array(u8, 100_000, u8)
    codec = compile_codec(Btf.parse(types.build()), array)
    start = time.monotonic()
    text = to_text(codec, bytes(100_000))
    assert json.loads(text) == [0] * 100_000
    assert from_text(codec, text, bytes(100_000)) == bytes(100_000)
    assert time.monotonic() - start < 3


def test_noise_is_refused_quickly() -> None:
    start = time.monotonic()
    for noise in ("\x00\x7f" * 500_000, "9" * 1_000_000, "-" * 1_000_000):
        with pytest.raises(Refused):
            check_begins(U8, noise)
        with pytest.raises(Refused):
            from_text(pair(), noise, bytes(2))
    assert time.monotonic() - start < 2
