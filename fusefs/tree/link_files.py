"""The files that the directory of a link has."""

from __future__ import annotations

import errno
import os

from fusefs.bpf import names
from fusefs.bpf.credentials import Caller
from fusefs.bpf.link import Link
from fusefs.bpf.link_fields import LinkType
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.text.errors import Refused
from fusefs.tree.files import explained
from fusefs.tree.info_file import links_bits
from fusefs.tree.link_output import Output, as_link
from fusefs.tree.map_view import Finder, Found
from fusefs.tree.node import Attributes, Node, Opening, gone, refusal
from fusefs.tree.saving import Replaceable
from fusefs.tree.sighting import Sighting
from fusefs.tree.subject import Place, Subject
from fusefs.tree.targets import open_target, text_to
from fusefs.tree.types_file import TypesFile
from fusefs.tree.write_only import WriteOnlyFile

# Links whose program can be another, by type: those whose `bpf_link_ops` have `update_prog`.
_SWAPPED = frozenset(
    {LinkType.CGROUP, LinkType.ITER, LinkType.NETNS, LinkType.XDP, LinkType.TCX, LinkType.NETKIT,
     LinkType.SOCKMAP}
)  # fmt: skip


def link_files(finder: Finder, found: Found) -> dict[str, Node]:
    """The files of a link, by name."""
    subject = found.subject
    with subject.open() as obj:
        info = as_link(obj).info
    files: dict[str, Node] = {"types.h": LinkTypes(found), "detach": Detach(subject)}
    if info.prog_id:  # a struct_ops link has a map in place of one
        files["prog"] = LinkedProgram(finder.place, subject)
    if info.type == LinkType.ITER:
        files["output"] = Output(subject)
    return files


class LinkTypes(TypesFile):
    """`types.h` of a link."""

    __slots__ = ()

    def permissions(self, status: os.stat_result) -> int:
        return links_bits(status)


class Detach(WriteOnlyFile):
    """`detach`: writing `1` detaches the link, for good, whoever holds it."""

    __slots__ = ()

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject, "detach")

    def permissions(self, status: os.stat_result) -> int:
        return links_bits(status) >> 1

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        if text.strip() != "1":
            raise Refused("expected 1")
        try:
            as_link(obj).detach()
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            kind = names.name_of(names.LINK_TYPE, obj.info.type)
            reason = f"a link of type {kind} is detached when nothing refers to it any more"
            raise refusal(errno.EOPNOTSUPP, reason) from None


class LinkedProgram(Replaceable):
    """`prog`: leads to the program of the link. To replace it swaps the program in one step."""

    __slots__ = ("_place", "_sighting", "_subject")

    def __init__(self, place: Place, subject: Subject) -> None:
        super().__init__((subject.identity, "prog"))
        self._place = place
        self._subject = subject
        self._sighting = Sighting()

    def target(self) -> str:
        with self._subject.open() as link:
            if not link.info.prog_id:
                raise gone()
            base = self._place.path()
            return text_to(self._place.context, base, Program, link.info.prog_id)

    def attributes(self) -> Attributes:
        status = self._subject.status()
        return self._sighting.of_link(status, links_bits(status), self.target)

    def target_for(self, caller: Caller) -> str:
        self._subject.open_by(caller).close()
        return self.target()

    @property
    def sighting(self) -> Sighting:
        return self._sighting

    def check(self, target: str, caller: Caller) -> None:
        self._set(target, caller, swaps=False)

    def replace(self, target: str, caller: Caller) -> None:
        self._set(target, caller, swaps=True)

    def _set(self, target: str, caller: Caller, *, swaps: bool) -> None:
        """Swap the program for the one that a link's text leads to, or only look whether that is
        one. Raises OSError; the reason is in the log of the link."""
        with self._subject.open_by(caller) as link:
            try:
                obj = open_target(self._place.context, self._place.path(), target, caller)
                with obj:
                    if not isinstance(obj, Program):
                        raise Refused(f"expected a program, and {target} is a {obj.kind}")
                    if swaps:
                        swap(as_link(link), obj)
                        self._place.context.survey.forget()
            except (Refused, OSError) as error:
                raise explained(self._subject, link, f"link prog to {target}", error) from error


def swap(link: Link, program: Program) -> None:
    """Have a link run another program. Raises OSError with a reason for the user."""
    try:
        link.update(program)
    except OSError as error:
        if error.errno == errno.ENOLINK:
            raise refusal(errno.ENOLINK, "the link is detached") from None
        if link.info.type not in _SWAPPED and error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            kind = names.name_of(names.LINK_TYPE, link.info.type)
            reason = f"a link of type {kind} keeps its program: make another link"
            raise refusal(errno.EOPNOTSUPP, reason) from None
        if error.errno == errno.EINVAL:
            raise Refused(_misfit(link, program)) from None
        raise


def _misfit(link: Link, program: Program) -> str:
    """Why the kernel finds that a program does not fit."""
    given = names.name_of(names.PROGRAM_TYPE, program.info.type)
    with Program.from_id(link.info.prog_id) as present:
        wanted = names.name_of(names.PROGRAM_TYPE, present.info.type)
    if given != wanted:
        return f"it is of type {given}, and the program of the link is of type {wanted}"
    return "it was loaded for something else than what the link is attached to"
