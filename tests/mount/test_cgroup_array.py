"""cgroup_array: slots that links set to cgroups, and of which the kernel tells nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import cgroups
from support.mounting import Mount
from support.network import compile_program
from support.running import run_raw
from support.shell import checked
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of one's own, with nobody in it."""
    with cgroups.cgroup() as path:
        yield path


def cgroup_array() -> Map:
    return Map.create(MapType.CGROUP_ARRAY, key_size=4, value_size=4, max_entries=4, name="groups")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("cgroups", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def probe(mounted: Mount, compiled: Path) -> Iterator[Program]:
    """A program that tells whether this process is in the cgroup in slot 1 of `maps/groups`: 1 or
    0, or a negative errno when the slot is empty."""
    os.mkdir(mounted.source / "maps")
    program, maps = mounted.source / "probe", mounted.source / "maps"
    checked("bpftool", "prog", "load", compiled, program, "pinmaps", maps)
    directory = Directory(str(mounted.source))
    opened = directory.open_pin("probe", directory.stat("probe").st_ino)
    assert isinstance(opened, Program)
    with opened:
        yield opened


def test_slots_are_set_to_cgroups(mounted: Mount, probe: Program, cgroup: Path) -> None:
    entries = mounted.path / "maps/groups/entries"
    assert os.listdir(entries) == []
    assert run_raw(probe) < 0
    (entries / "1").symlink_to(cgroup)
    assert run_raw(probe) == 0  # this process is not in it
    assert os.readlink(entries / "1") == str(cgroup)
    assert mounted.sh(f"ln -sfn {cgroup.parent} maps/groups/entries/1").code == 0
    assert run_raw(probe) == 1  # everybody is below the root
    assert mounted.sh("cd maps/groups/entries; ls; readlink 1").stdout == f"1\n{cgroup.parent}\n"
    assert mounted.sh("cd maps/groups/entries; mv 1 2; ls").stdout == "2\n"
    assert run_raw(probe) < 0
    assert mounted.sh("cd maps/groups/entries; mv 2 1; rm 1; ls").stdout == ""
    assert run_raw(probe) < 0
    assert mounted.error_log("maps/groups") == ""


def test_a_slot_whose_cgroup_is_gone_says_so(mounted: Mount) -> None:
    mounted.pin("groups", cgroup_array()).close()
    link = mounted.path / "groups/entries/1"
    with cgroups.cgroup() as path:
        link.symlink_to(path)
        os.rmdir(path)
        eventually("it is seen", lambda: os.readlink(link) == f"{path} (deleted)", 1)
        os.mkdir(path)  # another one, which is not in the slot
        eventually("it is seen", lambda: os.readlink(link) == f"{path} (deleted)", 1)
        assert mounted.sh(f"ln -sfn {path} groups/entries/1").code == 0
        assert os.readlink(link) == str(path)


def test_it_is_known_by_its_own_path(mounted: Mount, cgroup: Path) -> None:
    """And not by the one that led to it, on which others may go."""
    mounted.pin("groups", cgroup_array()).close()
    link = mounted.path / "groups/entries/1"
    with cgroups.cgroup() as other:
        link.symlink_to(other / ".." / cgroup.name)
    assert os.readlink(link) == str(cgroup)


def test_a_relative_link(mounted: Mount, cgroup: Path) -> None:
    mounted.pin("groups", cgroup_array()).close()
    target = os.path.relpath(cgroup, mounted.path / "groups/entries")
    assert mounted.sh(f"cd groups/entries; ln -s {target} 1; ls -d {target}").code == 0
    assert os.readlink(mounted.path / "groups/entries/1") == str(cgroup)


def test_info_says_what_is_not_shown(mounted: Mount, cgroup: Path) -> None:
    with cgroup_array() as made:
        mounted.pin("groups", made)
        (mounted.path / "groups/entries/3").symlink_to(cgroup)
        assert os.listdir(mounted.path / "groups/entries") == ["3"]
        mounted.pin("again", made)  # the same map, wherever it is found
        assert os.listdir(mounted.path / "again/entries") == ["3"]
    with cgroup_array() as other:
        mounted.pin("other", other)
        assert os.listdir(mounted.path / "other/entries") == []
    said = mounted.sh("grep ^entries: groups/info").stdout
    assert "the kernel does not tell what is in the slots" in said


def test_a_slot_that_cannot_be_cleared_is_shown_still(mounted: Mount, cgroup: Path) -> None:
    mounted.pin("groups", cgroup_array()).close()
    commands = f"cd groups; ln -s {cgroup} entries/3; echo 1 > frozen; rm -f entries/3; ls entries"
    result = mounted.sh(commands)
    assert "Operation not permitted" in result.stderr
    assert result.stdout == "3\n"


def test_what_is_no_cgroup_is_refused(mounted: Mount, cgroup: Path) -> None:
    mounted.pin("groups", cgroup_array())
    for target, why in {
        "/etc": "not in the cgroup2 file system",
        "../../groups": "not in the cgroup2 file system",
        f"{cgroup}x": "No such file or directory",
        f"{cgroup}/cgroup.procs": "Not a directory",
        f"{cgroup}/../../../../etc": "not in the cgroup2 file system",
        str(mounted.path): "not in the cgroup2 file system",
    }.items():
        for option in ("-sT", "-sfT"):
            assert mounted.sh(f"ln {option} {target} groups/entries/1").code == 1, target
            assert why in mounted.error_log("groups"), target
    assert mounted.sh(f"ln -s {cgroup} groups/entries/4").stderr.endswith("Invalid argument\n")
    assert "index 4 is past the end" in mounted.error_log("groups")
    assert mounted.sh("rm groups/entries/1").stderr.endswith("No such file or directory\n")
    assert mounted.sh("echo 1 > groups/entries/1").stderr.endswith("Operation not permitted\n")
    assert os.listdir(mounted.path / "groups/entries") == []


def test_a_cgroup_that_a_user_cannot_reach(mounter: Callable[..., Mount], cgroup: Path) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    mount.pin("groups", cgroup_array()).close()
    os.chmod(mount.source / "groups", 0o666)
    below = cgroup / "below"
    below.mkdir()
    try:
        cgroup.chmod(0o700)
        assert nobody(mount, f"ln -s {below} groups/entries/1").stderr.endswith(DENIED)
        assert nobody(mount, f"ln -s {cgroup} groups/entries/1; ls groups/entries").stdout == "1\n"
    finally:
        below.rmdir()
