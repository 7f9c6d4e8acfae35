"""`.by-id/`: every object in the kernel, pinned or not, by its id. It is root's.

It is reached by name and not listed, so that those who walk through everything do not do it twice.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterator

from fusefs.bpf.object import Object
from fusefs.tree.context import BY_ID, Context
from fusefs.tree.graph_files import GraphDot, GraphSvg
from fusefs.tree.node import Attributes, Directory, Node, gone, refusal
from fusefs.tree.object_directory import ObjectDirectory
from fusefs.tree.subject import Place, Subject
from fusefs.tree.targets import KINDS, parse_id, path_by_id


class _RootsSubject(Subject):
    """What belongs to root, and was always there."""

    @property
    def roots(self) -> bool:
        return True

    def status(self) -> os.stat_result:
        started = self.context.started_ns
        times = {f"st_{time}time_ns": started for time in "amc"}
        return os.stat_result((stat.S_IFREG | 0o600, *[0] * 9), times)


class Everything(_RootsSubject):
    """All objects together."""

    def open(self) -> Object:
        raise refusal(errno.EISDIR)


class IdSubject(_RootsSubject):
    """An object by its id."""

    def __init__(self, context: Context, kind: type[Object], object_id: int) -> None:
        super().__init__((kind, object_id), context)
        self._kind = kind
        self._id = object_id

    def status(self) -> os.stat_result:
        self.open().close()
        return super().status()

    def open(self) -> Object:
        try:
            return self._kind.from_id(self._id)
        except FileNotFoundError:
            raise gone() from None


class IdPlace(Place):
    """An id. What has it is the same as long as it is there."""

    def __init__(self, context: Context, kind: type[Object], object_id: int) -> None:
        super().__init__(context)
        self._subject = IdSubject(context, kind, object_id)
        self._path = path_by_id(kind, object_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdPlace) and other._path == self._path

    def __hash__(self) -> int:
        return hash(self._path)

    @property
    def by_id(self) -> bool:
        return True

    def find(self) -> Subject:
        return self._subject

    @property
    def where(self) -> Hashable:
        return self._path

    def path(self) -> tuple[str, ...]:
        return self._path

    def confirm(self) -> None:
        self._subject.open().close()


class _RootsDirectory(Directory):
    """A directory that is root's alone."""

    __slots__ = ("context",)
    roots = True

    def __init__(self, identity: Hashable, context: Context) -> None:
        super().__init__(identity)
        self.context = context

    def attributes(self) -> Attributes:
        started = self.context.started_ns
        return Attributes(stat.S_IFDIR | 0o500, 0, 0, started, started, started, nlink=2)


class ById(_RootsDirectory):
    """`.by-id/`: a directory for each kind of object, and the picture of all."""

    __slots__ = ()

    def __init__(self, context: Context) -> None:
        super().__init__(BY_ID, context)

    def lookup(self, name: str) -> Node:
        try:
            return self._all()[name]
        except KeyError:
            raise refusal(errno.ENOENT) from None

    def children(self) -> Iterator[tuple[str, Node]]:
        return iter(self._all().items())

    def _all(self) -> dict[str, Node]:
        whole = Everything(BY_ID, self.context)
        return {
            **{name: Ids(self.context, kind) for name, kind in KINDS.items()},
            "graph.dot": GraphDot(whole, "graph.dot", lambda: (BY_ID,)),
            "graph.svg": GraphSvg(whole, "graph.svg", lambda: (BY_ID,)),
        }


class Ids(_RootsDirectory):
    """The objects of a kind, a directory each."""

    __slots__ = ("_kind",)

    def __init__(self, context: Context, kind: type[Object]) -> None:
        super().__init__((BY_ID, kind), context)
        self._kind = kind

    @property
    def private(self) -> bool:
        return True

    def lookup(self, name: str) -> Node:
        object_id = parse_id(name)
        if object_id is None:
            raise refusal(errno.ENOENT)
        try:
            self._kind.from_id(object_id).close()
        except FileNotFoundError:
            raise refusal(errno.ENOENT) from None
        return self._node(object_id)

    def children(self) -> Iterator[tuple[str, Node]]:
        return ((str(object_id), self._node(object_id)) for object_id in self._kind.ids())

    def _node(self, object_id: int) -> Node:
        return ObjectDirectory(IdPlace(self.context, self._kind, object_id))
