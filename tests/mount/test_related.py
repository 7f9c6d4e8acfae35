"""What `info` says of what is tied to an object: what uses it, its pins, who holds it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.cgroups import cgroup
from support.direct import to_cgroup
from support.holding import holding
from support.links import Attach, create, in_namespace, loaded, over_map, raw_tracepoint
from support.maps import make_map, pin, types, u32
from support.mounting import Mount, mounted_bpffs, nested
from support.mounting import mounted as mounted_at
from support.network import network
from support.programs import load
from support.renaming import rename
from support.samples import workshop
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.tree.targets import path_by_id

Mounter = Callable[..., Mount]
Info = dict[str, Any]
# What changed elsewhere is seen within so many seconds, on a machine that has other things to do.
SOON = 1.0
BPFFS = ["-t", "bpf", "bpf"]


def where(obj: Object) -> str:
    """Where an object is below `.by-id/`."""
    return "/".join(path_by_id(type(obj), obj.info.id))


def info_of(mount: Mount, path: str | Object) -> Info:
    """What is said of an object, by a path below the mount or its id."""
    path = path if isinstance(path, str) else where(path)
    told: Info = json.loads((mount.path / path / "info.json").read_text())
    return told


def becomes(mount: Mount, obj: str | Object, field: str, wanted: object) -> None:
    """Wait until a field is what it should be by now."""
    try:
        eventually(f"{field} is {wanted}", lambda: info_of(mount, obj)[field] == wanted, SOON)
    except AssertionError:
        assert info_of(mount, obj)[field] == wanted
        raise


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed at the end."""
    with ExitStack() as made:
        yield made


# What uses it, and what it is in.


def test_programs_and_the_table_that_they_call_through(mounted: Mount) -> None:
    with (
        loaded("tail_call") as made,
        made.map("table") as table,
        made.program("caller") as caller,
        made.program("first") as first,
        made.program("second") as second,
    ):
        assert info_of(mounted, table)["prog_ids"] == [caller.info.id]
        assert info_of(mounted, table)["target_prog_ids"] == []
        for slot, program in ((0, first), (1, second), (2, first)):
            table.update(u32(slot), u32(program.fd))
        both = sorted([first.info.id, second.info.id])
        becomes(mounted, table, "target_prog_ids", both)
        assert info_of(mounted, first)["prog_array_ids"] == [table.info.id]
        assert info_of(mounted, caller)["prog_array_ids"] == []
        assert info_of(mounted, caller)["map_ids"] == [table.info.id]
        table.delete(u32(1))
        becomes(mounted, table, "target_prog_ids", [first.info.id])
        assert info_of(mounted, second)["prog_array_ids"] == []
        # What is done through the mount is seen at once.
        assert info_of(mounted, table)["target_prog_ids"] == [first.info.id]
        target = f"../../../programs/{second.info.id}"
        said = mounted.sh(
            f"cd {where(table)} && cat info >/dev/null && ln -s {target} entries/3 &&"
            "jq -c .target_prog_ids info.json && rm entries/3 && jq -c .target_prog_ids info.json"
        )
        assert said.stdout.split() == [
            str(both).replace(" ", ""), str([first.info.id])
        ], said  # fmt: skip


@pytest.mark.parametrize("kind", [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS])
def test_maps_in_maps(mounted: Mount, kind: MapType) -> None:
    with (
        make_map(MapType.ARRAY, max_entries=2) as inner,
        Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner) as outer,
    ):
        assert info_of(mounted, outer)["inner_map_ids"] == []
        assert info_of(mounted, inner)["outer_map_ids"] == []
        assert "inner_map_ids" not in info_of(mounted, inner)
        for slot in (1, 2):
            outer.update(u32(slot), u32(inner.fd))
        becomes(mounted, outer, "inner_map_ids", [inner.info.id])
        becomes(mounted, inner, "outer_map_ids", [outer.info.id])


def test_types(mounted: Mount) -> None:
    btf = types().btf
    with make_map() as one, make_map() as other, make_map(key=4, value=4) as without:
        told = info_of(mounted, btf)["map_ids"]
        assert {one.info.id, other.info.id} <= {*told}
        assert without.info.id not in told
        assert told == sorted(told)
        assert "pins" not in info_of(mounted, btf)
    gone = one.info.id
    eventually("it is gone", lambda: gone not in info_of(mounted, btf)["map_ids"], SOON)
    with loaded("tail_call") as made, made.program("caller") as caller:
        told = info_of(mounted, f".by-id/btfs/{caller.info.btf_id}")
        assert caller.info.id in told["prog_ids"]


