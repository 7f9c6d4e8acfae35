"""Programs that are attached to cgroups without a link, as systemd does it.

Source: kernel/bpf/cgroup.c, and attach_type_to_prog_type in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from fusefs.bpf import cgroups, names
from fusefs.bpf.direct_places import (
    Direct,
    Linked,
    Query,
    Turns,
    unless_refused,
    unlinked,
)
from fusefs.bpf.link_fields import LinkType

# By the type of a program (`enum bpf_prog_type`), how it can be attached to a cgroup
# (`enum bpf_attach_type`).
_ATTACH_TYPES: Mapping[int, Sequence[int]] = {
    8: (0, 1),  # cgroup_skb
    9: (2, 12, 13, 34),  # cgroup_sock
    13: (3,),  # sock_ops
    15: (6,),  # cgroup_device
    18: (8, 9, 10, 11, 14, 15, 19, 20, 29, 30, 31, 32, *range(49, 54)),  # cgroup_sock_addr
    23: (18,),  # cgroup_sysctl
    25: (21, 22),  # cgroup_sockopt
}
_LSM, _LSM_CGROUP = 29, 43  # the program type, and how it is attached to a cgroup


def attached_to_cgroups(types: Collection[int], links: Mapping[Linked, int]) -> Turns:
    """The programs of these types that are attached to cgroups, and not by one of the links.

    Those of each cgroup itself, and not those that it has from cgroups above. Looked at are
    cgroups that everybody can list. Each step is one cgroup. Raises OSError.
    """
    asked = [(Query(), each) for kind in types for each in _ATTACH_TYPES.get(kind, ())]
    if _LSM in types:  # the kernel tells them only together with their flags
        asked.append((Query(flags=True), _LSM_CGROUP))
    root = cgroups.hierarchy() if asked else None
    if root is None:
        return
    for path in cgroups.paths(root):
        with unless_refused():
            yield from _attached_to(root, path, asked, links)
        yield None


def _attached_to(
    root: str, path: str, asked: Sequence[tuple[Query, int]], links: Mapping[Linked, int]
) -> Turns:
    cgroup = cgroups.open_below(root, path)
    try:
        told = [(each, found) for query, each in asked if (found := query.ask(cgroup, each))]
        number = os.fstat(cgroup).st_ino if told else 0
    finally:
        os.close(cgroup)
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    for attach_type, found in told:
        how = str(names.name_of(names.ATTACH_TYPE, attach_type))
        programs = [(program_id, how) for program_id, _ in found]
        for program_id, _ in unlinked(programs, links, LinkType.CGROUP, number, attach_type):
            yield Direct(program_id, "cgroup", name, how)
