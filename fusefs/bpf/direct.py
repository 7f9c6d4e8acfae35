"""Programs that are attached without a link, as systemd, tc, ip and older loaders do it.

The kernel tells of what is attached to a thing, and there is a way to ask for each kind of thing:
cgroups, interfaces, the network namespace, and maps of sockets. Programs that have been given to a
single socket, to a perf event by ioctl(2), to a route or to iptables are not found.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from fusefs.bpf import names
from fusefs.bpf.direct_cgroups import attached_to_cgroups
from fusefs.bpf.direct_interfaces import attached_to_interfaces
from fusefs.bpf.direct_places import (
    Direct,
    Linked,
    Query,
    Turns,
    linked,
    unless_refused,
    unlinked,
)
from fusefs.bpf.direct_tc import attached_by_tc
from fusefs.bpf.link_fields import LinkType
from fusefs.bpf.link_targets import namespace_name
from fusefs.bpf.map import Map, MapType

__all__ = ["OF_SOCKETS", "Direct", "Linked", "attached", "linked"]

# The maps that programs are attached to.
OF_SOCKETS = frozenset({MapType.SOCKMAP, MapType.SOCKHASH})

_FLOW_DISSECTOR, _SK_SKB, _SK_MSG = 22, 14, 16  # `enum bpf_prog_type`
_TO_NAMESPACE = 17  # BPF_FLOW_DISSECTOR; sk_lookup programs are attached by links alone
# sk_skb_stream_parser, sk_skb_stream_verdict, sk_msg_verdict, sk_skb_verdict.
_TO_MAPS = (4, 5, 7, 38)


def attached(types: Collection[int], sock_maps: Collection[int], links: Iterable[Linked]) -> Turns:
    """All programs that are attached directly, as far as this process can see: in cgroups that
    everybody can list, and in its own network namespace, no other.

    `types` are those of all programs that there are (`enum bpf_prog_type`): what no program can be
    attached to is not asked. `sock_maps` are the ids of all maps whose type is one of `OF_SOCKETS`,
    and `links` tells of all links (`linked`): what they have attached is left out.

    Each step takes a fraction of a millisecond; None where others may have a turn. What the kernel
    refuses to tell, or is too old for, is left out. Raises OSError for the rest, such as EMFILE.
    """
    kinds, by_links = frozenset(types), Counter(links)
    yield from attached_to_interfaces(kinds, by_links)
    yield from attached_by_tc(kinds)
    if _FLOW_DISSECTOR in kinds:
        yield from _attached_to_namespace(by_links)
    if _SK_SKB in kinds or _SK_MSG in kinds:
        yield from _attached_to_maps(sock_maps, by_links)
    yield from attached_to_cgroups(kinds, by_links)


def _attached_to_namespace(links: Mapping[Linked, int]) -> Turns:
    """To the network namespace of this thread."""
    with unless_refused():
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            inode = os.fstat(fd).st_ino
            found = _named(Query(), fd, _TO_NAMESPACE)
        finally:
            os.close(fd)
        name = (namespace_name(inode) if found else None) or f"net:[{inode}]"
        for number, how in unlinked(found, links, LinkType.NETNS, inode, _TO_NAMESPACE):
            yield Direct(number, "netns", name, how)


def _attached_to_maps(sock_maps: Iterable[int], links: Mapping[Linked, int]) -> Turns:
    query = Query()
    for map_id in sock_maps:
        told: dict[int, list[tuple[int, str]]] = {}
        with unless_refused(), Map.from_id(map_id) as bpf_map:
            told = {each: _named(query, bpf_map.fd, each) for each in _TO_MAPS}
        for attach_type, found in told.items():
            for number, how in unlinked(found, links, LinkType.SOCKMAP, map_id, attach_type):
                yield Direct(number, "map", str(map_id), how)
        yield None


def _named(query: Query, target: int, attach_type: int) -> list[tuple[int, str]]:
    """The programs that are attached to a descriptor, and the name of the attach type."""
    found = query.ask(target, attach_type)
    how = str(names.name_of(names.ATTACH_TYPE, attach_type)) if found else ""
    return [(number, how) for number, _ in found]
