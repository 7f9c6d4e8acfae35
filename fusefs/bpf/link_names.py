"""Names for the numbers of links: what their programs are attached to, and how."""

from __future__ import annotations

from fusefs.bpf.names import Enumeration

CGROUP_ORDER = Enumeration(
    enum="bpf_cgroup_iter_order",
    prefix="BPF_CGROUP_ITER_",
    builtin="order_unspec self_only descendants_pre descendants_post ancestors_up",
)
PERF_EVENT_TYPE = Enumeration(
    enum="bpf_perf_event_type",
    prefix="BPF_PERF_EVENT_",
    builtin="unspec uprobe uretprobe kprobe kretprobe tracepoint event",
)
PERF_TYPE = Enumeration(
    enum="perf_type_id",
    prefix="PERF_TYPE_",
    builtin="hardware software tracepoint hw_cache raw breakpoint",
)
PERF_HARDWARE = Enumeration(
    enum="perf_hw_id",
    prefix="PERF_COUNT_HW_",
    builtin=(
        "cpu_cycles instructions cache_references cache_misses branch_instructions branch_misses "
        "bus_cycles stalled_cycles_frontend stalled_cycles_backend ref_cpu_cycles"
    ),
)
PERF_SOFTWARE = Enumeration(
    enum="perf_sw_ids",
    prefix="PERF_COUNT_SW_",
    builtin=(
        "cpu_clock task_clock page_faults context_switches cpu_migrations page_faults_min "
        "page_faults_maj alignment_faults emulation_faults dummy bpf_output cgroup_switches"
    ),
)
KPROBE_MULTI_FLAGS = Enumeration(
    member="BPF_F_KPROBE_MULTI_RETURN",
    prefix="BPF_F_KPROBE_MULTI_",
    builtin="return",
    bits=True,
)
UPROBE_MULTI_FLAGS = Enumeration(
    member="BPF_F_UPROBE_MULTI_RETURN",
    prefix="BPF_F_UPROBE_MULTI_",
    builtin="return",
    bits=True,
)
NETFILTER_FLAGS = Enumeration(
    member="BPF_F_NETFILTER_IP_DEFRAG",
    prefix="BPF_F_NETFILTER_",
    builtin="ip_defrag",
    bits=True,
)
