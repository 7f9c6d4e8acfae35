"""What is attached without a link: as tc, ip, bpftool and bpf(2) attach it, and as bpftool sees
it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.cgroups import cgroup
from support.direct import MULTI, directly, no_more_descriptors, places, steps, to_cgroup
from support.links import Attach, create, in_namespace
from support.maps import pin
from support.network import Network, network
from support.programs import NOTHING, load
from support.shell import checked, run

from fusefs.bpf import libc
from fusefs.bpf.btf import Kind, kernel_btf
from fusefs.bpf.cgroups import hierarchy
from fusefs.bpf.direct import Direct, attached
from fusefs.bpf.direct_tc import programs
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program

# `enum bpf_prog_type` and `enum bpf_attach_type`.
SCHED_CLS, SCHED_ACT, XDP, CGROUP_SKB, SK_SKB, CGROUP_DEVICE = 3, 4, 6, 8, 14, 15
SK_MSG, CGROUP_SOCKOPT, FLOW_DISSECTOR = 16, 25, 22
LSM = 29
INGRESS, EGRESS, DEVICE, DISSECT, GETSOCKOPT, LSM_CGROUP = 0, 1, 6, 17, 21, 43
TCX_EGRESS = 47
ALLOWING = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
GENERIC = 2  # XDP_FLAGS_SKB_MODE, linux/if_link.h

Place = tuple[str, str, str]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """Two network namespaces."""
    with network() as net:
        yield net


@contextlib.contextmanager
def pinned(bpffs: Path, kind: int, name: str = "sample") -> Iterator[tuple[Program, Path]]:
    """A program of a type, and where it is pinned."""
    with load(kind=kind, name=name) as program:
        pin(bpffs / name, program)
        try:
            yield program, bpffs / name
        finally:
            (bpffs / name).unlink()


def there(net: Network, program: Program) -> list[Place]:
    """What a program is attached to, as seen in the server's network namespace."""
    return in_namespace(net.server, lambda: places(program))


def told_by_bpftool(net: Network, what: str) -> list[dict[str, Any]]:
    """What bpftool tells of a kind of attachment in that namespace."""
    told = json.loads(checked("ip", "netns", "exec", net.server, "bpftool", "-j", "net", "show"))
    found: list[dict[str, Any]] = told[0][what]
    return found


@contextlib.contextmanager
def qdisc(net: Network, *words: str) -> Iterator[None]:
    """A queueing discipline of the server's interface."""
    command = ("tc", "-n", net.server, "qdisc")
    checked(*command, "add", "dev", "veth0", *words)
    try:
        yield
    finally:
        run([*command, "delete", "dev", "veth0", *words[:1]])


def add_filter(net: Network, *words: str | Path) -> None:
    """A filter on the server's interface."""
    checked("tc", "-n", net.server, "filter", "add", "dev", "veth0", *words)


def test_tc_filters(net: Network, bpffs: Path) -> None:
    with pinned(bpffs, SCHED_CLS) as (program, path), qdisc(net, "clsact"):
        assert there(net, program) == []
        add_filter(net, "ingress", "pref", "7", "bpf", "da", "pinned", path)
        add_filter(net, "egress", "pref", "8", "handle", "5", "bpf", "da", "pinned", path)
        add_filter(net, "egress", "pref", "8", "chain", "3", "bpf", "da", "pinned", path)
        expected = [
            ("interface", "veth0", "tc egress pref 8 chain 3"),
            ("interface", "veth0", "tc egress pref 8 handle 0x5"),
            ("interface", "veth0", "tc ingress pref 7"),
        ]
        assert there(net, program) == expected
        known = [each["id"] for each in told_by_bpftool(net, "tc")]
        assert known == [program.info.id] * len(expected)
        assert places(program) == []  # another network namespace
    assert there(net, program) == []


