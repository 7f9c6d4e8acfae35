"""The local storages: values that live in a thread, a cgroup, an inode or a socket.

The kernel takes a descriptor of that for a key. Here a key is the name of the thing, and the
descriptor is opened for each call; so the mount keeps none of them alive.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.live_keys import Cgroups, Inodes, Live, LiveKeys, Sockets, Tasks
from fusefs.bpf.map import Map
from fusefs.text.errors import Refused
from fusefs.text.jsontext import to_json
from fusefs.text.names import digest_of, key_digest, text_from_name, text_to_name
from fusefs.text.value import to_text
from fusefs.tree.entries import KEY_ATTRIBUTE, Entry, KeyedMap, KeyNode, existence_of, expected
from fusefs.tree.node import Handle, Node, Opening, gone, refusal

# So many things are asked for in one go; others wait so long.
_TURN = 128
# A key, the serial of what has its name, and the value there.
_Present = tuple[bytes, tuple[int, ...], bytes]
_TASK = re.compile(r"[1-9][0-9]{0,9}")
_DESCRIPTOR = re.compile(r"[1-9][0-9]{0,9}\.(0|[1-9][0-9]{0,9})")


class LiveEntry(Entry):
    """The value of one thing. It is gone with the thing, though another may have its name."""

    __slots__ = ("_serial", "_table")

    def __init__(self, table: StorageMap, key: bytes, serial: tuple[int, ...]) -> None:
        subject = table.subject
        identity = (subject.identity, "entries", key, serial)
        super().__init__(subject, table.view, key, identity)
        self._table = table
        self._serial = serial

    @property
    def name(self) -> str:
        return f"entries/{self._table.name(self.key)}"

    @property
    def private(self) -> bool:
        return self._table.things.judges

    @contextlib.contextmanager
    def _held(self, caller: Caller | None = None) -> Iterator[bytes]:
        """The key for the kernel, with the rights of `caller` or our own. Raises `gone()`."""
        with contextlib.ExitStack() as stack:
            try:
                live = stack.enter_context(self._table.held(self.key, caller))
            except FileNotFoundError:
                raise gone() from None
            if live.serial != self._serial:
                raise gone()
            yield live.key

    def open(self, flags: int, caller: Caller) -> Handle:
        if self.private:
            with self._held(caller):
                pass
        return super().open(flags, caller)

    def look(self, bpf_map: Map) -> bytes:
        with self._held() as key:
            return bpf_map.lookup(key)

    def update(self, bpf_map: Map, value: bytes, opening: Opening) -> None:
        with self._held() as key:
            bpf_map.update(key, value, expected(opening.flags))

    def extended(self) -> dict[str, bytes]:
        return {KEY_ATTRIBUTE: self._table.shown(self.key).encode()}


class StorageMap(KeyedMap, ABC):
    """A local storage. A key is the name that `things` has for it, as bytes."""

    things: ClassVar[LiveKeys]

    @abstractmethod
    def key(self, name: str) -> bytes: ...

    def name(self, key: bytes) -> str:
        return os.fsdecode(key)

    def shown(self, key: bytes) -> str:
        """A key as JSON."""
        return to_json(os.fsdecode(key))

    def held(self, key: bytes, caller: Caller | None) -> contextlib.AbstractContextManager[Live]:
        """The thing that a key is the name of; see `LiveKeys.open`."""
        return self.things.open(os.fsdecode(key), caller)

    def node(self, key: bytes) -> KeyNode:
        with self.held(key, self.caller) as live:
            return LiveEntry(self, key, live.serial)

    def find(self, name: str) -> Node:
        key = self.spelled(name)
        with self.open() as bpf_map, self.held(key, self.caller) as live:
            value = bpf_map.lookup(live.key)
        node = LiveEntry(self, key, live.serial)
        node.found(value, self.subject.status().st_mtime_ns)
        return node

    def nodes(self) -> Iterator[tuple[str, Node] | None]:
        mtime_ns = self.subject.status().st_mtime_ns
        with self.open() as bpf_map:
            for some in self._present(bpf_map):
                for key, serial, value in some:
                    node = LiveEntry(self, key, serial)
                    node.found(value, mtime_ns)
                    yield self.name(key), node
                yield None

    def _present(self, bpf_map: Map) -> Iterator[list[_Present]]:
        """All that have a value, some at a time or none."""
        names = self.things.names()
        most = self.view.piece(_TURN)
        while asked := list(itertools.islice(names, most)):
            some: list[_Present] = []
            for name in asked:
                with contextlib.suppress(FileNotFoundError), self.things.open(name, None) as live:
                    some.append((os.fsencode(name), live.serial, bpf_map.lookup(live.key)))
            yield some

    def lines(self, bpf_map: Map) -> Iterator[str]:
        for some in self._present(bpf_map):
            pairs = ((self.shown(key), to_text(self.view.value, value)) for key, _, value in some)
            yield "".join(f'{{"key": {key}, "value": {text.rstrip()}}}\n' for key, text in pairs)

    def counts(self, bpf_map: Map) -> Iterator[int]:
        return map(len, self._present(bpf_map))

    def look(self, bpf_map: Map, key: bytes) -> bytes:
        with self.held(key, self.caller) as live:
            return bpf_map.lookup(live.key)

    def delete(self, bpf_map: Map, key: bytes) -> None:
        with self.held(key, self.caller) as live:
            bpf_map.delete(live.key)

    def insert(
        self, bpf_map: Map, key: bytes, value: bytes, flags: RenameFlags, caller: Caller
    ) -> None:
        with self.held(key, caller) as live:
            bpf_map.update(live.key, value, existence_of(flags))


class TaskStorage(StorageMap):
    """task_storage: the key of a thread is its id."""

    things = Tasks()

    def key(self, name: str) -> bytes:
        if not _TASK.fullmatch(name):
            raise Refused("expected the id of a thread, as 1234")
        return name.encode()

    def shown(self, key: bytes) -> str:
        return key.decode()


class CgroupStorage(StorageMap):
    """cgrp_storage: the key of a cgroup is its path below the root of the hierarchy. In its name
    the slash at the beginning is left out, but for the root itself."""

    things = Cgroups()

    def key(self, name: str) -> bytes:
        if digest := digest_of(name):
            return self._cut(digest)
        path = text_from_name(name)
        if path == "/":
            return b"/"
        parts = path.removeprefix("/").split("/")
        if "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
            raise Refused("expected the path of a cgroup below the root, with %2F for each slash")
        return os.fsencode("/" + "/".join(parts))

    def _cut(self, digest: str) -> bytes:
        """The key whose name ends in a digest. Raises `Refused`."""
        known = self.view.long_keys
        if digest not in known:
            for path in self.things.names():
                known[key_digest(os.fsencode(path.removeprefix("/")))] = os.fsencode(path)
                if digest in known:
                    break
        if digest not in known:
            raise Refused("there is no cgroup with this digest")
        return known[digest]

    def name(self, key: bytes) -> str:
        return text_to_name(os.fsdecode(key.removeprefix(b"/") or b"/"))


class DescriptorStorage(StorageMap):
    """A storage whose keys are named by who has them open: PID.FD."""

    def key(self, name: str) -> bytes:
        if not _DESCRIPTOR.fullmatch(name):
            raise Refused("expected the id of a process and a descriptor that it has, as 1234.5")
        return name.encode()

    def rename(
        self, bpf_map: Map, name: str, new_name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        raise refusal(errno.EPERM, "two descriptors may be of the same: write the value to the new")


class InodeStorage(DescriptorStorage):
    """inode_storage."""

    things = Inodes()


class SocketStorage(DescriptorStorage):
    """sk_storage."""

    things = Sockets()
