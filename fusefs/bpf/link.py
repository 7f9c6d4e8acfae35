"""Links: what the kernel tells of an attachment of a program."""

from __future__ import annotations

import ctypes
import struct

from fusefs.bpf.object import Object
from fusefs.bpf.syscall import Command


class LinkInfo(ctypes.Structure):
    """`struct bpf_link_info`: what all links have; then a union by type, kept as bytes."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("_padding", ctypes.c_uint32),
        ("by_type", ctypes.c_uint8 * 240),
    )


# The union of `struct bpf_link_info` by link type (`enum bpf_link_type`): a native format and the
# names of its fields. Types that have more than plain numbers are not here; the fdinfo of those
# says what there is.
_BY_TYPE: dict[int, tuple[str, tuple[str, ...]]] = {
    2: ("=III", ("attach_type", "target_obj_id", "target_btf_id")),  # tracing
    3: ("=QI", ("cgroup_id", "attach_type")),
    5: ("=II", ("netns_ino", "attach_type")),
    6: ("=I", ("ifindex",)),  # xdp
    9: ("=I", ("map_id",)),  # struct_ops
    10: ("=IIiI", ("pf", "hooknum", "priority", "flags")),  # netfilter
    11: ("=II", ("ifindex", "attach_type")),  # tcx
    13: ("=II", ("ifindex", "attach_type")),  # netkit
    14: ("=II", ("map_id", "attach_type")),  # sockmap
}


class Link(Object):
    """An open link."""

    kind = "link"
    by_id = Command.LINK_GET_FD_BY_ID
    next_id = Command.LINK_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = self.fill(LinkInfo())

    def details(self) -> dict[str, int]:
        """What this type of link has of its own, by the kernel's names."""
        form, names = _BY_TYPE.get(self.info.type, ("", ()))
        return dict(zip(names, struct.unpack_from(form, bytes(self.info.by_type)), strict=True))
