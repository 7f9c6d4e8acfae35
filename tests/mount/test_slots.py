"""Maps of maps and arrays of programs: slots that are symbolic links to objects."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import dump, exists, make_map, u32, u64
from support.mounting import Mount
from support.network import compile_program
from support.running import run
from support.shell import checked
from support.standing import standing
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program

INNER_MAP = 1 << 12  # BPF_F_INNER_MAP
KINDS = [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name.lower())


def map_of_maps(kind: MapType, inner: Map) -> Map:
    """A map for maps like `inner`."""
    return Map.create(kind, key_size=4, value_size=4, max_entries=8, name="outer", inner=inner)


@pytest.fixture
def inner(mounted: Mount) -> Map:
    """A map that fits, pinned."""
    return mounted.pin("inner", make_map(MapType.ARRAY, max_entries=8))


def outer_of(mounted: Mount, kind: MapType, inner: Map) -> Map:
    """A map of maps, pinned, whose keys are shown as numbers."""
    outer = mounted.pin("outer", map_of_maps(kind, inner))
    if kind == MapType.HASH_OF_MAPS:
        mounted.sh("echo key: uint > outer/format")
    return outer


def held(outer: Map) -> dict[int, int]:
    """The ids of the maps in it, by key."""
    return {
        int.from_bytes(key, "little"): int.from_bytes(value, "little")
        for key, value in dump(outer).items()
    }


@each_kind
def test_a_slot_is_set_read_through_and_cleared(mounted: Mount, inner: Map, kind: MapType) -> None:
    outer = outer_of(mounted, kind, inner)
    inner.update(u32(7), u64(70))
    assert mounted.sh("ls outer/entries").stdout == ""
    assert mounted.sh("ln -s ../../inner outer/entries/3").code == 0
    assert held(outer) == {3: inner.info.id}
    assert mounted.sh("ls outer/entries; cat outer/count").stdout == "3\n1\n"
    assert mounted.sh("cat outer/entries/3/entries/7").stdout == "70\n"
    assert mounted.sh("echo 71 > outer/entries/3/entries/7").code == 0
    assert inner.lookup(u32(7)) == u64(71)
    target = f"../../.by-id/maps/{inner.info.id}"
    assert mounted.sh("readlink outer/entries/3; stat -c %F,%s outer/entries/3").stdout == (
        f"{target}\nsymbolic link,{len(target)}\n"
    )
    lines = mounted.sh("cat outer/entries.jsonl").stdout
    assert json.loads(lines) == {"key": 3, "value": inner.info.id}
    assert mounted.sh("rm outer/entries/3").code == 0
    assert held(outer) == {}
    assert mounted.sh("ls outer/entries; cat outer/count").stdout == "0\n"
    assert mounted.sh("rm outer/entries/3").stderr.endswith("No such file or directory\n")
    assert mounted.error_log("outer") == ""


@each_kind
@pytest.mark.parametrize(
    "target",
    ["../../inner", "MOUNT/inner", "../../.by-id/maps/ID", "MOUNT/.by-id/maps/ID", "../../inner/"],
)
def test_targets_of_all_kinds(mounted: Mount, inner: Map, kind: MapType, target: str) -> None:
    outer = outer_of(mounted, kind, inner)
    target = target.replace("MOUNT", str(mounted.path)).replace("ID", str(inner.info.id))
    result = mounted.sh(f"ln -s {target} outer/entries/5")
    assert (result.code, result.stderr) == (0, ""), mounted.error_log("outer")
    assert held(outer) == {5: inner.info.id}


def test_a_link_of_bpffs_is_followed(mounted: Mount, inner: Map) -> None:
    outer = outer_of(mounted, MapType.ARRAY_OF_MAPS, inner)
    assert (
        mounted.sh("mkdir d; ln -s ../inner d/link; ln -s ../../d/link outer/entries/0").code == 0
    )
    assert held(outer) == {0: inner.info.id}


@each_kind
def test_a_slot_is_replaced_in_one_step(mounted: Mount, inner: Map, kind: MapType) -> None:
    outer = outer_of(mounted, kind, inner)
    other = mounted.pin("other", make_map(MapType.ARRAY, max_entries=8))
    assert mounted.sh("ln -s ../../inner outer/entries/3").code == 0
    result = mounted.sh("ln -sfn ../../other outer/entries/3")
    assert (result.code, result.stderr) == (0, "")
    assert held(outer) == {3: other.info.id}
    assert mounted.sh("readlink outer/entries/3; ls outer/entries").stdout == (
        f"../../.by-id/maps/{other.info.id}\n3\n"
    )
    assert mounted.sh("ln -sfn ../../inner outer/entries/4; ls outer/entries").stdout == "3\n4\n"


@each_kind
def test_a_filled_slot_is_not_taken_for_an_empty_one(
    mounted: Mount, inner: Map, kind: MapType
) -> None:
    outer = outer_of(mounted, kind, inner)
    other = mounted.pin("other", make_map(MapType.ARRAY, max_entries=8))
    assert mounted.sh("ln -s ../../inner outer/entries/3").code == 0
    assert mounted.sh("ln -sT ../../other outer/entries/3").stderr.endswith("File exists\n")
    with pytest.raises(FileExistsError):
        os.symlink("../../other", mounted.path / "outer/entries/3")
    assert held(outer) == {3: inner.info.id}
    assert other.info.id != inner.info.id


@each_kind
def test_slots_are_moved(mounted: Mount, inner: Map, kind: MapType) -> None:
    outer = outer_of(mounted, kind, inner)
    assert mounted.sh("cd outer/entries; ln -s ../../inner 1; mv 1 2; ls").stdout == "2\n"
    assert held(outer) == {2: inner.info.id}
    assert mounted.sh("cd outer/entries; cp -P 2 3; ls").stdout == "2\n3\n"
    assert held(outer) == {2: inner.info.id, 3: inner.info.id}
    assert "No such file" in mounted.sh("mv outer/entries/6 outer/entries/7").stderr


@each_kind
def test_slots_are_copied(mounted: Mount, inner: Map, kind: MapType) -> None:
    """With all that tools keep of a link."""
    outer = outer_of(mounted, kind, inner)
    assert mounted.sh("ln -s ../../inner outer/entries/0").code == 0
    other = mounted.pin("other", map_of_maps(kind, inner))
    mounted.sh("[ -e other/format ] && echo key: uint > other/format")
    result = mounted.sh("cd outer/entries; cp -a 0 ../../other/entries/1; cp -P 0 2")
    assert (result.code, result.stderr) == (0, "")
    assert held(other) == {1: inner.info.id}
    assert held(outer) == dict.fromkeys((0, 2), inner.info.id)
    mounted.sh("mkdir deep")
    mounted.pin("deep/other", map_of_maps(kind, inner))
    mounted.sh("echo key: uint > deep/other/format")
    assert_refused(mounted, "deep/other/entries/0", f"../../.by-id/maps/{inner.info.id}", "no map")


def test_what_is_above_a_link_is_above_what_it_leads_to(mounted: Mount) -> None:
    """As for the kernel, which goes by what is there, and not by the text of a path."""
    fits = make_map(MapType.ARRAY, max_entries=8)
    for path in ("one/two", "three"):
        os.makedirs(mounted.source / path)
    mounted.pin("inner", make_map(MapType.ARRAY, max_entries=8))
    right = mounted.pin("one/inner", fits)
    outer = mounted.pin("three/outer", map_of_maps(MapType.ARRAY_OF_MAPS, fits))
    os.symlink("one/two", mounted.source / "link")
    for number, target in enumerate(("../../../link/..", f"{mounted.path}/link/..")):
        assert mounted.sh(f"ln -s {target}/inner three/outer/entries/{number}").code == 0
    assert held(outer) == {0: right.info.id, 1: right.info.id}
    for target, reason in {
        "../../../nothing/../inner": "is no map and no program",
        "../../../inner/info/../../inner": "is no map and no program",
        "../../../../inner": "is not in this mount",
        "0": "three/outer/entries/0 is a slot: name what it leads to",
    }.items():
        assert mounted.sh(f"ln -s {target} three/outer/entries/2").code == 1
        assert reason in mounted.error_log("three/outer"), target
    assert set(held(outer)) == {0, 1}


def test_what_does_not_fit_is_refused_with_the_reason(mounted: Mount, inner: Map) -> None:
    outer = outer_of(mounted, MapType.ARRAY_OF_MAPS, inner)
    mounted.pin("hash", make_map(MapType.HASH, max_entries=8))
    mounted.pin("wide", make_map(MapType.ARRAY, value="config", max_entries=8))
    mounted.pin("long", make_map(MapType.ARRAY, max_entries=9))
    general = "a map fits whose type, sizes and flags are those that this one was made for"
    assert_refused(mounted, "outer/entries/1", "../../long", general)
    assert mounted.sh("ln -s ../../inner outer/entries/0").code == 0
    for target, reason in {
        "../../hash": "its type is hash, and those here have array",
        "../../wide": "its value_size is 28, and those here have 8",
        "../../long": "its max_entries is 9, and those here have 8",
        "../../nothing": "nothing in this mount is no map and no program",
        "../..": "/ in this mount is no map and no program",
        "../../..": f".. is not in this mount, which is {mounted.path}"[:60],
        "../../outer/entries": "outer/entries in this mount is no map and no program",
        "/etc": f"/etc is not in this mount, which is {mounted.path}"[:60],
        "../../.by-id/maps/999999999": "there is no map with the id 999999999",
        "../../.by-id/maps/x": ".by-id/maps/x is no object",
        "../../.by-id/apples/1": ".by-id/apples/1 is no object",
    }.items():
        assert_refused(mounted, "outer/entries/1", target, reason)
    assert_refused(mounted, "outer/entries/8", "../../inner", "index 8 is past the end")
    assert_refused(mounted, "outer/entries/x", "../../inner", "expected an integer")
    assert held(outer) == {0: inner.info.id}


def assert_refused(mounted: Mount, link: str, target: str, reason: str) -> None:
    """Neither `ln -s` nor `ln -sf` makes this link, and the log has the reason."""
    for option in ("-sT", "-sfT"):
        result = mounted.sh(f"ln {option} {target} {link}")
        assert (result.code, result.stderr.rpartition(": ")[2]) == (1, "Invalid argument\n"), target
        assert reason in mounted.error_log(link.partition("/entries/")[0])


def test_an_inner_array_of_another_length_fits_where_it_may(mounted: Mount) -> None:
    inner = mounted.pin("inner", make_map(MapType.ARRAY, max_entries=8, flags=INNER_MAP))
    outer = outer_of(mounted, MapType.ARRAY_OF_MAPS, inner)
    longer = mounted.pin("longer", make_map(MapType.ARRAY, max_entries=9, flags=INNER_MAP))
    assert mounted.sh("ln -s ../../longer outer/entries/0").code == 0
    assert held(outer) == {0: longer.info.id}


@each_kind
def test_other_ways_to_make_an_entry_are_refused(mounted: Mount, inner: Map, kind: MapType) -> None:
    outer = outer_of(mounted, kind, inner)
    for command in ("echo 5 > 1", "touch 1", "mkdir 1", "mkfifo 1", "cp ../info 1"):
        result = mounted.sh(f"cd outer/entries; {command}")
        assert result.code == 1, command
        assert result.stderr.endswith("Operation not permitted\n"), command
    assert "ln -s makes one" in mounted.error_log("outer")
    assert held(outer) == {}


def test_a_scratch_link_is_private_until_it_is_renamed(mounted: Mount, inner: Map) -> None:
    outer = outer_of(mounted, MapType.ARRAY_OF_MAPS, inner)
    entries = mounted.path / "outer/entries"
    (entries / ".scratch").symlink_to("../../inner")
    assert os.readlink(entries / ".scratch") == "../../inner"
    assert os.listdir(entries) == [".scratch"]
    assert held(outer) == {}
    (entries / ".scratch").rename(entries / "6")
    assert held(outer) == {6: inner.info.id}
    assert not os.path.lexists(entries / ".scratch")
    (entries / ".scratch").symlink_to("../../inner")
    (entries / ".scratch").unlink()
    assert not os.path.lexists(entries / ".scratch")
    assert held(outer) == {6: inner.info.id}


@each_kind
def test_the_mount_keeps_no_inner_map_alive(mounted: Mount, kind: MapType) -> None:
    with make_map(MapType.ARRAY, max_entries=8) as inner:
        inner_id = inner.info.id
        outer_of(mounted, kind, inner)
        mounted.pin("inner", inner)
    assert mounted.sh("cd outer/entries; ln -s ../../inner 3; cat 3/entries/1; ls -l").code == 0
    mounted.sh("rmdir inner")
    assert mounted.sh("cat outer/entries/3/info | grep ^id").stdout == f"id: {inner_id}\n"
    assert mounted.sh("rm outer/entries/3").code == 0
    eventually("the inner map is gone", lambda: not exists(Map, inner_id), 1)


def test_a_frozen_map_of_maps(mounted: Mount, inner: Map) -> None:
    outer = outer_of(mounted, MapType.ARRAY_OF_MAPS, inner)
    assert mounted.sh("ln -s ../../inner outer/entries/0; echo 1 > outer/frozen").code == 0
    for command in ("ln -s ../../inner 1", "rm 0", "mv 0 1"):
        result = mounted.sh(f"cd outer/entries; {command}")
        assert result.stderr.endswith("Operation not permitted\n"), command
        assert "the map is frozen" in mounted.error_log("outer")
    assert held(outer) == {0: inner.info.id}


def test_links_after_a_directory_was_moved_in_bpffs(mounted: Mount) -> None:
    """Who stands in it may stay; what is meant by `..` is not known until it is looked up again."""
    for path in ("deep/directory", "directory"):
        os.makedirs(mounted.source / path, exist_ok=True)
    fits = make_map(MapType.ARRAY, max_entries=8)
    wrong = mounted.pin("inner", make_map(MapType.ARRAY, max_entries=8))
    right = mounted.pin("deep/directory/inner", fits)
    outer = mounted.pin("deep/directory/outer", map_of_maps(MapType.ARRAY_OF_MAPS, fits))
    outer.update(u32(1), u32(right.fd))
    with standing(mounted.path / "deep/directory/outer/entries") as shell:
        assert shell("ls") == "1\n"
        os.rename(mounted.source / "deep/directory", mounted.source / "directory")
        eventually("it is seen", lambda: mounted.sh("ls deep/directory").code)
        said, code = shell.run("ln -s ../../inner 2")
        assert (code, "Invalid argument" in said) == (1, True)
        target = f".by-id/maps/{right.info.id}"
        eventually("it is", lambda: shell("readlink 1") == f"{mounted.path}/{target}\n", 1)
        assert shell("cat 1/info") == mounted.sh("cat directory/inner/info").stdout
        assert held(outer) == {1: right.info.id}
        assert "this directory was moved" in mounted.error_log("directory/outer")
    assert mounted.sh("readlink directory/outer/entries/1").stdout == f"../../../{target}\n"
    assert mounted.sh("cd directory/outer/entries; ln -s ../../inner 2").code == 0
    assert held(outer)[2] == right.info.id != wrong.info.id


def test_what_a_user_may_not_open_is_no_target(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .; mkdir -m 700 secret")
    with make_map(MapType.ARRAY, max_entries=8) as inner, map_of_maps(KINDS[0], inner) as outer:
        for name in ("inner", "open", "secret/inner", "outer"):
            mount.pin(name, inner if name != "outer" else outer)
        os.chmod(mount.source / "outer", 0o666)
        os.chmod(mount.source / "open", 0o644)
        os.chmod(mount.source / "secret/inner", 0o666)
        for target in ("inner", "secret/inner", f".by-id/maps/{inner.info.id}"):
            result = nobody(mount, f"ln -s ../../{target} outer/entries/1")
            assert (result.code, result.stderr.endswith(DENIED)) == (1, True), target
        assert nobody(mount, "ls .by-id").stderr.endswith(DENIED)
        assert held(outer) == {}
        assert nobody(mount, "ln -s ../../open outer/entries/1").code == 0
        assert held(outer) == {1: inner.info.id}
        assert nobody(mount, "mv outer/entries/1 outer/entries/2").code == 1
        assert nobody(mount, "cat outer/entries/1/info").stderr.endswith(DENIED)
        assert nobody(mount, "rm outer/entries/1").code == 0
        assert held(outer) == {}


# Tail calls.


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of the programs."""
    return compile_program("tail_call", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def caller(mounted: Mount, compiled: Path) -> Iterator[Program]:
    """The program that calls what is in slot 2 of `maps/table`; others are in `programs`."""
    for name in ("programs", "maps"):
        os.mkdir(mounted.source / name)
    programs, maps = mounted.source / "programs", mounted.source / "maps"
    checked("bpftool", "prog", "loadall", compiled, programs, "pinmaps", maps)
    directory = Directory(str(programs))
    opened = directory.open_pin("caller", directory.stat("caller").st_ino)
    assert isinstance(opened, Program)
    with opened:
        yield opened


def test_a_tail_call_that_was_wired_here_is_taken(mounted: Mount, caller: Program) -> None:
    table = "cd maps/table/entries"
    assert run(caller) == 1
    assert mounted.sh(f"{table}; ln -s ../../../programs/first 2").code == 0
    assert run(caller) == 11
    assert mounted.sh(f"{table}; ln -sfn ../../../programs/second 2").code == 0
    assert run(caller) == 22
    assert mounted.sh(f"{table}; grep name 2/info; ls").stdout == "name: second\n2\n"
    assert mounted.sh(f"{table}; mv 2 3").code == 0
    assert run(caller) == 1
    assert mounted.sh(f"{table}; mv 3 2; ls").stdout == "2\n"
    assert run(caller) == 22
    assert mounted.sh(f"{table}; rm 2; ls").stdout == ""
    assert run(caller) == 1


def test_a_program_that_cannot_be_called(mounted: Mount, caller: Program) -> None:
    wanted = "it is of type sched_cls, and programs of type socket_filter call through this map"
    for target, reason in {
        "../../../programs/other": wanted,
        "../../../maps/table": "expected a program, and ../../../maps/table is a map",
    }.items():
        result = mounted.sh(f"ln -s {target} maps/table/entries/1")
        assert result.stderr.endswith("Invalid argument\n")
        assert reason in mounted.error_log("maps/table")
    assert mounted.sh("ls maps/table/entries").stdout == ""
    assert mounted.sh("cat maps/table/info").stdout.count("owner_prog_type: socket_filter") == 1
