"""`entries.jsonl` and `count`: a map as a whole, at constant memory however large it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fusefs.bpf.object import Object
from fusefs.tree.entries import KeyedMap
from fusefs.tree.files import StreamFile
from fusefs.tree.subject import Subject
from fusefs.tree.values import as_map


class EntriesJsonl(StreamFile):
    """All entries as JSON Lines: `{"key": …, "value": …}`."""

    __slots__ = ("_keyed",)

    def __init__(self, subject: Subject, keyed: Callable[[], KeyedMap]) -> None:
        """`keyed` makes what goes through the map, one for each reader."""
        super().__init__(subject, "entries.jsonl")
        self._keyed = keyed

    def stream(self, obj: Object) -> Iterator[bytes]:
        return (lines.encode() for lines in self._keyed().lines(as_map(obj)))


class Count(StreamFile):
    """The number of entries, counted when it is read."""

    __slots__ = ("_keyed",)

    def __init__(self, subject: Subject, keyed: Callable[[], KeyedMap]) -> None:
        super().__init__(subject, "count")
        self._keyed = keyed

    def stream(self, obj: Object) -> Iterator[bytes]:
        count = 0
        for number in self._keyed().counts(as_map(obj)):
            count += number
            yield b""
        yield b"%d\n" % count
