"""`info` and `info.json`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.object import Object
from fusefs.tree.files import Reading, TextFile
from fusefs.tree.info import Info, describe
from fusefs.tree.map_view import Found
from fusefs.tree.node import FRESH, Handle, Opening
from fusefs.tree.related import related

# For its size in a listing it may be so many seconds since what uses what was looked at.
_AGE = 1.0
_NOT_SHOWN = "not shown: others than root may read this; for root, .by-id/ has it"
# What bpf(2) tells of a program, of where a kernel function is, or of the maps in a map to who has
# all rights.
_FOR_ROOT = frozenset(
    {"jited_prog_len", "xlated_prog_len", "jited_func_lens", "prog_tags", "nr_jited_ksyms",
     "nr_jited_func_lens", "nr_func_info", "nr_line_info", "nr_jited_line_info", "nr_prog_tags",
     "addr", "addrs", "inner_map"}
)  # fmt: skip
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
        return links_bits(status) if self._found.kind == Link.kind else readable

    def _is_whole(self, status: os.stat_result) -> bool:
        """Whether it shows all, since nobody but root can read it."""
        return not self.subject.context.shared or (status.st_uid == 0 and not status.st_mode & 0o77)

    def prepare(self) -> Iterator[int | None]:
        whole = self._is_whole(self.subject.status())
        return self.subject.context.survey.renew(FRESH) if whole else iter(())

    def open(self, flags: int, caller: Caller) -> Handle:
        status = self.admit(Opening(flags, caller))
        # The mode may have been another a moment ago: then who opens it is not root.
        whole = self._is_whole(status) and (caller.is_root or not self.subject.context.shared)
        written = self._whole if whole else self._public
        obj = self.subject.open()
        try:
            contents = written(obj)
        except BaseException:
            obj.close()
            raise
        self.see(contents, status.st_mtime_ns)
        return Reading(written, obj, contents)

    def glance(self, obj: Object) -> bytes:
        if self._is_whole(self.subject.status()):
            self.subject.context.survey.renew_now(_AGE)
        return self.render(obj)

    def render(self, obj: Object) -> bytes:
        return (self._whole if self._is_whole(self.subject.status()) else self._public)(obj)

    def _whole(self, obj: Object) -> bytes:
        survey = self.subject.context.survey
        ties: Info = {"related": _NOT_KNOWN}
        if survey.allowed:
            ties = related(obj, survey.last)
        return self._form(describe(obj, self._found.view) | ties).encode()

    def _public(self, obj: Object) -> bytes:
        fields = describe(obj, self._found.view)
        shown = {name: value for name, value in fields.items() if name not in _FOR_ROOT}
        return self._form(shown | {"related": _NOT_SHOWN}).encode()


def links_bits(status: os.stat_result) -> int:
    """The bits to read a link: its pin opens only to those who may read and write, and to root
    (bpf_obj_do_get in kernel/bpf/inode.c)."""
    bits = status.st_mode & 0o444 & (status.st_mode & 0o222) << 1
    return bits | 0o400 if status.st_uid == 0 else bits
