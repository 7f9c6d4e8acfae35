"""The files that the directory of a program has."""

from __future__ import annotations

from fusefs.tree.code import Jited, Raw, Xlated
from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Node
from fusefs.tree.references import Links, Maps
from fusefs.tree.statistics import Stats
from fusefs.tree.test_run import TestRun
from fusefs.tree.types_file import TypesFile


def program_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a program, by name."""
    return {
        "types.h": TypesFile(found),
        "maps": Maps(finder.place, found.subject),
        "links": Links(finder.place, found.subject),
        "xlated": Xlated(found.subject, "xlated"),
        "xlated.bin": Raw(found.subject, "xlated.bin"),
        "jited": Jited(found.subject, "jited"),
        "jited.bin": Raw(found.subject, "jited.bin"),
        "stats": Stats(found.subject, "stats"),
        "test_run": TestRun(found.subject, "test_run"),
    }
