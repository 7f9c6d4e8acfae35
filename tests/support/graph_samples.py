"""Pictures of machines as they are: what BPF state there is on some, with made-up ids."""

from __future__ import annotations

import random

from fusefs.text.graph import Edge, Graph, Key, Kind, Label, Node


class Machine:
    """A graph that grows; ids count up, as the kernel's do."""

    def __init__(self, title: str) -> None:
        self.graph = Graph(title=title)
        self._last = 0

    def _add(self, kind: Kind, what: str, name: str, details: str, pin: str) -> Key:
        self._last += 1
        pins = [pin] if pin else []
        href = f"{kind}s/{self._last}/info"
        words = details.split(", ") if details else []
        self.graph.nodes.append(Node(kind, self._last, name, what, words, pins, href))
        return kind, self._last

    def map(self, what: str, name: str, entries: int = 1024, pin: str = "") -> Key:
        return self._add(Kind.MAP, what, name, f"max_entries {entries}", pin)

    def program(self, what: str, name: str, *maps: Key, pin: str = "") -> Key:
        made = self._add(Kind.PROGRAM, what, name, "", pin)
        self.tie(made, *maps)
        return made

    def tie(self, source: Key, *targets: Key, label: Label = Label.USES) -> None:
        self.graph.edges += [Edge(source, target, label) for target in targets]

    def place(self, what: str, name: str) -> Key:
        """What something is attached to. The same one if it is there already."""
        node = Node(Kind.ATTACHMENT, f"{what} {name}", name, what)
        if node not in self.graph.nodes:
            self.graph.nodes.append(node)
        return node.key

    def attach(self, program: Key, link_type: str, place: Key, details: str = "") -> Key:
        """Attach a program by a link."""
        link = self._add(Kind.LINK, link_type, "", details, "")
        self.tie(place, link, label=Label.ATTACHED)
        self.tie(link, program, label=Label.RUNS)
        return link

    def attach_directly(self, program: Key, place: Key) -> None:
        self.tie(place, program, label=Label.ATTACHED)


def counter() -> Graph:
    """Five things: the least that is of use."""
    machine = Machine("eth0")
    counts = machine.map("percpu_array", "packets", 256, pin="/sys/fs/bpf/counter/packets")
    config = machine.map("hash", "allowed_ports")
    program = machine.program("xdp", "count_packets", counts, config)
    machine.attach(program, "xdp", machine.place("interface", "eth0"), "generic")
    return machine.graph


def balancer(machine: Machine) -> None:
    """An XDP load balancer on two interfaces, with a map of maps and some tail calls."""
    pins = "/sys/fs/bpf/balancer"
    vips = machine.map("hash", "vip_map", 512, pin=f"{pins}/vip_map")
    reals = machine.map("array", "reals", 4096, pin=f"{pins}/reals")
    stats = machine.map("percpu_array", "stats", 512, pin=f"{pins}/stats")
    rings = machine.map("array_of_maps", "ch_rings", 4)
    machine.tie(
        rings, *(machine.map("array", "ch_ring", 65537) for _ in range(2)), label=Label.INNER_MAP
    )
    sources = machine.map("lpm_trie", "lpm_src_v4", 3_000_000)
    connections = machine.map("lru_percpu_hash", "lru_cache", 1_000_000)
    root = machine.map("prog_array", "root_array", 3, pin=f"{pins}/root_array")
    entry = machine.program("xdp", "xdp_root", root, pin=f"{pins}/xdp_root")
    used = (vips, reals, stats, rings, sources, connections)
    balance = machine.program("xdp", "balancer_ingress", *used)
    check = machine.program("xdp", "healthcheck_encap", reals, stats)
    machine.tie(root, balance, check, label=Label.TAIL_CALL)
    for name in ("eth0", "eth1"):
        machine.attach(entry, "xdp", machine.place("interface", name), "native")


TAIL_CALLS = (
    "tail_handle_arp tail_handle_ipv4 tail_handle_ipv4_cont tail_handle_ipv6 tail_ipv4_ct_egress"
    " tail_ipv4_ct_ingress tail_ipv4_policy tail_ipv4_to_endpoint tail_nodeport_ipv4_dsr"
    " tail_nodeport_nat_egress_ipv4 tail_nodeport_nat_ingress_ipv4 tail_rev_nodeport_lb4"
).split()