# Links.


def test_links_come_and_go(mounted: Mount) -> None:
    with loaded() as made, made.program("on_raw_tracepoint") as program:
        mounted.pin("program", program)
        assert info_of(mounted, "program")["link_ids"] == []
        with raw_tracepoint(program, "sys_enter", 1) as one:
            assert info_of(mounted, "program")["link_ids"] == [one.info.id]
            with raw_tracepoint(program, "sys_enter", 2) as other:
                wanted = sorted([one.info.id, other.info.id])
                assert info_of(mounted, "program")["link_ids"] == wanted
            becomes(mounted, "program", "link_ids", [one.info.id])
        becomes(mounted, "program", "link_ids", [])


def test_what_is_attached_without_a_link(mounted: Mount) -> None:
    with loaded() as made, made.program("on_egress") as program, cgroup("direct") as path:
        assert info_of(mounted, program)["attached_to"] == []
        with to_cgroup(program, path, Attach.CGROUP_INET_EGRESS):
            wanted = f"cgroup /{path.name} (cgroup_inet_egress)"
            becomes(mounted, program, "attached_to", [wanted])
        becomes(mounted, program, "attached_to", [])


def test_a_map_that_an_iterator_goes_through(mounted: Mount) -> None:
    with loaded("links_iterators") as made, made.map("numbers") as numbers:
        with made.program("each_element") as program, over_map(program, numbers) as link:
            becomes(mounted, numbers, "link_ids", [link.info.id])
            assert info_of(mounted, link)["map_id"] == numbers.info.id
        becomes(mounted, numbers, "link_ids", [])


def test_programs_of_a_map_that_is_registered(mounted: Mount, bpffs: Path) -> None:
    with workshop(bpffs) as made:
        congestion = made.sample(MapType.STRUCT_OPS)
        numbers = info_of(mounted, congestion)["member_prog_ids"]
        assert len(numbers) == 3
        for number in numbers:
            told = info_of(mounted, f".by-id/programs/{number}")
            assert told["struct_ops_map_ids"] == [congestion.info.id]


def test_a_link_is_moved_to_another_program(mounted: Mount) -> None:
    with (
        network() as net,
        loaded("links_swap") as made,
        made.program("first") as first,
        made.program("second") as second,
        in_namespace(
            net.server, lambda: create(first, socket.if_nametoindex("veth0"), Attach.XDP, flags=2)
        ) as link,
    ):
        mounted.pin("first", first)
        mounted.pin("second", second)
        mounted.pin("link", link)
        number = [link.info.id]
        assert info_of(mounted, "first")["link_ids"] == number
        # Through the mount: seen at once.
        said = mounted.sh(
            "cat first/info >/dev/null && ln -sfn ../second link/prog &&"
            "jq -c .link_ids first/info.json second/info.json"
        )
        assert said.stdout.split() == ["[]", f"[{link.info.id}]"], said
        # By somebody else.
        link.update(first)
        becomes(mounted, "first", "link_ids", number)
        becomes(mounted, "second", "link_ids", [])
        assert info_of(mounted, "link")["prog_id"] == first.info.id


# Pins.


def test_pins_come_and_go(mounted: Mount) -> None:
    with make_map() as made, mounted_bpffs() as other:
        assert info_of(mounted, made)["pins"] == []
        paths = [f"{other}/a b", f"{mounted.source}/sub/one"]
        (mounted.source / "sub").mkdir()
        for path in paths:
            pin(Path(path), made)
        eventually("both", lambda: sorted(info_of(mounted, made)["pins"]) == sorted(paths), SOON)
        assert sorted(info_of(mounted, "sub/one")["pins"]) == sorted(paths)
        os.unlink(paths[0])
        becomes(mounted, made, "pins", paths[1:])
        rename(Path(paths[1]), mounted.source / "two", RenameFlags.REPLACE)
        becomes(mounted, made, "pins", [f"{mounted.source}/two"])


def test_what_is_done_through_the_mount_is_seen_at_once(mounted: Mount) -> None:
    with make_map() as made:
        show = f"jq -c .pins {where(made)}/info.json"
        said = mounted.sh(
            f"{show}; echo one > {where(made)}/pin; {show}; mv one two; {show}; mkdir sub;"
            f"mv two sub/; {show}; rmdir sub/two; {show}"
        )
        names = ("one", "two", "sub/two")
        wanted = [[], *([f"{mounted.source}/{name}"] for name in names), []]
        assert [json.loads(line) for line in said.stdout.splitlines()] == wanted, said


