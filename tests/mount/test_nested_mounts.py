"""What is mounted inside the bpffs is no part of it: neither shown, nor asked, nor harmed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map, pin, u32, u64
from support.mounting import COMMAND, Mount, mounts_at, nested, unmount
from support.renaming import rename
from support.shell import Result, run
from support.waiting import eventually

from fusefs.bpf.bpffs import RenameFlags

Mounter = Callable[..., Mount]
# A mount that asks itself would wait for ever.
QUICK = 10

MOUNTS = {
    "bpffs": ["-t", "bpf", "bpf"],
    "tmpfs": ["-t", "tmpfs", "tmpfs"],
}


@contextlib.contextmanager
def filled(path: Path, kind: str) -> Iterator[None]:
    """A bpffs or a tmpfs with something in it, which nobody must touch as long as this lasts."""
    with nested(path, MOUNTS[kind]):
        if kind == "bpffs":
            with make_map() as inside:
                pin(path / "inside", inside)
        else:
            (path / "inside").write_text("a file\n")
        before = os.stat(path)
        yield
        assert os.stat(path) == before
        assert {name for name in os.listdir(path) if "." not in name} == {"inside"}
        if kind == "tmpfs":
            assert (path / "inside").read_text() == "a file\n"


def prepare(bpffs: Path) -> None:
    """Make a pin, a directory, and another, `nested`, to mount something on."""
    for name in ("directory", "nested", "nested/hidden"):
        (bpffs / name).mkdir()
    with make_map() as sample:
        sample.update(u32(1), u64(101))
        pin(bpffs / "sample", sample)


def check_listing(mount: Mount) -> None:
    """What is mounted is an empty directory, and all else is as it is."""
    result = mount.sh("ls -la . && find nested sample && cat sample/entries/1", seconds=QUICK)
    assert (result.code, result.stderr) == (0, ""), result
    for name in (" nested\n", " directory\n", " sample\n", "\nnested\n", "sample/info\n", "101\n"):
        assert name in result.stdout
    assert "hidden" not in result.stdout
    assert "inside" not in result.stdout
    assert stat.S_ISDIR(os.stat(mount.path / "nested").st_mode)
    assert os.listdir(mount.path / "nested") == []


@pytest.mark.parametrize("kind", MOUNTS)
def test_what_was_mounted_before(bpffs: Path, mounter: Mounter, kind: str) -> None:
    prepare(bpffs)
    with filled(bpffs / "nested", kind):
        check_listing(mounter())


@pytest.fixture(params=MOUNTS)
def mount(mounted: Mount, request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount of a bpffs in which something was mounted afterwards."""
    prepare(mounted.source)
    hidden = mounted.path / "nested/hidden"
    assert hidden.exists()
    with filled(mounted.source / "nested", request.param):
        eventually("what was there is covered", lambda: not hidden.exists(), 1)
        yield mounted
    eventually("what was there is there again", hidden.exists, 1)


def test_it_is_listed_as_an_empty_directory(mount: Mount) -> None:
    check_listing(mount)


@pytest.mark.parametrize(
    "command",
    [
        "cat nested/inside",
        "stat nested/inside/info",
        "stat nested/hidden",
        "cd nested/inside",
        "echo 5 > nested/inside",
        "rm nested/inside",
        "mkdir nested/new",
        "ln -s text nested/new",
        "mv sample nested/",
        "mv directory nested/",
        "mv -T nested/inside new",
        "chmod 777 nested",
        "chown 5 nested",
        "touch nested",
    ],
)
def test_nothing_in_it_is_reached(mount: Mount, command: str) -> None:
    result = mount.sh(command, seconds=QUICK)
    assert result.code == 1, result
    assert (mount.source / "sample").exists()
    assert (mount.source / "directory").exists()


@pytest.mark.parametrize(
    "command", ["rmdir nested", "mv nested new", "mv -T nested directory", "mv -T directory nested"]
)
def test_it_is_busy(mount: Mount, command: str) -> None:
    result = mount.sh(command, seconds=QUICK)
    assert (result.code, result.stderr.endswith("Device or resource busy\n")) == (1, True), result
    check_listing(mount)


@pytest.mark.parametrize("name", ["sample", "directory", "link"])
@pytest.mark.parametrize(
    "flags", [RenameFlags.REPLACE, RenameFlags.EXCHANGE], ids=["replace", "exchange"]
)
def test_nothing_is_renamed_over_it(mount: Mount, name: str, flags: RenameFlags) -> None:
    os.symlink("nowhere", mount.source / "link")
    with pytest.raises(OSError) as caught:
        rename(mount.path / name, mount.path / "nested", flags)
    # EXDEV would have mv(1) copy it, and remove it.
    assert caught.value.errno in (errno.EBUSY, errno.EEXIST, errno.EISDIR)
    assert os.path.lexists(mount.source / name)


