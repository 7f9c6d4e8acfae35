"""All pins of an object, in whatever bpffs they are."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.links import loaded, raw_tracepoint
from support.maps import make_map, pin
from support.mounting import mounted_bpffs, nested, temporary_directory
from support.programs import load
from support.renaming import rename
from support.shell import checked

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.mounts import Mounted
from fusefs.bpf.object import Object
from fusefs.bpf.pins import Pins, reachable

BPFFS = ["-t", "bpf", "bpf"]


@pytest.fixture
def places() -> Iterator[Path]:
    """A directory for mount points."""
    with temporary_directory() as path:
        yield path


@pytest.fixture
def pins() -> Pins:
    """Where nothing is known yet."""
    return Pins()


def paths_of(pins: Pins, obj: Object) -> list[str]:
    """The paths of all pins of an object."""
    return sorted(pin[1] for pin in pins.walk() if pin and pin[0] == (obj.kind, obj.info.id))


@contextlib.contextmanager
def over(path: Path, arguments: Sequence[str] = BPFFS) -> Iterator[None]:
    """Something that is mounted on a path of any bytes, over what is mounted there already."""
    checked("mount", *arguments, path)
    try:
        yield
    finally:
        checked("umount", "-l", path)


def mountpoint(places: Path, name: str) -> Path:
    """A directory to mount on."""
    path = places / name
    path.mkdir()
    return path


def test_objects_of_each_kind(bpffs: Path, pins: Pins) -> None:
    with (
        make_map() as bpf_map,
        load() as program,
        loaded() as programs,
        programs.program("on_raw_tracepoint") as traced,
        raw_tracepoint(traced, "sys_enter", 1) as link,
    ):
        for obj in (bpf_map, program, link):
            pin(bpffs / obj.kind, obj)
            assert paths_of(pins, obj) == [f"{bpffs}/{obj.kind}"]
        assert paths_of(pins, traced) == []


def test_several_mounts(bpffs: Path, places: Path, pins: Pins) -> None:
    (bpffs / "sub/deeper").mkdir(parents=True)
    with (
        make_map() as made,
        mounted_bpffs() as other,
        nested(mountpoint(places, "bind"), ["--bind", bpffs]) as bind,
        nested(mountpoint(places, "part"), ["--bind", bpffs / "sub"]) as part,
    ):
        for path in (bpffs / "one", bpffs / "sub/deeper/two", other / "three"):
            pin(path, made)
        os.link(bpffs / "one", bpffs / "sub/four")
        wanted = [other / "three", part / "deeper/two", part / "four"]
        wanted += [top / name for top in (bpffs, bind) for name in
                   ("one", "sub/deeper/two", "sub/four")]  # fmt: skip
        assert paths_of(pins, made) == sorted(map(str, wanted))


@pytest.mark.parametrize("name", ["a b", "a\nb", "\udcff\udcfe", "grün", "\\040", "-", "'\"$"])
def test_names_of_any_bytes(places: Path, pins: Pins, name: str) -> None:
    path = mountpoint(places, name)
    with make_map() as made, over(path):
        (path / name).mkdir()
        pin(path / name / name, made)
        assert paths_of(pins, made) == [str(path / name / name)]


def test_they_come_and_go(bpffs: Path, pins: Pins) -> None:
    with make_map() as made, make_map() as other:
        pin(bpffs / "a", made)
        assert paths_of(pins, made) == [f"{bpffs}/a"]
        pin(bpffs / "b", made)
        rename(bpffs / "a", bpffs / "c", RenameFlags.REPLACE)
        assert paths_of(pins, made) == [f"{bpffs}/b", f"{bpffs}/c"]
        (bpffs / "b").unlink()
        pin(bpffs / "b", other)
        assert paths_of(pins, made) == [f"{bpffs}/c"]
        assert paths_of(pins, other) == [f"{bpffs}/b"]


def test_a_symbolic_link_is_no_pin(bpffs: Path, pins: Pins) -> None:
    with make_map() as made:
        (bpffs / "directory").mkdir()
        pin(bpffs / "directory/pin", made)
        (bpffs / "link").symlink_to("directory/pin")
        (bpffs / "loop").symlink_to("directory")
        (bpffs / "directory/up").symlink_to("..")
        assert paths_of(pins, made) == [f"{bpffs}/directory/pin"]


@pytest.mark.parametrize("kind", ["tmpfs", "bpf"])
def test_a_mount_that_is_hidden(places: Path, pins: Pins, kind: str) -> None:
    (places / "in/bpffs").mkdir(parents=True)
    path = places / "in/bpffs"
    with make_map() as made, nested(path, BPFFS):
        pin(path / "pin", made)
        with over(path, ["-t", kind, kind]):
            assert paths_of(pins, made) == []
        with over(places / "in", ["-t", kind, kind]):
            assert paths_of(pins, made) == []
            path.mkdir()
            assert paths_of(pins, made) == []
        assert paths_of(pins, made) == [f"{path}/pin"]
    path.rmdir()


def test_a_mount_in_a_bpffs(bpffs: Path, pins: Pins) -> None:
    inner = mountpoint(bpffs, "inner")
    with make_map() as made:
        pin(inner / "covered", made)
        pin(bpffs / "file", made)
        with nested(inner, BPFFS):
            pin(inner / "inside", made)
            assert paths_of(pins, made) == [f"{bpffs}/file", f"{inner}/inside"]
        assert paths_of(pins, made) == [f"{bpffs}/file", f"{inner}/covered"]


@pytest.mark.parametrize(
    ("served", "seen"),
    [("fuse.bpf-fusefs", False), ("nfs4", False), ("9p", False), ("tmpfs", True), ("bpf", True)],
)
def test_below_what_is_served(served: str, seen: bool) -> None:
    mounts = [
        Mounted("/", mountpoint, kind, read_only=False, device=0)
        for mountpoint, kind in (
            ("/", "ext4"), ("/mnt", served), ("/mnt/in/bpffs", "bpf"), ("/mntx", "bpf"),
        )
    ]  # fmt: skip
    found = [*reachable(mounts)]
    assert ("/mnt/in/bpffs" in found) == seen
    assert "/mntx" in found


@pytest.mark.parametrize("kind", ["virtiofs", "9p", "nfs4"])
def test_a_root_that_is_served(kind: str) -> None:
    root = Mounted("/", "/", kind, read_only=False, device=0)
    assert [*reachable([root, Mounted("/", "/sys/fs/bpf", "bpf", read_only=False, device=1)])] == [
        "/sys/fs/bpf"
    ]


def test_a_directory_that_is_removed_meanwhile(bpffs: Path, pins: Pins) -> None:
    names = ("one", "two", "three")
    with make_map() as made:
        for name in names:
            (bpffs / name).mkdir()
            pin(bpffs / name / "pin", made)
        walk = (pin[1] for pin in pins.walk() if pin and pin[0] == (made.kind, made.info.id))
        seen = next(walk)
        for name in names:
            if not seen.endswith(f"/{name}/pin"):
                (bpffs / name / "pin").unlink()
                (bpffs / name).rmdir()
        assert list(walk) == []
        assert paths_of(pins, made) == [seen]


def test_a_deep_one(bpffs: Path, pins: Pins) -> None:
    # Longer than any path may be that is given to the kernel at once.
    descriptor, path = os.open(bpffs, os.O_RDONLY), str(bpffs)
    try:
        with make_map() as made:
            for _ in range(20):
                os.mkdir("d" * 255, dir_fd=descriptor)
                below = os.open("d" * 255, os.O_RDONLY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor, path = below, f"{path}/{'d' * 255}"
            pin(Path(f"/proc/self/fd/{descriptor}/pin"), made)
            assert paths_of(pins, made) == [f"{path}/pin"]
    finally:
        os.close(descriptor)


def test_a_wide_one(bpffs: Path, pins: Pins) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in range(500):
        (bpffs / f"{number}").mkdir()
    with make_map() as made:
        pin(bpffs / "0/pin", made)
        most = len(os.listdir("/proc/self/fd")) + 300
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            assert paths_of(pins, made) == [f"{bpffs}/0/pin"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_pins_in_a_bpffs_that_is_read_only(bpffs: Path, pins: Pins) -> None:
    with (
        make_map() as bpf_map,
        load() as program,
        loaded() as programs,
        programs.program("on_raw_tracepoint") as traced,
        raw_tracepoint(traced, "sys_enter", 1) as link,
    ):
        for obj in (bpf_map, program, link):
            pin(bpffs / obj.kind, obj)
        checked("mount", "-o", "remount,ro", bpffs)
        for obj in (bpf_map, program):
            assert paths_of(pins, obj) == [f"{bpffs}/{obj.kind}"]
        assert paths_of(pins, link) == []  # the kernel opens no link there
