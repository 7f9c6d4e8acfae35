"""The files that the directory of a link has."""

from __future__ import annotations

from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Node
from fusefs.tree.types_file import TypesFile


def link_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a link, by name."""
    return {"types.h": TypesFile(found)}
