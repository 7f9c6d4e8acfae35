"""Names for the kernel's numbers: types, flags, attach types.

They come from the running kernel's own BTF, so that a kernel newer than this program names its
own; the table here is for kernels without BTF. Names are those of linux/bpf.h without what they
have in common, in lower case: BPF_MAP_TYPE_LRU_HASH is `lru_hash`, as in bpftool(8).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from fusefs.bpf.btf import BtfError, Enum, Kind, kernel_btf


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A kernel enumeration: where to find it in BTF, and its names as of Linux 6.18.

    An anonymous one is found by one of its enumerators, `member`.
    """

    prefix: str
    builtin: str
    enum: str = ""
    member: str = ""
    bits: bool = False


MAP_TYPE = Enumeration(
    enum="bpf_map_type",
    prefix="BPF_MAP_TYPE_",
    builtin=(
        "unspec hash array prog_array perf_event_array percpu_hash percpu_array stack_trace "
        "cgroup_array lru_hash lru_percpu_hash lpm_trie array_of_maps hash_of_maps devmap sockmap "
        "cpumap xskmap sockhash cgroup_storage reuseport_sockarray percpu_cgroup_storage queue "
        "stack sk_storage devmap_hash struct_ops ringbuf inode_storage task_storage bloom_filter "
        "user_ringbuf cgrp_storage arena"
    ),
)
PROGRAM_TYPE = Enumeration(
    enum="bpf_prog_type",
    prefix="BPF_PROG_TYPE_",
    builtin=(
        "unspec socket_filter kprobe sched_cls sched_act tracepoint xdp perf_event cgroup_skb "
        "cgroup_sock lwt_in lwt_out lwt_xmit sock_ops sk_skb cgroup_device sk_msg raw_tracepoint "
        "cgroup_sock_addr lwt_seg6local lirc_mode2 sk_reuseport flow_dissector cgroup_sysctl "
        "raw_tracepoint_writable cgroup_sockopt tracing struct_ops ext lsm sk_lookup syscall "
        "netfilter"
    ),
)
LINK_TYPE = Enumeration(
    enum="bpf_link_type",
    prefix="BPF_LINK_TYPE_",
    builtin=(
        "unspec raw_tracepoint tracing cgroup iter netns xdp perf_event kprobe_multi struct_ops "
        "netfilter tcx uprobe_multi netkit sockmap"
    ),
)
ATTACH_TYPE = Enumeration(
    enum="bpf_attach_type",
    prefix="BPF_",
    builtin=(
        "cgroup_inet_ingress cgroup_inet_egress cgroup_inet_sock_create cgroup_sock_ops "
        "sk_skb_stream_parser sk_skb_stream_verdict cgroup_device sk_msg_verdict "
        "cgroup_inet4_bind cgroup_inet6_bind cgroup_inet4_connect cgroup_inet6_connect "
        "cgroup_inet4_post_bind cgroup_inet6_post_bind cgroup_udp4_sendmsg cgroup_udp6_sendmsg "
        "lirc_mode2 flow_dissector cgroup_sysctl cgroup_udp4_recvmsg cgroup_udp6_recvmsg "
        "cgroup_getsockopt cgroup_setsockopt trace_raw_tp trace_fentry trace_fexit modify_return "
        "lsm_mac trace_iter cgroup_inet4_getpeername cgroup_inet6_getpeername "
        "cgroup_inet4_getsockname cgroup_inet6_getsockname xdp_devmap cgroup_inet_sock_release "
        "xdp_cpumap sk_lookup xdp sk_skb_verdict sk_reuseport_select "
        "sk_reuseport_select_or_migrate perf_event trace_kprobe_multi lsm_cgroup struct_ops "
        "netfilter tcx_ingress tcx_egress trace_uprobe_multi cgroup_unix_connect "
        "cgroup_unix_sendmsg cgroup_unix_recvmsg cgroup_unix_getpeername cgroup_unix_getsockname "
        "netkit_primary netkit_peer trace_kprobe_session trace_uprobe_session"
    ),
)
MAP_FLAGS = Enumeration(
    member="BPF_F_NO_PREALLOC",
    prefix="BPF_F_",
    builtin=(
        "no_prealloc no_common_lru numa_node rdonly wronly stack_build_id zero_seed rdonly_prog "
        "wronly_prog clone mmapable preserve_elems inner_map link path_fd "
        "vtype_btf_obj_fd token_fd segv_on_fault no_user_conv"
    ),
    bits=True,
)


@functools.cache
def _names(enumeration: Enumeration) -> dict[int, str]:
    """Number to name."""
    values = _from_btf(enumeration)
    if values is None:
        return {
            1 << n if enumeration.bits else n: t for n, t in enumerate(enumeration.builtin.split())
        }
    names: dict[int, str] = {}
    for name, value in values:
        # Where a number has an old name and a new one, the kernel gives the new one last.
        if name.startswith(enumeration.prefix):
            names[value] = name.removeprefix(enumeration.prefix).lower()
    return names


def _from_btf(enumeration: Enumeration) -> Sequence[tuple[str, int]] | None:
    try:
        btf = kernel_btf()
        if btf is None:
            return None
        if enumeration.enum:
            found = btf.find(enumeration.enum, Kind.ENUM, Kind.ENUM64)
        else:
            found = btf.find_enumerator(enumeration.member)
        kernel_type = btf.type(found) if found else None
    except (BtfError, PermissionError):
        return None  # a kernel whose types cannot be read is like one without
    return kernel_type.values if isinstance(kernel_type, Enum) else None


def name_of(enumeration: Enumeration, number: int) -> str | int:
    """The name of `number`, or the number itself where the kernel's BTF has none."""
    return _names(enumeration).get(number, number)


def flag_names(enumeration: Enumeration, flags: int) -> list[str | int]:
    """The names of the bits that are set in `flags`, lowest first."""
    bits = (1 << n for n in range(flags.bit_length()) if flags >> n & 1)
    return [name_of(enumeration, bit) for bit in bits]


def number_of(enumeration: Enumeration, name: str) -> int | None:
    """The number of a name that `name_of` gives; None for one that this kernel does not have."""
    return next((number for number, other in _names(enumeration).items() if other == name), None)
