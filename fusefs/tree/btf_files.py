"""The files that the directory of a BTF object has."""

from __future__ import annotations

from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Node
from fusefs.tree.types_file import TypesFile


def btf_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a BTF object, by name."""
    return {"types.h": TypesFile(found)}
