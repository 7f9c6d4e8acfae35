"""Stacks as text: a frame a line, or an array."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.text.errors import Refused
from fusefs.text.parse import parse
from fusefs.text.stacks import BuildIdStack, Stack
from fusefs.text.value import to_text

DEPTH = 12
addresses = st.integers(1, (1 << 64) - 1)
stacks = st.lists(addresses, max_size=DEPTH)


def packed(stack: list[int]) -> bytes:
    return struct.pack(f"={DEPTH}Q", *stack, *[0] * (DEPTH - len(stack)))


@given(st.lists(stacks), st.data())
def test_each_frame_is_its_name_or_its_address(made: list[list[int]], data: st.DataObject) -> None:
    every = sorted({address for stack in made for address in stack})
    known = {a: f"f{a}+0x1 [m]" for a in every if data.draw(st.booleans())}
    asked: list[int] = []

    def names(addresses: Collection[int]) -> dict[int, str]:
        asked.extend(addresses)
        return known

    codec = Stack(DEPTH * 8, names)
    expected = [[known.get(a, hex(a)) for a in stack] for stack in made]
    column = [packed(stack) for stack in made]
    assert [json.loads(str(text)) for text in codec.shown(column)] == expected
    assert sorted(asked) == every  # each once
    for value, frames in zip(column, expected, strict=True):
        assert codec.lines(value) == "".join(f"{frame}\n" for frame in frames)
        assert json.loads(to_text(codec, value)) == frames


@given(stacks, st.text())
def test_a_name_is_on_one_line(stack: list[int], name: str) -> None:
    codec = Stack(DEPTH * 8, lambda asked: dict.fromkeys(asked, name or "f"))
    lines = codec.lines(packed(stack))
    assert lines.count("\n") == len(lines.splitlines()) == len(stack)
    assert not any(ord(char) < 32 and char != "\n" for char in lines)
    assert json.loads(str(codec.shown([packed(stack)])[0])) == [name or "f"] * len(stack)


def test_zeros_among_the_frames_stay() -> None:
    codec = Stack(DEPTH * 8, lambda asked: {})
    assert codec.lines(packed([5, 0, 6])) == "0x5\n0x0\n0x6\n"
    assert codec.lines(packed([])) == ""


def frame(status: int, build_id: bytes, number: int) -> bytes:
    return struct.pack("=i20sQ", status, build_id, number)


@pytest.mark.parametrize("size", [8, 16, 20])
def test_build_ids(size: int) -> None:
    build_id = bytes(range(1, size)) + b"\xff"
    value = b"".join(
        [frame(1, build_id, 0x1234), frame(2, bytes(20), 0x7F00), frame(2, bytes(20), 0xFFFF)]
    )
    codec = BuildIdStack(4 * 32, lambda asked: {0xFFFF: "vfs_read+0x1", 0x1234: "wrong"})
    value = value.ljust(4 * 32, b"\0")
    assert codec.lines(value).splitlines() == [
        build_id.hex() + "+0x1234", "0x7f00", "vfs_read+0x1",
    ]  # fmt: skip


def test_build_ids_of_other_lengths_keep_every_byte() -> None:
    codec = BuildIdStack(32, lambda asked: {})
    assert codec.lines(frame(1, b"\1" * 9, 0)) == "01" * 9 + "00" * 7 + "+0x0\n"
    assert codec.lines(frame(1, bytes(20), 0)) == "00" * 8 + "+0x0\n"


@given(st.binary(min_size=96, max_size=96))
def test_any_bytes_are_a_stack(data: bytes) -> None:
    for kind in (Stack, BuildIdStack):
        codec = kind(96, lambda asked: {})
        frames = json.loads(str(codec.shown([data])[0]))
        assert codec.lines(data).splitlines() == frames


def test_nothing_can_be_written() -> None:
    with pytest.raises(Refused):
        Stack(8, lambda asked: {}).encode(parse("[]"), bytes(8))
