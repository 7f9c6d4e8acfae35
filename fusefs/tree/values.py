"""What the files have in common that show a value of a map: of a key, or of a variable."""

from __future__ import annotations

import errno
import os
import time
from abc import abstractmethod
from collections.abc import Hashable

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.text.codec import Codec
from fusefs.text.value import check_begins, from_text, to_text
from fusefs.tree.files import WritableFile
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Attributes, Handle, Opening, refusal, wants_write
from fusefs.tree.subject import Subject


class ValueFile(WritableFile):
    """A value in a map as a line of JSON. Objects may be written in part."""

    __slots__ = ("view",)

    def __init__(self, subject: Subject, view: MapView, name: str, identity: Hashable) -> None:
        super().__init__(subject, name, identity)
        self.view = view

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """What the value is, with the formats that are set now."""

    @property
    @abstractmethod
    def large(self) -> bool:
        """Whether it takes too long to read it to tell its size, which is then shown as 0."""

    @abstractmethod
    def old(self, bpf_map: Map) -> bytes:
        """The value that a text is written over."""

    @abstractmethod
    def save(self, bpf_map: Map, old: bytes, new: bytes, opening: Opening) -> None:
        """Set the value to `new`, which a text made of `old`."""

    def fixed(self) -> str:
        traits = self.view.traits
        if traits and traits.unset:
            return traits.unset
        return "the map is frozen" if self.view.frozen(self.subject) else ""

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & (0o444 if self.fixed() else 0o666)

    def found(self, value: bytes, mtime_ns: int) -> None:
        """Note the value that the map has, for the attributes."""
        if not self.large:
            self.see(self.text(value), mtime_ns)

    def text(self, value: bytes) -> bytes:
        """What the file shows of a value."""
        return to_text(self.codec, value).encode()

    def basics(self, status: os.stat_result) -> Attributes:
        attributes = super().basics(status)
        attributes.nlink = 2  # editors that see a hard link save in place, and do not rename
        return attributes

    def attributes(self) -> Attributes:
        return self.basics(self.subject.status()) if self.large else super().attributes()

    def open(self, flags: int, caller: Caller) -> Handle:
        if wants_write(flags) and (reason := self.fixed()):
            with self.subject.open() as obj:
                self.subject.logs.add(obj, f"write {self.name}", reason)
            raise refusal(errno.EPERM, reason)
        return super().open(flags, caller)

    @property
    def longest(self) -> int:
        # Numbers, names of fields and white space take this much, and more than they need.
        codec = self.codec
        return (1 << 16) + 256 * codec.weight + 8 * codec.size

    def check(self, obj: Object, text: str) -> None:
        check_begins(self.codec, text, self.old(as_map(obj)))

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        bpf_map = as_map(obj)
        old = self.old(bpf_map)
        new = from_text(self.codec, text, old)
        self.save(bpf_map, old, new, opening)
        self.found(new, time.time_ns())


def as_map(obj: Object) -> Map:
    """An object that is known to be a map: only maps are given files of values."""
    assert isinstance(obj, Map)
    return obj
