"""`entries.jsonl` and `count`: a map as a whole, at constant memory however large it is."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.text.errors import Refused
from fusefs.text.lines import Entry, from_line
from fusefs.tree.entries import KeyedMap
from fusefs.tree.loading import Loading
from fusefs.tree.map_types import Shape
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Change, Handle, Opening, refusal, wants_write
from fusefs.tree.stream_files import StreamFile
from fusefs.tree.subject import Subject
from fusefs.tree.values import as_map


class EntriesJsonl(StreamFile):
    """All entries as JSON Lines: `{"key": …, "value": …}`. Where keys and values are bytes of which
    users can set any, lines can be written."""

    __slots__ = ("_keyed", "view")

    def __init__(self, subject: Subject, view: MapView, keyed: Callable[[], KeyedMap]) -> None:
        """`keyed` makes what goes through the map, one for each reader."""
        super().__init__(subject, "entries.jsonl")
        self._keyed = keyed
        self.view = view

    def stream(self, obj: Object) -> Iterator[bytes]:
        return (lines.encode() for lines in self._keyed().lines(as_map(obj)))

    @property
    def _takes_lines(self) -> bool:
        """Whether entries can be set by lines, if not for a reason that `fixed` has."""
        traits = self.view.traits
        return traits is not None and traits.shape == Shape.VALUES and not traits.unset

    def fixed(self) -> str:
        """Why lines are not taken now that could be; empty when they are."""
        return self.view.summed or ("the map is frozen" if self.view.frozen(self.subject) else "")

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & (0o666 if self._takes_lines and not self.fixed() else 0o444)

    def change(self, change: Change, caller: Caller) -> None:
        """Tools set size, mode, owner and times of what they save: without effect here."""
        if not self._takes_lines:
            super().change(change, caller)

    def open(self, flags: int, caller: Caller) -> Handle:
        if not wants_write(flags):
            return super().open(flags, caller)
        if self._takes_lines and (reason := self.fixed()):
            with self.subject.open() as obj:
                self.subject.logs.add(obj, f"write {self.name}", reason)
            raise refusal(errno.EPERM, reason)
        opening = Opening(flags, caller)
        self.admit(opening)
        bpf_map = as_map(self.subject.open())
        if bpf_map.read_only():  # what is not taken at the end, many programs do not notice
            with bpf_map:
                refused = refusal(errno.EPERM)
                raise self.refuse(bpf_map, f"write {self.name}", refused) from refused
        return Loading(self, bpf_map, opening)

    @property
    def longest(self) -> int:
        """The length in bytes that a line may have: more than its numbers, its names of fields and
        white space need."""
        codecs = self.view.key, self.view.value
        return (1 << 16) + sum(256 * codec.weight + 8 * codec.size for codec in codecs)

    def entry(self, line: str, bpf_map: Map) -> Entry:
        """What a line says. Raises `Refused` and `Incomplete`."""
        view = self.view
        entry = from_line(view.key, view.value, line, bpf_map.values_of)
        if view.past_end(entry.key):
            index = int.from_bytes(entry.key, sys.byteorder)
            raise Refused(f"index {index} is past the end: the map has {view.max_entries} entries")
        return entry


class Count(StreamFile):
    """The number of entries, counted when it is read."""

    __slots__ = ("_keyed",)

    def __init__(self, subject: Subject, view: MapView, keyed: Callable[[], KeyedMap]) -> None:
        super().__init__(subject, "count")
        self._keyed = keyed

    def stream(self, obj: Object) -> Iterator[bytes]:
        count = 0
        for number in self._keyed().counts(as_map(obj)):
            count += number
            yield b""
        yield b"%d\n" % count
