"""`info` and `info.json`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.object import Object
from fusefs.tree.files import TextFile
from fusefs.tree.info import Info, describe
from fusefs.tree.map_view import Found
from fusefs.tree.node import FRESH, Handle, refusal
from fusefs.tree.related import related

# For its size in a listing it may be so many seconds since what uses what was looked at.
_AGE = 1.0
_NOT_SHOWN = "not shown: others than root may read this; for root, .by-id/ has it"
_NOT_KNOWN = "not known: this process may not go through the objects of the kernel"


class InfoFile(TextFile):
    """What is known of an object, as `form` writes it; and what is tied to it, which is for root
    alone: bpf(2) tells nobody else of objects that they do not have."""

    __slots__ = ("_form", "_found")

    def __init__(self, found: Found, name: str, form: Callable[[Info], str]) -> None:
        super().__init__(found.subject, name)
        self._found = found
        self._form = form

    def permissions(self, status: os.stat_result) -> int:
        readable = super().permissions(status)
        if self._found.kind == Link.kind:
            # The pin of a link opens only to those who may read and write (bpf_obj_get_user in
            # kernel/bpf/inode.c), and so does what is to be known of it.
            readable &= (status.st_mode & 0o222) << 1
        return readable

    def _for_root_alone(self) -> bool:
        status = self.subject.status()
        return not self.subject.context.shared or (status.st_uid == 0 and not status.st_mode & 0o77)

    def prepare(self) -> Iterator[int | None]:
        return self.subject.context.survey.renew(FRESH) if self._for_root_alone() else iter(())

    def open(self, flags: int, caller: Caller) -> Handle:
        if caller.uid != 0 and self._for_root_alone() and self.subject.context.shared:
            raise refusal(errno.EACCES)  # its mode was another a moment ago
        return super().open(flags, caller)

    def glance(self, obj: Object) -> bytes:
        if self._for_root_alone():
            self.subject.context.survey.renew_now(_AGE)
        return self.render(obj)

    def render(self, obj: Object) -> bytes:
        fields = describe(obj, self._found.view)
        return self._form(fields | self._related(obj)).encode()

    def _related(self, obj: Object) -> Info:
        if not self._for_root_alone():
            return {"related": _NOT_SHOWN}
        survey = self.subject.context.survey
        return related(obj, survey.last) if survey.allowed else {"related": _NOT_KNOWN}
