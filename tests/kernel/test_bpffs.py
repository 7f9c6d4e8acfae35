"""bpffs by descriptors: what is opened is what was meant, and with whose rights."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map, u32, u64
from support.mounting import nested

from fusefs.bpf.bpffs import Directory, RenameFlags, is_bpffs
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.map import Map

STRANGER = Caller(12345, 23456, frozenset({34567}))


@pytest.fixture
def directory(bpffs: Path) -> Directory:
    """The root of a fresh bpffs."""
    return Directory(str(bpffs))


def inode(directory: Directory, name: str) -> int:
    """The inode of a name."""
    return directory.stat(name).st_ino


def test_what_is_a_bpffs(directory: Directory, tmp_path: Path) -> None:
    assert is_bpffs(directory.fd)
    assert not is_bpffs(Directory(str(tmp_path)).fd)


def test_a_pin_opens_as_what_it_is(directory: Directory) -> None:
    with make_map() as made:
        directory.pin("sample", made)
        with directory.open_pin("sample", inode(directory, "sample")) as opened:
            assert isinstance(opened, Map)
            assert opened.info.id == made.info.id
            opened.update(u32(1), u64(5))
        assert made.lookup(u32(1)) == u64(5)


def test_a_replaced_pin_is_not_opened(directory: Directory) -> None:
    with make_map() as first, make_map() as second:
        directory.pin("sample", first)
        before = inode(directory, "sample")
        directory.pin("other", second)
        directory.unlink("sample")
        directory.rename("other", directory, "sample", RenameFlags.REPLACE)
        with pytest.raises(FileNotFoundError):
            directory.open_pin("sample", before)
        with directory.open_pin("sample", inode(directory, "sample")) as opened:
            assert opened.info.id == second.info.id


def test_a_symbolic_link_is_not_followed(directory: Directory) -> None:
    with make_map() as made:
        directory.pin("sample", made)
    directory.symlink("link", "sample")
    assert directory.named("link").readlink() == "sample"
    assert stat.S_ISLNK(directory.stat("link").st_mode)
    for number in (inode(directory, "link"), inode(directory, "sample")):
        with pytest.raises(OSError):
            directory.open_pin("link", number)
    directory.mkdir("real", 0o700)
    directory.symlink("way", "real")
    with pytest.raises(NotADirectoryError):
        Directory("way", directory)


def test_a_directory_stays_what_it_is_when_it_is_renamed(directory: Directory) -> None:
    directory.mkdir("first", 0o755)
    first = Directory("first", directory)
    directory.rename("first", directory, "second", RenameFlags.REPLACE)
    directory.mkdir("first", 0o755)
    first.mkdir("inside", 0o755)
    assert [listed.name for listed in Directory("second", directory).list()] == ["inside"]
    assert Directory("first", directory).list() == []


def test_renames(directory: Directory) -> None:
    directory.mkdir("a", 0o755)
    directory.symlink("b", "text")
    a, b = inode(directory, "a"), inode(directory, "b")
    with pytest.raises(FileExistsError):
        directory.rename("a", directory, "b", RenameFlags.NOREPLACE)
    directory.rename("a", directory, "b", RenameFlags.EXCHANGE)
    assert (inode(directory, "a"), inode(directory, "b")) == (b, a)
    directory.rename("a", directory, "c", RenameFlags.NOREPLACE)
    assert inode(directory, "c") == b
    with pytest.raises(FileNotFoundError):
        directory.rename("a", directory, "d", RenameFlags.REPLACE)


def test_a_listing_has_the_names_that_cannot_be_asked_about(directory: Directory) -> None:
    directory.mkdir("some", 0o700)
    listed = {listed.name: listed.stat for listed in directory.list()}
    assert set(listed) == {"some", "maps.debug", "progs.debug"}
    status = listed["some"]
    assert status is not None
    assert stat.S_IMODE(status.st_mode) == 0o700


def test_attributes(directory: Directory) -> None:
    directory.mkdir("some", 0o700)
    directory.named("some").chmod(0o751)
    directory.named("some").chown(123, -1)
    directory.named("some").chown(-1, 456)
    directory.named("some").utime(10**18, 2 * 10**18 + 1)
    status = directory.stat("some")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o751, 123, 456)
    assert (status.st_atime_ns, status.st_mtime_ns) == (10**18, 2 * 10**18 + 1)
    directory.chmod(0o700)
    directory.chown(1, 2)
    directory.utime(0, 5)
    status = directory.status()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o700, 1, 2)
    assert status.st_mtime_ns == 5


def test_a_link_is_not_followed_by_what_sets_attributes(directory: Directory) -> None:
    directory.mkdir("real", 0o700)
    directory.symlink("link", "real")
    directory.named("link").chown(5, 5)
    directory.named("link").utime(5, 5)
    with pytest.raises(OSError):
        directory.named("link").chmod(0o777)
    status = directory.stat("real")
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)
    assert status.st_mtime_ns != 5


def test_the_kernel_judges_by_the_callers_rights(directory: Directory) -> None:
    directory.chmod(0o700)
    with acting_as(STRANGER), pytest.raises(PermissionError):
        directory.mkdir("no", 0o755)
    directory.mkdir("yes", 0o755)
    assert {listed.name for listed in directory.list()} > {"yes"}
    assert directory.stat("yes").st_uid == 0
    directory.chmod(0o777)
    with acting_as(STRANGER):
        directory.mkdir("theirs", 0o755)
    status = directory.stat("theirs")
    assert (status.st_uid, status.st_gid) == (STRANGER.uid, STRANGER.gid)


@pytest.mark.parametrize("groups", [frozenset({34567}), frozenset[int]()])
def test_the_callers_groups_count(directory: Directory, groups: frozenset[int]) -> None:
    directory.mkdir("shared", 0o770)
    directory.named("shared").chmod(0o770)
    directory.named("shared").chown(0, 34567)
    shared = Directory("shared", directory)
    before = os.getgroups()
    with acting_as(Caller(12345, 23456, groups)):
        if groups:
            shared.mkdir("new", 0o755)
        else:
            with pytest.raises(PermissionError):
                shared.mkdir("new", 0o755)
    assert os.getgroups() == before


def test_rights_are_given_back_after_an_error(directory: Directory) -> None:
    with pytest.raises(ZeroDivisionError), acting_as(STRANGER):
        raise ZeroDivisionError
    directory.chmod(0o700)
    directory.mkdir("root", 0o755)
    assert directory.stat("root").st_uid == 0
    status = Path("/proc/thread-self/status").read_text().splitlines()
    assert "Uid:\t0\t0\t0\t0" in status
    assert "Gid:\t0\t0\t0\t0" in status


def errno_of(call: Callable[[], object]) -> int | None:
    """The errno that a call fails with."""
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


@pytest.mark.parametrize("kind", ["bpf", "tmpfs"])
def test_what_is_mounted_in_it_is_not_part_of_it(
    bpffs: Path, directory: Directory, kind: str
) -> None:
    for name in ("nested", "other"):
        directory.mkdir(name, 0o755)
    before = Directory("nested", directory)
    before.mkdir("hidden", 0o755)
    number = inode(directory, "nested")
    with nested(bpffs / "nested", ["-t", kind, "none"]):
        (bpffs / "nested/inside").mkdir()
        assert errno_of(lambda: directory.stat("nested")) == errno.EXDEV
        assert errno_of(lambda: Directory("nested", directory)) == errno.EXDEV
        assert errno_of(lambda: directory.open_pin("nested", number)) == errno.EXDEV
        assert errno_of(lambda: directory.named("nested").chmod(0o700)) == errno.EXDEV
        assert errno_of(lambda: directory.rmdir("nested")) == errno.EBUSY
        for flags in (RenameFlags.REPLACE, RenameFlags.EXCHANGE):
            for old, new in (("nested", "other"), ("other", "nested")):
                rename = functools.partial(directory.rename, old, directory, new, flags)
                assert errno_of(rename) == errno.EBUSY
        listed = {listed.name: listed.stat for listed in directory.list()}
        assert listed["nested"] is None
        assert listed["other"] is not None
        assert os.listdir(bpffs / "nested/inside") == []
        # What was opened before is what it was, though no path leads to it.
        assert before.moved()
        assert [listed.name for listed in before.list()] == ["hidden"]
    assert inode(directory, "nested") == number
    assert Directory("nested", directory).stat("hidden").st_ino == before.stat("hidden").st_ino


def test_a_pin_that_is_covered(bpffs: Path, directory: Directory, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with make_map() as made:
        directory.pin("sample", made)
    number = inode(directory, "sample")
    with nested(bpffs / "sample", ["--bind", file]):
        assert errno_of(lambda: directory.stat("sample")) == errno.EXDEV
        for wanted in (number, os.stat(file).st_ino):
            opening = functools.partial(directory.open_pin, "sample", wanted)
            assert errno_of(opening) == errno.EXDEV
    directory.open_pin("sample", number).close()


def test_a_path_may_lead_to_what_is_mounted_in_another(bpffs: Path) -> None:
    (bpffs / "nested").mkdir()
    with nested(bpffs / "nested", ["-t", "bpf", "bpf"]):
        (bpffs / "nested/inside").mkdir()
        opened = Directory(str(bpffs / "nested"))
        assert is_bpffs(opened.fd)
        assert opened.stat("inside").st_ino
        del opened  # it would be busy


def test_descriptors_are_given_back(directory: Directory) -> None:
    with make_map() as made:
        directory.pin("sample", made)
    number = inode(directory, "sample")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        directory.open_pin("sample", number).close()
        with pytest.raises(FileNotFoundError):
            directory.open_pin("sample", number + 1)
        directory.list()
        Directory(".", directory)
    assert len(os.listdir("/proc/self/fd")) <= before


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Every descriptor that this process may have is taken."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_without_descriptors_a_directory_has_not_moved(bpffs: Path) -> None:
    (bpffs / "inside").mkdir()
    inside = Directory("inside", Directory(str(bpffs)))
    with no_descriptors_left(), pytest.raises(OSError) as raised:
        inside.moved()
    assert raised.value.errno == errno.EMFILE
    assert not inside.moved()
    (bpffs / "inside").rename(bpffs / "elsewhere")
    assert inside.moved()


def test_a_listing_that_fails_half_way_fails(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only names that the kernel itself keeps to itself are listed without attributes."""
    directory = Directory(str(bpffs))
    for name in ("first", "second"):
        (bpffs / name).mkdir()
    look = Directory.stat

    def failing(number: int) -> None:
        def stat(self: Directory, name: str = "") -> os.stat_result:
            if name == "second":
                raise OSError(number, os.strerror(number))
            return look(self, name)

        monkeypatch.setattr(Directory, "stat", stat)

    failing(errno.EMFILE)
    with pytest.raises(OSError) as raised:
        directory.list()
    assert raised.value.errno == errno.EMFILE
    failing(errno.ENOENT)
    names = {listed.name for listed in directory.list()}
    assert "first" in names
    assert "second" not in names
