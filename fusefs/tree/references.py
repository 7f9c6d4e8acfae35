"""`maps/` and `links/` of a program: symbolic links to what it uses, and to what runs it."""

from __future__ import annotations

import errno
import stat
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.tree.node import Attributes, Directory, Node, Symlink, refusal
from fusefs.tree.subject import Place, Subject
from fusefs.tree.targets import parse_id, text_to


class References(Directory):
    """A directory of links. It is root's, as what they lead to."""

    __slots__ = ("place", "subject")
    roots = True
    name: ClassVar[str]
    kind: ClassVar[type[Object]]

    def __init__(self, place: Place, subject: Subject) -> None:
        super().__init__((subject.identity, self.name))
        self.place = place
        self.subject = subject

    @abstractmethod
    def found(self, program: Program) -> Iterator[tuple[str, int] | None]:
        """The names and ids of the objects; None for "not yet, ask again". Raises OSError."""

    def attributes(self) -> Attributes:
        attributes = Attributes.of(self.subject.status(), stat.S_IFDIR | 0o500)
        attributes.uid = attributes.gid = 0
        attributes.nlink = 2
        return attributes

    def _all(self) -> Iterator[tuple[str, int] | None]:
        with self.subject.open() as program:
            assert isinstance(program, Program)  # only programs are given these directories
            yield from self.found(program)

    def lookup(self, name: str) -> Node:
        with self.subject.open() as program:
            assert isinstance(program, Program)  # only programs are given these directories
            number = self.find(program, name)
        if number is None:
            raise refusal(errno.ENOENT)
        return Reference(self, number)

    def find(self, program: Program, name: str) -> int | None:
        """The id of the object of this name, or None."""
        return next((item[1] for item in self.found(program) if item and item[0] == name), None)

    def children(self) -> Iterator[tuple[str, Node] | None]:
        for item in self._all():
            yield (item[0], Reference(self, item[1])) if item else None


class Reference(Symlink):
    """A link to an object in `.by-id/`."""

    __slots__ = ("_directory", "_id")

    def __init__(self, directory: References, object_id: int) -> None:
        super().__init__((directory.identity, object_id))
        self._directory = directory
        self._id = object_id

    def target(self) -> str:
        place = self._directory.place
        path = place.path()
        base = None if path is None else (*path, self._directory.name)
        return text_to(place.context, base, self._directory.kind, self._id)

    def attributes(self) -> Attributes:
        attributes = Attributes.of(self._directory.subject.status(), stat.S_IFLNK | 0o777)
        attributes.uid = attributes.gid = 0
        attributes.size = len(self.target().encode())
        return attributes

    def target_for(self, caller: Caller) -> str:
        if not caller.is_root:
            raise refusal(errno.EACCES)
        return self.target()


class Maps(References):
    """The maps that it uses, by their names; with their ids where that is not one alone."""

    __slots__ = ()
    name = "maps"
    kind = Map

    def found(self, program: Program) -> Iterator[tuple[str, int] | None]:
        named = {number: _name(number) for number in program.map_ids()}
        counts = Counter(named.values())
        given: set[str] = set()
        for number, name in named.items():
            # Names may have dots, and be nothing else.
            alone = counts[name] == 1 and name.strip(".")
            shown = name if alone else f"{name}.{number}".lstrip(".")
            shown = str(number) if shown in given else shown
            given.add(shown)
            yield shown, number


def _name(map_id: int) -> str:
    """The name of a map; nothing where this process may not open it."""
    # The program holds its maps: they are there as long as it is.
    try:
        with Map.from_id(map_id) as bpf_map:
            name: bytes = bpf_map.info.name
    except PermissionError:
        return ""
    return name.decode("utf-8", "replace")


class Links(References):
    """The links that run it, by their ids."""

    __slots__ = ()
    name = "links"
    kind = Link
    _turn = 256  # so many links are looked at in one go

    def found(self, program: Program) -> Iterator[tuple[str, int] | None]:
        for number, link_id in enumerate(Link.ids(), 1):
            if _runs(link_id, program.info.id):
                yield str(link_id), link_id
            if number % self._turn == 0:
                yield None

    def find(self, program: Program, name: str) -> int | None:
        number = parse_id(name)
        return number if number and _runs(number, program.info.id) else None


def _runs(link_id: int, program_id: int) -> bool:
    try:
        with Link.from_id(link_id) as link:
            return bool(link.info.prog_id == program_id)
    except FileNotFoundError:
        return False
