"""`prog` of a link: replacing the symbolic link swaps the program."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from support.links import Attach, Loaded, create, in_namespace, loaded, raw_tracepoint
from support.maps import make_map, u32
from support.mounting import Mount
from support.network import Network, network
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.map import Map

PACKETS = 50_000
SWAPS = 20
PROTOCOL = 0x88B5  # ETH_P_802_EX1, of which nobody else sends


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """The programs that are swapped."""
    with loaded("links_swap") as programs:
        yield programs


@dataclass
class Attached:
    """A link to an interface, pinned as `link`, and programs beside it."""

    mount: Mount
    net: Network
    link: Link
    counts: Map

    def now(self) -> int:
        """The id of its program."""
        self.link.renew()
        number: int = self.link.info.prog_id
        return number


@pytest.fixture
def attached(mounted: Mount, programs: Loaded) -> Iterator[Attached]:
    """XDP on one end of a pair of interfaces."""
    for name in ("first", "second", "elsewhere", "another_type"):
        with programs.program(name) as program:
            mounted.pin(name, program)

    with network() as net, programs.map("counts") as counts, programs.program("first") as first:
        for who in range(3):
            counts.update(u32(who), bytes(8))
        link = in_namespace(
            net.server,
            # Generic XDP, which runs on each packet that the interface is given.
            lambda: create(first, socket.if_nametoindex("veth0"), Attach.XDP, flags=2),
        )
        with link:
            yield Attached(mounted, net, mounted.pin("link", link), counts)


def id_of(programs: Loaded, name: str) -> int:
    """The id of a program."""
    with programs.program(name) as program:
        number: int = program.info.id
        return number


def test_a_program_is_swapped(attached: Attached, programs: Loaded) -> None:
    first, second = id_of(programs, "first"), id_of(programs, "second")
    mount = attached.mount
    assert attached.now() == first
    result = mount.sh("ln -sfn ../second link/prog")
    assert (result.code, result.stderr) == (0, "")
    assert attached.now() == second
    assert mount.sh("readlink link/prog; ls link").stdout == (
        f"../.by-id/programs/{second}\ndetach\nerror_log\ninfo\ninfo.json\nprog\ntypes.h\n"
    )
    assert mount.sh("jq .prog_id link/info.json; jq -r .name link/prog/info.json").stdout == (
        f"{second}\nsecond\n"
    )
    assert mount.error_log("link") == ""


@pytest.mark.parametrize(
    "target",
    ["../second", "MOUNT/second", "../.by-id/programs/ID", "../second/", "../other_name"],
)
def test_targets_of_all_kinds(attached: Attached, programs: Loaded, target: str) -> None:
    second = id_of(programs, "second")
    mount = attached.mount
    mount.sh("ln -s second other_name")
    target = target.replace("MOUNT", str(mount.path)).replace("ID", str(second))
    assert mount.sh(f"ln -sfn {target} link/prog").stderr == ""
    assert attached.now() == second


def test_by_id(attached: Attached, programs: Loaded) -> None:
    second = id_of(programs, "second")
    place = f".by-id/links/{attached.link.info.id}"
    for target in ("../../../second", f"../../programs/{second}"):
        assert attached.mount.sh("ln -sfn ../first link/prog").stderr == ""
        assert attached.now() != second
        assert attached.mount.sh(f"ln -sfn {target} {place}/prog").stderr == ""
        assert attached.now() == second


def test_a_link_of_another_name_is_renamed_over_it(attached: Attached, programs: Loaded) -> None:
    mount = attached.mount
    assert mount.sh("cd link; ln -s ../second .new; ls -A").stdout.startswith(".new\n")
    assert mount.sh("readlink link/.new").stdout == "../second\n"
    assert attached.now() == id_of(programs, "first")
    assert mount.sh("mv -T link/.new link/prog").stderr == ""
    assert attached.now() == id_of(programs, "second")
    assert mount.sh("readlink link/.new").code == 1
    assert mount.sh("ln -s ../first link/.new; rm link/.new; readlink link/.new").code == 1
    assert attached.now() == id_of(programs, "second")


REFUSED = {
    "../another_type": "it is of type socket_filter, and the program of the link is of type xdp",
    "../elsewhere": "it was loaded for something else than what the link is attached to",
    "../table": "expected a program, and ../table is a map",
    "../link": "link in this mount is no map and no program",
    "../nothing": "nothing in this mount is no map and no program",
    "..": "/ in this mount is no map and no program",
    "/etc/passwd": "/etc/passwd is not in this mount",
    "../.by-id/programs/4294967295": "there is no program with the id 4294967295",
    "../.by-id/links/LINK": "expected a program, and ../.by-id/links/LINK is a link",
}


@pytest.mark.parametrize("target", REFUSED)
def test_what_does_not_fit_changes_nothing(
    attached: Attached, programs: Loaded, target: str
) -> None:
    mount, number = attached.mount, str(attached.link.info.id)
    with make_map() as table:
        mount.pin("table", table)
    result = mount.sh(f"ln -sfn {target.replace('LINK', number)} link/prog")
    assert result.stderr.endswith("Invalid argument\n"), result
    assert REFUSED[target].replace("LINK", number) in mount.error_log("link")
    assert attached.now() == id_of(programs, "first")
    assert mount.sh("ls -A link").stdout == "detach\nerror_log\ninfo\ninfo.json\nprog\ntypes.h\n"
    assert mount.sh("readlink link/prog").stdout.endswith(f"/{id_of(programs, 'first')}\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ln -s ../second link/other", "Operation not permitted"),
        ("ln -sT ../second link/prog", "File exists"),
        ("rm link/prog", "Operation not permitted"),
        ("mv link/prog link/other", "Operation not permitted"),
        ("ln -s ../second link/.x; mv -T link/.x link/other", "Operation not permitted"),
        ("ln -s ../second link/.x; mv -T link/.x link/info", "Operation not permitted"),
        ("touch link/other", "Operation not permitted"),
        ("mkdir link/other", "Operation not permitted"),
    ],
)
def test_nothing_else_is_made_there(
    attached: Attached, programs: Loaded, command: str, said: str
) -> None:
    result = attached.mount.sh(command)
    assert said in result.stderr, result
    attached.mount.sh("rm link/.x")
    assert attached.now() == id_of(programs, "first")
    assert (
        attached.mount.sh("ls link").stdout == "detach\nerror_log\ninfo\ninfo.json\nprog\ntypes.h\n"
    )


def test_a_detached_link_keeps_its_program(attached: Attached, programs: Loaded) -> None:
    mount = attached.mount
    assert mount.sh("echo 1 > link/detach").code == 0
    result = mount.sh("ln -sfn ../second link/prog")
    assert result.stderr.endswith("Link has been severed\n")
    assert "the link is detached" in mount.error_log("link")
    assert attached.now() == id_of(programs, "first")


def test_a_type_whose_program_stays(mounted: Mount) -> None:
    with (
        loaded() as made,
        made.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 1) as link,
    ):
        mounted.pin("link", link)
        mounted.pin("program", program)
        result = mounted.sh("ln -sfn ../program link/prog")
        assert result.stderr.endswith("Operation not supported\n")
        reason = "a link of type raw_tracepoint keeps its program: make another link"
        assert reason in mounted.error_log("link")


# Sends packets of a protocol of our own from `veth0`, whoever gets them, until its input ends; and
# says how many.
FLOOD = f"""
import select, socket, sys
sent = 0
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
    sender.bind(("veth0", 0))
    frame = b"\\xff" * 6 + bytes(6) + ({PROTOCOL}).to_bytes(2, "big") + bytes(50)
    while sent < {PACKETS} or not select.select([sys.stdin], [], [], 0)[0]:
        for _ in range(100):
            sender.send(frame)
        sent += 100