def test_tc_filters_of_ordinary_and_old_qdiscs(net: Network, bpffs: Path) -> None:
    with pinned(bpffs, SCHED_CLS) as (program, path):
        with qdisc(net, "ingress"):
            add_filter(net, "parent", "ffff:", "pref", "2", "bpf", "da", "pinned", path)
            assert there(net, program) == [("interface", "veth0", "tc ingress pref 2")]
        with qdisc(net, "root", "handle", "1a:", "htb"):
            add_filter(net, "parent", "1a:", "pref", "3", "bpf", "da", "pinned", path)
            assert there(net, program) == [("interface", "veth0", "tc 1a: pref 3")]


def attribute(kind: int, data: bytes) -> bytes:
    """A netlink attribute."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def test_tc_actions_as_the_kernel_lays_them_out() -> None:
    """Few kernels of tests have act_bpf (CONFIG_NET_ACT_BPF): this is what tcf_action_dump and
    tcf_bpf_dump put into a message."""
    bpf = attribute(1, b"bpf\0") + attribute(2 | 0x8000, attribute(9, struct.pack("=I", 77)))
    other = attribute(1, b"gact\0") + attribute(2, attribute(9, struct.pack("=I", 78)))
    actions = attribute(1, other) + attribute(2, bpf)
    header = struct.pack("=BxxxiIII", 0, 3, 1, 0xFFFFFFF2, 5 << 16)
    for kind, at in ((b"matchall\0", 2), (b"u32\0", 7), (b"flower\0", 3)):
        message = header + attribute(1, kind) + attribute(2, attribute(at, actions))
        assert list(programs(message)) == [(77, "pref 5 action")]
    assert list(programs(header + attribute(1, b"unheard of\0") + attribute(2, actions))) == []


def test_tc_actions(net: Network, bpffs: Path) -> None:
    with pinned(bpffs, SCHED_ACT) as (program, path), qdisc(net, "clsact"):
        command = ["tc", "-n", net.server, "filter", "add", "dev", "veth0", "ingress", "pref", "1"]
        added = run([*command, "matchall", "action", "bpf", "pinned", path])
        if added.code:
            pytest.skip(f"this kernel has no actions of programs: {added.stderr}")
        assert there(net, program) == [("interface", "veth0", "tc ingress pref 1 action")]


@pytest.mark.parametrize(
    ("how", "mode"), [("xdpgeneric", "xdp generic"), ("xdpdrv", "xdp")], ids=["generic", "driver"]
)
def test_xdp(net: Network, bpffs: Path, how: str, mode: str) -> None:
    with pinned(bpffs, XDP) as (program, path):
        checked("ip", "-n", net.server, "link", "set", "dev", "veth0", how, "pinned", path)
        try:
            assert there(net, program) == [("interface", "veth0", mode)]
            assert [each["id"] for each in told_by_bpftool(net, "xdp")] == [program.info.id]
            assert places(program) == []
        finally:
            checked("ip", "-n", net.server, "link", "set", "dev", "veth0", how, "off")
        assert there(net, program) == []


@pytest.mark.parametrize(
    ("kind", "attach", "flags"),
    [(XDP, Attach.XDP, GENERIC), (SCHED_CLS, Attach.TCX_INGRESS, 0)],
    ids=["xdp", "tcx"],
)
def test_links_on_interfaces_are_left_out(
    net: Network, kind: int, attach: Attach, flags: int
) -> None:
    def look() -> list[Place]:
        index = socket.if_nametoindex("veth0")
        with create(program, index, attach, flags=flags) as link:
            assert link.details()["ifindex"] == index
            return places(program)

    with load(kind=kind) as program:
        assert in_namespace(net.server, look) == []


def test_tcx_without_a_link_beside_one_with(net: Network) -> None:
    def look() -> list[Place]:
        index = socket.if_nametoindex("veth0")
        with create(other, index, Attach.TCX_INGRESS), directly(program, index, TCX_EGRESS):
            assert places(other) == []
            return places(program)

    with load(kind=SCHED_CLS) as program, load(kind=SCHED_CLS) as other:
        assert in_namespace(net.server, look) == [("interface", "veth0", "tcx_egress")]


def test_an_interface_whose_name_is_no_text(net: Network, bpffs: Path) -> None:
    name = "\udcff\u202e"
    with pinned(bpffs, XDP) as (program, path):
        checked("ip", "-n", net.server, "link", "add", name, "type", "veth", "peer", "name", "b")
        try:
            command = ("ip", "-n", net.server, "link", "set", "dev", name)
            checked(*command, "xdpgeneric", "pinned", path)
            assert there(net, program) == [("interface", "\\xff\u202e", "xdp generic")]
        finally:
            run(["ip", "-n", net.server, "link", "delete", name])


def test_namespace(net: Network) -> None:
    def look() -> list[Place]:
        with directly(program, 0, DISSECT):
            return places(program)

    with load(kind=FLOW_DISSECTOR) as program:
        assert in_namespace(net.server, look) == [("netns", net.server, "flow_dissector")]

        def by_link() -> list[Place]:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            try:
                with create(program, fd, cast(Attach, DISSECT)):
                    return places(program)
            finally:
                os.close(fd)

        assert in_namespace(net.server, by_link) == []


def test_maps_of_sockets(bpffs: Path) -> None:
    with (
        Map.create(MapType.SOCKMAP, key_size=4, value_size=8, max_entries=2) as sockets,
        Map.create(MapType.SOCKHASH, key_size=4, value_size=8, max_entries=2) as hashed,
        pinned(bpffs, SK_MSG, "msg") as (to_messages, messages),
        pinned(bpffs, SK_SKB, "skb") as (to_streams, streams),
    ):
        made = ((sockets, "msg_verdict", messages), (hashed, "stream_verdict", streams))
        for bpf_map, how, path in made:
            command = ("bpftool", "prog", "attach", "pinned", path, how)
            checked(*command, "id", str(bpf_map.info.id))
        assert places(to_messages) == [("map", str(sockets.info.id), "sk_msg_verdict")]
        assert places(to_streams) == [("map", str(hashed.info.id), "sk_skb_stream_verdict")]


def test_links_to_maps_of_sockets_are_left_out() -> None:
    with (
        Map.create(MapType.SOCKMAP, key_size=4, value_size=8, max_entries=2) as sockets,
        Program.load(SK_SKB, NOTHING, attach_type=Attach.SK_SKB_VERDICT) as program,
    ):  # fmt: skip
        with directly(program, sockets.fd, Attach.SK_SKB_VERDICT):
            assert places(program) == [("map", str(sockets.info.id), "sk_skb_verdict")]
        with create(program, sockets.fd, Attach.SK_SKB_VERDICT):
            assert places(program) == []


@contextlib.contextmanager
def linked_to(program: Program, path: Path, attach: int) -> Iterator[None]:
    """A link of a program to a cgroup."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with create(program, fd, cast(Attach, attach)):
            yield
    finally:
        os.close(fd)


