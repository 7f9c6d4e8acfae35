"""`pin`: pinning an object that was found by its id."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.links import loaded, raw_tracepoint
from support.maps import exists, make_map, types
from support.mounting import Mount, mounted_bpffs, nested
from support.programs import load
from support.shell import Result
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.tree.targets import path_by_id

Mounter = Callable[..., Mount]


def where(obj: Object) -> str:
    """Where an object is below `.by-id/`."""
    return "/".join(path_by_id(type(obj), obj.info.id))


def pinned(path: Path) -> tuple[str, int]:
    """What is pinned at a path in bpffs: its kind and id."""
    directory = Directory(str(path.parent))
    with directory.open_pin(path.name, directory.stat(path.name).st_ino) as obj:
        return obj.kind, obj.info.id


def pins_in(bpffs: Path) -> list[str]:
    """The paths of all pins, but for those that the kernel makes itself."""
    found = (path for path in bpffs.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path.relative_to(bpffs)) for path in found if "." not in path.name]


@pytest.fixture
def made() -> Iterator[Map]:
    """A map that is pinned nowhere."""
    with make_map() as bpf_map:
        yield bpf_map


def refused(mount: Mount, obj: Object, text: str, said: str, reason: str) -> None:
    """Pinning it as `text` fails with an error and a reason, and nothing is pinned."""
    before = pins_in(mount.source)
    file = f"{where(obj)}/pin"
    result = mount.sh(f"cat > {file}", given=os.fsencode(text))
    assert (result.code, result.stderr) == (1, f"cat: write error: {said}\n")
    assert reason in mount.error_log(where(obj))
    assert pins_in(mount.source) == before


# What is pinned, and where.


def test_objects_of_each_kind(mounted: Mount, made: Map) -> None:
    with (
        load() as program,
        loaded() as programs,
        programs.program("on_raw_tracepoint") as traced,
        raw_tracepoint(traced, "sys_enter", 1) as link,
    ):
        for obj in (made, program, link):
            assert mounted.sh(f"echo {obj.kind} > {where(obj)}/pin").stderr == ""
            assert pinned(mounted.source / obj.kind) == (obj.kind, obj.info.id)
            assert mounted.sh(f"jq .id {obj.kind}/info.json").stdout == f"{obj.info.id}\n"
            assert mounted.error_log(where(obj)) == ""


def test_it_stays_when_nobody_else_has_it(mounted: Mount) -> None:
    with make_map() as bpf_map:
        map_id = bpf_map.info.id
        mounted.sh(f"echo kept > {where(bpf_map)}/pin")
    assert exists(Map, map_id)
    assert mounted.sh("rmdir kept").code == 0
    eventually("it is gone", lambda: not exists(Map, map_id), 1)


def test_types_cannot_be_pinned(mounted: Mount) -> None:
    btf = where(types().btf)
    assert "pin" not in os.listdir(mounted.path / btf)
    assert mounted.sh(f"echo x > {btf}/pin").code == 1
    assert pins_in(mounted.source) == []


def test_a_pin_has_no_such_file(mounted: Mount, made: Map) -> None:
    mounted.pin("map", made)
    assert "pin" not in os.listdir(mounted.path / "map")
    assert mounted.sh("echo x > map/pin").code == 1


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("new", "new"),
        ("MOUNT/new", "new"),
        ("//MOUNT///new", "new"),
        ("sub/new", "sub/new"),
        ("MOUNT/sub/new", "sub/new"),
        ("./sub/./new", "sub/new"),
        ("sub/deeper/../new", "sub/new"),
        ("to_sub/new", "sub/new"),
        ("to_sub/deeper/up/new", "sub/new"),
        ("a b", "a b"),
        (" new ", " new "),
        ("grün", "grün"),
        ("n" * 255, "n" * 255),
        ("new/", "new"),
    ],
)
def test_paths(mounted: Mount, made: Map, text: str, path: str) -> None:
    mounted.sh("mkdir -p sub/deeper && ln -s sub to_sub && ln -s .. sub/deeper/up")
    text = text.replace("MOUNT", str(mounted.path).lstrip("/") if text[:2] == "//" else
                        str(mounted.path))  # fmt: skip
    result = mounted.sh(f"cat > {where(made)}/pin", given=text.encode() + b"\n")
    assert (result.code, result.stderr) == (0, ""), mounted.error_log(where(made))
    assert pinned(mounted.source / path) == ("map", made.info.id)
    assert pins_in(mounted.source) == [path]
    status = (mounted.source / path).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, 0)


def test_without_a_newline(mounted: Mount, made: Map) -> None:
    assert mounted.sh(f"printf new > {where(made)}/pin").stderr == ""
    assert pinned(mounted.source / "new") == ("map", made.info.id)


def test_as_often_as_wanted(mounted: Mount, made: Map) -> None:
    mounted.sh(f"echo one > {where(made)}/pin; echo two > {where(made)}/pin")
    for name in ("one", "two"):
        assert pinned(mounted.source / name) == ("map", made.info.id)


def test_it_is_written_and_not_read(mounted: Mount, made: Map) -> None:
    status = (mounted.path / where(made) / "pin").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_size) == (0o200, 0, 0)
    assert mounted.sh(f"cat {where(made)}/pin") == Result(0, "", "")  # root may, and it is empty
    assert mounted.sh(f": > {where(made)}/pin").code == 0
    assert pins_in(mounted.source) == []


# What is refused.


REFUSED = {
    "there\n": ("File exists", "File exists"),
    "sub\n": ("File exists", "File exists"),
    "dangling\n": ("File exists", "File exists"),
    "missing/new\n": ("No such file or directory", "No such file or directory"),
    "there/new\n": ("Not a directory", "Not a directory"),
    "dangling/new\n": ("No such file or directory", "No such file or directory"),
    "loop/new\n": ("Too many levels of symbolic links", "Too many levels of symbolic links"),
    "a.b\n": ("Operation not permitted", "bpffs has no names with a dot"),
    "sub/..\n": ("Operation not permitted", "bpffs has no names with a dot"),
    "n" * 256 + "\n": ("File name too long", "File name too long"),
    "../new\n": ("Invalid argument", "../new is not in this mount, which is MOUNT"),
    "/sys/fs/bpf/new\n": ("Invalid argument", "/sys/fs/bpf/new is not in this mount"),
    "MOUNT\n": ("Invalid argument", "expected the path of the new pin"),
    ".\n": ("Invalid argument", "expected the path of the new pin"),
    "\n": ("Invalid argument", "expected the path of the new pin"),
    "one\ntwo\n": ("Invalid argument", "expected the path of the new pin"),
    "away/new\n": ("Invalid cross-device link", "Invalid cross-device link"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: str(text)[:20].strip() or "empty")
def test_what_is_refused(mounted: Mount, made: Map, text: str) -> None:
    said, reason = (part.replace("MOUNT", str(mounted.path)) for part in REFUSED[text])
    with make_map() as there, mounted_bpffs() as elsewhere:
        mounted.pin("there", there)
        mounted.sh("mkdir sub && ln -s nowhere dangling && ln -s loop loop")
        (mounted.source / "away").symlink_to(elsewhere)
        refused(mounted, made, text.replace("MOUNT", str(mounted.path)), said, reason)
        assert pinned(mounted.source / "there") == ("map", there.info.id)
        assert pins_in(elsewhere) == []


@pytest.mark.parametrize("name", [".by-id/new", ".by-id/maps/new", ".by-id"])
def test_not_below_by_id(mounted: Mount, made: Map, name: str) -> None:
    assert mounted.sh(f"echo {name} > {where(made)}/pin").code == 1
    assert pins_in(mounted.source) == []


def test_not_in_what_is_mounted_inside(mounted: Mount, made: Map) -> None:
    (mounted.source / "sub").mkdir()
    with nested(mounted.source / "sub", ["-t", "bpf", "bpf"]) as inside:
        refused(mounted, made, "sub/new\n", "Invalid cross-device link", "cross-device")
        assert pins_in(inside) == []


def test_read_only(bpffs: Path, mounter: Mounter, made: Map) -> None:
    mount = mounter("-o", "ro")
    result = mount.sh(f"echo new > {where(made)}/pin")
    assert result.stderr.endswith("Read-only file system\n")
    assert pins_in(bpffs) == []


def test_others_pin_nothing(bpffs: Path, mounter: Mounter, made: Map) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 777 .")
    assert nobody(mount, f"echo new > {where(made)}/pin").stderr.endswith(DENIED)
    assert pins_in(bpffs) == []


def test_an_object_that_is_gone(mounted: Mount) -> None:
    with make_map() as bpf_map:
        map_id = bpf_map.info.id
        path = mounted.path / where(bpf_map)
        path.stat()
    eventually("it is gone", lambda: not exists(Map, map_id), 1)
    with pytest.raises(FileNotFoundError):
        os.open(path / "pin", os.O_WRONLY)
