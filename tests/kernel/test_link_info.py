"""`info` of links of every type: what they were attached with, and what others make of it."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cgroups import cgroup
from support.links import (
    Attach,
    Loaded,
    attached,
    create,
    in_namespace,
    iterator,
    kprobes,
    loaded,
    on_event,
    over_map,
    perf_event,
    probe_event,
    raw_tracepoint,
    struct_ops_link,
    uprobes,
)
from support.mounting import nested
from support.network import Network, network
from support.shell import checked, run

from fusefs.bpf.link import Link
from fusefs.bpf.link_fields import PARTS
from fusefs.bpf.link_targets import cgroup_path, namespace_name, traced
from fusefs.bpf.program import Program
from fusefs.tree.info import describe, json_line, to_yaml

COOKIE = 0x1234_5678_9ABC_DEF0


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """A program for each type."""
    with loaded() as programs:
        yield programs


@pytest.fixture(scope="module")
def iterators() -> Iterator[Loaded]:
    """Iterators."""
    with loaded("links_iterators") as programs:
        yield programs


@pytest.fixture
def net() -> Iterator[Network]:
    """Two network namespaces."""
    with network() as net:
        yield net


def info_of(link: Link) -> dict[str, Any]:
    """What is said of a link; YAML and JSON say the same, and the id and the program are right."""
    info = describe(link, None)
    assert yaml.safe_load(to_yaml(info)) == info
    assert json.loads(json_line(info)) == info
    assert (info.pop("id"), info.pop("prog_id")) == (link.info.id, link.info.prog_id)
    return dict(info)


def told_by_bpftool(link: Link) -> dict[str, Any]:
    """What bpftool(8) says of it."""
    told: dict[str, Any] = json.loads(
        checked("bpftool", "-j", "link", "show", "id", str(link.info.id))
    )
    assert (told["id"], told.get("prog_id", 0)) == (link.info.id, link.info.prog_id)
    return told


# Each type.


def test_raw_tracepoint(programs: Loaded) -> None:
    with (
        programs.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", COOKIE) as link,
    ):
        wanted = {"type": "raw_tracepoint", "tp_name": "sys_enter", "cookie": COOKIE}
        assert info_of(link) == wanted
        assert told_by_bpftool(link)["tp_name"] == "sys_enter"


@pytest.fixture(params=["on_kernel_function", "on_program", "replacement"])
def tracing(request: pytest.FixtureRequest, programs: Loaded) -> Iterator[tuple[str, Link]]:
    """A link of a program that watches a function, or replaces it."""
    name = request.param
    with programs.program("on_packet") as target:
        function = {"on_program": "on_packet", "replacement": "verdict"}.get(name)
        try:
            made = Loaded("links_tracing", {}, name, (target, function) if function else None)
        except PermissionError:
            pytest.skip("this kernel loads no program that takes a trampoline")
        try:
            with made.program(name) as program:
                cookie = b"" if name == "replacement" else struct.pack("=I4xQ", 0, COOKIE)
                with create(program, 0, Attach.NONE, cookie) as link:
                    yield name, link
        finally:
            made.close()


def test_tracing(tracing: tuple[str, Link], programs: Loaded) -> None:
    name, link = tracing
    info = info_of(link)
    assert info["type"] == "tracing"
    if name == "on_kernel_function":
        assert (info["target_name"], info["target_module"]) == ("bpf_fentry_test1", "vmlinux")
        assert (info["attach_type"], info["cookie"]) == ("trace_fentry", COOKIE)
        return
    with programs.program("on_packet") as target:
        assert info["target_prog_id"] == target.info.id
    assert info["target_name"] == ("on_packet" if name == "on_program" else "verdict")


def test_cgroup(programs: Loaded) -> None:
    with cgroup() as path, attached(programs, path) as link:
        inode = path.stat().st_ino
        wanted = {
            "type": "cgroup",
            "cgroup_id": inode,
            "cgroup_path": f"/{path.name}",
            "attach_type": "cgroup_inet_egress",
        }
        assert info_of(link) == wanted
        told = told_by_bpftool(link)
        assert (told["cgroup_id"], told["attach_type"]) == (inode, "cgroup_inet_egress")
        link.detach()
        info = info_of(link)
        assert (info["cgroup_id"], info["attached"]) == (0, False)


def test_a_cgroup_that_is_gone() -> None:
    with cgroup() as path:
        inode = path.stat().st_ino
        assert cgroup_path(inode) == f"/{path.name}"
    assert cgroup_path(inode) is None
    assert cgroup_path(path.parent.stat().st_ino) == "/"


def test_network_namespace(programs: Loaded, net: Network) -> None:
    fd = os.open(f"/run/netns/{net.server}", os.O_RDONLY)
    with programs.program("on_lookup") as program:
        try:
            link = create(program, fd, Attach.SK_LOOKUP)
            inode = os.fstat(fd).st_ino
        finally:
            os.close(fd)
        with link:
            wanted = {
                "type": "netns",
                "netns_ino": inode,
                "netns": net.server,
                "attach_type": "sk_lookup",
            }
            assert info_of(link) == wanted
            assert told_by_bpftool(link)["netns_ino"] == inode
            link.detach()
            info = info_of(link)
            assert (info["netns_ino"], info["attached"]) == (0, False)
            assert "netns" not in info


def test_a_namespace_without_a_name() -> None:
    assert namespace_name(1) is None


def on_interface(net: Network, program: Program, attach: Attach, flags: int) -> tuple[int, Link]:
    """A link to the interface in the server's network namespace, and the interface's number."""

    def attached() -> tuple[int, Link]:
        index = socket.if_nametoindex("veth0")
        return index, create(program, index, attach, flags=flags)

    return in_namespace(net.server, attached)


INTERFACES = [
    ("on_packet", Attach.XDP, 2, {"type": "xdp"}),  # XDP_FLAGS_SKB_MODE
    ("on_queue", Attach.TCX_INGRESS, 0, {"type": "tcx", "attach_type": "tcx_ingress"}),
]
each_interface = pytest.mark.parametrize(
    ("name", "attach", "flags", "said"), INTERFACES, ids=["xdp", "tcx"]
)


@each_interface
def test_interfaces(
    programs: Loaded,
    net: Network,
    name: str,
    attach: Attach,
    flags: int,
    said: dict[str, str],
) -> None:
    with programs.program(name) as program:
        index, link = on_interface(net, program, attach, flags)
        with link:
            # Here no interface of this number is meant; there it is the one.
            assert info_of(link) == said | {"ifindex": index}
            assert in_namespace(net.server, lambda: info_of(link)) == said | {
                "ifindex": index,
                "interface": "veth0",
            }
            link.detach()
            assert info_of(link) == said | {"ifindex": 0, "attached": False}


@each_interface
def test_an_interface_of_the_same_number_elsewhere(
    programs: Loaded,
    net: Network,
    name: str,
    attach: Attach,
    flags: int,
    said: dict[str, str],
) -> None:
    checked("ip", "-n", net.client, "link", "add", "other0", "index", "99", "type", "veth")
    checked("ip", "-n", net.server, "link", "add", "wanted0", "index", "99", "type", "veth")
    with programs.program(name) as program:
        here = in_namespace(net.server, lambda: create(program, 99, attach, flags=flags))
        with here:
            assert "interface" not in in_namespace(net.client, lambda: info_of(here))
            assert in_namespace(net.server, lambda: info_of(here))["interface"] == "wanted0"
            # The same program on both: the kernel tells apart links of tcx, and not of XDP.
            there = in_namespace(net.client, lambda: create(program, 99, attach, flags=flags))
            with there:
                known = attach != Attach.XDP
                seen = in_namespace(net.server, lambda: info_of(here)).get("interface")
                assert seen == ("wanted0" if known else None)
                assert "interface" not in in_namespace(net.client, lambda: info_of(here))


def test_netkit(programs: Loaded, net: Network) -> None:
    made = run(["ip", "-n", net.server, "link", "add", "netkit0", "type", "netkit"])
    if "Unknown device type" in made.stderr:
        pytest.skip("this kernel has no netkit devices (CONFIG_NETKIT)")
    assert made.code == 0, made

    def attached() -> tuple[int, Link]:
        index = socket.if_nametoindex("netkit0")
        return index, create(program, index, Attach.NETKIT_PRIMARY)

    with programs.program("on_queue") as program:
        index, link = in_namespace(net.server, attached)
        with link:
            said = {"type": "netkit", "ifindex": index, "attach_type": "netkit_primary"}
            assert info_of(link) == said
            there = in_namespace(net.server, lambda: info_of(link))
            assert there == said | {"interface": "netkit0"}


def test_netfilter(programs: Loaded, net: Network) -> None:
    asked = struct.pack("=IIiI", 2, 4, -128, 0)
    with programs.program("on_hook") as program:
        link = in_namespace(net.server, lambda: create(program, 0, Attach.NETFILTER, asked))
        with link:
            wanted = {
                "type": "netfilter",
                "pf": "ipv4",
                "hooknum": "postrouting",
                "priority": -128,
                "flags": [],
            }
            assert info_of(link) == wanted
    asked = struct.pack("=IIiI", 10, 1, -1, 1)
    with programs.program("on_hook") as program:
        link = in_namespace(net.server, lambda: create(program, 0, Attach.NETFILTER, asked))
        with link:
            info = info_of(link)
            assert (info["pf"], info["hooknum"]) == ("ipv6", "input")
            assert (info["priority"], info["flags"]) == (-1, ["ip_defrag"])


def library(*functions: str) -> tuple[str, list[int]]:
    """The C library, and the offsets of functions in it."""
    mapped = ctypes.CDLL(None)
    addresses = [ctypes.cast(getattr(mapped, name), ctypes.c_void_p).value for name in functions]
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _mode, offset, _device, _inode, *path = line.split()
        first, end = (int(bound, 16) for bound in span.split("-"))
        if all(address and first <= address < end for address in addresses):
            start = first - int(offset, 16)
            return path[0], [address - start for address in addresses if address]
    raise AssertionError(functions)


@pytest.mark.parametrize("returns", [False, True], ids=["uprobe", "uretprobe"])
def test_uprobe(programs: Loaded, returns: bool) -> None:
    path, (offset,) = library("getpgid")
    event = probe_event("uprobe", path, offset, returns=returns)
    with programs.program("on_probe") as program, on_event(program, event, COOKIE) as link:
        assert info_of(link) == {
            "type": "perf_event",
            "event_type": "uretprobe" if returns else "uprobe",
            "file_name": path,
            "offset": offset,
            "cookie": COOKIE,
            "ref_ctr_offset": 0,
        }


@pytest.mark.parametrize("returns", [False, True], ids=["kprobe", "kretprobe"])
def test_kprobe(programs: Loaded, returns: bool) -> None:
    event = probe_event("kprobe", "vfs_read", 0, returns=returns)
    with programs.program("on_probe") as program, on_event(program, event, COOKIE) as link:
        info = info_of(link)
        assert info["event_type"] == ("kretprobe" if returns else "kprobe")
        assert (info["func_name"], info["offset"], info["cookie"]) == ("vfs_read", 0, COOKIE)


def test_tracepoint(programs: Loaded, tmp_path: Path) -> None:
    (tmp_path / "tracing").mkdir()
    with nested(tmp_path / "tracing", ["-t", "tracefs", "tracefs"]) as events:
        number = int((events / "events/syscalls/sys_enter_getpgid/id").read_text())
    event = perf_event(2, number)  # PERF_TYPE_TRACEPOINT
    with programs.program("on_tracepoint") as program, on_event(program, event, COOKIE) as link:
        assert info_of(link) == {
            "type": "perf_event",
            "event_type": "tracepoint",
            "tp_name": "sys_enter_getpgid",
            "cookie": COOKIE,
        }


def test_software_event(programs: Loaded) -> None:
    event = perf_event(1, 3, pid=-1, cpu=0)  # PERF_COUNT_SW_CONTEXT_SWITCHES
    with programs.program("on_event") as program, on_event(program, event, COOKIE) as link:
        assert info_of(link) == {
            "type": "perf_event",
            "event_type": "event",
            "perf_type": "software",
            "perf_config": "context_switches",
            "cookie": COOKIE,
        }


def test_kprobe_multi(programs: Loaded) -> None:
    with loaded("links", {"on_probes": (2, Attach.TRACE_KPROBE_MULTI)}) as made:
        functions, cookies = ["vfs_read", "vfs_write"], [1, COOKIE]
        with made.program("on_probes") as program, kprobes(program, functions, cookies) as link:
            info = info_of(link)
            assert (info["type"], info["count"], info["flags"]) == ("kprobe_multi", 2, [])
            given = [function.partition("+")[0] for function in info["functions"]]
            assert dict(zip(given, info["cookies"], strict=True)) == dict(
                zip(functions, cookies, strict=True)
            )


def test_uprobe_multi(programs: Loaded) -> None:
    path, offsets = library("getpgid", "getsid")
    cookies = [1, COOKIE]
    with (
        programs.program("on_probes") as program,
        uprobes(program, path, offsets, cookies) as link,
    ):
        assert info_of(link) == {
            "type": "uprobe_multi",
            "path": os.path.realpath(path),
            "offsets": offsets,
            "cookies": cookies,
            "count": 2,
            "flags": [],
            "pid": os.getpid(),
        }
    with (
        programs.program("on_probes") as program,
        uprobes(program, path, offsets, [0, 0], returns=True) as link,
    ):
        info = info_of(link)
        assert info["flags"] == ["return"]
        assert "cookies" not in info


def test_struct_ops() -> None:
    with struct_ops_link() as (bpf_map, link):
        assert info_of(link) == {"type": "struct_ops", "map_id": bpf_map.info.id}
        link.detach()
        info = info_of(link)
        assert (info["type"], info["attached"]) == ("struct_ops", False)


def test_sockmap(programs: Loaded) -> None:
    with (
        programs.program("on_verdict") as program,
        programs.map("sockets") as sockets,
        create(program, sockets.fd, Attach.SK_SKB_VERDICT) as link,
    ):
        wanted = {"type": "sockmap", "map_id": sockets.info.id, "attach_type": "sk_skb_verdict"}
        assert info_of(link) == wanted
        link.detach()
        assert info_of(link) == wanted | {"map_id": 0, "attached": False}


def test_iterator_of_a_map(iterators: Loaded) -> None:
    with (
        iterators.program("each_element") as program,
        iterators.map("numbers") as numbers,
        over_map(program, numbers) as link,
    ):
        info = info_of(link)
        assert "`" not in info.pop("output")
        wanted = {"type": "iter", "target_name": "bpf_map_elem", "map_id": numbers.info.id}
        assert info == wanted
        told = told_by_bpftool(link)
        assert (told["target_name"], told["map_id"]) == ("bpf_map_elem", numbers.info.id)


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (b"", {"task_type": "ALL"}),
        (struct.pack("=III", os.getpid(), 0, 0), {"tid": os.getpid(), "task_type": "TID"}),
        (struct.pack("=III", 0, os.getpid(), 0), {"pid": os.getpid(), "task_type": "PID"}),
    ],
    ids=["all", "thread", "process"],
)
def test_iterator_of_tasks(iterators: Loaded, about: bytes, said: Mapping[str, Any]) -> None:
    with iterators.program("each_task") as program, iterator(program, about) as link:
        info = info_of(link)
        del info["output"]
        assert info == {"type": "iter", "target_name": "task", **said}


def test_iterator_of_cgroups(iterators: Loaded) -> None:
    with cgroup() as path, iterators.program("each_cgroup") as program:
        fd = os.open(path, os.O_RDONLY)
        try:
            link = iterator(program, struct.pack("=IIQ", 2, fd, 0))
        finally:
            os.close(fd)
        with link:
            info = info_of(link)
            del info["output"]
            assert info == {
                "type": "iter",
                "target_name": "cgroup",
                "cgroup_id": path.stat().st_ino,
                "order": "descendants_pre",
                "cgroup_path": f"/{path.name}",
            }


# What a link is attached to, where this kernel may not attach it.


def test_functions_that_are_traced(programs: Loaded, iterators: Loaded) -> None:
    # An iterator is a tracing program, whose type is that of a function of the kernel.
    with iterators.program("each_task") as tracer, programs.program("on_packet") as target:
        info = tracer.info
        found = traced(info.id, info.attach_btf_obj_id, info.attach_btf_id)
        assert found
        assert (found.name, found.module, found.prog_id) == ("bpf_iter_task", "vmlinux", 0)
        seen = {function.type_id: "" for function in target.functions()}
        for type_id in seen:
            found = traced(info.id, target.info.id, type_id)
            assert found and found.prog_id == target.info.id
            seen[type_id] = found.name
        assert sorted(seen.values()) == ["on_packet", "verdict"]
        assert traced(info.id, target.info.id, 1 << 20) is None
        assert traced(info.id, 0, 1) is None
        assert traced(0, info.attach_btf_obj_id, info.attach_btf_id) is None


def test_a_type_that_is_newer_than_this_program(
    programs: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PARTS, 1)  # it has no row in the table
    with (
        programs.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", COOKIE) as link,
    ):
        assert link.details() == {}
        # What fdinfo says of it is all that is known.
        wanted = {"type": "raw_tracepoint", "tp_name": "sys_enter", "cookie": COOKIE}
        assert info_of(link) == wanted
