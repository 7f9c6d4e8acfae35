"""stack_trace: stacks that programs have asked for, by their ids."""

from __future__ import annotations

from fusefs.text.stacks import Stack
from fusefs.tree.entries import Entry, KeyedMap, KeyNode


class StackEntry(Entry):
    """A stack, a frame a line; with a format that says otherwise, as any value."""

    __slots__ = ()

    def text(self, value: bytes) -> bytes:
        codec = self.codec
        return codec.lines(value).encode() if isinstance(codec, Stack) else super().text(value)


class StackMap(KeyedMap):
    """A stack_trace map."""

    def node(self, key: bytes) -> KeyNode:
        return StackEntry(self.subject, self.view, key)