def test_cgroup(bpffs: Path) -> None:
    with pinned(bpffs, CGROUP_SKB) as (program, path), cgroup() as one, cgroup() as other:
        checked("bpftool", "cgroup", "attach", one, "egress", "pinned", path, "multi")
        expected = [("cgroup", f"/{one.name}", "cgroup_inet_egress")]
        assert places(program) == expected
        with linked_to(program, other, EGRESS):
            assert places(program) == expected
        with linked_to(program, one, EGRESS):  # as often as not by the link
            assert places(program) == expected
        with linked_to(program, one, EGRESS), linked_to(program, one, EGRESS):
            checked("bpftool", "cgroup", "detach", one, "egress", "pinned", path)
            assert places(program) == []


def test_every_cgroup_type_that_a_program_can_be_attached_to() -> None:
    with (
        cgroup() as path,
        load(kind=CGROUP_SKB) as skb,
        load(kind=CGROUP_DEVICE) as device,
        Program.load(
            CGROUP_SOCKOPT, NOTHING, attach_type=GETSOCKOPT
        ) as options,
        to_cgroup(skb, path, INGRESS, MULTI),
        to_cgroup(device, path, DEVICE),
        to_cgroup(options, path, GETSOCKOPT),
    ):  # fmt: skip
        where = "cgroup", f"/{path.name}"
        assert places(skb) == [(*where, "cgroup_inet_ingress")]
        assert places(device) == [(*where, "cgroup_device")]
        assert places(options) == [(*where, "cgroup_getsockopt")]


