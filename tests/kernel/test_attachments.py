"""What links are attached to, as the picture has it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.links import (
    Attach,
    Loaded,
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
from support.network import Network, network

from fusefs.bpf.link import Link
from fusefs.bpf.program import Program
from fusefs.tree.attachments import Attachment, attachment
from fusefs.tree.info import describe, to_yaml


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """A program for each type."""
    with loaded() as programs:
        yield programs


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """Two network namespaces."""
    with network() as net:
        yield net


def attached(path: str | Path, program: Program, attach: Attach) -> Link:
    """A link of a program to what a path leads to."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return create(program, fd, attach)
    finally:
        os.close(fd)


def test_raw_tracepoint(programs: Loaded) -> None:
    with (
        programs.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 1) as link,
    ):
        assert attachment(link) == Attachment("tracepoint", "sys_enter")


def test_cgroup(programs: Loaded) -> None:
    with (
        cgroup() as path,
        programs.program("on_egress") as program,
        attached(path, program, Attach.CGROUP_INET_EGRESS) as link,
    ):
        assert attachment(link) == Attachment("cgroup", f"/{path.name}", ("cgroup_inet_egress",))
        link.detach()
        assert attachment(link) is None


def test_a_cgroup_whose_name_is_no_text(programs: Loaded) -> None:
    with (
        cgroup("\udcff") as path,
        programs.program("on_egress") as program,
        attached(path, program, Attach.CGROUP_INET_EGRESS) as link,
    ):
        found = attachment(link)
        assert found
        assert found.name == f"/{path.name}".replace("\udcff", "\\xff")
        assert "cgroup_path" in to_yaml(describe(link, None)).encode().decode()


def test_namespace(programs: Loaded, net: Network) -> None:
    with programs.program("on_lookup") as program:
        with attached(f"/run/netns/{net.server}", program, Attach.SK_LOOKUP) as link:
            assert attachment(link) == Attachment("netns", net.server, ("sk_lookup",))
        with attached("/proc/self/ns/net", program, Attach.SK_LOOKUP) as link:
            inode = os.stat("/proc/self/ns/net").st_ino
            found = attachment(link)
            assert found
            assert (found.type, f"net:[{inode}]") == ("netns", found.name)


@pytest.mark.parametrize(
    ("name", "attach", "flags", "how"),
    [
        ("on_packet", Attach.XDP, 2, ()),
        ("on_queue", Attach.TCX_INGRESS, 0, ("tcx_ingress",)),
    ],
    ids=["xdp", "tcx"],
)
def test_interface(
    programs: Loaded, net: Network, name: str, attach: Attach, flags: int, how: tuple[str, ...]
) -> None:
    with programs.program(name) as program:
        index, link = in_namespace(
            net.server,
            lambda: (
                index := socket.if_nametoindex("veth0"),
                create(program, index, attach, flags=flags),
            ),
        )
        with link:
            there = in_namespace(net.server, lambda: attachment(link))
            assert there == Attachment("interface", "veth0", how)
            assert attachment(link) == Attachment("interface", f"interface {index} elsewhere", how)
            link.detach()
            assert attachment(link) is None


def test_netfilter(programs: Loaded, net: Network) -> None:
    asked = struct.pack("=IIiI", 2, 4, -128, 0)
    with programs.program("on_hook") as program:
        link = in_namespace(net.server, lambda: create(program, 0, Attach.NETFILTER, asked))
        with link:
            assert attachment(link) == Attachment(
                "netfilter", "ipv4 postrouting", ("priority -128",)
            )


def test_probe_in_a_file(programs: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    for offset, where in ((64, f"{file}+0x40"), (0, str(file))):
        event = probe_event("uprobe", str(file), offset, returns=False)
        with programs.program("on_probe") as program, on_event(program, event, 1) as link:
            assert attachment(link) == Attachment("file", where, ("uprobe",))
    with programs.program("on_probes") as program, uprobes(program, str(file), [64], [1]) as link:
        assert attachment(link) == Attachment("file", str(file), ("uprobe_multi",))


def test_a_probe_in_a_file_whose_name_is_no_text(programs: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "\udcff\nlink_id: 1"
    file.write_bytes(bytes(4096))
    with programs.program("on_probes") as program, uprobes(program, str(file), [64], [1]) as link:
        found = attachment(link)
        assert found
        assert found.name == f"{tmp_path}/\ufffd\nlink_id: 1"
        told = describe(link, None)
        assert told["id"] == link.info.id
        assert to_yaml(told).encode()


def test_probe_of_the_kernel(programs: Loaded) -> None:
    event = probe_event("kprobe", "vfs_read", 0, returns=True)
    with programs.program("on_probe") as program, on_event(program, event, 1) as link:
        assert attachment(link) == Attachment("function", "vfs_read", ("kretprobe",))


def test_probes_of_the_kernel() -> None:
    with (
        loaded("links", {"on_probes": (2, Attach.TRACE_KPROBE_MULTI)}) as made,
        made.program("on_probes") as program,
    ):
        with kprobes(program, ["vfs_read", "vfs_write"], [1, 2]) as link:
            assert attachment(link) == Attachment("functions", "2 functions", ("kprobe_multi",))
        with kprobes(program, ["vfs_read"], [1]) as link:
            found = attachment(link)
            assert found
            assert (found.type, found.name.partition("+")[0]) == ("function", "vfs_read")


def test_event(programs: Loaded) -> None:
    event = perf_event(1, 3, pid=-1, cpu=0)  # PERF_COUNT_SW_CONTEXT_SWITCHES
    with programs.program("on_event") as program, on_event(program, event, 1) as link:
        assert attachment(link) == Attachment("event", "software context_switches")


def test_iterators() -> None:
    with loaded("links_iterators") as iterators:
        with iterators.program("each_task") as program, iterator(program) as link:
            assert attachment(link) == Attachment("iterator", "task")
        with (
            iterators.program("each_element") as program,
            iterators.map("numbers") as numbers,
            over_map(program, numbers) as link,
        ):
            assert attachment(link) == Attachment("iterator", "bpf_map_elem")


def test_links_to_maps_are_attached_to_nothing_else(programs: Loaded) -> None:
    with struct_ops_link() as (_, link):
        assert attachment(link) is None
    with (
        programs.program("on_verdict") as program,
        programs.map("sockets") as sockets,
        create(program, sockets.fd, Attach.SK_SKB_VERDICT) as link,
    ):
        assert attachment(link) is None
