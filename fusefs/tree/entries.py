"""What a map has, by its keys: what `entries/` and `entries.jsonl` show."""

from __future__ import annotations

import errno
import os
import stat
import time
from abc import abstractmethod
from collections.abc import Hashable, Iterator
from typing import ClassVar

from fusefs.bpf.batch import split
from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Existence, Map
from fusefs.bpf.object import Object
from fusefs.bpf.walk import AT_ONCE
from fusefs.text.codec import Codec
from fusefs.text.errors import Refused
from fusefs.text.names import (
    digest_of,
    from_name,
    key_digest,
    looks_scratch,
    to_name,
    to_names,
)
from fusefs.text.value import Lines, to_text
from fusefs.tree.alike import Alike, Origin
from fusefs.tree.found_keys import FoundKeys, Piece
from fusefs.tree.map_types import Traits
from fusefs.tree.map_view import MapView
from fusefs.tree.node import (
    Absent,
    Attributes,
    File,
    Node,
    Opening,
    gone,
    refusal,
)
from fusefs.tree.saving import take
from fusefs.tree.scratch import ScratchNode
from fusefs.tree.subject import Place, Subject
from fusefs.tree.values import ValueFile, as_map

# The extended attribute that has an entry's key, as `entries.jsonl` shows it.
KEY_ATTRIBUTE = "user.bpf.key"
_LONGEST_ATTRIBUTE = 1 << 16  # XATTR_SIZE_MAX
# Lines of text that are made, and keys that a listing names, in one go; others wait so long.
_PIECE = 512


class KeyNode(Node):
    """What stands for a key in `entries/`."""

    __slots__ = ()

    @abstractmethod
    def found(self, value: bytes, mtime_ns: int) -> None:
        """Note the value that the map has, for the attributes; it is from `mtime_ns` if nobody has
        seen one before."""


def of_key(subject: Subject, view: MapView, key: bytes) -> Hashable:
    """The identity of what stands for a key."""
    return subject.identity, "entries", view.same(key)


class Entry(ValueFile, KeyNode):
    """The value of one key, as a line of JSON. It need not be there: it may be yet to be made."""

    __slots__ = ("key",)

    def __init__(
        self, subject: Subject, view: MapView, key: bytes, identity: Hashable = None
    ) -> None:
        super().__init__(subject, view, "", identity or of_key(subject, view, key))
        self.key = key

    @property
    def name(self) -> str:
        # Made when it is asked for, which is seldom.
        return f"entries/{to_name(self.view.key, self.key)}"

    @property
    def codec(self) -> Codec:
        return self.view.value

    @property
    def large(self) -> bool:
        return self.view.large

    def fixed(self) -> str:
        return self.view.summed or super().fixed()

    def render(self, obj: Object) -> bytes:
        return self.text(self.current(obj))

    def current(self, obj: Object) -> bytes:
        """The value now. Raises `Absent`."""
        try:
            return self.look(as_map(obj))
        except FileNotFoundError:
            raise Absent from None

    def extended(self) -> dict[str, bytes]:
        key = to_text(self.view.key, self.key).rstrip().encode()
        return {KEY_ATTRIBUTE: key} if len(key) <= _LONGEST_ATTRIBUTE else {}

    @property
    def has_listed_attributes(self) -> bool:
        # Of a key that the name tells, the attribute says nothing new.
        return self.view.long_names and digest_of(self.name.removeprefix("entries/")) is not None

    def contents(self, obj: Object, flags: int) -> bytes:
        try:
            return self.render(obj)
        except OSError as error:
            if error.errno == errno.ESTALE and flags & os.O_CREAT:
                return b""  # the first value that is written makes it
            raise

    def old(self, bpf_map: Map) -> bytes:
        """The value to write over: a new entry's is zero."""
        try:
            return self.look(bpf_map)
        except FileNotFoundError:
            return bytes(self.view.stride)

    def look(self, bpf_map: Map) -> bytes:
        """The value. Raises FileNotFoundError when the map has none."""
        return bpf_map.lookup(self.key)

    def save(self, bpf_map: Map, old: bytes, new: bytes, opening: Opening) -> None:
        self.update(bpf_map, new, opening)

    def update(self, bpf_map: Map, value: bytes, opening: Opening) -> None:
        """Have the map take a value, as it would give it. Raises `Refused` or OSError."""
        bpf_map.update(self.key, value, expected(opening.flags))


def expected(flags: int) -> Existence:
    """What an update expects of the key, by the flags of the open.

    A file that was opened and then removed does not come back by being written.
    """
    if flags & os.O_EXCL:
        return Existence.NOEXIST
    return Existence.ANY if flags & os.O_CREAT else Existence.EXIST


