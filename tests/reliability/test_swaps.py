"""What is decided for one thing is done to that and to no other, though somebody swaps names in
between. `test_races.py` tries the same by chance."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.maps import dump, make_map, pin, u32, u64
from support.mounting import Mount, mounted, mounted_bpffs
from support.people import MEMBER, STRANGER, THE_STRANGER, Person
from support.renaming import rename

from fusefs.bpf import libc, syscall
from fusefs.bpf.bpffs import Directory, RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.syscall import Command
from fusefs.restore.copies import Failed
from fusefs.restore.places import Places
from fusefs.tree.context import Context
from fusefs.tree.mirror import Mirror
from fusefs.tree.node import FRESH, Change, Symlink

SECRET, VALUE = u32(7777), u64(123_456)


@pytest.fixture(scope="module")
def for_all() -> Iterator[Mount]:
    """A mount for all users."""
    with mounted_bpffs() as source:
        source.chmod(0o755)
        with mounted(source, ["-o", "allow_other"]) as made:
            yield made


def make_home(source: Path) -> Map:
    """A directory of a user, with `mine`, and with `roots`, a map that is root's and secret."""
    home = source / "home"
    home.mkdir()
    with make_map() as own:
        own.update(u32(1), u64(1))
        pin(home / "mine", own)
    secret = make_map()
    secret.update(SECRET, VALUE)
    pin(home / "roots", secret)
    (home / "link").symlink_to("nowhere")
    for path in (home, home / "mine", home / "link"):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    return secret


def remove_home(source: Path) -> None:
    """Take it away."""
    for path in (source / "home").iterdir():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (source / "home").rmdir()


@pytest.fixture
def secret(for_all: Mount) -> Iterator[Map]:
    """The secret map, in a new home."""
    made = make_home(for_all.source)
    yield made
    remove_home(for_all.source)


def exchange(home: Path, one: str, other: str) -> None:
    """Swap two names."""
    rename(home / one, home / other, RenameFlags.EXCHANGE)


# What its owner does with `entries/` of `mine` once it is swapped with `roots`: they may not do it.


def _list(entries: Path) -> object:
    return os.listdir(entries)


def _stat(entries: Path) -> object:
    return os.stat(entries / "7777")


def _read(entries: Path) -> object:
    return (entries / "7777").read_text()


def _create(entries: Path) -> object:
    return (entries / "5").write_text("5\n")


def _remove(entries: Path) -> None:
    (entries / "7777").unlink()


def _rename(entries: Path) -> None:
    (entries / "7777").rename(entries / "5")


def _save(entries: Path) -> None:
    (entries / ".scratch").rename(entries / "7777")


def _look_again(entries: Path) -> object:
    """By what was opened before."""
    return os.listdir(_opened.pop())


_opened: list[int] = []


def _swapped(home: Path, behind: Path, operation: Callable[[Path], object]) -> object:
    """Do something at once after the pins were swapped, while the kernel knows the names still."""
    entries = home / "mine/entries"
    (entries / ".scratch").write_text("5\n")
    _opened.append(os.open(entries, os.O_RDONLY | os.O_DIRECTORY))
    os.listdir(entries)
    (entries / "1").read_text()
    exchange(behind, "mine", "roots")
    return operation(entries)


@pytest.mark.parametrize(
    "operation", [_list, _stat, _read, _remove, _create, _rename, _save, _look_again]
)
def test_rights_are_those_to_the_pin_that_is_there_now(
    for_all: Mount, secret: Map, operation: Callable[[Path], object]
) -> None:
    """The kernel judges by what it was told of the pin that was there a moment ago."""
    person = Person(THE_STRANGER)
    try:
        home, behind = for_all.path / "home", for_all.source / "home"
        outcome = person.tell(_swapped, home, behind, operation)
        assert not outcome.allowed, outcome
        assert dump(secret) == {SECRET: VALUE}
    finally:
        person.close()


def test_keys_that_somebody_else_has_looked_up_meanwhile(for_all: Mount, secret: Map) -> None:
    """The kernel knows for a moment that they are there; not for those who swap the pins back."""
    person = Person(THE_STRANGER)
    try:
        home, behind = for_all.path / "home", for_all.source / "home"
        looks = 0
        for _ in range(10):
            assert person.tell(os.listdir, home / "mine/entries").allowed
            exchange(behind, "mine", "roots")
            assert (home / "mine/entries/7777").stat().st_size
            assert "7777" in os.listdir(home / "mine/entries")
            exchange(behind, "mine", "roots")
            deadline = time.monotonic() + 2 * FRESH
            while time.monotonic() < deadline:
                outcome = person.tell(_stat, home / "mine/entries")
                assert not outcome.allowed, outcome
                looks += 1
        assert looks
    finally:
        person.close()