@pytest.mark.parametrize("name", ["a\nb", "\udcff", 'x"\\', "grün"])
def test_names_of_any_bytes(mounted: Mount, name: str) -> None:
    with make_map() as made:
        mounted.pin(name, made)
        shown = f"{mounted.source}/{name}".replace("\udcff", "\\xff")
        assert info_of(mounted, made)["pins"] == [shown]
        assert len((mounted.path / where(made) / "info").read_text().splitlines()) == len(
            info_of(mounted, made)
        )


def test_a_bpffs_below_the_mount_itself(mounted: Mount) -> None:
    (mounted.source / "sub").mkdir()
    with make_map() as made:
        mounted.pin("pin", made)
        with nested(mounted.path / "sub", BPFFS) as inside:
            pin(inside / "inner", made)
            # To look for a path there would be to ask oneself, and to wait for ever.
            said = mounted.sh("jq -c .pins pin/info.json", seconds=10)
            assert json.loads(said.stdout) == [f"{mounted.source}/pin"]
            assert (inside / "inner").exists()


@pytest.mark.parametrize("state", ["stopped", "dead"])
def test_a_bpffs_below_a_mount_that_does_not_answer(mounted: Mount, state: str) -> None:
    with make_map() as made, mounted_bpffs() as source, mounted_at(source) as other:
        mounted.pin("pin", made)
        (source / "sub").mkdir()
        inside = other.path / "sub"
        with nested(inside, BPFFS):
            pin(inside / "inner", made)
            other.process.send_signal(signal.SIGSTOP if state == "stopped" else signal.SIGKILL)
            try:
                began = time.monotonic()
                said = mounted.sh("jq -c .pins pin/info.json", seconds=10)
                assert time.monotonic() - began < 1
                assert json.loads(said.stdout) == [f"{mounted.source}/pin"]
            finally:
                other.process.send_signal(signal.SIGCONT)
                if state == "dead":
                    subprocess.run(["umount", "-l", inside, other.path], check=False)
                    other.process.wait(5)
                    other.process.returncode = 0  # as if it had ended well


# Holders.


@pytest.mark.parametrize("comm", [b"holder", b"\xff\xfe", b"a b: [c]"])
def test_holders(mounted: Mount, comm: bytes) -> None:
    with make_map() as made:
        us: Info = {"pid": os.getpid(), "comm": Path("/proc/self/comm").read_text().strip()}
        assert info_of(mounted, made)["holders"] == [us]
        with holding(made, comm) as process:
            shown = comm.decode("utf-8", "backslashreplace")
            both: list[Info] = [us, {"pid": process.pid, "comm": shown}]
            both.sort(key=lambda held: int(held["pid"]))
            becomes(mounted, made, "holders", both)
            process.close()
            becomes(mounted, made, "holders", [us])


def test_this_file_system_is_no_holder(mounted: Mount) -> None:
    with make_map() as made:
        mounted.pin("pin", made)
    with (mounted.path / "pin/info.json").open() as file:
        # It has it open for us as long as the file is.
        eventually("nobody", lambda: info_of(mounted, "pin")["holders"] == [], SOON)
        assert json.load(file)["id"] == info_of(mounted, "pin")["id"]


def test_holders_are_known_to_all_who_ask_at_once(mounted: Mount) -> None:
    with make_map() as made:
        mounted.pin("pin", made)
        command = "for i in {1..40}; do cat pin/info & (stat pin/info >/dev/null) & done; wait"
        for _ in range(3):
            said = mounted.sh(command).stdout
            assert said.count("holders: [{") == 40
            assert "not known" not in said


