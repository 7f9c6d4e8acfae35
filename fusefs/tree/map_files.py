"""The files that the directory of a map has, by the shape of its type."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from fusefs.tree.btf_files import BlobOfMap
from fusefs.tree.cgroup_slots import CgroupArray
from fusefs.tree.controls import FormatFile, Frozen
from fusefs.tree.entries import KeyedMap
from fusefs.tree.entries_directory import Entries
from fusefs.tree.map_types import Shape, Traits
from fusefs.tree.map_view import Finder, Found, MapView
from fusefs.tree.node import Node
from fusefs.tree.queues import BloomMap, Head, Push
from fusefs.tree.redirects import RedirectMap
from fusefs.tree.rings import RecordsPipe, RecordsPush, UnreadRecords
from fusefs.tree.slots import MapOfMaps, ProgArray
from fusefs.tree.sockets import SocketMap
from fusefs.tree.stacks import StackMap
from fusefs.tree.storages import CgroupStorage, InodeStorage, SocketStorage, TaskStorage
from fusefs.tree.streams import Count, EntriesJsonl
from fusefs.tree.subject import Subject
from fusefs.tree.types_file import TypesFile
from fusefs.tree.variables import Variables, has_variables

# What is in `entries/`, for the shapes that have it.
TABLES: Mapping[Shape, type[KeyedMap]] = {
    Shape.VALUES: KeyedMap,
    Shape.MAPS: MapOfMaps,
    Shape.PROGRAMS: ProgArray,
    Shape.DEVICES: RedirectMap,
    Shape.CPUS: RedirectMap,
    Shape.CGROUPS: CgroupArray,
    Shape.OF_TASKS: TaskStorage,
    Shape.OF_CGROUPS: CgroupStorage,
    Shape.OF_INODES: InodeStorage,
    Shape.OF_SOCKETS: SocketStorage,
    Shape.SOCKETS: SocketMap,
    Shape.STACKS: StackMap,
    Shape.BLOOM: BloomMap,
}

_LISTED = ("format", "entries", "entries.jsonl", "count")
# The files of each shape.
FILES: Mapping[Shape, tuple[str, ...]] = {
    Shape.VALUES: _LISTED,
    Shape.MAPS: _LISTED,
    Shape.PROGRAMS: _LISTED,
    Shape.DEVICES: _LISTED,
    Shape.CPUS: _LISTED,
    Shape.CGROUPS: ("entries",),
    Shape.OF_TASKS: _LISTED,
    Shape.OF_CGROUPS: _LISTED,
    Shape.OF_INODES: ("format", "entries"),
    Shape.OF_SOCKETS: ("format", "entries"),
    Shape.SOCKETS: _LISTED,
    Shape.STACKS: _LISTED,
    Shape.QUEUE: ("format", "head", "push"),
    Shape.RECORDS: ("format", "records", "records_pipe"),
    Shape.USER_RECORDS: ("format", "push"),
    Shape.BLOOM: ("format", "entries", "push"),
    Shape.NOTHING: (),
}

_Maker = Callable[[Finder, Subject, MapView], Node]


def _whole(kind: type[EntriesJsonl | Count]) -> _Maker:
    """Makes a file that goes through all of the map, with what does so anew for each reader."""

    def make(finder: Finder, subject: Subject, view: MapView) -> Node:
        traits = _traits(view)
        table = TABLES[traits.shape]
        return kind(subject, view, functools.partial(table, finder.place, subject, view, traits))

    return make


_MAKERS: Mapping[str, _Maker] = {
    "format": lambda finder, subject, view: FormatFile(finder.place, subject, view),
    "entries": lambda finder, subject, view: Entries(finder, TABLES),
    "entries.jsonl": _whole(EntriesJsonl),
    "count": _whole(Count),
    "head": lambda finder, subject, view: Head(subject, view),
    "push": lambda finder, subject, view: _PUSHES.get(_traits(view).shape, Push)(subject, view),
    "records": lambda finder, subject, view: UnreadRecords(subject, view),
    "records_pipe": lambda finder, subject, view: RecordsPipe(subject, view),
}


# What takes elements, where it is not what queues have.
_PUSHES: Mapping[Shape, type[Push]] = {Shape.USER_RECORDS: RecordsPush}


def _traits(view: MapView) -> Traits:
    assert view.traits  # it has files
    return view.traits


def map_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a map, by name: those that its type has."""
    subject, view = found.subject, found.view
    assert view  # it is a map
    names = FILES[view.traits.shape] if view.traits else ()
    files: dict[str, Node] = {"types.h": TypesFile(found), "frozen": Frozen(subject, view)}
    if view.btf.id:
        files["btf"] = BlobOfMap(subject)
    files |= {name: _MAKERS[name](finder, subject, view) for name in names}
    if has_variables(view):
        files["vars"] = Variables(finder)
    return files
