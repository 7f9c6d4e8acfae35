"""`entries/`: a file for each key of a map."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Iterator

from fusefs.bpf.bpffs import Pinned, RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Existence, Map
from fusefs.text.errors import Refused
from fusefs.text.names import from_name, to_name
from fusefs.text.value import check_begins, from_text, to_text
from fusefs.tree.files import WritableFile, explained
from fusefs.tree.map_view import MapView
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


def opened_map(subject: Subject) -> Map:
    """Open a subject that is known to be a map."""
    obj = subject.open()
    if not isinstance(obj, Map):
        obj.close()
        raise gone()
    return obj


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

    def text(self, value: bytes) -> bytes:
        """What the file shows of a value."""
        return to_text(self.view.value, value).encode()

    def attributes(self) -> Attributes:
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

    def check(self, obj: Pinned, text: str) -> None:
        check_begins(self.view.value, text, self._old(_map(obj)))

    def accept(self, obj: Pinned, text: str, flags: int) -> None:
        bpf_map = _map(obj)
        value = from_text(self.view.value, text, self._old(bpf_map))
        bpf_map.update(self.key, value, _existence(flags))
        self.see(self.text(value), time.time_ns())


def _existence(flags: int) -> Existence:
    return Existence.NOEXIST if flags & os.O_EXCL else Existence.ANY


def _map(obj: Pinned) -> Map:
    assert isinstance(obj, Map)  # only maps are given an `entries` directory
    return obj


class Entries(Directory):
    """The directory of a map's keys."""

    __slots__ = ("subject", "view")

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__((subject.identity, "entries"))
        self.subject = subject
        self.view = view

    @property
    def _fixed(self) -> bool:
        return self.view.traits is not None and self.view.traits.fixed

    def attributes(self) -> Attributes:
        status = self.subject.status()
        mode = searchable(status.st_mode & 0o666)
        if self._fixed or self.view.frozen(self.subject):
            mode &= ~0o222
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def enter(self) -> None:
        self.subject.confirm()

    def lookup(self, name: str) -> Node:
        try:
            entry = self._entry(name)
        except Refused:
            raise refusal(errno.ENOENT) from None
        with opened_map(self.subject) as bpf_map:
            value = bpf_map.lookup(entry.key)
        entry.see(entry.text(value), self.subject.status().st_mtime_ns)
        return entry

    def _entry(self, name: str) -> Entry:
        """The file of the key that `name` spells, whether the map has it or not."""
        key = from_name(self.view.key, name)
        if self._fixed and int.from_bytes(key, sys.byteorder) >= self.view.max_entries:
            raise Refused(
                f"index {name} is past the end: the map has {self.view.max_entries} entries"
            )
        return Entry(self.subject, self.view, key, to_name(self.view.key, key))

    def children(self) -> Iterator[tuple[str, Node]]:
        key_size, stride = self.view.key_size, self.view.stride
        status = self.subject.status()
        with opened_map(self.subject) as bpf_map:
            for batch in bpf_map.batches():
                for number in range(batch.count):
                    key = batch.keys[number * key_size : (number + 1) * key_size]
                    name = to_name(self.view.key, key)
                    if len(os.fsencode(name)) > _LONGEST_NAME:
                        continue  # no directory can show it; entries.jsonl has it
                    entry = Entry(self.subject, self.view, key, name)
                    value = batch.values[number * stride : (number + 1) * stride]
                    entry.see(entry.text(value), status.st_mtime_ns)
                    yield name, entry

    def create(self, name: str, caller: Caller) -> File:
        with opened_map(self.subject) as bpf_map:
            try:
                entry = self._entry(name)
                if self.view.frozen(self.subject):
                    raise refusal(errno.EPERM)
            except (Refused, OSError) as error:
                raise self._refuse(bpf_map, f"create entries/{name}", error, name) from error
        return entry

    def _check_not_fixed(self) -> None:
        if self._fixed:
            raise refusal(errno.EPERM, "the entries of an array are there for good")

    def unlink(self, name: str, caller: Caller) -> None:
        with opened_map(self.subject) as bpf_map:
            try:
                self._check_not_fixed()
                bpf_map.delete(self._entry(name).key)
            except (Refused, OSError) as error:
                raise self._refuse(bpf_map, f"remove entries/{name}", error) from error

    def rename(
        self, name: str, to: Directory, new_name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        """Insert the new key, then delete the old one, so that the value is never absent."""
        if to.identity != self.identity:
            raise refusal(errno.EXDEV)
        with opened_map(self.subject) as bpf_map:
            try:
                self._rename(bpf_map, self._entry(name).key, new_name, flags)
            except (Refused, OSError) as error:
                what = f"rename entries/{name} to {new_name}"
                raise self._refuse(bpf_map, what, error, new_name) from error

    def _rename(self, bpf_map: Map, key: bytes, new_name: str, flags: RenameFlags) -> None:
        self._check_not_fixed()
        if flags & RenameFlags.EXCHANGE:
            raise refusal(errno.EINVAL, "entries cannot be exchanged")
        try:
            new_key = self._entry(new_name).key
        except Refused as error:
            raise refusal(errno.EPERM, str(error)) from error
        value = bpf_map.lookup(key)
        if new_key == key:
            return
        noreplace = flags & RenameFlags.NOREPLACE
        bpf_map.update(new_key, value, Existence.NOEXIST if noreplace else Existence.ANY)
        bpf_map.delete(key)

    def _refuse(self, obj: Pinned, what: str, error: Exception, text: str = "") -> OSError:
        return explained(self.subject, obj, what, error, text)
