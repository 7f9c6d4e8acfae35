"""Links in the mount: what is there, for whom, and detaching them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.links import (
    Attach,
    Loaded,
    create,
    in_namespace,
    loaded,
    on_cgroup,
    over_map,
    raw_tracepoint,
    struct_ops_link,
)
from support.mounting import Mount
from support.network import network
from support.shell import Result
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.link import Link


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """A program for each type."""
    with loaded() as programs:
        yield programs


@pytest.fixture
def to_cgroup(programs: Loaded) -> Iterator[Link]:
    """A link to a cgroup, which is not pinned."""
    with on_cgroup(programs) as link:
        yield link


def info(mount: Mount, name: str) -> dict[str, Any]:
    """The information about a link; both files say the same."""
    told: dict[str, Any] = json.loads((mount.path / name / "info.json").read_text())
    assert yaml.safe_load((mount.path / name / "info").read_text()) == told
    return told


def test_what_is_there(mounted: Mount, to_cgroup: Link) -> None:
    mounted.pin("link", to_cgroup)
    names = ["detach", "error_log", "info", "info.json", "prog", "types.h"]
    by_id = f".by-id/links/{to_cgroup.info.id}"
    for place, up in {"link": "../", by_id: "../../../"}.items():
        there = mounted.sh(f"ls {place}").stdout.split()
        assert there == (names if place == "link" else sorted([*names, "pin"]))
        told = info(mounted, place)
        assert (told["id"], told["type"]) == (to_cgroup.info.id, "cgroup")
        assert told["cgroup_path"].startswith("/fusefs-test-")
        target = f"{up}.by-id/programs/{to_cgroup.info.prog_id}"
        assert mounted.sh(f"readlink {place}/prog; stat -c %F,%s {place}/prog").stdout == (
            f"{target}\nsymbolic link,{len(target)}\n"
        )
        program = json.loads(mounted.sh(f"cat {place}/prog/info.json").stdout)
        assert (program["id"], program["name"]) == (told["prog_id"], "on_egress")
        assert mounted.sh(f"grep -r . {place} | grep -c error").stdout == "0\n"


def test_a_link_without_a_program(mounted: Mount) -> None:
    with struct_ops_link() as (bpf_map, link):
        mounted.pin("link", link)
        assert mounted.sh("ls link").stdout == "detach\nerror_log\ninfo\ninfo.json\ntypes.h\n"
        assert mounted.sh("ln -sfn ../x link/prog").stderr.endswith("Operation not permitted\n")
        assert info(mounted, "link")["map_id"] == bpf_map.info.id
        assert mounted.sh("echo 1 > link/detach").stderr == ""
        assert info(mounted, "link")["attached"] is False


def test_detaching(mounted: Mount, to_cgroup: Link) -> None:
    mounted.pin("link", to_cgroup)
    assert mounted.sh("stat -c %A,%s link/detach").stdout == "--w-------,0\n"
    assert mounted.sh("cat link/detach") == Result(0, "", "")  # root may, and it is empty
    assert to_cgroup.details()["cgroup_id"] != 0
    result = mounted.sh("echo 1 > link/detach")
    assert (result.code, result.stderr) == (0, "")
    assert to_cgroup.details()["cgroup_id"] == 0
    told = info(mounted, "link")
    assert (told["cgroup_id"], told["attached"]) == (0, False)
    assert "cgroup_path" not in told
    # The program is still the link's, and nothing more happens.
    assert mounted.sh("cat link/prog/info.json | jq .id").stdout == f"{told['prog_id']}\n"
    assert mounted.sh("printf 1 > link/detach; echo ' 1 ' > link/detach").stderr == ""
    assert mounted.error_log("link") == ""


@pytest.mark.parametrize("text", ["0", "2", "yes", "11", "-1", ""])
def test_what_does_not_detach(mounted: Mount, to_cgroup: Link, text: str) -> None:
    mounted.pin("link", to_cgroup)
    result = mounted.sh(f"echo '{text}' > link/detach")
    assert result.stderr.endswith("Invalid argument\n")
    assert "expected 1" in mounted.error_log("link")
    assert mounted.sh(": > link/detach").code == 0
    assert to_cgroup.details()["cgroup_id"] != 0


def test_a_link_that_cannot_be_detached(mounted: Mount, programs: Loaded) -> None:
    with (
        programs.program("on_raw_tracepoint") as program,
        raw_tracepoint(program, "sys_enter", 1) as link,
    ):
        mounted.pin("link", link)
        result = mounted.sh("echo 1 > link/detach")
        assert result.stderr.endswith("Operation not supported\n")
        reason = "a link of type raw_tracepoint is detached when nothing refers to it any more"
        assert reason in mounted.error_log("link")


def test_detaching_stops_the_program(mounted: Mount) -> None:
    with network() as net, loaded("links_swap") as made, made.map("counts") as counts:
        link = net_link(net.server, made)
        with link:
            mounted.pin("link", link)
            assert "interface" not in info(mounted, "link")
            index = info(mounted, "link")["ifindex"]
            assert index > 0
            net.ping(3)
            seen = counts.lookup(bytes(4))
            assert mounted.sh("echo 1 > link/detach").code == 0
            assert info(mounted, "link")["ifindex"] == 0
            net.ping(3)
            assert counts.lookup(bytes(4)) == seen


def net_link(namespace: str, made: Loaded) -> Link:
    """An XDP link to `veth0` of a namespace."""
    with made.program("first") as program:
        return in_namespace(
            namespace,
            lambda: create(program, socket.if_nametoindex("veth0"), Attach.XDP, flags=2),
        )


# Who may do what: a link opens only for those who may read and write its pin.


def wait_for(mount: Mount, command: str, said: str) -> None:
    """Wait until a command says this: names and attributes may lag behind for a moment."""
    eventually(f"{command} says {said}", lambda: mount.sh(command).stdout == said)


def test_modes_follow_those_of_the_pin(mounted: Mount, to_cgroup: Link) -> None:
    mounted.pin("link", to_cgroup)
    command = "cd link && for f in info types.h detach; do stat -c '%n %A' $f; done | xargs"
    shown = {
        0o600: "info -r-------- types.h -r-------- detach --w-------",
        0o664: "info -r--r----- types.h -r--r----- detach --w--w----",
        0o646: "info -r-----r-- types.h -r-----r-- detach --w-----w-",
        # Nobody but root, who can always.
        0o444: "info -r-------- types.h -r-------- detach --w-------",
        0o222: "info -r-------- types.h -r-------- detach --w-------",
    }
    for mode, wanted in shown.items():
        os.chmod(mounted.source / "link", mode)
        wait_for(mounted, command, f"{wanted}\n")


def test_others_may_do_what_they_may_do_to_the_pin(
    mounter: Callable[..., Mount], to_cgroup: Link, programs: Loaded
) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    mount.pin("link", to_cgroup)
    mount.pin("other", programs.program("on_egress_too"))
    os.chmod(mount.source / "link", 0o644)
    os.chmod(mount.source / "other", 0o600)
    wait_for(mount, "stat -c %a link/detach", "200\n")
    assert nobody(mount, "cat link/info").stderr.endswith(DENIED)
    assert nobody(mount, "echo 1 > link/detach").stderr.endswith(DENIED)
    assert nobody(mount, "ln -sfn ../other link/prog").stderr.endswith(DENIED)
    os.chmod(mount.source / "link", 0o606)
    wait_for(mount, "stat -c %a link/detach", "202\n")
    assert nobody(mount, "cat link/info").code == 0
    # The link is theirs, and the program is not.
    before = to_cgroup.info.prog_id
    assert nobody(mount, "ln -sfn ../other link/prog").stderr.endswith(DENIED)
    assert nobody(mount, f"ln -sfn ../.by-id/programs/{before} link/prog").stderr.endswith(DENIED)
    to_cgroup.renew()
    assert to_cgroup.info.prog_id == before
    os.chmod(mount.source / "other", 0o604)
    result = nobody(mount, "ln -sfn ../other link/prog")
    assert (result.code, result.stderr) == (0, "")
    to_cgroup.renew()
    assert to_cgroup.info.prog_id != before
    assert nobody(mount, "echo 1 > link/detach").code == 0
    assert to_cgroup.details()["cgroup_id"] == 0


def test_output_is_roots(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with loaded("links_iterators") as made, made.map("numbers") as numbers:
        numbers.update(bytes(4), bytes(8))
        with made.program("each_element") as program, over_map(program, numbers) as link:
            mount.pin("link", link)
            os.chmod(mount.source / "link", 0o666)
            eventually("it is theirs", lambda: nobody(mount, "cat link/info").code == 0)
            assert nobody(mount, "cat link/output").stderr.endswith(DENIED)
            assert mount.sh("cat link/output; stat -c '%A %U' link/output").stdout == (
                "0: 0\n-r-------- root\n"
            )


def test_a_link_keeps_nothing_alive(mounted: Mount, to_cgroup: Link) -> None:
    mounted.pin("link", to_cgroup)
    assert mounted.sh("cat link/info link/prog/info; ls -l link").code == 0
    number = to_cgroup.info.id
    to_cgroup.close()
    assert mounted.sh("rmdir link").code == 0
    eventually("the link is gone", lambda: number not in Link.ids(), 1)


def test_root_sees_links_that_are_not_pinned(mounted: Mount, to_cgroup: Link) -> None:
    place = Path(f".by-id/links/{to_cgroup.info.id}")
    assert info(mounted, str(place))["prog_id"] == to_cgroup.info.prog_id
    assert mounted.sh(f"echo 1 > {place}/detach").code == 0
    assert info(mounted, str(place))["attached"] is False