print(sent)
"""
PACKET_STATISTICS = 6  # of SOL_PACKET, packet(7)
SOL_PACKET = 263


def seen_by(receiver: socket.socket) -> int:
    """How many packets have come to a socket, whether it had room for them or not."""
    told = receiver.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
    packets: int = struct.unpack("=II", told)[0]
    return packets


def receiver_of(protocol: int) -> socket.socket:
    """A socket for all packets of a protocol that come to `veth0`."""
    receiver = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    receiver.bind(("veth0", protocol))
    return receiver


def test_no_packet_is_lost_while_programs_are_swapped(attached: Attached) -> None:
    mount, net = attached.mount, attached.net
    command = ["ip", "netns", "exec", net.client, sys.executable, "-c", FLOOD]
    with (
        in_namespace(net.server, lambda: receiver_of(PROTOCOL)) as receiver,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender,
    ):
        try:
            for turn in range(SWAPS):
                running = turn % 2
                more(attached, running)
                name = ("second", "first")[running]
                assert mount.sh(f"ln -sfn ../{name} link/prog").stderr == ""
            sent = int(sender.communicate()[0])
        finally:
            sender.kill()
        assert sent >= PACKETS
        eventually("all were counted", lambda: sum(counted(attached)) >= sent)
        first, second, others = counted(attached)
        assert (first + second, others) == (sent, 0)
        assert first > 0 and second > 0
        assert seen_by(receiver) == sent


def more(attached: Attached, who: int) -> None:
    """Wait until a program has seen another packet."""
    before = counted(attached)[who]
    eventually("the program runs", lambda: counted(attached)[who] > before)


def counted(attached: Attached) -> list[int]:
    """How many packets each program has seen."""
    values = [attached.counts.lookup(u32(who)) or b"" for who in range(3)]
    return [int.from_bytes(value, sys.byteorder) for value in values]
