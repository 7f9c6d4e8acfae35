"""The directory `entries/` of a map."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Hashable, Iterator, Mapping

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.tree.alike import Alike
from fusefs.tree.entries import KeyedMap
from fusefs.tree.files import noting
from fusefs.tree.map_types import Shape
from fusefs.tree.map_view import Finder
from fusefs.tree.node import Attributes, File, Node, gone, searchable
from fusefs.tree.saving import SavingDirectory
from fusefs.tree.scratch import ScratchNode
from fusefs.tree.subject import Subject


class Entries(SavingDirectory):
    """The directory of a map's keys. `tables` has what there is for each shape."""

    __slots__ = ("_finder", "_tables")

    def __init__(self, finder: Finder, tables: Mapping[Shape, type[KeyedMap]]) -> None:
        super().__init__((finder.place, "entries"))
        self._finder = finder
        self._tables = tables

    def _find(self, caller: Caller | None = None) -> KeyedMap:
        """The map that is here now, for a request by `caller`."""
        found = self._finder.now()
        traits = found.view.traits if found.view else None
        if found.view is None or traits is None or traits.shape not in self._tables:
            raise gone()
        table = self._tables[traits.shape]
        return table(self._finder.place, found.subject, found.view, traits, caller)

    def attributes(self) -> Attributes:
        keyed = self._find()
        status = keyed.subject.status()
        mode = searchable(status.st_mode & 0o666)
        if (keyed.traits.kept and keyed.traits.unset) or keyed.view.frozen(keyed.subject):
            mode &= ~0o222
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def enter(self) -> None:
        self._find().open().close()

    def subject(self) -> Subject:
        return self._find().subject

    def find(self, name: str, caller: Caller | None = None) -> Node:
        return self._find(caller).find(name)

    def listed(self) -> Iterator[tuple[str, Node] | Alike | None]:
        return self._find().nodes()

    def make(self, name: str, caller: Caller) -> File:
        with self._changing(f"create entries/{name}", caller, name) as (keyed, bpf_map):
            return keyed.create(bpf_map, name)

    def link(self, name: str, target: str, caller: Caller) -> Node:
        with self._changing(f"link entries/{name} to {target}", caller) as (keyed, bpf_map):
            keyed.link(bpf_map, name, target, caller)
        return keyed.find(name)

    def check_link(self, target: str, caller: Caller) -> None:
        with self._changing(f"link to {target}", caller) as (keyed, bpf_map):
            keyed.check(bpf_map, target, caller)

    def save(self, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller) -> None:
        what = f"write entries/{name}"
        with self._changing(what, caller, scratch.text) as (keyed, bpf_map):
            keyed.save(bpf_map, scratch, name, flags, caller)

    def remove(self, name: str, caller: Caller) -> None:
        with self._changing(f"remove entries/{name}", caller) as (keyed, bpf_map):
            keyed.remove(bpf_map, name)

    def move(self, name: str, new_name: str, flags: RenameFlags, caller: Caller) -> Hashable | None:
        what = f"rename entries/{name} to {new_name}"
        with self._changing(what, caller, new_name) as (keyed, bpf_map):
            return keyed.rename(bpf_map, name, new_name, flags, caller)

    @contextlib.contextmanager
    def _changing(
        self, what: str, caller: Caller, text: str = ""
    ) -> Iterator[tuple[KeyedMap, Map]]:
        """The map, open; why it refuses `what` is noted, with the place in `text`."""
        keyed = self._find(caller)
        with keyed.open() as bpf_map, noting(keyed.subject, bpf_map, what, text):
            yield keyed, bpf_map
