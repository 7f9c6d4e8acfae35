"""`.by-id/`: objects by their ids, pinned or not, for root."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.links import loaded, raw_tracepoint
from support.maps import exists, make_map, pin, types, u32, u64
from support.mounting import COMMAND, Mount
from support.network import compile_program, network, pin_attached
from support.programs import load
from support.shell import checked, run
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.tree.targets import path_by_id

# Nobody waits longer, however much there is.
GENEROUS = 2.0
MAPS, PROGRAMS = 5000, 2000


def where(obj: Object) -> str:
    """Where an object is below `.by-id/`."""
    return "/".join(path_by_id(type(obj), obj.info.id))


def test_a_map_that_is_pinned_nowhere(mounted: Mount) -> None:
    with make_map() as made:
        made.update(u32(1), u64(101))
        path = mounted.path / f".by-id/maps/{made.info.id}"
        assert (path / "entries/1").read_text() == "101\n"
        (path / "entries/2").write_text("7\n")
        assert made.lookup(u32(2)) == u64(7)
        (path / "format").write_text("value: hex\n")
        assert (path / "entries/2").read_text() == '"0x7"\n'
        assert json.loads((path / "info.json").read_text())["id"] == made.info.id
        assert mounted.sh(f"cd {path}; ls; stat -c '%A %U' . info pin").stdout.splitlines() == [
            "btf", "count", "entries", "entries.jsonl", "error_log", "format", "frozen",
            "info", "info.json", "pin", "types.h", "drwx------ root", "-r-------- root",
            "--w------- root",
        ]  # fmt: skip


def test_it_goes_with_the_object(mounted: Mount) -> None:
    with make_map() as made:
        map_id = made.info.id
        path = mounted.path / f".by-id/maps/{map_id}"
        (path / "info").read_text()
        assert str(map_id) in os.listdir(path.parent)
    eventually("the map is gone", lambda: not exists(Map, map_id), 1)
    for name in ("info", "entries"):
        with pytest.raises(FileNotFoundError):
            os.open(path / name, os.O_RDONLY)
    eventually("its directory is gone", lambda: not path.exists(), 1)
    assert str(map_id) not in os.listdir(path.parent)


def test_it_is_reached_and_not_listed(mounted: Mount) -> None:
    assert ".by-id" not in os.listdir(mounted.path)
    assert mounted.sh("ls .by-id").stdout == "btfs\ngraph.dot\ngraph.svg\nlinks\nmaps\nprograms\n"
    assert (
        mounted.sh("stat -c '%A %U:%G' .by-id .by-id/maps").stdout == "dr-x------ root:root\n" * 2
    )
    assert ".by-id" not in mounted.sh("find .").stdout


def test_names_that_are_no_ids(mounted: Mount) -> None:
    with make_map() as made:
        wrong = ["0", "x", f"0{made.info.id}", f"+{made.info.id}", "4294967295", "99999999999", "²"]
        for name in wrong:
            for kind in ("maps", "programs", "links"):
                with pytest.raises(FileNotFoundError):
                    (mounted.path / ".by-id" / kind / name).stat()
    with pytest.raises(FileNotFoundError):
        (mounted.path / ".by-id/apples").stat()


@pytest.mark.parametrize(
    "command",
    ["mkdir .by-id/x", "touch .by-id/x", "rmdir .by-id", "mv .by-id x", "ln -s a .by-id/maps/9",
     "rmdir .by-id/maps", "mkdir .by-id", "rmdir .by-id/maps/ID", "chmod 755 .by-id"],
)  # fmt: skip
def test_nothing_is_made_or_removed_there(mounted: Mount, command: str) -> None:
    with make_map() as made:
        result = mounted.sh(command.replace("ID", str(made.info.id)))
        assert result.code == 1
        assert result.stderr.endswith(
            ("Operation not permitted\n", "File exists\n", "Directory not empty\n")
        )


def test_it_is_roots(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 777 .")
    with make_map() as made:
        for command in ("ls .by-id", f"cat .by-id/maps/{made.info.id}/info", "cd .by-id/maps"):
            assert nobody(mount, command).stderr.endswith(DENIED), command


def test_programs_and_links(mounted: Mount, tmp_path: Path) -> None:
    compiled = compile_program("xdp_count", tmp_path)
    checked("bpftool", "prog", "load", compiled, mounted.source / "program")
    with network() as net:
        pin_attached(net, mounted.source / "program", mounted.source / "link")
        link = json.loads(mounted.sh("cat link/info.json").stdout)
        program = json.loads(mounted.sh("cat program/info.json").stdout)
        assert link["prog_id"] == program["id"]
        for directory, said, kind in (("programs", program, Program), ("links", link, Link)):
            path = f".by-id/{directory}/{said['id']}"
            assert json.loads(mounted.sh(f"cat {path}/info.json").stdout) == said
            assert str(said["id"]) in mounted.sh(f"ls .by-id/{directory}").stdout.split()
            assert exists(kind, said["id"])
        mounted.sh("rmdir link program")
        eventually("the link is gone", lambda: not exists(Link, link["id"]), 1)
        assert mounted.sh(f"cat .by-id/links/{link['id']}/info").code == 1


@pytest.mark.parametrize("kind", ["map", "program", "link"])
def test_objects_that_go_are_gone(mounted: Mount, kind: str) -> None:
    with (
        loaded() as some,
        some.program("on_raw_tracepoint") as traced,
        make_map() as bpf_map,
        load() as program,
        raw_tracepoint(traced, "sys_enter", 1) as link,
    ):
        objects: dict[str, Object] = {"map": bpf_map, "program": program, "link": link}
        obj = objects[kind]
        object_id, path = obj.info.id, mounted.path / where(obj)
        assert json.loads((path / "info.json").read_text())["id"] == object_id
        assert path.name in os.listdir(path.parent)
        obj.close()
        eventually("it is gone", lambda: not exists(type(obj), object_id), 1)
        assert path.name not in os.listdir(path.parent)
        with pytest.raises(FileNotFoundError):
            os.open(path / "info", os.O_RDONLY)
        eventually("nor is it found", lambda: not path.exists(), 1)


# Whether it is listed.


@pytest.mark.parametrize(
    ("options", "listed"),
    [([], False), (["-o", "by_id=hidden"], False), (["-o", "ro,by_id=visible"], True)],
    ids=["default", "hidden", "visible"],
)
def test_it_is_listed_where_that_is_wanted(
    mounter: Callable[..., Mount], options: list[str], listed: bool
) -> None:
    mount = mounter(*options)
    with make_map() as made:
        pin(mount.source / "map", made)
        assert (".by-id" in os.listdir(mount.path)) == listed
        assert ".by-id" not in os.listdir(mount.path / "map")
        assert (mount.path / where(made) / "info").exists()
        found = mount.sh("find . -maxdepth 4").stdout.splitlines()
        assert (f"./{where(made)}/info" in found) == listed
        assert "./map/info" in found


@pytest.mark.parametrize("value", ["yes", "Visible", "", "visible=1"])
def test_another_value_is_refused(bpffs: Path, tmp_path: Path, value: str) -> None:
    result = run([*COMMAND, str(bpffs), str(tmp_path), "-o", f"by_id={value}"])
    said = f"bpf-fusefs: by_id is 'hidden' or 'visible', not '{value}'\n"
    assert (result.code, result.stdout, result.stderr) == (2, "", said)
    assert not os.path.ismount(tmp_path)


def test_who_walks_through_all_comes_to_an_end(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "by_id=visible")
    with make_map(name="needle") as made, load(name="needle") as program:
        made.update(u32(1), u64(1))
        # Not through the entries of others' maps, which may be millions, or empty slots as many.
        theirs = f"-name entries -not -path './{where(made)}/*' -prune"
        found = mount.sh(f"find . {theirs} -o -type f -print").stdout.splitlines()
        assert {f"./{where(made)}/{name}" for name in ("info", "entries/1")} <= {*found}
        # Nor the types of the kernel, and graphs, for which all objects are looked at each time.
        without = "--exclude-dir={btfs,entries} --exclude={graph.*,entries.jsonl,count}"
        said = mount.sh(f"grep -rs {without} '^name: needle$' .")
        wanted = {f"./{where(obj)}/info:name: needle" for obj in (made, program)}
        assert wanted <= {*said.stdout.splitlines()}
        some = f"{where(types().btf)} {where(made)} {where(program)}"
        assert f"{where(types().btf)}/types.h" in mount.sh(f"grep -rls MODE_WATCH {some}").stdout


# Thousands.


@contextlib.contextmanager
def thousands() -> Iterator[tuple[set[int], set[int]]]:
    """The ids of so many maps and programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAPS + PROGRAMS + 1000
    if hard < wanted:
        pytest.skip(f"takes {wanted} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        with contextlib.ExitStack() as stack:
            objects: list[Object] = []
            for number in range(MAPS + PROGRAMS):
                made = small_map() if number < MAPS else load(name="one_of_many")
                objects.append(stack.enter_context(made))
            ids = [obj.info.id for obj in objects]
            yield {*ids[:MAPS]}, {*ids[MAPS:]}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def small_map() -> Map:
    """A map that takes little memory."""
    return Map.create(MapType.ARRAY, key_size=4, value_size=8, max_entries=1, name="one_of_many")


def listed(mount: Mount, kind: str) -> set[int]:
    """The ids that are listed."""
    return {int(name) for name in os.listdir(mount.path / ".by-id" / kind)}


def longest_wait(mount: Mount, command: str) -> float:
    """How long others waited at most for an answer while somebody ran a command."""
    waits: list[float] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(mount.sh, command)
        while not running.done() or not waits:
            began = time.monotonic()
            assert mount.sh("stat -t pin && cat pin/entries/1").stdout.endswith("101\n")
            waits.append(time.monotonic() - began)
        assert running.result().code == 0
    return max(waits)


def test_thousands(mounted: Mount) -> None:
    with make_map() as made:
        made.update(u32(1), u64(101))
        mounted.pin("pin", made)
        with thousands() as (maps, programs):
            assert longest_wait(mounted, "ls .by-id/maps .by-id/programs") < GENEROUS
            assert longest_wait(mounted, "cat pin/info") < GENEROUS
            assert longest_wait(mounted, "cat .by-id/graph.dot") < GENEROUS
            assert maps <= listed(mounted, "maps")
            assert programs <= listed(mounted, "programs")
            told = json.loads(mounted.sh("cat pin/info.json").stdout)
            assert told["pins"] == [f"{mounted.source}/pin"]
    eventually("the maps are gone", lambda: not listed(mounted, "maps") & maps, 20)
    eventually("so are the programs", lambda: not listed(mounted, "programs") & programs, 20)
