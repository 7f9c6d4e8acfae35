"""What all kinds of direct attachments have in common: how one is told, asking the kernel which
programs are attached to something, and leaving out those that a link has attached.

Source: bpf_prog_query in kernel/bpf/syscall.c, kernel/bpf/cgroup.c, kernel/bpf/mprog.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fusefs.bpf import syscall
from fusefs.bpf.link import Link
from fusefs.bpf.link_fields import PARTS, LinkType
from fusefs.bpf.syscall import Command

# The links whose programs are also told of the place itself, and the field that says which place
# it is.
_PLACES: Mapping[int, str] = {
    LinkType.CGROUP: "cgroup_id",
    LinkType.NETNS: "netns_ino",
    LinkType.XDP: "ifindex",
    LinkType.SOCKMAP: "map_id",
}

# How the kernel says that it knows no such question, that this process may not ask it, or that what
# it is about is gone or cannot have programs. EBUSY is what it says of one kind of verdict in a map
# of sockets that has the other (sock_map_prog_link_lookup in net/core/sock_map.c).
_REFUSALS = frozenset(
    {errno.EINVAL, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, syscall.ENOTSUPP, errno.ENXIO,
     errno.ENODEV, errno.ENOENT, errno.EAGAIN, errno.EBUSY, errno.EAFNOSUPPORT,
     errno.EPROTONOSUPPORT}
)  # fmt: skip

_ROOM = 64  # BPF_CGROUP_MAX_PROGS and BPF_MPROG_MAX; more only for all of LSM together
_MOST = 64 * _ROOM


@dataclass(frozen=True, slots=True)
class Direct:
    """A program that is attached without a link: what to (`interface`, `cgroup`, `netns`, `map`)
    and its name, and a word or two on how. Names have no bytes that are not UTF-8."""

    program_id: int
    place: str
    name: str
    how: str


# Direct attachments, with None in between where others may have a turn.
Turns = Iterator[Direct | None]


@dataclass(frozen=True, slots=True)
class Linked:
    """What a link has attached: its type, its program, the number of the place that it is attached
    to, and the attach type, 0 for XDP, which has but one."""

    type: int
    program_id: int
    place: int
    attach_type: int


def linked(link: Link) -> Linked | None:
    """What a link has attached, as `info` has it; None for one whose program would not be told of
    again, or told together with the link. It makes no system call."""
    kind: int = link.info.type
    if kind not in _PLACES:
        return None
    told = PARTS[kind].unpack(bytes(link.info.by_type))
    return Linked(kind, link.info.prog_id, told[_PLACES[kind]], told.get("attach_type", 0))


def unlinked(
    found: Iterable[tuple[int, str]],
    links: Mapping[Linked, int],
    kind: int,
    place: int,
    attach: int,
) -> Iterator[tuple[int, str]]:
    """Of programs, and how they are attached to a place: those that no link has attached.

    The same program may be there by a link and without; so each link accounts for one.
    """
    seen: Counter[int] = Counter()
    for program_id, how in found:
        seen[program_id] += 1
        if seen[program_id] > links.get(Linked(kind, program_id, place, attach), 0):
            yield program_id, how


@contextlib.contextmanager
def unless_refused() -> Iterator[None]:
    """What the kernel refuses to tell is left out. Other errors, such as EMFILE, are raised."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise


class Query:
    """BPF_PROG_QUERY, to be asked over and over.

    An older kernel refuses members that it does not know when they are set; so there is room for
    the ids of links, and for the flags of each program, only where it is wanted.
    """

    def __init__(self, *, links: bool = False, flags: bool = False) -> None:
        self._wanted = links, flags
        self._make(_ROOM)

    def _make(self, room: int) -> None:
        links, flags = self._wanted
        self._room = room
        self._programs, self._links, self._flags = ((ctypes.c_uint32 * room)() for _ in range(3))
        self._arguments = syscall.ProgramQueryArguments(
            prog_ids=ctypes.addressof(self._programs),
            link_ids=ctypes.addressof(self._links) if links else 0,
            prog_attach_flags=ctypes.addressof(self._flags) if flags else 0,
        )
        self._attempt = syscall.attempt(Command.PROG_QUERY, self._arguments)

    def ask(self, target: int, attach_type: int) -> list[tuple[int, int]]:
        """The ids of the programs that are attached to a descriptor or the number of an interface,
        and of the links that have attached them: 0 without a link, and where `links` are not
        wanted. Empty if the kernel refuses to tell. Raises OSError."""
        arguments = self._arguments
        arguments.target_ifindex, arguments.attach_type = target, attach_type
        # What the last answer has left here would count as part of the question.
        arguments.attach_flags, arguments.revision, arguments.count = 0, 0, self._room
        error = self._attempt()
        if not error:
            count = arguments.count
            if not count:
                return []
            return list(zip(self._programs[:count], self._links[:count], strict=True))
        if error == errno.ENOSPC and self._room < _MOST:
            self._make(4 * self._room)
            return self.ask(target, attach_type)
        if error in _REFUSALS:
            return []
        raise OSError(error, f"{os.strerror(error)} (BPF_PROG_QUERY)")