def test_who_may_read_the_other_pin_too_goes_on(for_all: Mount, secret: Map) -> None:
    """That is what a loader does that starts anew."""
    os.chown(for_all.source / "home/roots", STRANGER, STRANGER)
    person = Person(THE_STRANGER)
    try:
        home, behind = for_all.path / "home", for_all.source / "home"
        assert person.tell(_swapped, home, behind, _look_again).result == ["7777"]
    finally:
        person.close()


# Names are looked up once. Here they are swapped as soon as that was done.


@pytest.fixture
def home(bpffs: Path) -> Path:
    """The directory of a user, in a bpffs that is not mounted."""
    make_home(bpffs)
    return bpffs / "home"


@pytest.fixture
def swaps(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something done after each time that a name is opened."""

    def after_each(swap: Callable[[], None]) -> None:
        real = libc.openat2

        def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
            opened = real(fd, path, flags, resolve)
            swap()
            return opened

        monkeypatch.setattr(libc, "openat2", openat2)

    return after_each


OWNER, TIMES, MODE = Change(uid=MEMBER), Change(atime_ns=5, mtime_ns=5), Change(mode=0o100666)


@pytest.mark.parametrize(
    ("name", "change"),
    [("link", OWNER), ("link", TIMES), ("mine", OWNER), ("mine", TIMES), ("mine", MODE)],
)
def test_attributes_are_set_of_what_was_found(
    home: Path, swaps: Callable[[Callable[[], None]], None], name: str, change: Change
) -> None:
    before = _attributes(home / "roots")
    top = Directory(str(home.parent))
    node = Mirror(Directory("home", top), Context(top, "/nowhere")).lookup(name)
    swaps(lambda: exchange(home, name, "roots"))
    with contextlib.suppress(OSError):  # it was swapped before it was looked for
        node.change(change, Caller(0, 0))
    assert before in [_attributes(path) for path in home.iterdir()]


def _attributes(path: Path) -> tuple[int, ...]:
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns


def test_the_text_of_a_link_is_its_own(
    home: Path, swaps: Callable[[Callable[[], None]], None]
) -> None:
    (home / "other").symlink_to("elsewhere")
    top = Directory(str(home.parent))
    node = Mirror(Directory("home", top), Context(top, "/nowhere")).lookup("link")
    swaps(lambda: exchange(home, "link", "other"))
    assert isinstance(node, Symlink)
    assert node.target() == "nowhere"


@dataclass(frozen=True)
class Copied:
    """A copy of something that was its user's, to be restored with owner and mode."""

    path: Path
    names: tuple[str, ...]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Such a copy of a directory, with one pin in it."""
    (tmp_path / "new").mkdir(mode=0o755)
    (tmp_path / "new/pin").mkdir()
    for path in (tmp_path / "new", tmp_path / "new/pin"):
        os.chown(path, STRANGER, STRANGER)
    return tmp_path


def test_what_is_restored_is_given_to_its_owner_and_nothing_else(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(Directory(str(home)), keep_modes=True)
    before = _attributes(home / "roots")
    real = syscall.bpf

    def swap_what_is_pinned(command: Command, arguments: ctypes.Structure) -> int:
        result = real(command, arguments)
        if command == Command.OBJ_PIN:
            exchange(home, "new", "roots")
        return result

    with make_map() as made:
        places.pin(Copied(copy / "new", ("kept",)), made)
        assert os.stat(home / "kept").st_uid == STRANGER
        monkeypatch.setattr(syscall, "bpf", swap_what_is_pinned)
        with pytest.raises(Failed, match="in its place"):
            places.pin(Copied(copy / "new", ("new",)), made)
    assert before in [_attributes(path) for path in home.iterdir()]


def test_a_directory_that_is_restored_is_the_one_that_was_made(
    home: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "shut").mkdir(mode=0o700)
    with make_map() as made:
        pin(home / "shut/secret", made)
    places = Places(Directory(str(home)), keep_modes=True)
    before = _attributes(home / "shut")
    real = Directory.mkdir

    def mkdir(directory: Directory, name: str, mode: int) -> None:
        real(directory, name, mode)
        exchange(home, name, "shut")

    monkeypatch.setattr(Directory, "mkdir", mkdir)
    with make_map() as made, pytest.raises(Failed, match="in its place"):
        places.pin(Copied(copy / "new/pin", ("new", "pin")), made)
    assert before in [_attributes(path) for path in home.iterdir()]


def test_a_path_is_tried_again_when_something_was_renamed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = libc.openat2
    refused: list[str] = []

    def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
        if len(refused) < 5:
            refused.append(path)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return real(fd, path, flags, resolve)

    monkeypatch.setattr(libc, "openat2", openat2)
    with Directory(str(home)).open_path(["mine"]) as found:
        assert isinstance(found, Map)
        assert dump(found) == {u32(1): u64(1)}
    assert len(refused) == 5