def test_who_closes_a_file_that_does_not_answer(mounted: Mount) -> None:
    """A process in execve(2) that waits for another file system to close its file."""
    with (
        make_map() as made,
        mounted_bpffs() as source,
        mounted_at(source) as other,
    ):
        mounted.pin("pin", made)
        other.pin("pin", load())
        script = (
            "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_CLOEXEC); print(flush=True);"
            "sys.stdin.readline(); os.execv('/bin/true', ['true'])"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, other.path / "pin/info"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin and process.stdout
            process.stdout.readline()
            other.process.send_signal(signal.SIGSTOP)
            try:
                process.stdin.write(b"\n")
                process.stdin.flush()
                # It has no command line between the old program and the new. (Others of its files
                # in /proc cannot be read then.)
                cmdline = Path(f"/proc/{process.pid}/cmdline")
                eventually("it is in execve", lambda: not cmdline.read_bytes())
                for _ in range(2):
                    began = time.monotonic()
                    said = mounted.sh("cat pin/info", seconds=10).stdout
                    assert time.monotonic() - began < 1
                    assert f'pins: ["{mounted.source}/pin"]' in said
                    assert 'holders: "not known: ' in said
            finally:
                other.process.send_signal(signal.SIGCONT)
            assert process.wait(10) == 0
        eventually(
            "it is known again", lambda: isinstance(info_of(mounted, "pin")["holders"], list), 5
        )


def test_who_closes_our_own_files(mounted: Mount) -> None:
    """Processes in execve(2) that wait for this file system to close their files."""
    with make_map() as made:
        mounted.pin("pin", made)
        script = (
            "import os, sys\n"
            "[os.open('pin/info', os.O_RDONLY | os.O_CLOEXEC) for _ in range(50)]\n"
            "os.execv('/bin/cat', ['cat', 'pin/info'])"
        )
        command = f'for i in {{1..15}}; do {sys.executable} -c "{script}" & done; wait'
        said = mounted.sh(command, seconds=30)
        assert said.stdout.count("holders: [{") == 15, said


# Thousands of open files.


def test_thousands_of_descriptors(mounted: Mount) -> None:
    with make_map() as made, ExitStack() as files:
        mounted.pin("pin", made)
        for _ in range(1100):
            files.enter_context((mounted.path / "pin/count").open())
        with make_map() as another:  # of which nothing is known yet
            assert mounted.sh(f"stat -c %s {where(another)}/info").code == 0
            assert info_of(mounted, another)["pins"] == []


# Who may know.


def test_who_may_know_where_others_are_let_in(mounter: Mounter) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with make_map() as made, load() as program, holding(made):
        for obj, name in ((made, "map"), (program, "program")):
            mount.pin(name, obj)
            becomes(mount, name, "pins", [f"{mount.source}/{name}"])
            alone = info_of(mount, name)
            assert "related" not in alone
            assert alone["holders"]
            mount.sh(f"chmod 644 {name}")
            for told in (nobody(mount, f"cat {name}/info.json"), mount.sh(f"cat {name}/info.json")):
                shown = json.loads(told.stdout)
                assert shown["related"].startswith("not shown: ")
                assert not {"pins", "holders", "prog_ids", "link_ids"} & {*shown}
                assert shown == {
                    field: shown[field] for field in shown if field in alone or field == "related"
                }
            assert info_of(mount, obj)["pins"] == [f"{mount.source}/{name}"]
            mount.sh(f"chmod 600 {name}")
            assert nobody(mount, f"cat {name}/info.json").stderr.endswith(DENIED)
            assert info_of(mount, name)["pins"] == [f"{mount.source}/{name}"]


def test_a_pin_of_somebody_else(mounter: Mounter) -> None:
    mount = mounter("-o", "allow_other")
    with make_map() as made:
        mount.pin("pin", made)
        mount.sh("chmod 755 . && chown 65534 pin")
        told = json.loads(nobody(mount, "cat pin/info.json").stdout)
        assert told["related"].startswith("not shown: ")
        assert "pins" not in told


def test_a_mount_for_root_alone_shows_all(mounted: Mount) -> None:
    with make_map() as made:
        mounted.pin("pin", made)
        mounted.sh("chmod 644 pin")
        told = info_of(mounted, "pin")
        assert "related" not in told
        assert told["pins"] == [f"{mounted.source}/pin"]


NEXT = ("MAP_GET_NEXT_ID", "PROG_GET_NEXT_ID", "LINK_GET_NEXT_ID", "BTF_GET_NEXT_ID")


def test_without_the_right_to_look(bpffs: Path, tmp_path: Path, mounter: Mounter) -> None:
    commands = tmp_path / "commands"
    commands.write_text("\n".join(NEXT))
    script = Path(__file__).with_name("powerless_command.py")
    mount = mounter(command=[sys.executable, str(script), str(commands)])
    with make_map() as made:
        mount.pin("pin", made)
        told = info_of(mount, "pin")
        assert told["related"].startswith("not known: ")
        assert told["id"] == made.info.id
        assert not {"pins", "holders", "prog_ids"} & {*told}
        said = mount.sh("ls pin; stat -c %s pin/info; cat pin/info")
        assert "related: not known" in said.stdout.replace('"', "")
        commands.write_text("")
        assert info_of(mount, "pin")["pins"] == [f"{bpffs}/pin"]
