"""Maps that take values without a key: queues and stacks, bloom filters."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.text.codec import Codec
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.names import from_name, to_name
from fusefs.text.value import check_begins, from_text, to_text
from fusefs.tree.editing import Partly
from fusefs.tree.entries import KeyedMap
from fusefs.tree.files import FixedFile, TextFile
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Node, Opening, gone, refusal
from fusefs.tree.subject import Subject
from fusefs.tree.values import as_map
from fusefs.tree.write_only import WriteOnlyFile


class Head(TextFile):
    """The element that is next. It is there as long as there is one; to remove it is to pop."""

    __slots__ = ("_view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "head")
        self._view = view

    @property
    def private(self) -> bool:
        return True

    def check_seeker(self, caller: Caller) -> None:
        # Who may write alone, may not know whether there is something to pop.
        self.subject.open_by(caller, only_reads=True).close()

    def present(self) -> bool:
        with self.subject.open() as obj:
            try:
                as_map(obj).peek()
            except FileNotFoundError:
                return False
        return True

    def render(self, obj: Object) -> bytes:
        try:
            return to_text(self._view.value, as_map(obj).peek()).encode()
        except FileNotFoundError:
            raise gone() from None

    def remove(self, caller: Caller) -> None:
        # To pop is to read and to write.
        with self.subject.open_by(caller) as obj:
            try:
                if self._view.frozen(self.subject):
                    raise refusal(errno.EPERM, "the map is frozen")
                as_map(obj).pop()
            except OSError as error:
                raise self.refuse(obj, "remove", error) from error


class Push(WriteOnlyFile):
    """Takes values and adds them, one a line."""

    __slots__ = ("view",)
    by_lines = True  # so that others need not wait until thousands are added

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "push")
        self.view = view

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & (0 if self.view.frozen(self.subject) else 0o222)

    @property
    def codec(self) -> Codec:
        """What an element is."""
        return self.view.value

    def push(self, bpf_map: Map, value: bytes) -> None:
        """Add an element. Raises OSError."""
        bpf_map.update(b"", value)

    @property
    def longest(self) -> int:
        return max(1 << 20, (1 << 16) + 256 * self.codec.weight + 8 * self.codec.size)

    def check(self, obj: Object, text: str) -> None:
        if "\n" not in text:
            check_begins(self.codec, text)

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        values = self._values(text)
        added = self.push_all(as_map(obj), [value for value, _end in values])
        if added < len(values):
            _value, end = values[added - 1]
            raise Partly(len(text[:end].encode()))

    def push_all(self, bpf_map: Map, values: Sequence[bytes]) -> int:
        """Add elements, one after the other; how many were. Raises OSError when none could be."""
        for number, value in enumerate(values):
            try:
                self.push(bpf_map, value)
            except OSError:
                if number:
                    return number
                raise
        return len(values)

    def _values(self, text: str) -> list[tuple[bytes, int]]:
        """A value on each line, and where the line ends; or one value, which may have many. Raises
        `Refused` or `Incomplete`."""
        zero = bytes(self.codec.size)
        values: list[tuple[bytes, int]] = []
        at = 0
        for line in text.split("\n"):
            end = min(at + len(line) + 1, len(text))
            try:
                if line.strip():
                    values.append((from_text(self.codec, line, zero), end))
            except Incomplete as error:
                if not values:
                    return [(from_text(self.codec, text, zero), len(text))]
                raise Refused(str(error), at + len(line.rstrip())) from None
            except Refused as error:
                raise Refused(error.reason, at + error.at) from None
            at = end
        return values


class _Maybe(FixedFile):
    """A value that a bloom filter may have."""

    __slots__ = ()

    @property
    def private(self) -> bool:
        return True


class BloomMap(KeyedMap):
    """A bloom filter: a value that may have been added is a file, which says so. It has no other
    keys than its values."""

    def key(self, name: str) -> bytes:
        return from_name(self.view.value, name)

    def name(self, key: bytes) -> str:
        return to_name(self.view.value, key)

    def find(self, name: str) -> Node:
        value = self.spelled(name)
        if self.caller:  # who may add values, may not know which there are
            self.subject.open_by(self.caller, only_reads=True).close()
        with self.open() as bpf_map:
            if not bpf_map.contains(value):
                raise refusal(errno.ENOENT)
        return _Maybe(self.subject, f"entries/{self.name(value)}", b'"maybe"\n')

    def nodes(self) -> Iterator[tuple[str, Node] | None]:
        return iter(())