def existence_of(flags: RenameFlags) -> Existence:
    """What a rename expects of the new name."""
    return Existence.NOEXIST if flags & RenameFlags.NOREPLACE else Existence.ANY


class KeyedMap(Origin):
    """A map with a file for each key, as it is for one request. Subclasses have other nodes for
    keys.

    `caller` is who asks, where it is somebody's right to ask that matters; None for those who ask
    for what everybody may know.
    """

    file_type: ClassVar[int] = stat.S_IFREG
    read_at = 0.0  # when the kernel gave what `pieces` gives now

    def __init__(
        self,
        place: Place,
        subject: Subject,
        view: MapView,
        traits: Traits,
        caller: Caller | None = None,
    ) -> None:
        self.place = place
        self.subject = subject
        self.view = view
        self.traits = traits
        self.caller = caller
        self._shared: Attributes | None = None
        self._moment = -1  # when that was so

    def open(self) -> Map:
        """Open it. Raises `gone()`."""
        obj = self.subject.open()
        if not isinstance(obj, Map):
            obj.close()
            raise gone()
        return obj

    def node(self, key: bytes) -> KeyNode:
        """What shows a key, whether the map has it or not."""
        return Entry(self.subject, self.view, key)

    @property
    def of_entries(self) -> bool:
        """Whether its nodes are entries and no more, that have no texts and attributes of their
        own."""
        return type(self).node is KeyedMap.node

    def identity(self, key: bytes) -> Hashable:
        return of_key(self.subject, self.view, key)

    def shared(self) -> Attributes:
        moment = self.subject.context.moment
        if self._shared is None or self._moment != moment:
            any_of_them = Entry(self.subject, self.view, b"", self)
            self._shared = any_of_them.basics(self.subject.status())
            self._moment = moment
        return self._shared

    def key(self, name: str) -> bytes:
        """The key that `name` spells, whether the map has it or not.

        Raises `Refused` when it spells none.
        """
        view = self.view
        digest = digest_of(name) if view.long_names else None
        key = self._with_digest(digest) if digest else from_name(view.key, name)
        if view.past_end(key):
            raise Refused(f"index {name} is past the end: the map has {view.max_entries} entries")
        if digest and to_name(view.key, key) != name:
            raise Refused("the map has no key of this name")
        return key

    def spelled(self, name: str) -> bytes:
        """The same for a name that is looked up. Raises FileNotFoundError when it spells none."""
        try:
            return self.key(name)
        except Refused:
            raise refusal(errno.ENOENT) from None

    def name(self, key: bytes) -> str:
        """The file name of a key."""
        return to_name(self.view.key, key)

    def look(self, bpf_map: Map, key: bytes) -> bytes:
        """The value of a key. Raises FileNotFoundError."""
        return bpf_map.lookup(key)

    def _with_digest(self, digest: str) -> bytes:
        """The key whose name ends in a digest. Raises `Refused` when the map has none."""
        known = self.view.long_keys
        if digest not in known:
            # Who asks for one key often asks for those that follow it, next.
            ahead = known.most // 2
            with self.open() as bpf_map:
                for keys, _values in self.named(bpf_map):
                    for key in split(keys, self.view.key_size):
                        known[key_digest(key)] = key
                        ahead -= digest in known
                    if ahead < 0:
                        break
        if digest not in known:
            raise Refused("the map has no key with this digest")
        return known[digest]

    def find(self, name: str) -> Node:
        """The node of a key that the map has. Raises FileNotFoundError."""
        key = self.spelled(name)
        node = self.node(key)
        with self.subject.borrow() as obj:
            value = self.look(as_map(obj), key)
        node.found(value, self.subject.status().st_mtime_ns)
        return node

    def nodes(self) -> Iterator[tuple[str, Node] | Alike | None]:
        """All that the map has, with their names; None for "not yet, ask again"."""
        view = self.view
        mtime_ns = self.subject.status().st_mtime_ns
        with self.open() as bpf_map:
            for keys, values in self.named(bpf_map):
                if not keys:
                    yield None
                    continue
                names = to_names(view.key, keys)
                each_key = list(split(keys, view.key_size))
                if view.long_names:
                    for name, key in zip(names, each_key, strict=True):
                        if digest := digest_of(name):
                            view.long_keys[digest] = key
                piece = Piece(values, self.read_at, mtime_ns)
                yield FoundKeys(self, bpf_map, names, each_key, piece)

    def note(self, node: KeyNode, value: bytes, mtime_ns: int) -> None:
        """Note the value that a listing has found, see `KeyNode.found`."""
        node.found(value, mtime_ns)

    def pieces(self, bpf_map: Map, most: int = AT_ONCE) -> Iterator[tuple[bytes, bytes]]:
        """Keys and their values, some at a time or none; read from the kernel by about `most`."""
        for batch in bpf_map.batches(most):
            self.read_at = time.monotonic()
            yield from batch.pieces(self.view.key_size, self.view.stride, self.view.piece(_PIECE))
            if not batch.count:
                yield b"", b""

    def named(self, bpf_map: Map) -> Iterator[tuple[bytes, bytes]]:
        """The same for those who want keys: of a large map one key at a time, and no value."""
        if not self.view.large:
            return self.pieces(bpf_map, _PIECE)
        return ((key or b"", b"") for key in bpf_map.each_key())

    @property
    def codec(self) -> Codec:
        """The codec of the values that `pieces` gave last."""
        return self.view.value

    def lines(self, bpf_map: Map) -> Iterator[str]:
        """All entries as JSON Lines, some at a time or none."""
        lines = Lines(self.view.key, self.codec)
        for keys, values in self.pieces(bpf_map):
            if (lines.key, lines.value) != (self.view.key, self.codec):
                lines = Lines(self.view.key, self.codec)
            yield lines.text(keys, values) if keys else ""

    def counts(self, bpf_map: Map) -> Iterator[int]:
        """The number of entries, in parts that add up to it."""
        if self.traits.fixed:
            yield self.view.max_entries
            return
        yield from (batch.count for batch in bpf_map.batches())

    # Each of these raises `Refused` or OSError when it refuses, and then nothing has changed.

    def create(self, bpf_map: Map, name: str) -> File:
        """The file of a key that the map does not have."""
        if reason := self.traits.unset or self.traits.unmade:
            raise refusal(errno.EPERM, reason)
        node = self.node(self.key(name))
        if not isinstance(node, File):
            raise refusal(errno.EPERM, "its entries are symbolic links: ln -s makes one")
        if self.view.frozen(self.subject):
            raise refusal(errno.EPERM)
        return node

    def link(self, bpf_map: Map, name: str, target: str, caller: Caller) -> None:
        """Make a symbolic link."""
        raise refusal(errno.EPERM, "the entries of this map are no symbolic links")

    def check(self, bpf_map: Map, target: str, caller: Caller) -> None:
        """Refuse the target of a scratch link that is nothing for an entry."""

    def save(
        self, bpf_map: Map, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        """Have an entry take what a scratch file or link has."""
        how = os.O_WRONLY if self.traits.unmade else os.O_WRONLY | os.O_CREAT
        if flags & RenameFlags.NOREPLACE:
            how |= os.O_EXCL
        take(self.node(self.saved_key(name)), bpf_map, scratch, Opening(how, caller))

    def remove(self, bpf_map: Map, name: str) -> None:
        """Remove an entry."""
        if self.traits.kept:
            raise refusal(errno.EPERM, self.traits.kept)
        self.delete(bpf_map, self.key(name))

    def rename(
        self, bpf_map: Map, name: str, new_name: str, flags: RenameFlags, caller: Caller
    ) -> Hashable | None:
        """Insert the new key, then delete the old one, so that the value is never absent."""
        if reason := self.traits.kept or self.traits.unset or self.traits.unmade:
            raise refusal(errno.EPERM, reason)
        self.subject.open_by(caller).close()  # who moves a value has to have the right to read it
        key, new_key = self.key(name), self.new_key(new_name, flags)
        value = self.look(bpf_map, key)
        if new_key == key:
            return None
        self.insert(bpf_map, new_key, value, flags, caller)
        if self.view.same(new_key) == self.view.same(key):
            return None
        self.delete(bpf_map, key)
        return self.identity(key)

    def delete(self, bpf_map: Map, key: bytes) -> None:
        """Remove a key. Raises FileNotFoundError when the map does not have it."""
        bpf_map.delete(key)

    def saved_key(self, name: str) -> bytes:
        """The key that a scratch file is renamed to. Raises OSError: of what is refused the log
        shows the contents, and a place in those."""
        try:
            return self.key(name)
        except Refused as error:
            raise refusal(errno.EINVAL, str(error)) from error

    def new_key(self, name: str, flags: RenameFlags) -> bytes:
        """The key to which another is renamed."""
        if flags & RenameFlags.EXCHANGE:
            raise refusal(errno.EINVAL, "entries cannot be exchanged")
        if looks_scratch(name):
            raise refusal(errno.EPERM, f"{name} is a name for scratch files")
        try:
            return self.key(name)
        except Refused as error:
            raise refusal(errno.EPERM, str(error)) from error

    def insert(
        self, bpf_map: Map, key: bytes, value: bytes, flags: RenameFlags, caller: Caller
    ) -> None:
        """Give `key` the value that another one has."""
        bpf_map.update(key, value, existence_of(flags))
