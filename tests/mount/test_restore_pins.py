"""Restoring pins: those that are there, their owners, maps that belong together, names."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32, u64, value_of
from support.mounting import Mount, empty
from support.restoring import (
    TOOLS,
    config,
    copied,
    edited,
    pinned,
    replace,
    restore,
    second_line,
    told,
)
from support.samples import workshop
from support.sections import section_map

from fusefs.bpf.map import Map, MapType

RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
each_tool = pytest.mark.parametrize("tool", TOOLS)
MANY = 4096  # entries that an LRU may have before it throws any out


SLOTS = [MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS]


# Pins that are there, owners, and maps that belong together.


def test_force_sets_entries(mounted: Mount, tmp_path: Path) -> None:
    """Of maps of the same kind alone; what the copy does not have stays."""
    copy = config(mounted, tmp_path)
    (mounted.source / "fw").mkdir()
    with mounted.pin("fw/config", make_map(value="config", max_entries=8)) as there:
        for number in (1, 7):
            there.update(u32(number), bytes(28))
        assert restore(tmp_path, mounted.source).stdout == "fw/config: there, left alone\n"
        assert dump(there) == {u32(number): bytes(28) for number in (1, 7)}
        result = restore("--force", tmp_path, mounted.source)
        assert (result.code, result.stderr) == (0, "")
        assert result.stdout == "fw/config: set, 3 of 4 entries\n"
        assert sorted(dump(there)) == [u32(number) for number in (0, 1, 2, 7)]
        assert dump(there)[u32(1)] == bytes([1, 0, 0, 0, 1, *bytes(23)])
        cases: list[tuple[str, object, str]] = [
            ("value_size", 8, "its value_size is 28, and that of the copy 8"),
            ("type", "array", "its type is hash, and that of the copy array"),
        ]
        for field, value, why in cases:
            kept = (copy / "info.json").read_text()
            edited(**{field: value})(copy)
            result = restore("--force", tmp_path, mounted.source)
            assert (result.code, result.stdout) == (1, "")
            assert result.stderr.endswith(f"fw/config: another map is there: {why}\n")
            replace(copy / "info.json", kept)
        second_line(copy)
        assert ":2: value.mode: " in restore("--force", tmp_path, mounted.source).stderr
        there.freeze()
        result = restore("--force", tmp_path, mounted.source)
        assert result.stderr.endswith("fw/config: the map that is there is frozen\n")


def test_owner_and_mode(mounted: Mount, tmp_path: Path) -> None:
    """Pins are root's alone, unless those of the copy are wanted."""
    (mounted.source / "fw").mkdir(mode=0o755)
    (mounted.source / "fw").chmod(0o751)
    with mounted.pin("fw/flows", make_map()):
        os.chown(mounted.source / "fw/flows", 1000, 1001)
        (mounted.source / "fw/flows").chmod(0o640)
    copied(mounted, "fw", "cp -a", tmp_path)
    wanted = {"-p": [(0o751, 0, 0), (0o640, 1000, 1001)], "": [(0o700, 0, 0), (0o600, 0, 0)]}
    for option, modes in wanted.items():
        empty(mounted)
        assert restore(*[option] * bool(option), tmp_path, mounted.source).code == 0
        for name, mode in zip(["fw", "fw/flows"], modes, strict=True):
            status = (mounted.source / name).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == mode


@each_tool
def test_two_pins_of_a_map_are_one_again(mounted: Mount, tmp_path: Path, tool: str) -> None:
    with make_map() as sample:
        sample.update(u32(1), u64(2))
        (mounted.source / "fw").mkdir()
        for name in ("one", "two"):
            mounted.pin(f"fw/{name}", sample)
        (mounted.source / "fw/link").symlink_to("two")
    copied(mounted, "fw", tool, tmp_path)
    words = {
        "link": "made, a symbolic link",
        "one": "made, 1 entry",
        "two": "pinned, the same map as fw/one",
    }
    for gone in (["one", "two", "link"], ["two"], ["one"]):
        for name in gone:
            (mounted.source / "fw" / name).unlink()
        lines = restore(tmp_path, mounted.source).stdout.splitlines()
        assert len(lines) == 3
        for name in gone:
            expected = (
                words[name] if len(gone) > 1 else f"pinned, the same map as fw/{others[name]}"
            )
            assert f"fw/{name}: {expected}" in lines
        ids = {pinned(mounted.source / "fw" / name).info.id for name in ("one", "two")}
        assert len(ids) == 1
    assert os.readlink(mounted.source / "fw/link") == "two"


others = {"one": "two", "two": "one"}


