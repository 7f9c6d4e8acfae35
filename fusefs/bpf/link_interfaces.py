"""The interface that a link is attached to.

The kernel tells the number of an interface, and not the network namespace that it counts in. The
interface of this number in our namespace is meant only if the link, or its program, is on it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

from fusefs.bpf import netlink, syscall
from fusefs.bpf.link import Link
from fusefs.bpf.syscall import Command
from fusefs.bpf.troubles import raise_own

_ROUTE = 0  # NETLINK_ROUTE
_NEW_LINK, _GET_LINK = 16, 18  # RTM_NEWLINK, RTM_GETLINK
_QUESTION = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, mask
_XDP = 43  # IFLA_XDP
_PROGRAMS = (4, 5, 6, 7)  # IFLA_XDP_PROG_ID, and those by mode
_MOST = 64  # BPF_MPROG_MAX, include/linux/bpf_mprog.h


def interface_of(link: Link, index: int, attach_type: int | None) -> str | None:
    """The name of the interface number `index`, if the link is attached to it in the network
    namespace of this process; None else, and where that is not sure. `attach_type` is that of a tcx
    or netkit link, None for XDP."""
    try:
        name = socket.if_indextoname(index)
        here = _queried(index, attach_type, link) if attach_type else _is_xdp_of(index, link)
    except OSError as error:  # there is none, or the kernel does not tell
        raise_own(error)
        return None
    return name if here else None


def _queried(index: int, attach_type: int, link: Link) -> bool:
    """Whether the kernel names the link when it is asked what is attached to the interface."""
    programs, links = (ctypes.c_uint32 * _MOST)(), (ctypes.c_uint32 * _MOST)()
    arguments = syscall.ProgramQueryArguments(
        target_ifindex=index, attach_type=attach_type, count=_MOST,
        prog_ids=ctypes.addressof(programs), link_ids=ctypes.addressof(links),
    )  # fmt: skip
    syscall.bpf(Command.PROG_QUERY, arguments)
    return link.info.id in links[: arguments.count]


def _is_xdp_of(index: int, link: Link) -> bool:
    """Whether the program of an XDP link runs on the interface, and through no other link that is
    attached to the same number: then it could be in another namespace."""
    if link.info.prog_id not in _xdp_programs(index):
        return False
    return not any(_is_like(link, other, index) for other in Link.ids())


def _is_like(link: Link, other_id: int, index: int) -> bool:
    """Whether another link has the same type, program and number of an interface."""
    if other_id == link.info.id:
        return False
    try:
        with Link.from_id(other_id) as other:
            alike = (other.info.type, other.info.prog_id) == (link.info.type, link.info.prog_id)
            return alike and other.details().get("ifindex") == index
    except FileNotFoundError:
        return False  # it is gone


def _xdp_programs(index: int) -> set[int]:
    """The ids of the XDP programs on an interface: one, or one for each mode."""
    question = _QUESTION.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    answer = next(netlink.ask(_ROUTE, _GET_LINK, 0, question), b"")
    if struct.unpack_from("=4xH", answer.ljust(netlink.HEADER, b"\0"))[0] != _NEW_LINK:
        return set()
    told = netlink.attributes(answer[netlink.HEADER + _QUESTION.size :])
    about = netlink.attributes(told.get(_XDP, b""))
    return {int.from_bytes(about[kind], sys.byteorder) for kind in _PROGRAMS if kind in about}
