"""`vars/`: a file for each global variable of a program, in the map that holds them.

A compiler puts global variables into sections (.data, .bss, .rodata, .data.NAME, .kconfig), and a
loader makes of each section an array with one entry, whose type in BTF is a DATASEC (`libbpf`,
bpf_object__init_internal_map).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.text.changes import changes
from fusefs.text.codec import Codec
from fusefs.text.composite import Part, Struct
from fusefs.text.escaping import escape, percent
from fusefs.text.names import LONGEST
from fusefs.tree.files import explained, noting
from fusefs.tree.map_view import Finder, MapView, is_large
from fusefs.tree.node import Attributes, File, Node, Opening, gone, refusal, searchable
from fusefs.tree.saving import SavingDirectory, take
from fusefs.tree.scratch import ScratchNode
from fusefs.tree.subject import Subject
from fusefs.tree.values import ValueFile, as_map


def has_variables(view: MapView) -> bool:
    """Whether the map holds the variables of a section.

    The kernel takes a DATASEC for the value's type of other maps, too; they have many such values,
    and none of them is what a program calls its variables.
    """
    fixed = view.traits is not None and view.traits.fixed
    return bool(view.btf.section) and fixed and view.max_entries == 1 and not view.per_cpu


def _read_only(section: str) -> bool:
    """Whether programs take the variables of a section for constants: the verifier has looked at
    their values and left out what is not reached with them."""
    return section.startswith(".rodata") or section == ".kconfig"


def _parts(view: MapView) -> tuple[Part, ...]:
    """The variables, with the formats that are set now. A format for the whole is not for them."""
    whole = view.btf.value if "value" in view.settings else view.value
    assert isinstance(whole, Struct)  # see `has_variables`
    return whole.parts


def _name(variable: str) -> str:
    """The file name of a variable. The kernel takes `.` and `..` for C names, too."""
    name = escape(variable)
    return "".join(map(percent, name)) if name in (".", "..") else name


class Variable(ValueFile):
    """A variable. `number` is which of the section's it is."""

    __slots__ = ("number",)

    def __init__(self, subject: Subject, view: MapView, number: int, name: str) -> None:
        super().__init__(subject, view, f"vars/{name}", (subject.identity, "vars", name))
        self.number = number

    @property
    def part(self) -> Part:
        """Where the variable is in the section, and what it is."""
        return _parts(self.view)[self.number]

    @property
    def codec(self) -> Codec:
        return self.part.codec

    @property
    def large(self) -> bool:
        return is_large(self.codec)

    def fixed(self) -> str:
        section = self.view.btf.section or ""
        if _read_only(section):
            return f"variables of {section} are read-only"
        return super().fixed()

    def render(self, obj: Object) -> bytes:
        return self.text(self.old(as_map(obj)))

    def old(self, bpf_map: Map) -> bytes:
        part = self.part
        return bpf_map.load(part.offset, part.codec.size)

    def save(self, bpf_map: Map, old: bytes, new: bytes, opening: Opening) -> None:
        """Store the fields that differ, and no byte beside them; see `Map.store` for maps where
        that cannot be done, and what a program writes to other variables meanwhile can be lost."""
        part = self.part
        pieces = changes(part.codec, old, new)
        bpf_map.store([(part.offset + at, data) for at, data in pieces])


@dataclass(frozen=True, slots=True)
class Section:
    """A map that holds variables; `numbers` has them by their file names."""

    subject: Subject
    view: MapView
    numbers: dict[str, int]

    @property
    def fixed(self) -> bool:
        """Whether none of them can be written."""
        return _read_only(self.view.btf.section or "") or self.view.frozen(self.subject)

    def variable(self, name: str) -> Variable:
        """The file of this name. Raises FileNotFoundError."""
        number = self.numbers.get(name)
        if number is None:
            raise refusal(errno.ENOENT)
        return Variable(self.subject, self.view, number, name)

    def variables(self) -> Iterator[tuple[str, Variable]]:
        """All, by name."""
        mtime_ns = self.subject.status().st_mtime_ns
        with self.subject.open() as obj:
            bpf_map = as_map(obj)
            for name in self.numbers:
                variable = self.variable(name)
                if not variable.large:
                    variable.found(variable.old(bpf_map), mtime_ns)
                yield name, variable


class Variables(SavingDirectory):
    """The directory of a section's variables."""

    __slots__ = ("_finder", "_section")

    def __init__(self, finder: Finder) -> None:
        super().__init__((finder.place, "vars"))
        self._finder = finder
        self._section: Section | None = None

    def _find(self) -> Section:
        """The section that is here now."""
        found = self._finder.now()
        view = found.view
        if view is None or not has_variables(view):
            raise gone()
        if self._section is None or self._section.view is not view:
            names = [_name(part.name) for part in _parts(view)]
            numbers = {name: number for number, name in enumerate(names) if _fits(name)}
            self._section = Section(found.subject, view, numbers)
        return self._section

    def attributes(self) -> Attributes:
        section = self._find()
        status = section.subject.status()
        mode = searchable(status.st_mode & 0o666)
        if section.fixed:
            mode &= ~0o222
        attributes = Attributes.of(status, stat.S_IFDIR | mode)
        attributes.nlink = 2
        return attributes

    def enter(self) -> None:
        self._find().subject.open().close()

    def subject(self) -> Subject:
        return self._find().subject

    def owns(self, name: str) -> bool:
        return name in self._find().numbers

    def find(self, name: str, caller: Caller | None = None) -> Node:
        section = self._find()
        variable = section.variable(name)
        if not variable.large:
            with section.subject.open() as obj:
                value = variable.old(as_map(obj))
            variable.found(value, section.subject.status().st_mtime_ns)
        return variable

    def listed(self) -> Iterator[tuple[str, Node]]:
        return self._find().variables()

    def save(self, scratch: ScratchNode, name: str, flags: RenameFlags, caller: Caller) -> None:
        section = self._find()
        if name not in section.numbers:
            raise self._refuse(f"create vars/{name}", "the program has no such variable")
        if flags & RenameFlags.NOREPLACE:
            raise refusal(errno.EEXIST)
        subject = section.subject
        with subject.open() as obj, noting(subject, obj, f"write vars/{name}", scratch.text):
            take(section.variable(name), obj, scratch, Opening(os.O_WRONLY, caller))

    def make(self, name: str, caller: Caller) -> File:
        raise self._refuse(f"create vars/{name}", "the program has no such variable")

    def remove(self, name: str, caller: Caller) -> None:
        raise self._refuse(f"remove vars/{name}", "variables are there for good")

    def move(self, name: str, new_name: str, flags: RenameFlags, caller: Caller) -> None:
        raise self._refuse(f"rename vars/{name} to {new_name}", "variables are there for good")

    def _refuse(self, what: str, reason: str) -> OSError:
        section = self._find()
        with section.subject.open() as obj:
            return explained(section.subject, obj, what, refusal(errno.EPERM, reason))


def _fits(name: str) -> bool:
    return 0 < len(os.fsencode(name)) <= LONGEST