@each_tool
@pytest.mark.parametrize("kind", SLOTS, ids=lambda kind: kind.name.lower())
def test_maps_in_maps(mounted: Mount, tmp_path: Path, kind: MapType, tool: str) -> None:
    """What is in a slot is the map that is pinned, whichever of them comes first."""
    (mounted.source / "fw").mkdir()
    names = ["a", "z"]
    with ExitStack() as stack:
        inner = [stack.enter_context(make_map(MapType.ARRAY, max_entries=2)) for _ in range(3)]
        for number, each in enumerate(inner):
            each.update(u32(0), u64(number))
        for name, each in zip(names, inner, strict=False):
            mounted.pin(f"fw/{name}", each)
        outer = Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner[0])
        mounted.pin("fw/outer", stack.enter_context(outer))
        for number, each in enumerate(inner):
            outer.update(u32(number), u32(each.fd))
        copied(mounted, "fw", tool, tmp_path)
        unpinned = inner[2].info.id
    empty(mounted)
    result = restore(tmp_path, mounted.source)
    assert "fw/outer: made, 2 of 3 entries\n" in result.stdout
    assert f": left out: map {unpinned}, which was in it, is not in the copy\n" in result.stderr
    assert result.code == 1
    slots = dump(pinned(mounted.source / "fw/outer"))
    assert len(slots) == 2
    for number, name in enumerate(names):
        again = pinned(mounted.source / "fw" / name)
        assert slots[u32(number)] == u32(again.info.id)
        assert dump(again) == {u32(0): u64(number), u32(1): u64(0)}


@pytest.mark.parametrize("kind", SLOTS, ids=lambda kind: kind.name.lower())
def test_maps_in_maps_that_are_not_pinned(mounted: Mount, tmp_path: Path, kind: MapType) -> None:
    """Who follows symbolic links has a copy of them."""
    with (
        make_map(value="config", max_entries=3) as inner,
        mounted.pin(
            "outer", Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner)
        ) as outer,
    ):
        inner.update(u32(9), bytes([1, *bytes(27)]))
        for slot in (1, 2):
            outer.update(u32(slot), u32(inner.fd))
        result = mounted.sh(f"cp -rL outer {tmp_path}")  # `pin` is for writing alone
        assert all("/pin' for reading" in line for line in result.stderr.splitlines())
    empty(mounted)
    result = restore(tmp_path, mounted.source)
    assert (result.code, result.stdout, result.stderr) == (0, "outer: made, 2 entries\n", "")
    slots = dump(pinned(mounted.source / "outer"))
    assert sorted(slots) == [u32(1), u32(2)]
    assert slots[u32(1)] == slots[u32(2)]
    with Map.from_id(int.from_bytes(slots[u32(1)], "little")) as again:
        assert dump(again) == {u32(9): bytes([1, *bytes(27)])}


def test_maps_by_their_ids_are_no_pins(mounted: Mount, tmp_path: Path) -> None:
    """A copy of .by-id/ that is beside them has the maps that are in slots, and makes no pins."""
    with make_map(MapType.ARRAY, max_entries=2) as inner:
        inner.update(u32(1), u64(5))
        made = Map.create(
            MapType.ARRAY_OF_MAPS, key_size=4, value_size=4, max_entries=4, inner=inner
        )
        with mounted.pin("outer", made) as outer:
            outer.update(u32(3), u32(inner.fd))
        (tmp_path / ".by-id/maps").mkdir(parents=True)
        copied(mounted, "outer", "rsync", tmp_path)
        by_id = f".by-id/maps/{inner.info.id}"
        assert mounted.sh(f"rsync -a --exclude pin {by_id} {tmp_path}/.by-id/maps").code == 0
    empty(mounted)
    assert restore(tmp_path, mounted.source).stdout == "outer: made, 1 entry\n"
    slots = dump(pinned(mounted.source / "outer"))
    with Map.from_id(int.from_bytes(slots[u32(3)], "little")) as again:
        assert dump(again) == {u32(0): u64(0), u32(1): u64(5)}


def test_programs_and_links_are_told(mounted: Mount, tmp_path: Path) -> None:
    with workshop(mounted.source) as shop:
        shop.program("fill")
        copied(mounted, "programs", "rsync", tmp_path)
    empty(mounted)
    result = restore(tmp_path, mounted.source)
    assert (result.code, result.stdout) == (1, "")
    assert f"{tmp_path}/programs/fill: a program is for its loader to load\n" in result.stderr
    assert os.listdir(mounted.source) == [] or "programs" not in os.listdir(mounted.source)


# Names and formats.


def test_formats_go_along(mounted: Mount, tmp_path: Path) -> None:
    """Those that were set when it was copied tell how its texts are to be read."""
    with mounted.pin("blocked", make_map(key=4, value=6)) as sample:
        sample.update(bytes([192, 0, 2, 7]), bytes(range(6)))
        assert mounted.sh("printf 'key: ipv4\\nvalue: mac\\n' > blocked/format").code == 0
        copied(mounted, "blocked", "rsync", tmp_path)
        before = dump(sample)
    assert os.listdir(tmp_path / "blocked/entries") == ["192.0.2.7"]
    empty(mounted)
    assert restore(tmp_path, mounted.source).stdout == "blocked: made, 1 entry\n"
    assert dump(pinned(mounted.source / "blocked")) == before


