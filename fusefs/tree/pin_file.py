"""`pin`: pinning an object that was found by its id."""

from __future__ import annotations

import errno
import os

from fusefs.bpf.credentials import acting_as
from fusefs.bpf.object import Object
from fusefs.text.errors import Refused
from fusefs.tree.node import Opening, refusal
from fusefs.tree.subject import Subject
from fusefs.tree.targets import names_below
from fusefs.tree.write_only import WriteOnlyFile


class PinFile(WriteOnlyFile):
    """Takes a path below the mount, and pins the object there."""

    __slots__ = ()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "pin")

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & 0o200

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        context = self.subject.context
        names = names_below(context, (), text.removesuffix("\n"))
        if not names or "\n" in text.removesuffix("\n"):
            raise Refused("expected the path of the new pin, from the root of the mount")
        if "." in names[-1]:
            raise refusal(errno.EPERM, "bpffs has no names with a dot")
        with acting_as(opening.caller):
            context.root.pin_below(names, obj)
        context.survey.forget()
