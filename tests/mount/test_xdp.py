"""A program at work: its maps, itself and its link, seen through the mount while packets pass."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.maps import exists
from support.mounting import Mount
from support.network import Network, compile_program, network, pin_attached
from support.shell import checked
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.program import Program

ICMP = 1


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of the program."""
    return compile_program("xdp_count", tmp_path_factory.mktemp("programs"))


@dataclass
class Counting:
    """A mount that shows a program at work, its maps and its link."""

    mount: Mount
    net: Network

    def packets(self) -> int:
        """The number of ICMP packets, as the entry of the per-CPU array has it."""
        entry = self.mount.path / f"maps/protocols/entries/{ICMP}"
        return sum(json.loads(entry.read_text()))

    def info(self, name: str) -> dict[str, Any]:
        """The information about a pin; both files say the same."""
        info: dict[str, Any] = json.loads((self.mount.path / name / "info.json").read_text())
        assert yaml.safe_load((self.mount.path / name / "info").read_text()) == info
        return info


@pytest.fixture
def counting(mounted: Mount, compiled: Path) -> Iterator[Counting]:
    """The program, attached in a network of its own."""
    program, maps = mounted.source / "program", mounted.source / "maps"
    os.mkdir(maps)
    checked("bpftool", "prog", "load", compiled, program, "type", "xdp", "pinmaps", maps)
    with network() as net:
        pin_attached(net, program, mounted.source / "link")
        yield Counting(mounted, net)


def test_packets_are_counted(counting: Counting) -> None:
    assert counting.packets() == 0
    counting.net.ping(10)
    assert counting.packets() == 10
    counting.net.ping(5)
    assert counting.packets() == 15
    net = counting.net
    flows = counting.mount.path / "maps/flows/entries"
    flow = json.loads((flows / key_of(flows)).read_text())
    assert flow["packets"] == 15
    assert flow["bytes"] == 15 * (14 + 20 + 8 + 56)
    (line,) = (counting.mount.path / "maps/flows/entries.jsonl").read_text().splitlines()
    assert json.loads(line)["value"] == flow
    key = json.loads(line)["key"]
    assert key["protocol"] == ICMP
    assert address_of(key["source"]) == net.client_address
    assert address_of(key["destination"]) == net.server_address


def key_of(flows: Path) -> str:
    """The name of the only entry."""
    (name,) = os.listdir(flows)
    return name


def address_of(value: int | str) -> str:
    """An address, whether it is shown as one or as a big-endian number."""
    if isinstance(value, str):
        return value
    return ".".join(str(byte) for byte in value.to_bytes(4, "big"))


def test_counts_rise_while_they_are_read(counting: Counting) -> None:
    net = counting.net
    ping = ["ping", "-q", "-c", "100", "-i", "0.005", "-W", "2", net.server_address]
    seen = [counting.packets()]
    with subprocess.Popen(
        ["ip", "netns", "exec", net.client, *ping], stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            seen.append(counting.packets())
    assert process.returncode == 0
    seen.append(counting.packets())
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert seen[-1] == 100


def test_counts_can_be_set_back(counting: Counting) -> None:
    counting.net.ping(3)
    assert counting.mount.sh(f"echo 0 > maps/protocols/entries/{ICMP}").code == 0
    assert counting.mount.sh("rm maps/flows/entries/*").code == 0
    counting.net.ping(2)
    assert counting.packets() == 2
    assert counting.mount.sh("jq .value.packets maps/flows/entries.jsonl").stdout == "2\n"


def test_what_is_said_of_the_program(counting: Counting) -> None:
    info = counting.info("program")
    pinned = counting.mount.source / "program"
    (told,) = [json.loads(checked("bpftool", "-j", "prog", "show", "pinned", pinned))]
    assert (info["type"], info["name"], info["id"]) == ("xdp", "xdp_count", told["id"])
    assert info["tag"] == told["tag"]
    assert sorted(info["map_ids"]) == sorted(told["map_ids"])
    maps = {counting.info(f"maps/{name}")["id"] for name in ("protocols", "flows")}
    assert set(info["map_ids"]) == maps
    assert info["prog_tags"] == [info["tag"]]  # it has one function
    assert info["jited_func_lens"] == [info["jited_prog_len"]]
    assert info["xlated_prog_len"] == told["bytes_xlated"]
    assert info["jited_prog_len"] == told["bytes_jited"]
    loaded = datetime.fromisoformat(info["load_time"]).timestamp()
    assert abs(loaded - told["loaded_at"]) <= 1  # bpftool rounds another way
    said = info["created_by_uid"], info["gpl_compatible"]
    assert said == (told["uid"], told["gpl_compatible"])
    assert info["memlock"] == told["bytes_memlock"]
    assert info["verified_insns"] > 0
    assert "entries" not in os.listdir(counting.mount.path / "program")


def test_what_is_said_of_the_link(counting: Counting) -> None:
    info = counting.info("link")
    assert info["type"] == "xdp"
    assert info["prog_id"] == counting.info("program")["id"]
    assert exists(Link, info["id"])
    index = checked(
        "ip", "netns", "exec", counting.net.server, "cat", "/sys/class/net/veth0/ifindex"
    )
    assert info["ifindex"] == int(index)


def test_what_is_said_of_the_maps(counting: Counting) -> None:
    flows = counting.info("maps/flows")
    assert (flows["key_type"], flows["value_type"]) == ("struct flow_key", "struct flow")
    assert (flows["key_size"], flows["value_size"], flows["type"]) == (12, 16, "hash")
    assert counting.info("maps/protocols")["type"] == "percpu_array"


def test_unpinning_detaches_and_unloads(counting: Counting) -> None:
    link, program = counting.info("link")["id"], counting.info("program")["id"]
    counting.net.ping(2)
    assert counting.mount.sh("cat link/info program/info; rmdir link").code == 0
    eventually("the link is gone", lambda: not exists(Link, link), 1)
    counting.net.ping(2)
    assert counting.packets() == 2
    assert exists(Program, program)
    assert counting.mount.sh("rmdir program").code == 0
    eventually("the program is gone", lambda: not exists(Program, program), 1)
