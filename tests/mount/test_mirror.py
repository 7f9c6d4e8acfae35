"""Directories, symbolic links and pins of bpffs, seen and changed through the mount."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.maps import exists, make_map, pin, u32, u64
from support.mounting import Mount
from support.shell import checked
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory, RenameFlags
from fusefs.bpf.map import Map, MapType

Mounter = Callable[..., Mount]

# What the kernel may show of the past, and the coarseness of its clock.
LAG = 0.05 + 0.01


def counter(number: int) -> Map:
    """A map whose entry 0 is `number`."""
    made = make_map(MapType.ARRAY, max_entries=1)
    made.update(u32(0), u64(number))
    return made


def last_seen(check: Callable[[], object]) -> float:
    """How long from now `check` still succeeds."""
    start, last = time.monotonic(), 0.0

    def over() -> bool:
        nonlocal last
        asked = time.monotonic()
        try:
            check()
        except FileNotFoundError:
            return True
        last = asked - start
        return False

    eventually("it is no longer seen", over)
    return last


def test_the_listing_is_that_of_bpffs(mounted: Mount) -> None:
    mounted.pin("one", counter(1))
    os.mkdir(mounted.source / "empty")
    os.symlink("one", mounted.source / "link")
    assert sorted(os.listdir(mounted.path)) == sorted(os.listdir(mounted.source))
    assert {"one", "empty", "link"} < set(os.listdir(mounted.path))


def test_a_new_pin_is_seen_at_once(mounted: Mount) -> None:
    for number in range(20):
        name = f"pin{number}"
        assert name not in os.listdir(mounted.path)
        with pytest.raises(FileNotFoundError):
            os.stat(mounted.path / name)
        mounted.pin(name, counter(number))
        assert (mounted.path / name / "entries/0").read_text() == f"{number}\n"
        assert name in os.listdir(mounted.path)


@pytest.mark.parametrize("name", ["sample", "below/sample"])
def test_a_removed_pin_is_gone_after_50_ms(mounted: Mount, name: str) -> None:
    os.mkdir(mounted.source / "below")
    mounted.pin(name, counter(1))
    assert os.stat(mounted.path / name / "info").st_size
    os.unlink(mounted.source / name)
    assert last_seen(lambda: os.stat(mounted.path / name)) < LAG
    assert "sample" not in os.listdir((mounted.path / name).parent)


def test_a_renamed_pin_is_found_under_its_new_name_alone(mounted: Mount) -> None:
    mounted.pin("old", counter(1))
    assert (mounted.path / "old/entries/0").read_text() == "1\n"
    os.rename(mounted.source / "old", mounted.source / "new")
    assert (mounted.path / "new/entries/0").read_text() == "1\n"
    with pytest.raises(FileNotFoundError):
        (mounted.path / "old/entries/0").read_text()
    assert last_seen(lambda: os.stat(mounted.path / "old")) < LAG


def test_an_open_never_reaches_a_replaced_pin(mounted: Mount) -> None:
    mounted.pin("sample", counter(0))
    for number in range(1, 100):
        os.stat(mounted.path / "sample/entries/0")
        os.unlink(mounted.source / "sample")
        mounted.pin("sample", counter(number))
        assert (mounted.path / "sample/entries/0").read_text() == f"{number}\n"
        assert (mounted.path / "sample/entries.jsonl").read_text().endswith(f"{number}}}\n")


def test_a_shell_goes_into_a_replaced_pin(mounted: Mount) -> None:
    for number in range(5):
        mounted.pin("sample", counter(number))
        result = mounted.sh("cd sample && ls >&2 && cat entries/0 && cd entries && cat 0")
        assert (result.code, result.stdout) == (0, f"{number}\n{number}\n"), result
        os.unlink(mounted.source / "sample")


def test_an_open_never_reaches_an_exchanged_pin(mounted: Mount) -> None:
    mounted.pin("a", counter(1))
    mounted.pin("b", counter(2))
    directory = Directory(str(mounted.source))
    for turn in range(50):
        first, second = (1, 2) if turn % 2 == 0 else (2, 1)
        assert (mounted.path / "a/entries/0").read_text() == f"{first}\n"
        assert (mounted.path / "b/entries/0").read_text() == f"{second}\n"
        directory.rename("a", directory, "b", RenameFlags.EXCHANGE)


def test_an_open_never_reaches_a_pin_of_a_replaced_directory(mounted: Mount) -> None:
    for name, number in (("current", 1), ("next", 2)):
        os.mkdir(mounted.source / name)
        mounted.pin(f"{name}/sample", counter(number))
    assert (mounted.path / "current/sample/entries/0").read_text() == "1\n"
    os.rename(mounted.source / "current", mounted.source / "old")
    os.rename(mounted.source / "next", mounted.source / "current")
    assert (mounted.path / "current/sample/entries/0").read_text() == "2\n"


def test_a_pin_in_a_directory_made_anew_is_seen_at_once(mounted: Mount) -> None:
    for number in range(3):
        os.mkdir(mounted.source / "directory")
        mounted.pin(f"directory/pin{number}", counter(number))
        assert (mounted.path / f"directory/pin{number}/entries/0").read_text() == f"{number}\n"
        os.unlink(mounted.source / f"directory/pin{number}")
        os.rmdir(mounted.source / "directory")


def test_a_file_that_was_opened_stays_what_it_was(mounted: Mount) -> None:
    mounted.pin("sample", counter(1))
    with (mounted.path / "sample/entries/0").open() as file:
        os.unlink(mounted.source / "sample")
        mounted.pin("sample", counter(2))
        assert file.read() == "1\n"
        assert (mounted.path / "sample/entries/0").read_text() == "2\n"


def test_directories_are_made_renamed_and_removed(mounted: Mount) -> None:
    made = mounted.sh("umask 027; mkdir a && mkdir a/b && mv a/b c && mv c a/d && ls a")
    assert (made.code, made.stdout) == (0, "d\n"), made
    status = os.stat(mounted.source / "a")
    assert stat.S_IMODE(status.st_mode) == 0o750
    assert os.listdir(mounted.source / "a") == ["d"]
    assert mounted.sh("rmdir a").stderr.endswith("Directory not empty\n")
    assert mounted.sh("rmdir a/d a").code == 0
    assert not (mounted.source / "a").exists()


def test_symbolic_links_are_made_followed_and_removed(mounted: Mount) -> None:
    mounted.pin("sample", counter(7))
    result = mounted.sh(
        "ln -s sample link && cat link/entries/0 && ln -s 'any text' odd && readlink odd"
        " && ln -sfn sample odd && readlink odd && stat -c '%F %s' odd && rm link odd"
    )
    assert result.stdout == "7\nany text\nsample\nsymbolic link 6\n", result
    assert result.code == 0
    assert not os.path.lexists(mounted.source / "link")


@pytest.mark.parametrize("name", ["sample", "directory"])
def test_attributes_are_those_of_bpffs_and_are_set_there(mounted: Mount, name: str) -> None:
    mounted.pin("sample", counter(1))
    os.mkdir(mounted.source / "directory", 0o700)
    result = mounted.sh(f"chmod 640 {name} && chown 1234:5678 {name} && touch -d @1000000.5 {name}")
    assert result.code == 0, result
    below = os.stat(mounted.source / name)
    assert stat.S_IMODE(below.st_mode) == 0o640
    assert (below.st_uid, below.st_gid) == (1234, 5678)
    assert below.st_mtime_ns == 1_000_000_500_000_000
    shown = os.stat(mounted.path / name)
    assert (shown.st_uid, shown.st_gid, shown.st_mtime_ns) == (1234, 5678, below.st_mtime_ns)
    # A pin is a directory here: who may read it may look inside.
    assert stat.S_IMODE(shown.st_mode) == (0o750 if name == "sample" else 0o640)


def test_touch_sets_the_times_of_a_link_itself(mounted: Mount) -> None:
    os.symlink("nowhere", mounted.source / "link")
    assert mounted.sh("touch -h -d @1000000 link && chown -h 1234 link").code == 0
    status = os.lstat(mounted.source / "link")
    assert (status.st_mtime_ns, status.st_uid) == (1_000_000 * 10**9, 1234)


def test_df(mounted: Mount) -> None:
    result = mounted.sh("df --output=fstype . && stat -f -c %l .")
    assert result.code == 0, result
    assert result.stdout.split() == ["Type", "fuse.bpf-fusefs", "255"]


def test_rmdir_unpins(mounted: Mount) -> None:
    with mounted.pin("sample", counter(1)) as sample:
        number = sample.info.id
    assert mounted.sh("cat sample/entries/* && rmdir sample").code == 0
    assert not os.path.lexists(mounted.source / "sample")
    eventually("the object is gone", lambda: not exists(Map, number), 1)


def test_rm_does_not_unpin(mounted: Mount) -> None:
    mounted.pin("sample", counter(1))
    assert mounted.sh("rm sample").code == 1
    assert mounted.sh("unlink sample").stderr.endswith("Is a directory\n")
    assert (mounted.source / "sample").exists()


def test_a_pin_moves(mounted: Mount) -> None:
    mounted.pin("sample", counter(5))
    os.mkdir(mounted.source / "directory")
    result = mounted.sh(
        "mv sample directory/moved && cat directory/moved/entries/0 && ls -d sample"
    )
    assert result.stdout == "5\n"
    assert result.stderr.endswith("No such file or directory\n")
    assert (mounted.source / "directory/moved").exists()


@pytest.mark.parametrize("command", ["mv -T a b", "mv -fT a b"])
def test_a_pin_is_not_renamed_over_a_pin(mounted: Mount, command: str) -> None:
    mounted.pin("a", counter(1))
    with mounted.pin("b", counter(2)) as overwritten:
        number = overwritten.info.id
    before = os.stat(mounted.source / "b").st_ino
    assert mounted.sh(command).code == 1
    with pytest.raises(FileExistsError):
        os.rename(mounted.path / "a", mounted.path / "b")
    assert os.stat(mounted.source / "b").st_ino == before
    assert exists(Map, number)
    assert mounted.sh("cat a/entries/0 b/entries/0").stdout == "1\n2\n"


def test_nothing_else_is_renamed_over_a_pin(mounted: Mount) -> None:
    mounted.pin("sample", counter(1))
    before = os.stat(mounted.source / "sample").st_ino
    os.mkdir(mounted.source / "directory")
    os.symlink("nowhere", mounted.source / "link")
    for name in ("directory", "link"):
        with pytest.raises(OSError):
            os.rename(mounted.path / name, mounted.path / "sample")
    assert os.stat(mounted.source / "sample").st_ino == before
    assert mounted.sh("cat sample/entries/0").stdout == "1\n"


def test_a_pin_cannot_be_made_with_a_file_tool(mounted: Mount) -> None:
    for command in ("touch file", "echo > file", "mkfifo pipe", "mknod device c 1 3"):
        assert mounted.sh(command).code == 1, command
    mounted.pin("sample", counter(1))
    assert mounted.sh("touch sample/file").code == 1
    assert mounted.sh("mkdir sample/directory").code == 1
    assert mounted.sh("rm sample/info").code == 1
    assert mounted.sh("mv sample/info .").code == 1
    assert mounted.sh("ln sample/info hard").code == 1


def test_names_that_only_the_kernel_can_make(mounted: Mount) -> None:
    result = mounted.sh("ls -la && ls -la maps.debug && cat maps.debug/*; find . | wc -l")
    assert result.code == 0, result
    assert " maps.debug\n" in result.stdout
    assert " progs.debug\n" in result.stdout
    assert mounted.sh("ls missing.name").stderr.endswith("No such file or directory\n")
    assert mounted.sh("mkdir some.name").stderr.endswith("Operation not permitted\n")


@pytest.mark.parametrize("name", ["a b", "line\nbreak", "-", "ünï", "quote'\"", "x" * 255, b"\xff"])
def test_names_of_any_kind(mounted: Mount, name: str | bytes) -> None:
    text = os.fsdecode(name)
    mounted.pin(text, counter(3))
    assert text in os.listdir(mounted.path)
    assert (mounted.path / text / "entries/0").read_text() == "3\n"
    os.rmdir(mounted.path / text)
    assert text not in os.listdir(mounted.source)


def test_two_names_of_one_pin(mounted: Mount) -> None:
    mounted.pin("first", counter(4))
    os.link(mounted.source / "first", mounted.source / "second")
    result = mounted.sh("echo 9 > first/entries/0; cat second/entries/0; rmdir first; ls")
    assert result.stdout.startswith("9\n"), result
    assert "first" not in result.stdout
    assert mounted.sh("cat second/entries/0").stdout == "9\n"
    os.link(mounted.source / "second", mounted.source / "first")
    assert mounted.sh("cat first/entries/0").stdout == "9\n"


def test_a_part_of_a_bpffs_can_be_shown(bpffs: Path, mounter: Callable[..., Mount]) -> None:
    os.mkdir(bpffs / "part")
    pin(bpffs / "part/inside", counter(1))
    pin(bpffs / "outside", counter(2))
    mount = mounter(source=bpffs / "part")
    assert os.listdir(mount.path) == ["inside"]
    assert mount.sh("cat inside/entries/0").stdout == "1\n"


def test_a_bpffs_that_is_read_only_is_shown_and_not_changed(bpffs: Path, mounter: Mounter) -> None:
    with make_map() as made:
        made.update(u32(1), u64(500))
        pin(bpffs / "sample", made)
        checked("mount", "-o", "remount,ro", bpffs)
        mount = mounter()
        assert mount.sh("cat sample/entries/* sample/entries.jsonl").stdout == (
            '500\n{"key": 1, "value": 500}\n'
        )
        assert f'"{bpffs}/sample"' in mount.sh("cat sample/info").stdout
        for command in ("echo 5 > sample/entries/1", "rm sample/entries/1", "rmdir sample"):
            assert mount.sh(command).code != 0, command
        assert made.lookup(u32(1)) == u64(500)