def test_hooks_of_security() -> None:
    btf = kernel_btf()
    hook = btf.find("bpf_lsm_socket_bind", Kind.FUNC) if btf else None
    if hook is None:
        pytest.skip("this kernel has no hooks of security for programs (CONFIG_BPF_LSM)")
    try:
        program = Program.load(LSM, ALLOWING, attach_type=LSM_CGROUP, attach_btf_id=hook)
    except OSError as error:
        pytest.skip(f"this kernel refuses programs for hooks of security: {error}")
    with program, cgroup() as path:
        expected = [("cgroup", f"/{path.name}", "lsm_cgroup")]
        with to_cgroup(program, path, LSM_CGROUP, MULTI):
            assert places(program) == expected
            with linked_to(program, path, LSM_CGROUP):
                assert places(program) == expected


def test_a_cgroup_whose_name_is_no_text() -> None:
    with (
        cgroup("\udcff") as path,
        load(kind=CGROUP_SKB) as program,
        to_cgroup(program, path, EGRESS),
    ):
        name = f"/{path.name}".replace("\udcff", "\\xff")
        assert places(program) == [("cgroup", name, "cgroup_inet_egress")]


def test_a_host_with_many_cgroups() -> None:
    """As systemd has it: slices, services in them, and some of these with programs."""
    with contextlib.ExitStack() as stack:
        skb, device = (stack.enter_context(load(kind=k)) for k in (CGROUP_SKB, CGROUP_DEVICE))
        expected: list[tuple[int, str, str]] = []
        for _ in range(8):
            above = stack.enter_context(cgroup("slice"))
            for number in range(25):
                path = above / f"service{number}"
                path.mkdir()
                stack.callback(path.rmdir)
                name = f"/{above.name}/{path.name}"
                if number % 5 == 0:
                    stack.enter_context(to_cgroup(device, path, DEVICE, MULTI))
                    expected.append((device.info.id, name, "cgroup_device"))
                if number % 7 == 0:
                    stack.enter_context(to_cgroup(skb, path, EGRESS, MULTI))
                    expected.append((skb.info.id, name, "cgroup_inet_egress"))
        began = time.monotonic()
        taken = list(steps())
        assert time.monotonic() - began < 1
        ours = {skb.info.id, device.info.id}
        found = [(d.program_id, d.name, d.how) for d in taken if d and d.program_id in ours]
        assert sorted(found) == sorted(expected)
        assert taken.count(None) > 200  # others have a turn after each of them
        root = hierarchy()
        assert root
        shown = [
            (program["id"], each["cgroup"].removeprefix(root), program["attach_type"])
            for each in json.loads(checked("bpftool", "-j", "cgroup", "tree", root))
            for program in each["programs"]
            if program["id"] in ours
        ]
        assert sorted(shown) == sorted(expected)


def test_what_may_not_be_asked_is_left_out() -> None:
    results: list[list[Direct | None]] = []

    def look() -> None:
        libc.keep_capabilities(0)
        results.append(list(attached(range(40), [map_id], [])))

    with (
        Map.create(MapType.SOCKMAP, key_size=4, value_size=8, max_entries=2) as sockets,
        cgroup() as path,
        load(kind=CGROUP_SKB) as program,
        to_cgroup(program, path, EGRESS),
    ):
        map_id = sockets.info.id
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert results
        assert program.info.id not in [each.program_id for each in results[0] if each]
        with_rights = attached(range(40), [map_id, 0xFFFFFFF0], [])
        assert program.info.id in [each.program_id for each in with_rights if each]


@pytest.mark.parametrize("kind", [XDP, SCHED_CLS, CGROUP_SKB, FLOW_DISSECTOR, SK_MSG])
def test_no_descriptor_left_is_no_refusal(kind: int) -> None:
    with Map.create(MapType.SOCKMAP, key_size=4, value_size=8, max_entries=2) as sockets:
        turns = attached([kind], [sockets.info.id], [])
        with no_more_descriptors(), pytest.raises(OSError) as caught:
            list(turns)
    assert caught.value.errno == errno.EMFILE
    assert list(attached([], [], [])) == []  # and where there are no programs, nothing is opened
