"""Entries that are objects themselves: the maps in a map of maps, the programs in a prog_array.

Each is a symbolic link to the object in `.by-id/`; making one sets the slot, as `ln -s` does.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import stat
import sys
from abc import ABC, abstractmethod
from typing import ClassVar

from fusefs.bpf import names
from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Existence, Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.text.errors import Refused
from fusefs.tree.entries import KeyedMap, KeyNode, existence_of, of_key
from fusefs.tree.node import Absent, Attributes, refusal
from fusefs.tree.saving import SetLink
from fusefs.tree.scratch import ScratchLink, ScratchNode
from fusefs.tree.sighting import Sighting
from fusefs.tree.targets import open_target, text_to

# What a map has to have in common with those that a map of maps was made for (bpf_map_meta_equal in
# kernel/bpf/map_in_map.c; array_map_meta_equal in arraymap.c for the last one).
_ALIKE = ("type", "key_size", "value_size", "map_flags", "max_entries")
_BATCHES = 16  # so many are searched for one that is in it


class Slot(SetLink, KeyNode):
    """A filled slot."""

    __slots__ = ("_key", "_sighting", "_table")

    def __init__(self, table: LinkedMap, key: bytes) -> None:
        super().__init__(of_key(table.subject, table.view, key))
        self._table = table
        self._key = key
        self._sighting = Sighting()

    def found(self, value: bytes, mtime_ns: int) -> None:
        self._sighting.see(self._table.text(value).encode(), mtime_ns)

    def target(self) -> str:
        with self._table.open() as bpf_map:
            try:
                return self._table.text(self._table.look(bpf_map, self._key))
            except FileNotFoundError:
                raise Absent from None

    def attributes(self) -> Attributes:
        status = self._table.subject.status()
        return self._sighting.of_link(status, status.st_mode, self.target)

    def target_for(self, caller: Caller) -> str:
        self._table.subject.open_by(caller, only_reads=True).close()
        return self.target()

    @property
    def sighting(self) -> Sighting:
        return self._sighting


class LinkedMap(KeyedMap, ABC):
    """A map whose entries are symbolic links."""

    file_type = stat.S_IFLNK

    @abstractmethod
    def text(self, value: bytes) -> str:
        """Where the link leads that stands for a value."""

    @abstractmethod
    def set(
        self, bpf_map: Map, key: bytes, target: str, existence: Existence, caller: Caller
    ) -> None:
        """Set a slot to what the target of a link leads to."""

    @property
    def base(self) -> tuple[str, ...] | None:
        """The names that lead from the root of the mount to the directory of the links."""
        path = self.place.path()
        return None if path is None else (*path, "entries")

    def node(self, key: bytes) -> KeyNode:
        return Slot(self, key)

    def link(self, bpf_map: Map, name: str, target: str, caller: Caller) -> None:
        self.set(bpf_map, self.key(name), target, Existence.NOEXIST, caller)

    def remove(self, bpf_map: Map, name: str) -> None:
        super().remove(bpf_map, name)
        self.place.context.survey.forget()

    def save(
        self, bpf_map: Map, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller
    ) -> None:
        if not isinstance(scratch, ScratchLink):
            raise refusal(errno.EPERM, "its entries are symbolic links: ln -s makes one")
        self.set(bpf_map, self.key(name), scratch.target(), existence_of(flags), caller)


class MapOfObjects(LinkedMap, ABC):
    """A map whose values are objects: ids when they are read, descriptors when they are set."""

    kind: ClassVar[type[Map] | type[Program]]

    def text(self, value: bytes) -> str:
        number = int.from_bytes(value, sys.byteorder)
        return text_to(self.place.context, self.base, self.kind, number)

    @abstractmethod
    def misfit(self, bpf_map: Map, obj: Object) -> str:
        """Why the kernel finds that an object does not fit."""

    def check(self, bpf_map: Map, target: str, caller: Caller) -> None:
        self._open(target, caller).close()

    def _open(self, target: str, caller: Caller) -> Object:
        obj = open_target(self.place.context, self.base, target, caller)
        if not isinstance(obj, self.kind):
            obj.close()
            raise Refused(f"expected a {self.kind.kind}, and {target} is a {obj.kind}")
        return obj

    def set(
        self, bpf_map: Map, key: bytes, target: str, existence: Existence, caller: Caller
    ) -> None:
        with self._open(target, caller) as obj:
            self._set(bpf_map, key, obj, existence)

    def _set(self, bpf_map: Map, key: bytes, obj: Object, existence: Existence) -> None:
        try:
            bpf_map.update(key, obj.fd.to_bytes(4, sys.byteorder), existence)
            self.place.context.survey.forget()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise Refused(self.misfit(bpf_map, obj)) from None

    def insert(
        self, bpf_map: Map, key: bytes, value: bytes, flags: RenameFlags, caller: Caller
    ) -> None:
        # It takes a descriptor, which only root can have of an object that is not pinned.
        if not caller.is_root:
            raise refusal(errno.EPERM, "only root can move what is in a slot: set it anew")
        with self.kind.from_id(int.from_bytes(value, sys.byteorder)) as obj:
            self._set(bpf_map, key, obj, existence_of(flags))


class MapOfMaps(MapOfObjects):
    """array_of_maps, hash_of_maps."""

    kind = Map

    def misfit(self, bpf_map: Map, obj: Object) -> str:
        """The kernel does not tell what the map was made for; one that is in it is an example."""
        general = "a map fits whose type, sizes and flags are those that this one was made for"
        with contextlib.suppress(FileNotFoundError):  # it was taken out meanwhile
            for batch in itertools.islice(bpf_map.batches(), _BATCHES):
                for _key, value in batch.pairs(self.view.key_size, self.view.stride):
                    with Map.from_id(int.from_bytes(value, sys.byteorder)) as other:
                        return _difference(obj, other) or general
        return general


def _difference(given: Object, wanted: Object) -> str:
    for field in _ALIKE:
        one, other = getattr(given.info, field), getattr(wanted.info, field)
        if one != other:
            one, other = _shown(field, one), _shown(field, other)
            return f"its {field} is {one}, and those here have {other}"
    return ""


def _shown(field: str, value: int) -> object:
    if field == "type":
        return names.name_of(names.MAP_TYPE, value)
    if field == "map_flags":
        return names.flag_names(names.MAP_FLAGS, value)
    return value


class ProgArray(MapOfObjects):
    """prog_array: what a tail call goes to."""

    kind = Program

    def misfit(self, bpf_map: Map, obj: Object) -> str:
        owner = bpf_map.fdinfo().get("owner_prog_type")
        given = names.name_of(names.PROGRAM_TYPE, obj.info.type)
        if owner is None:
            return "the kernel does not take it for a program that can be called"
        wanted = names.name_of(names.PROGRAM_TYPE, int(owner))
        if given != wanted:
            return f"it is of type {given}, and programs of type {wanted} call through this map"
        return (
            "the programs that call through this map differ from it in how they are compiled, "
            "attached or use packets"
        )
