"""The directory of one BPF object: which files it has, by kind and type."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program
from fusefs.bpf.troubles import OWN
from fusefs.text.graph import Key, Kind
from fusefs.tree.btf_files import btf_files
from fusefs.tree.controls import ErrorLogFile
from fusefs.tree.files import FixedFile, ObjectFile, noting
from fusefs.tree.graph_files import GraphDot, GraphSvg
from fusefs.tree.info import json_line, to_yaml
from fusefs.tree.info_file import InfoFile
from fusefs.tree.link_files import link_files
from fusefs.tree.map_files import map_files
from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Attributes, Change, Directory, Node, Opening, refusal, searchable
from fusefs.tree.pin_file import PinFile
from fusefs.tree.program_files import program_files
from fusefs.tree.saving import Replaceable, SavingDirectory, take
from fusefs.tree.scratch import ScratchLink, ScratchNode
from fusefs.tree.subject import Place, Subject

# The daemon's own troubles, which pass; others tell of the object.
_PASSING = OWN | {errno.ESTALE}


class ObjectDirectory(SavingDirectory):
    """What a pin is shown as. Its files are made when somebody looks inside for the first time."""

    __slots__ = ("_files", "_finder", "_found", "_place")

    elsewhere = errno.EPERM

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._place = place
        self._finder = Finder(place)
        self._found: Found | None = None
        self._files: dict[str, Node] = {}

    def attributes(self) -> Attributes:
        status = self._place.find().status()
        mode = searchable(stat.S_IMODE(status.st_mode))
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def change(self, change: Change, caller: Caller) -> None:
        self._place.find().change(change, caller)

    def enter(self) -> None:
        self._place.confirm()

    def subject(self) -> Subject:
        return self._place.find()

    def find(self, name: str, caller: Caller | None = None) -> Node:
        node = self.files().get(name)
        if node is None:
            raise refusal(errno.ENOENT)
        if caller and isinstance(node, ObjectFile):
            node.check_seeker(caller)
        if not _present(node):
            raise refusal(errno.ENOENT)
        return node

    def listed(self) -> Iterator[tuple[str, Node]]:
        return ((name, node) for name, node in self.files().items() if _listed(node))

    def check_link(self, target: str, caller: Caller) -> None:
        for node in self.files().values():
            if isinstance(node, Replaceable):
                node.check(target, caller)

    def save(self, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller) -> None:
        node = self.files().get(name)
        if node is None:
            raise refusal(errno.EPERM)
        if flags & RenameFlags.NOREPLACE:
            raise refusal(errno.EEXIST)
        if isinstance(node, Replaceable) and isinstance(scratch, ScratchLink):
            node.replace(scratch.target(), caller)
            return
        subject = self.subject()
        with subject.open() as obj, noting(subject, obj, f"write {name}", scratch.text):
            take(node, obj, scratch, Opening(os.O_WRONLY, caller))

    def remove(self, name: str, caller: Caller) -> None:
        node = self.find(name)
        if not isinstance(node, ObjectFile):
            raise refusal(errno.EISDIR if isinstance(node, Directory) else errno.EPERM)
        node.remove(caller)

    def files(self) -> dict[str, Node]:
        """The files of the object that is here now, by name."""
        try:
            found = self._finder.now()
        except OSError as error:
            if error.errno in _PASSING:
                raise
            subject, told = self._place.find(), {"error": f"cannot be opened: {error.strerror}"}
            return {
                "info": FixedFile(subject, "info", to_yaml({**told}).encode()),
                "info.json": FixedFile(subject, "info.json", json_line({**told}).encode()),
            }
        if found is not self._found:
            self._found, self._files = found, _files(self._finder, found)
        return self._files


def _present(node: Node) -> bool:
    """Whether the object has this child now."""
    return not isinstance(node, ObjectFile) or node.present()


def _listed(node: Node) -> bool:
    return not isinstance(node, ObjectFile) or (node.listed and node.present())


# What each kind of object has besides, by the kind.
_OF_KIND: Mapping[str, Callable[[Finder, Found], dict[str, Node]]] = {
    Map.kind: map_files,
    Program.kind: program_files,
    Link.kind: link_files,
    BtfObject.kind: btf_files,
}


def _focus(found: Found) -> Key:
    kinds: dict[str, Kind] = {Map.kind: Kind.MAP, Program.kind: Kind.PROGRAM, Link.kind: Kind.LINK}
    return kinds.get(found.kind, Kind.BTF), found.id


def _files(finder: Finder, found: Found) -> dict[str, Node]:
    files: dict[str, Node] = {
        "info": InfoFile(found, "info", to_yaml),
        "info.json": InfoFile(found, "info.json", json_line),
        "error_log": ErrorLogFile(found.subject, of_link=found.kind == Link.kind),
    }
    for name, form in (("graph.dot", GraphDot), ("graph.svg", GraphSvg)):
        files[name] = form(found.subject, name, finder.place.path, _focus(found))
    if finder.place.by_id and found.kind != BtfObject.kind:  # which cannot be pinned
        files["pin"] = PinFile(found.subject)
    return files | _OF_KIND[found.kind](finder, found)
