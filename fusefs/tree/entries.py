"""`entries/`: a file for each key of a map."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf.batch import split
from fusefs.bpf.bpffs import Pinned, RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Existence, Map
from fusefs.text.codec import Codec
from fusefs.text.errors import Refused
from fusefs.text.names import digest_of, from_name, key_digest, to_name, to_names
from fusefs.text.value import to_text
from fusefs.tree.files import explained
from fusefs.tree.map_view import Finder, MapView
from fusefs.tree.node import (
    Attributes,
    Directory,
    File,
    Node,
    gone,
    refusal,
    searchable,
)
from fusefs.tree.subject import Subject
from fusefs.tree.values import ValueFile, as_map

# The extended attribute that has an entry's key, as `entries.jsonl` shows it.
KEY_ATTRIBUTE = "user.bpf.key"
_LONGEST_ATTRIBUTE = 1 << 16  # XATTR_SIZE_MAX
# Keys that a listing names in one go.
_PIECE = 256


class Entry(ValueFile):
    """The value of one key, as a line of JSON. It need not be there: it may be yet to be made."""

    __slots__ = ("key",)

    def __init__(self, subject: Subject, view: MapView, key: bytes, name: str) -> None:
        identity = (subject.identity, "entries", view.same(key))
        super().__init__(subject, view, f"entries/{name}", identity)
        self.key = key

    @property
    def codec(self) -> Codec:
        return self.view.value

    @property
    def large(self) -> bool:
        return self.view.large

    def fixed(self) -> str:
        return self.view.summed or super().fixed()

    def render(self, obj: Pinned) -> bytes:
        try:
            return self.text(as_map(obj).lookup(self.key))
        except FileNotFoundError:
            raise gone() from None

    def extended(self) -> dict[str, bytes]:
        key = to_text(self.view.key, self.key).rstrip().encode()
        return {KEY_ATTRIBUTE: key} if len(key) <= _LONGEST_ATTRIBUTE else {}

    def contents(self, obj: Pinned, flags: int) -> bytes:
        try:
            return self.render(obj)
        except OSError as error:
            if error.errno == errno.ESTALE and flags & os.O_CREAT:
                return b""  # the first value that is written makes it
            raise

    def old(self, bpf_map: Map) -> bytes:
        """The value to write over: a new entry's is zero."""
        try:
            return bpf_map.lookup(self.key)
        except FileNotFoundError:
            return bytes(self.view.stride)

    def save(self, bpf_map: Map, old: bytes, new: bytes, flags: int) -> None:
        bpf_map.update(self.key, new, _existence(flags))


def _existence(flags: int) -> Existence:
    """What an update expects of the key, by the flags of the open.

    A file that was opened and then removed does not come back by being written.
    """
    if flags & os.O_EXCL:
        return Existence.NOEXIST
    return Existence.ANY if flags & os.O_CREAT else Existence.EXIST


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
        digest = digest_of(name) if view.long_names else None
        key = self._with_digest(digest) if digest else from_name(view.key, name)
        if self.fixed and int.from_bytes(key, sys.byteorder) >= view.max_entries:
            raise Refused(f"index {name} is past the end: the map has {view.max_entries} entries")
        own_name = to_name(view.key, key)
        if digest and own_name != name:
            raise Refused("the map has no key of this name")
        return Entry(self.subject, view, key, own_name)

    def _with_digest(self, digest: str) -> bytes:
        """The key whose name ends in a digest. Raises `Refused` when the map has none."""
        known = self.view.long_keys
        if digest not in known:
            # Who asks for one key often asks for those that follow it, next.
            ahead = known.most // 2
            with self.open() as bpf_map:
                for keys, _values in self._pieces(bpf_map):
                    for key in split(keys, self.view.key_size):
                        known[key_digest(key)] = key
                        ahead -= digest in known
                    if ahead < 0:
                        break
        if digest not in known:
            raise Refused("the map has no key with this digest")
        return known[digest]

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All that the map has, with their names."""
        view = self.view
        mtime_ns = self.subject.status().st_mtime_ns
        with self.open() as bpf_map:
            for keys, values in self._pieces(bpf_map):
                each_key = split(keys, view.key_size)
                each_value = split(values, view.stride) if values else iter([b""])
                names = to_names(view.key, keys)
                for name, key, value in zip(names, each_key, each_value, strict=True):
                    entry = Entry(self.subject, view, key, name)
                    if values:
                        entry.found(value, mtime_ns)
                    if digest := digest_of(name):
                        view.long_keys[digest] = key
                    yield name, entry

    def _pieces(self, bpf_map: Map) -> Iterator[tuple[bytes, bytes]]:
        """Keys and their values, some at a time; of a large map one key, and no value."""
        if self.view.large:
            yield from ((key, b"") for key in bpf_map.each_key())
            return
        for batch in bpf_map.batches():
            yield from batch.pieces(self.view.key_size, self.view.stride, self.view.piece(_PIECE))

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
    if keyed.view.same(new_key) != keyed.view.same(key):
        bpf_map.delete(key)
