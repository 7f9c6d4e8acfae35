"""`entries/`: a file for each key of a map."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf.bpffs import Pinned, RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Existence, Map
from fusefs.text.errors import Refused
from fusefs.text.names import from_name, to_name
from fusefs.text.value import check_begins, from_text, to_text
from fusefs.tree.files import WritableFile, explained
from fusefs.tree.map_view import Finder, MapView
from fusefs.tree.node import (
    Attributes,
    Directory,
    File,
    Handle,
    Node,
    gone,
    refusal,
    searchable,
)
from fusefs.tree.subject import Subject

_LONGEST_NAME = 255


class Entry(WritableFile):
    """The value of one key, as a line of JSON. It need not be there: it may be yet to be made."""

    __slots__ = ("key", "view")

    def __init__(self, subject: Subject, view: MapView, key: bytes, name: str) -> None:
        super().__init__(subject, f"entries/{name}", (subject.identity, "entries", key))
        self.view = view
        self.key = key

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & (0o444 if self.view.frozen(self.subject) else 0o666)

    def render(self, obj: Pinned) -> bytes:
        try:
            return self.text(_map(obj).lookup(self.key))
        except FileNotFoundError:
            raise gone() from None

    def found(self, value: bytes, mtime_ns: int) -> None:
        """Note the value that the map has, for the attributes."""
        if not self.view.large:
            self.see(self.text(value), mtime_ns)

    def text(self, value: bytes) -> bytes:
        """What the file shows of a value."""
        return to_text(self.view.value, value).encode()

    def attributes(self) -> Attributes:
        if self.view.large:
            status = self.subject.status()
            attributes = Attributes.of(status, stat.S_IFREG | self.permissions(status))
        else:
            attributes = super().attributes()
        attributes.nlink = 2  # editors that see a hard link save in place, and do not rename
        return attributes

    def contents(self, obj: Pinned, flags: int) -> bytes:
        try:
            return self.render(obj)
        except OSError as error:
            if error.errno == errno.ESTALE and flags & os.O_CREAT:
                return b""  # the first value that is written makes it
            raise

    def open(self, flags: int, caller: Caller) -> Handle:
        try:
            return super().open(flags, caller)
        except PermissionError:
            if self.view.frozen(self.subject):
                raise self._frozen() from None
            raise

    def _frozen(self) -> OSError:
        with self.subject.open() as obj:
            return self.refuse(obj, "write", refusal(errno.EPERM))

    def _old(self, bpf_map: Map) -> bytes:
        """The value to write over: a new entry's is zero."""
        try:
            return bpf_map.lookup(self.key)
        except FileNotFoundError:
            return bytes(self.view.stride)

    @property
    def longest(self) -> int:
        # Numbers, names of fields and white space take this much, and more than they need.
        codec = self.view.value
        return (1 << 16) + 256 * codec.weight + 8 * codec.size

    def check(self, obj: Pinned, text: str) -> None:
        check_begins(self.view.value, text, self._old(_map(obj)))

    def accept(self, obj: Pinned, text: str, flags: int) -> None:
        bpf_map = _map(obj)
        value = from_text(self.view.value, text, self._old(bpf_map))
        bpf_map.update(self.key, value, _existence(flags))
        self.found(value, time.time_ns())


def _existence(flags: int) -> Existence:
    """What an update expects of the key, by the flags of the open.

    A file that was opened and then removed does not come back by being written.
    """
    if flags & os.O_EXCL:
        return Existence.NOEXIST
    return Existence.ANY if flags & os.O_CREAT else Existence.EXIST


def _map(obj: Pinned) -> Map:
    assert isinstance(obj, Map)  # only maps are given an `entries` directory
    return obj


