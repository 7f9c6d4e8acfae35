"""The files that the directory of a program has."""

from __future__ import annotations

from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Node
from fusefs.tree.types_file import TypesFile


def program_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a program, by name."""
    return {"types.h": TypesFile(found)}
