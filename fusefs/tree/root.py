"""The root of the mount: the bpffs directory that is shown, and `.by-id/`."""

from __future__ import annotations

from collections.abc import Iterator

from fusefs.tree.context import BY_ID, Context
from fusefs.tree.mirror import Mirror
from fusefs.tree.node import Node


class Root(Mirror):
    """A mirror with `.by-id/` in it, a name that cannot be in bpffs. It is listed if the mount
    was asked to."""

    __slots__ = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context.root, context)

    def lookup(self, name: str) -> Node:
        return self._by_id() if name == BY_ID else super().lookup(name)

    def children(self) -> Iterator[tuple[str, Node]]:
        yield from super().children()
        if self._context.by_id_listed:
            yield BY_ID, self._by_id()

    def _by_id(self) -> Node:
        from fusefs.tree.by_id import ById  # noqa: PLC0415 - as `mirror` does with pins

        return ById(self._context)
