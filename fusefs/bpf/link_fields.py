"""What each type of link has of its own: the union in `struct bpf_link_info`.

A row for each type tells where its numbers lie, which of them say how long a string or an array
is, and which are for the address of one. Source: include/uapi/linux/bpf.h, and the
`fill_link_info` of each type in the kernel.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Part:
    """Some fields of the union: their native format, and their names.

    `texts` are those for the address of a string, and which has its room in bytes; `arrays` those
    for the address of an array of 64-bit numbers, and which has its length.
    """

    form: str
    names: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    arrays: Mapping[str, str] = field(default_factory=dict)

    def unpack(self, union: bytes) -> dict[str, int]:
        """The fields in the bytes of the union."""
        return dict(zip(self.names, struct.unpack_from(self.form, union), strict=True))

    def pack(self, values: Mapping[str, int]) -> bytes:
        """The bytes of the union that have these fields."""
        return struct.pack(self.form, *(values[name] for name in self.names))

    @property
    def plain(self) -> frozenset[str]:
        """The fields that are numbers and nothing else."""
        taken = {*self.texts, *self.texts.values(), *self.arrays, *self.arrays.values()}
        return frozenset(self.names) - taken


class LinkType(enum.IntEnum):
    """`enum bpf_link_type`."""

    RAW_TRACEPOINT = 1
    TRACING = 2
    CGROUP = 3
    ITER = 4
    NETNS = 5
    XDP = 6
    PERF_EVENT = 7
    KPROBE_MULTI = 8
    STRUCT_OPS = 9
    NETFILTER = 10
    TCX = 11
    UPROBE_MULTI = 12
    NETKIT = 13
    SOCKMAP = 14


# By link type (`enum bpf_link_type`). A name means the same wherever it is: `type` and `config` of
# a perf event are `perf_type` and `perf_config` here, and what kind of event it is is `event_type`,
# as in fdinfo.
PARTS: Mapping[int, Part] = {
    LinkType.RAW_TRACEPOINT: Part(
        "=QI4xQ", ("tp_name", "tp_name_len", "cookie"), texts={"tp_name": "tp_name_len"}
    ),
    LinkType.TRACING: Part(
        "=IIIxxxxQ", ("attach_type", "target_obj_id", "target_btf_id", "cookie")
    ),
    LinkType.CGROUP: Part("=QI", ("cgroup_id", "attach_type")),
    LinkType.ITER: Part(
        "=QII", ("target_name", "target_name_len", "map_id"),
        texts={"target_name": "target_name_len"},
    ),
    LinkType.NETNS: Part("=II", ("netns_ino", "attach_type")),
    LinkType.XDP: Part("=I", ("ifindex",)),
    LinkType.PERF_EVENT: Part("=I", ("event_type",)),
    LinkType.KPROBE_MULTI: Part(
        "=QIIQQ", ("addrs", "count", "flags", "missed", "cookies"),
        arrays={"addrs": "count", "cookies": "count"},
    ),
    LinkType.STRUCT_OPS: Part("=I", ("map_id",)),
    LinkType.NETFILTER: Part("=IIiI", ("pf", "hooknum", "priority", "flags")),
    LinkType.TCX: Part("=II", ("ifindex", "attach_type")),
    LinkType.UPROBE_MULTI: Part(
        "=QQQQIIII",
        ("path", "offsets", "ref_ctr_offsets", "cookies", "path_size", "count", "flags", "pid"),
        texts={"path": "path_size"},
        arrays={"offsets": "count", "ref_ctr_offsets": "count", "cookies": "count"},
    ),
    LinkType.NETKIT: Part("=II", ("ifindex", "attach_type")),
    LinkType.SOCKMAP: Part("=II", ("map_id", "attach_type")),
}  # fmt: skip

_UPROBE = Part(
    "=8xQIIQQ", ("file_name", "name_len", "offset", "cookie", "ref_ctr_offset"),
    texts={"file_name": "name_len"},
)  # fmt: skip
_KPROBE = Part(
    "=8xQIIQQQ", ("func_name", "name_len", "offset", "addr", "missed", "cookie"),
    texts={"func_name": "name_len"},
)  # fmt: skip
# Threads and processes are what these iterators go through.
_TASKS = Part("=16xII", ("tid", "pid"))

# What there is besides, by link type and the first of its fields: `enum bpf_perf_event_type`, or
# the name of an iterator's target.
VARIANTS: Mapping[tuple[int, int | str], Part] = {
    (LinkType.PERF_EVENT, 1): _UPROBE,
    (LinkType.PERF_EVENT, 2): _UPROBE,  # uretprobe
    (LinkType.PERF_EVENT, 3): _KPROBE,
    (LinkType.PERF_EVENT, 4): _KPROBE,  # kretprobe
    (LinkType.PERF_EVENT, 5): Part(
        "=8xQI4xQ", ("tp_name", "name_len", "cookie"), texts={"tp_name": "name_len"}
    ),
    (LinkType.PERF_EVENT, 6): Part("=8xQI4xQ", ("perf_config", "perf_type", "cookie")),
    (LinkType.ITER, "cgroup"): Part("=16xQI", ("cgroup_id", "order")),
    (LinkType.ITER, "task"): _TASKS,
    (LinkType.ITER, "task_file"): _TASKS,
    (LinkType.ITER, "task_vma"): _TASKS,
}