def network(machine: Machine, endpoints: int, host_tail_calls: int = 12) -> None:
    """A host of containers: tc programs for each, tail calls, and maps that all share."""
    pins = "/sys/fs/bpf/tc/globals"

    def shared(what: str, name: str, entries: int) -> Key:
        return machine.map(what, name, entries, pin=f"{pins}/{name}")

    metrics = shared("percpu_hash", "cilium_metrics", 1024)
    events = shared("perf_event_array", "cilium_events", 2)
    tracked = shared("lru_hash", "cilium_ct4_global", 131072)
    nat = shared("lru_hash", "cilium_snat_v4_external", 131072)
    ipcache = shared("lpm_trie", "cilium_ipcache", 512000)
    lxc = shared("hash", "cilium_lxc", 65535)
    services = shared("hash", "cilium_lb4_services_v2", 65536)
    backends = shared("hash", "cilium_lb4_backends_v3", 65536)
    shared("hash", "cilium_node_map", 16384)
    policies = shared("prog_array", "cilium_call_policy", 65535)
    common = (metrics, events, ipcache, tracked)

    calls = shared("prog_array", "cilium_calls_hostns_01", 50)
    for name in TAIL_CALLS[:host_tail_calls]:
        extra = (nat,) if "nat" in name else (services, backends) if "lb" in name else ()
        tail = machine.program("sched_cls", name, *common, *extra, calls)
        machine.tie(calls, tail, label=Label.TAIL_CALL)
    for interface in ("cilium_host", "cilium_net", "eth0"):
        for direction in ("from", "to"):
            data = machine.map("array", f"cil_{direction}.rodata", 1)
            program = machine.program(
                "sched_cls", f"cil_{direction}_netdev", *common, lxc, calls, data
            )
            place = machine.place("interface", interface)
            machine.attach(program, "tcx", place, "ingress" if direction == "from" else "egress")
    for number in range(endpoints):
        own = machine.map("hash", f"cilium_policy_{number:05}", 16384)
        own_calls = machine.map("prog_array", f"cilium_calls_{number:05}", 50)
        for name in TAIL_CALLS[1:3]:
            tail = machine.program("sched_cls", name, *common, own, own_calls, services, backends)
            machine.tie(own_calls, tail, label=Label.TAIL_CALL)
        entry = machine.program("sched_cls", "cil_from_container", *common, own_calls)
        policy = machine.program("sched_cls", "handle_policy", *common, own, own_calls)
        machine.tie(policies, policy, label=Label.TAIL_CALL)
        machine.attach(entry, "tcx", machine.place("interface", f"lxc{number:06x}"), "ingress")


def services(machine: Machine, units: int) -> None:
    """systemd: programs for each unit, that share nothing and have no links."""
    for number in range(units):
        unit = machine.place("cgroup", f"/system.slice/daemon-{number}.service")
        for what, name in (("cgroup_skb", "sd_fw_egress"), ("cgroup_skb", "sd_fw_ingress")):
            machine.attach_directly(machine.program(what, name), unit)
        if number % 3:
            machine.attach_directly(machine.program("cgroup_device", "sd_devices"), unit)


FUNCTIONS = (
    "do_sys_openat2 vfs_read vfs_write tcp_v4_connect tcp_close oom_kill_process do_exit"
    " blk_account_io_start blk_account_io_done ext4_file_open ext4_sync_file mmap_region"
).split()


def tracing(machine: Machine, tools: int) -> None:
    """Tracing tools, each with one program, a ring and its global data."""
    for number in range(tools):
        name = FUNCTIONS[number % len(FUNCTIONS)]
        ring = machine.map("ringbuf", "events", 262144)
        data = [machine.map("array", f"tool{number}.{section}", 1) for section in ("rodata", "bss")]
        program = machine.program("kprobe", f"trace_{name}"[:15], ring, *data)
        machine.attach(program, "perf_event", machine.place("function", name), "kprobe")


def latency(machine: Machine) -> None:
    """A tool with several programs that share all of their maps."""
    maps = [machine.map("hash", "start"), machine.map("hash", "histograms", 10240)]
    maps += [machine.map("array", f"biolaten.{section}", 1) for section in ("rodata", "bss")]
    for event in ("block_rq_insert", "block_rq_issue", "block_rq_complete"):
        program = machine.program("tracing", event, *maps)
        place = machine.place("tracepoint", event)
        machine.attach(program, "tracing", place, "trace_raw_tp")


def small_server() -> Graph:
    """Some fifty things."""
    machine = Machine("small server")
    balancer(machine)
    latency(machine)
    services(machine, 5)
    tracing(machine, 2)
    return machine.graph


def large_host(endpoints: int = 30, units: int = 60, tools: int = 18) -> Graph:
    """Some five hundred things."""
    machine = Machine("large host")
    balancer(machine)
    network(machine, endpoints)
    latency(machine)
    services(machine, units)
    tracing(machine, tools)
    return machine.graph


def hard_to_order(programs: int = 60, maps: int = 60) -> Graph:
    """Programs that use some maps each, and no two the same; and two maps that all of them use."""
    machine = Machine("hard to order")
    drawn = random.Random(1)
    shared = [machine.map("percpu_hash", "metrics"), machine.map("ringbuf", "log")]
    own = [machine.map("hash", f"map_{chr(97 + n % 26)}{chr(97 + n // 26)}") for n in range(maps)]
    for number in range(programs):
        name = f"prog_{chr(97 + number % 26)}{chr(97 + number // 26)}"
        program = machine.program("kprobe", name, *shared, *drawn.sample(own, 2))
        machine.attach(program, "perf_event", machine.place("function", f"do_{name}"))
    return machine.graph
