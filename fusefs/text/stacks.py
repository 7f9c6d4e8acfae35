"""Codecs for stacks: the addresses that were on one, by the functions that they are in."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fusefs.text.codec import Codec, Column, Texts
from fusefs.text.errors import refusal
from fusefs.text.jsontext import escape_controls, to_json
from fusefs.text.parse import Node

# Gives those of some addresses that have a name, with it.
Names = Callable[[Collection[int]], Mapping[int, str]]

# The lengths that build ids have: of a hash of 64 bits, an MD5 or UUID, a SHA-1.
_BUILD_IDS = (8, 16, 20)
_VALID = 1  # BPF_STACK_BUILD_ID_VALID: the offset is one; else it is an address


class Stack(Codec):
    """A stack as an array of strings, the innermost function first: `symbol+0xoffset`, or the
    address. Zeros at its end are no frames. It cannot be written."""

    name = "stack"
    frame = struct.Struct("=Q")

    def __init__(self, size: int, names: Names) -> None:
        self.size = size
        self.weight = max(size // self.frame.size, 1)
        self._names = names

    def frames(self, column: Column) -> list[list[str]]:
        """The text of each frame of each stack."""
        empty = bytes(self.frame.size)
        stacks = [[*self.frame.iter_unpack(item)] for item in column]
        none = self.frame.unpack(empty)
        for stack in stacks:
            while stack and stack[-1] == none:
                stack.pop()
        every = set(itertools.chain.from_iterable(stacks))
        texts = self.texts(every)
        return [[texts[frame] for frame in stack] for stack in stacks]

    def texts(self, frames: Collection[tuple[Any, ...]]) -> Mapping[tuple[Any, ...], str]:
        """The text of each of these frames."""
        names = self._names([address for (address,) in frames])
        return {frame: names.get(frame[0]) or f"{frame[0]:#x}" for frame in frames}

    def shown(self, column: Column) -> Texts:
        return [to_json([*frames]) for frames in self.frames(column)]

    def lines(self, value: bytes) -> str:
        """A frame a line."""
        return "".join(f"{escape_controls(frame)}\n" for frame in self.frames([value])[0])

    def encode(self, node: Node, old: bytes, path: str = "") -> bytes:
        raise refusal(path, "a stack is what the kernel has seen", node.at)


class BuildIdStack(Stack):
    """A stack of `struct bpf_stack_build_id` (linux/bpf.h): `BUILDID+0xoffset`, an offset into the
    file that has this build id. Frames without one are addresses."""

    frame = struct.Struct("=i20sQ")  # status, build id, offset or address

    def texts(self, frames: Collection[tuple[Any, ...]]) -> Mapping[tuple[Any, ...], str]:
        names = self._names([number for status, _, number in frames if status != _VALID])
        return {
            (status, build_id, number): f"{_build_id(build_id)}+{number:#x}"
            if status == _VALID
            else names.get(number) or f"{number:#x}"
            for status, build_id, number in frames
        }


def _build_id(data: bytes) -> str:
    """A build id without the zeros that the kernel puts behind a short one."""
    length = len(data.rstrip(b"\0"))
    return data[: next(known for known in _BUILD_IDS if known >= length)].hex()
