"""Many values at once: the same as one at a time, and without a call of Python for each."""

from __future__ import annotations

import json
import random
import struct
import sys
from types import FrameType

from hypothesis import given
from hypothesis import strategies as st
from support.btf_strategies import Sample, contents, samples

from fusefs.bpf.btf import Btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.arrays import PerCpu, PerCpuSum
from fusefs.text.codec import Codec
from fusefs.text.compile import compile_codec
from fusefs.text.names import hides, to_name, to_names
from fusefs.text.scalars import Seconds
from fusefs.text.value import Lines, from_text, to_text, to_texts


@given(samples(), st.data())
def test_lines_are_made_of_the_values_one_by_one(sample: Sample, data: st.DataObject) -> None:
    codec = sample.codec
    values = [sample.data, *(data.draw(contents(codec.size)) for _ in range(2))]
    if not codec.size:
        return  # the kernel has no such values
    together = b"".join(values)

    def raw_of(key: bytes) -> str:
        return f', "raw": "{key.hex()}"' if hides(codec, key) else ""

    assert to_texts(codec, together) == [to_text(codec, value).encode() for value in values]
    assert Lines(codec, codec).text(together, together) == "".join(
        f'{{"key": {text}{raw}, "value": {text}}}\n'
        for text, raw in ((to_text(codec, value).rstrip("\n"), raw_of(value)) for value in values)
    )
    assert to_names(codec, together) == [to_name(codec, value) for value in values]


def test_sums_of_times() -> None:
    codec = PerCpuSum(Seconds("__u64", 8), 2)
    assert to_text(codec, struct.pack("=QQ", 1_500_000_000, 2)) == "1.500000002\n"


def everything() -> Codec:
    """A struct with a field of every kind that has a form of its own."""
    types = BtfBuilder()
    u8 = types.integer("unsigned char", 1)
    u32 = types.integer("unsigned int", 4)
    u128 = types.integer("unsigned __int128", 16)
    char = types.integer("char", 1, char=True)
    boolean = types.integer("_Bool", 1, bool_=True)
    mode = types.enum("mode", 4, [("MODE_OFF", 0), ("MODE_ON", 1)])
    be16 = types.typedef("__be16", types.integer("unsigned short", 2))
    ipv4 = types.struct("in_addr", 4, [("s_addr", u32, 0)])
    ipv6 = types.struct("in6_addr", 16, [("bytes", types.array(u8, 16, u32), 0)])
    inner = types.struct("inner", 8, [("a", u32, 0), ("b", mode, 32)])
    either = types.struct("", 4, [("word", u32, 0), ("byte", u8, 0)], union=True)
    types_and_sizes = [
        (u32, 4), (u128, 16), (boolean, 1), (mode, 4), (be16, 2), (ipv4, 4), (ipv6, 16),
        (types.floating("float", 4), 4), (types.floating("double", 8), 8),
        (types.pointer(0), 8), (types.array(char, 16, u32), 16),
        (types.array(u32, 3, u32), 12), (types.array(inner, 2, u32), 16), (inner, 8),
    ]  # fmt: skip
    members: list[tuple[str, int, int] | tuple[str, int, int, int]] = []
    at = 0
    for number, (type_id, size) in enumerate(types_and_sizes):
        members.append((f"m{number}", type_id, at * 8))
        at += size
    members += [("", either, at * 8), ("low", u32, at * 8 + 32, 5), ("high", u32, at * 8 + 37, 9)]
    whole = types.struct("everything", at + 8, members)
    return compile_codec(Btf.parse(types.build()), whole)


def calls(codec: Codec, count: int) -> int:
    """The calls of Python functions that it takes to write `count` values."""
    noise = random.Random(1)
    text = '{"m10": "eth0"}'  # noise is no text, and is written with more care
    data = b"".join(from_text(codec, text, noise.randbytes(codec.size)) for _ in range(count))
    told = int.from_bytes(codec.mask.to_bytes(codec.size, "little") * count, "little")
    keys = (int.from_bytes(data, "little") & told).to_bytes(len(data), "little")
    seen = 0

    def count_calls(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += event == "call"

    sys.setprofile(count_calls)
    try:
        text = Lines(codec, codec).text(keys, data)
    finally:
        sys.setprofile(None)
    lines = text.splitlines()
    assert all(json.loads(line) for line in lines) and len(lines) == count
    return seen


def test_no_python_call_for_each_value() -> None:
    codec = PerCpu(everything(), 2)
    calls(codec, 1)  # what is worked out once
    few, many = calls(codec, 1), calls(codec, 1000)
    # In noise one float in 256 is no number, and those are written one by one.
    assert many < few + 300
