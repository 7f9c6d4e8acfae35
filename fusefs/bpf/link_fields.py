"""What each type of link has of its own: the union in `struct bpf_link_info`.

A row for each type tells where its numbers lie, which of them say how long a string or an array
is, and which are for the address of one. Source: include/uapi/linux/bpf.h, and the
`fill_link_info` of each type in the kernel.
"""

from __future__ import annotations

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


_RAW_TRACEPOINT, _ITER, _PERF_EVENT = 1, 4, 7

# By link type (`enum bpf_link_type`). A name means the same wherever it is: `type` and `config` of
# a perf event are `perf_type` and `perf_config` here, and what kind of event it is is `event_type`,
# as in fdinfo.
PARTS: Mapping[int, Part] = {
    _RAW_TRACEPOINT: Part(
        "=QI4xQ", ("tp_name", "tp_name_len", "cookie"), texts={"tp_name": "tp_name_len"}
    ),
    2: Part("=IIIxxxxQ", ("attach_type", "target_obj_id", "target_btf_id", "cookie")),  # tracing
    3: Part("=QI", ("cgroup_id", "attach_type")),  # cgroup
    _ITER: Part(
        "=QII", ("target_name", "target_name_len", "map_id"),
        texts={"target_name": "target_name_len"},
    ),
    5: Part("=II", ("netns_ino", "attach_type")),  # netns
    6: Part("=I", ("ifindex",)),  # xdp
    _PERF_EVENT: Part("=I", ("event_type",)),
    8: Part(  # kprobe_multi
        "=QIIQQ", ("addrs", "count", "flags", "missed", "cookies"),
        arrays={"addrs": "count", "cookies": "count"},
    ),
    9: Part("=I", ("map_id",)),  # struct_ops
    10: Part("=IIiI", ("pf", "hooknum", "priority", "flags")),  # netfilter
    11: Part("=II", ("ifindex", "attach_type")),  # tcx
    12: Part(  # uprobe_multi
        "=QQQQIIII",
        ("path", "offsets", "ref_ctr_offsets", "cookies", "path_size", "count", "flags", "pid"),
        texts={"path": "path_size"},
        arrays={"offsets": "count", "ref_ctr_offsets": "count", "cookies": "count"},
    ),
    13: Part("=II", ("ifindex", "attach_type")),  # netkit
    14: Part("=II", ("map_id", "attach_type")),  # sockmap
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
    (_PERF_EVENT, 1): _UPROBE,
    (_PERF_EVENT, 2): _UPROBE,  # uretprobe
    (_PERF_EVENT, 3): _KPROBE,
    (_PERF_EVENT, 4): _KPROBE,  # kretprobe
    (_PERF_EVENT, 5): Part(
        "=8xQI4xQ", ("tp_name", "name_len", "cookie"), texts={"tp_name": "name_len"}
    ),
    (_PERF_EVENT, 6): Part("=8xQI4xQ", ("perf_config", "perf_type", "cookie")),
    (_ITER, "cgroup"): Part("=16xQI", ("cgroup_id", "order")),
    (_ITER, "task"): _TASKS,
    (_ITER, "task_file"): _TASKS,
    (_ITER, "task_vma"): _TASKS,
}
