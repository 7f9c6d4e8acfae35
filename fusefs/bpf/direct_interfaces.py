"""Programs on interfaces without a link: XDP programs that were attached by netlink, as ip-link(8)
does it, and those of tcx and netkit that were attached by BPF_PROG_ATTACH.

Source: linux/if_link.h, rtnl_xdp_fill in net/core/rtnetlink.c; kernel/bpf/tcx.c,
drivers/net/netkit.c.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Iterator, Mapping

from fusefs.bpf import names
from fusefs.bpf.direct_netlink import attributes, dump, interface_name
from fusefs.bpf.direct_places import Direct, Linked, Query, Turns, unless_refused, unlinked
from fusefs.bpf.link_fields import LinkType

_SCHED_CLS, _XDP_PROGRAM = 3, 6  # `enum bpf_prog_type`
_NEW_LINK, _GET_LINK = 16, 18  # RTM_NEWLINK, RTM_GETLINK
_MESSAGE = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, mask
# IFLA_EXT_MASK, and RTEXT_FILTER_SKIP_STATS, which makes the answer a third shorter.
_QUESTION = _MESSAGE.pack(0, 0, 0, 0, 0) + struct.pack("=HHI", 8, 29, 1 << 3)
_XDP_ATTRIBUTE = 43  # IFLA_XDP
# IFLA_XDP_DRV_PROG_ID and its like: an interface may have a program for each mode.
_MODES = {5: "xdp", 6: "xdp generic", 7: "xdp offload"}
# tcx_ingress, tcx_egress, netkit_primary, netkit_peer: `enum bpf_attach_type`.
_ATTACH_TYPES = (46, 47, 54, 55)


def attached_to_interfaces(types: Collection[int], links: Mapping[Linked, int]) -> Turns:
    """The programs that are on interfaces of this network namespace, if there are any of a type
    that can be, and not by one of the links. Raises OSError.

    A link tells the number of an interface, and not the network namespace that it counts in. So a
    program that is on an interface here without a link is missed if a link has put it on one of
    the same number elsewhere.
    """
    if _XDP_PROGRAM not in types and _SCHED_CLS not in types:
        return
    query = Query(links=True) if _SCHED_CLS in types else None
    with unless_refused():
        for message in dump(_GET_LINK, _NEW_LINK, _QUESTION):
            if message is None:
                yield None
                continue
            index = _MESSAGE.unpack_from(message)[2]
            found = [*unlinked(_xdp(message), links, LinkType.XDP, index, 0)]
            if query:
                found += _multi(query, index)
            with unless_refused():
                name = interface_name(index) if found else ""
                yield from (Direct(number, "interface", name, how) for number, how in found)


def _xdp(message: bytes) -> Iterator[tuple[int, str]]:
    """The XDP programs of the interface that a message is about, and their modes."""
    about = attributes(attributes(message[_MESSAGE.size :]).get(_XDP_ATTRIBUTE, b""))
    for kind, mode in _MODES.items():
        if number := int.from_bytes(about.get(kind, b""), sys.byteorder):
            yield number, mode


def _multi(query: Query, index: int) -> Iterator[tuple[int, str]]:
    """The programs of tcx and netkit on an interface that are there without a link."""
    for attach_type in _ATTACH_TYPES:
        for number, link_id in query.ask(index, attach_type):
            if not link_id:
                yield number, str(names.name_of(names.ATTACH_TYPE, attach_type))