@dataclass(frozen=True, slots=True)
class KeyedMap:
    """A map with a file for each key; `fixed` as in `Traits`."""

    subject: Subject
    view: MapView
    fixed: bool

    def open(self) -> Map:
        """Open it. Raises `gone()`."""
        obj = self.subject.open()
        if not isinstance(obj, Map):
            obj.close()
            raise gone()
        return obj

    def entry(self, name: str) -> Entry:
        """The file of the key that `name` spells, whether the map has it or not.

        Raises `Refused` when it spells none.
        """
        view = self.view
        key = from_name(view.key, name)
        if self.fixed and int.from_bytes(key, sys.byteorder) >= view.max_entries:
            raise Refused(f"index {name} is past the end: the map has {view.max_entries} entries")
        return Entry(self.subject, view, key, to_name(view.key, key))

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All that the map has, with their names."""
        mtime_ns = self.subject.status().st_mtime_ns
        with self.open() as bpf_map:
            for key, value in self._pairs(bpf_map):
                name = to_name(self.view.key, key)
                if len(os.fsencode(name)) > _LONGEST_NAME:
                    continue  # no directory can show it; entries.jsonl has it
                entry = Entry(self.subject, self.view, key, name)
                entry.found(value, mtime_ns)
                yield name, entry

    def _pairs(self, bpf_map: Map) -> Iterator[tuple[bytes, bytes]]:
        if self.view.large:
            yield from ((key, b"") for key in bpf_map.each_key())
            return
        for batch in bpf_map.batches():
            yield from batch.pairs(self.view.key_size, self.view.stride)

    def refuse(self, obj: Pinned, what: str, error: Exception, text: str = "") -> OSError:
        """Note why `what` was refused; the error for the user."""
        return explained(self.subject, obj, what, error, text)


class Entries(Directory):
    """The directory of a map's keys."""

    __slots__ = ("_finder",)

    def __init__(self, finder: Finder) -> None:
        super().__init__((finder.place, "entries"))
        self._finder = finder

    def _find(self) -> KeyedMap:
        """The map that is here now."""
        found = self._finder.now()
        if found.view is None or found.view.traits is None:
            raise gone()
        return KeyedMap(found.subject, found.view, found.view.traits.fixed)

    def attributes(self) -> Attributes:
        keyed = self._find()
        status = keyed.subject.status()
        mode = searchable(status.st_mode & 0o666)
        if keyed.fixed or keyed.view.frozen(keyed.subject):
            mode &= ~0o222
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def enter(self) -> None:
        self._find().open().close()

    def lookup(self, name: str) -> Node:
        keyed = self._find()
        try:
            entry = keyed.entry(name)
        except Refused:
            raise refusal(errno.ENOENT) from None
        with keyed.open() as bpf_map:
            value = bpf_map.lookup(entry.key)
        entry.found(value, keyed.subject.status().st_mtime_ns)
        return entry

    def children(self) -> Iterator[tuple[str, Node]]:
        return self._find().entries()

    def create(self, name: str, caller: Caller) -> File:
        keyed = self._find()
        with keyed.open() as bpf_map:
            try:
                entry = keyed.entry(name)
                if keyed.view.frozen(keyed.subject):
                    raise refusal(errno.EPERM)
            except (Refused, OSError) as error:
                raise keyed.refuse(bpf_map, f"create entries/{name}", error, name) from error
        return entry

    def unlink(self, name: str, caller: Caller) -> None:
        keyed = self._find()
        with keyed.open() as bpf_map:
            try:
                _check_not_fixed(keyed)
                bpf_map.delete(keyed.entry(name).key)
            except (Refused, OSError) as error:
                raise keyed.refuse(bpf_map, f"remove entries/{name}", error) from error

    def rename(
        self, name: str, to: Directory, new_name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        """Insert the new key, then delete the old one, so that the value is never absent."""
        if to.identity != self.identity:
            raise refusal(errno.EXDEV)
        keyed = self._find()
        with keyed.open() as bpf_map:
            try:
                _rename(keyed, bpf_map, keyed.entry(name).key, new_name, flags)
            except (Refused, OSError) as error:
                what = f"rename entries/{name} to {new_name}"
                raise keyed.refuse(bpf_map, what, error, new_name) from error


def _check_not_fixed(keyed: KeyedMap) -> None:
    if keyed.fixed:
        raise refusal(errno.EPERM, "the entries of an array are there for good")


def _rename(keyed: KeyedMap, bpf_map: Map, key: bytes, new_name: str, flags: RenameFlags) -> None:
    _check_not_fixed(keyed)
    if flags & RenameFlags.EXCHANGE:
        raise refusal(errno.EINVAL, "entries cannot be exchanged")
    try:
        new_key = keyed.entry(new_name).key
    except Refused as error:
        raise refusal(errno.EPERM, str(error)) from error
    value = bpf_map.lookup(key)
    if new_key == key:
        return
    noreplace = flags & RenameFlags.NOREPLACE
    bpf_map.update(new_key, value, Existence.NOEXIST if noreplace else Existence.ANY)
    bpf_map.delete(key)