def test_sums_of_cpus_cannot_be_restored(mounted: Mount, tmp_path: Path) -> None:
    with mounted.pin("sums", make_map(MapType.PERCPU_HASH)) as sample:
        sample.update(u32(1), value_of(sample, 5))
        assert mounted.sh("echo percpu: sum > sums/format").code == 0
        copied(mounted, "sums", "cp -r", tmp_path)
    empty(mounted)
    result = restore(tmp_path, mounted.source)
    assert (result.code, result.stdout) == (1, "")
    assert "sums/entries.jsonl: " in result.stderr and "sum" in result.stderr.partition(": ")[2]


def test_names_that_are_cut(mounted: Mount, tmp_path: Path) -> None:
    """Tools that leave extended attributes behind lose the key, unless they copy streams."""
    keys = [bytes([number]) * 200 for number in (1, 2)]
    with mounted.pin("long", make_map(key=200, value=4)) as sample:
        for key in keys:
            sample.update(key, u32(7))
        for name, command in {
            "with": "rsync -aX",
            "without": "rsync -a",
            "streams": "cp -r",
        }.items():
            (tmp_path / name).mkdir()
            assert mounted.sh(f"{command} long {tmp_path / name}/").code == 0
    # As of a map whose stream is too long to be copied by its size.
    for name in ("with", "without"):
        replace(tmp_path / name / "long/entries.jsonl", "")
    empty(mounted)
    result = restore(tmp_path / "without", mounted.source)
    assert (result.code, result.stdout) == (1, "")
    assert ": its name is cut, and the copy has no user.bpf.key of it: cp -a, " in result.stderr
    for name in ("with", "streams"):
        assert restore(tmp_path / name, mounted.source).stdout == "long: made, 2 entries\n"
        assert dump(pinned(mounted.source / "long")) == dict.fromkeys(keys, u32(7))
        empty(mounted)


def test_what_does_not_agree_is_said(mounted: Mount, tmp_path: Path) -> None:
    """A copy of a map that changed meanwhile, or that was cut between two lines."""
    copy = config(mounted, tmp_path)
    lines = (copy / "entries.jsonl").read_text().splitlines(keepends=True)
    replace(copy / "entries.jsonl", "".join(lines[:2]))
    result = restore(tmp_path, mounted.source)
    assert result.stdout == "fw/config: made, 2 entries, though its count says 3\n"
    assert result.code == 0


def test_globals_of_a_program(mounted: Mount, tmp_path: Path) -> None:
    """.rodata has no type for its keys, is for programs to read, and is frozen."""
    with mounted.pin("section", section_map(".rodata", flags=RDONLY_PROG)) as made:
        made.update(u32(0), u32(10) + u32(2))
        made.freeze()
        before = dump(made)
        copied(mounted, "section", "rsync", tmp_path)
        words = told(mounted, "section")
    empty(mounted)
    assert restore(tmp_path, mounted.source).stdout == "section: made, 1 entry, frozen\n"
    assert dump(pinned(mounted.source / "section")) == before
    assert told(mounted, "section") == words


def test_devices_that_are_gone(mounted: Mount, tmp_path: Path) -> None:
    kind = MapType.DEVMAP_HASH
    with mounted.pin("ports", Map.create(kind, key_size=4, value_size=8, max_entries=4)) as sample:
        sample.update(u32(7), u32(1) + u32(0))
        copied(mounted, "ports", "rsync", tmp_path)
    empty(mounted)
    for name in ("entries.jsonl", "count"):
        replace(tmp_path / "ports" / name, "")
    entries = tmp_path / "ports/entries"
    replace(entries / "8", '{"ifindex": 9, "interface": "gone0", "prog_id": 0}\n')
    replace(entries / "9", '{"ifindex": 1, "interface": "lo", "prog_id": 12}\n')
    replace(entries / "10", '{"ifindex": 9, "interface": null, "prog_id": 0}\n')
    result = restore(tmp_path, mounted.source)
    assert (result.code, result.stdout) == (1, "ports: made, 1 of 4 entries\n")
    assert sorted(line.partition("entries/")[2] for line in result.stderr.splitlines()) == [
        "10: left out: the name of its interface was not known",
        "8: left out: interface: there is no interface 'gone0'",
        "9: left out: program 12, which ran on what came there, is gone",
    ]
    assert dump(pinned(mounted.source / "ports")) == {u32(7): u32(1) + u32(0)}


def test_of_a_mount_that_is_there(
    mounted: Mount, mounter: Callable[..., Mount], bpffs: Path
) -> None:
    """A mount itself is as good as a copy of it: maps go from one bpffs to another."""
    with mounted.pin("flows", make_map()) as sample:
        sample.update(u32(1), u64(2))
    result = restore(mounted.path, bpffs)
    assert "flows: made, 1 entry\n" in result.stdout
    assert dump(pinned(bpffs / "flows")) == {u32(1): u64(2)}
    assert pinned(bpffs / "flows").info.id != pinned(mounted.source / "flows").info.id