def test_a_pin_that_is_covered(mounted: Mount, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("secret\n")
    mounted.pin("covered", make_map())
    assert "info" in os.listdir(mounted.path / "covered")
    with nested(mounted.source / "covered", ["--bind", file]):
        result = mounted.sh("ls -la . && ls -A covered && rmdir covered", seconds=QUICK)
        assert result.stderr.endswith("Device or resource busy\n"), result
        assert os.listdir(mounted.path / "covered") == []
    eventually("it is there again", lambda: "info" in os.listdir(mounted.path / "covered"), 1)


@pytest.mark.parametrize("where", ["covered", "covered/entries"])
def test_who_stands_in_a_pin_that_is_covered(mounted: Mount, tmp_path: Path, where: str) -> None:
    file = tmp_path / "file"
    file.write_text("secret\n")
    mounted.pin("covered", make_map())
    command = f"cd {where} && mount --bind {file} {mounted.source}/covered && ls -la; ls -la info"
    try:
        result = mounted.sh(command, seconds=QUICK)
    finally:
        unmount(mounted.source / "covered")
    assert "secret" not in result.stdout
    assert all(line.endswith(("No such file or directory", "Stale file handle"))
               for line in result.stderr.splitlines()), result  # fmt: skip
    eventually("it is there again", lambda: "info" in os.listdir(mounted.path / "covered"), 1)


def test_a_pin_that_is_covered_by_a_file_of_the_mount(mounted: Mount) -> None:
    # To ask that file for anything is to wait for oneself.
    for name in ("covered", "other"):
        mounted.pin(name, make_map())
    assert mounted.sh("ls -l covered covered/entries").code == 0
    file = f"{mounted.path}/other/info"
    command = f"cd covered/entries && mount --bind {file} {mounted.source}/covered && sleep 0.1"
    try:
        result = mounted.sh(f"{command}; ls -la; ls -la ../../covered", seconds=QUICK)
    finally:
        unmount(mounted.source / "covered")
    assert "Stale file handle" in result.stderr, result
    assert mounted.sh("cat covered/info", seconds=QUICK).code == 0


@pytest.mark.parametrize("options", [[], ["-f"]], ids=["background", "foreground"])
def test_a_mountpoint_in_it_is_refused(bpffs: Path, options: list[str]) -> None:
    (bpffs / "nested").mkdir()
    with nested(bpffs / "nested", MOUNTS["tmpfs"]) as path:
        for place in (path, path / "deep", path / "deep/deeper"):
            place.mkdir(exist_ok=True)
            result = run([*COMMAND, bpffs, place, *options], seconds=QUICK)
            assert (result.code, result.stdout) == (1, "")
            reason = f"{place} is inside the bpffs that is to be shown"
            assert result.stderr == f"bpf-fusefs: {reason}\n"
            assert "fuse.bpf-fusefs" not in mounts_at(place)


@contextlib.contextmanager
def looped(mount: Mount) -> Iterator[Callable[[str], Result]]:
    """The mount, mounted once more inside what it shows; commands run in it must not hang."""

    def sh(command: str) -> Result:
        try:
            return mount.sh(command, seconds=QUICK)
        except BaseException:
            mount.process.kill()  # nobody could unmount what waits for itself
            raise

    with nested(mount.source / "loop", ["--bind", mount.path]):
        yield sh


@pytest.mark.parametrize("seen", [False, True], ids=["new", "seen"])
def test_the_mount_inside_itself(bpffs: Path, mounter: Mounter, seen: bool) -> None:
    mount = mounter()
    with make_map() as sample:
        sample.update(u32(1), u64(101))
        mount.pin("sample", sample)
    (bpffs / "loop").mkdir()
    if seen:
        mount.sh("ls -laR .")
    with looped(mount) as sh:
        result = sh("ls -laR . && find . && du -a . && stat loop && df .")
        assert (result.code, result.stderr) == (0, ""), result
        assert " loop\n" in result.stdout
        assert "loop/" not in result.stdout
        assert sh("rmdir loop").stderr.endswith("Device or resource busy\n")
        assert sh("mv loop other").stderr.endswith("Device or resource busy\n")
        assert sh("cat loop/sample/info").stderr.endswith("No such file or directory\n")
        # From the other side there is one turn of the loop, and no more.
        below = sh(f"cd '{bpffs}' && ls loop/loop && cat loop/sample/entries/1 && ls -laR .")
        assert (below.code, below.stdout.split("\n")[0]) == (0, "101"), below
        assert "./loop/sample/entries:" in below.stdout
        assert sh("mkdir new && mv sample new && cat new/sample/entries/1").stdout == "101\n"
        assert mount.process.poll() is None
    assert mount.sh("ls -la loop && rmdir loop").code == 0
