"""The command, with a child whose attributes cannot be had: WHAT SOURCE MOUNTPOINT -f.

WHAT is the name of an exception. It is raised by whatever asks for the contents of an `error_log`,
of a directory called `broken`, or of the entry with the value 13.
"""

from __future__ import annotations

import builtins
import errno
import sys
from typing import Any

import fusefs.cli
import fusefs.tree.controls
import fusefs.tree.mirror
from fusefs.tree.alike import StandIn
from fusefs.tree.entries import Entry
from fusefs.tree.found_keys import FoundKeys
from fusefs.tree.node import Attributes

_attributes_of_directory = fusefs.tree.mirror.Mirror.attributes
_attributes_of_entry = Entry.attributes
_stand_ins = FoundKeys.stand_ins


def fail() -> None:
    """Raise what was asked for."""
    kind: type[Exception] = getattr(builtins, sys.argv[1])
    raise kind(errno.EIO, "a fault")


def render(self: object, obj: object) -> bytes:
    """Instead of `ErrorLogFile.render`."""
    fail()
    return b""


def attributes_of_directory(self: Any) -> Attributes:
    """Instead of `Mirror.attributes`."""
    if self.directory.place and self.directory.place[1] == "broken":
        fail()
    return _attributes_of_directory(self)


def attributes_of_entry(self: Any) -> Attributes:
    """Instead of `Entry.attributes`."""
    if int.from_bytes(self.key, sys.byteorder) == 13:
        fail()
    return _attributes_of_entry(self)


def stand_ins(self: Any, most: int) -> list[StandIn]:
    """Instead of `FoundKeys.stand_ins`."""
    if any(int.from_bytes(key, sys.byteorder) == 13 for key in self.keys[:most]):
        fail()
    return _stand_ins(self, most)


def main() -> None:
    """Run the command."""
    for owner, name, call in (
        (fusefs.tree.controls.ErrorLogFile, "render", render),
        (fusefs.tree.mirror.Mirror, "attributes", attributes_of_directory),
        (Entry, "attributes", attributes_of_entry),
        (FoundKeys, "stand_ins", stand_ins),
    ):
        setattr(owner, name, call)
    fusefs.cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
