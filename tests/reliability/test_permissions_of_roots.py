"""What is root's stays root's, however somebody comes to it; and nobody keeps root from it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import by_files, by_hand
from support.maps import dump, make_map, u32, u64
from support.mounting import COMMAND, Mount, mounted, mounted_bpffs
from support.people import (
    CONTAINED,
    GROUP,
    MEMBER,
    ORDINARY,
    POWERLESS,
    ROOT,
    ROOTS,
    STRANGER,
    THE_OWNER,
    THE_STRANGER,
    Outcome,
    Person,
    User,
    people,
)
from support.programs import using
from support.samples import workshop

from fusefs.bpf import libc
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.map import Map, MapType
from fusefs.tree.node import FRESH

Everybody = dict[User, Person]
Mounter = Callable[..., Mount]
# Reads all files, as backups do, and is not root to bpf(2).
SEARCHING = User("root who may search", 0, 0, capabilities=1 << 1 | 1 << 2)
NOT_ROOT = (*ORDINARY[1:], *ROOTS, SEARCHING)


@pytest.fixture(scope="module")
def everybody() -> Iterator[Everybody]:
    with people([ROOT, *NOT_ROOT]) as made:
        yield made


@pytest.fixture
def mount(everybody: object, mounter: Mounter, bpffs: Path) -> Mount:
    """A mount for all users."""
    bpffs.chmod(0o755)
    return mounter("-o", "allow_other")


@pytest.fixture
def sample(mount: Mount) -> Map:
    """A map with an entry, pinned for all."""
    made = mount.pin("sample", make_map())
    made.update(u32(1), u64(101))
    (mount.source / "sample").chmod(0o666)
    return made


def let_go() -> None:
    """What the kernel remembers of a mount is forgotten by then."""
    time.sleep(2 * FRESH)


# .by-id/


def read_some(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def everything_below(path: str) -> list[str]:
    """All that somebody can look at, list or read of a directory and what is in it."""
    reached = []
    for name in ("", "info", "entries", "entries/1", "format", "pin"):
        full = os.path.join(path, name) if name else path
        for act in (os.listdir, read_some):
            with contextlib.suppress(OSError):
                act(full)
                reached.append(f"{act.__name__} {full}")
        with contextlib.suppress(OSError):
            by_files.write(path, name, "\n", 0)
            reached.append(f"write {full}")
    return reached


def test_by_id_is_roots_by_any_way(mount: Mount, sample: Map, everybody: Everybody) -> None:
    number = sample.info.id
    (mount.source / "open").mkdir()
    (mount.source / "open").chmod(0o1777)
    theirs = f"../.by-id/maps/{number}"
    assert everybody[THE_STRANGER].tell(os.symlink, theirs, f"{mount.path}/open/link").allowed
    with workshop(mount.source) as shop, using(sample) as program:
        mount.pin("program", program)
        mount.pin("table", shop.sample(MapType.HASH_OF_MAPS))
        for name in ("program", "table"):
            (mount.source / name).chmod(0o644)
        root = str(mount.path)
        ways = [
            f"{root}/.by-id",
            f"{root}/.by-id/maps",
            f"{root}/.by-id/maps/{number}",
            f"{root}/open/../.by-id/maps/{number}",
            f"{root}/sample/entries/../../.by-id/./maps/{number}",
            f"{root}/open/link",
            f"{root}/table/entries/1",
            f"{root}/program/maps/sample",
        ]
        for root_has_looked in (False, True):
            let_go()
            for way in ways:
                if root_has_looked:
                    told = everybody[ROOT].tell(everything_below, way)
                    assert told.result, way
                for user in NOT_ROOT:
                    told = everybody[user].tell(everything_below, way)
                    assert told == Outcome([]), (user.name, told)


_HANDLE_SIZE = 128


class _Handle(ctypes.Structure):
    """`struct file_handle` of name_to_handle_at(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("type", ctypes.c_int32),
        ("bytes", ctypes.c_uint8 * _HANDLE_SIZE),
    )


def handle_of(path: str) -> bytes:
    """A handle of a file."""
    handle, mount_id = _Handle(size=_HANDLE_SIZE), ctypes.c_int()
    libc.call(
        "name_to_handle_at", -1, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0
    )
    return bytes(handle)


def read_by_handle(mounted_at: str, handle: bytes) -> bytes:
    """Read a file by its handle."""
    directory = os.open(mounted_at, os.O_RDONLY)
    try:
        made = _Handle.from_buffer_copy(handle)
        fd = libc.call("open_by_handle_at", directory, ctypes.byref(made), os.O_RDONLY)
    finally:
        os.close(directory)
    try:
        return os.read(fd, 1 << 16)
    finally:
        os.close(fd)


def test_by_id_is_roots_by_handles_too(mount: Mount, sample: Map, everybody: Everybody) -> None:
    path = f"{mount.path}/.by-id/maps/{sample.info.id}/entries/1"
    told = everybody[ROOT].tell(handle_of, path)
    assert told.allowed, told
    read = everybody[ROOT].tell(read_by_handle, str(mount.path), told.result)
    assert read == Outcome(b"101\n")
    for user in NOT_ROOT:
        assert everybody[ROOT].tell(by_files.read, path).allowed  # the kernel knows it
        read = everybody[user].tell(read_by_handle, str(mount.path), told.result)
        assert read.errno in (errno.EPERM, errno.EACCES), (user.name, read)


def test_root_reaches_all(mount: Mount, sample: Map, everybody: Everybody) -> None:
    """Who has the rights of root has them here, whoever else has looked before."""
    path = f"{mount.path}/.by-id/maps/{sample.info.id}"
    everybody[THE_STRANGER].tell(os.listdir, path)
    assert everybody[ROOT].tell(by_files.read, path, "entries/1").result == b"101\n"


# Who somebody is.


def as_thread(uid: int, groups: frozenset[int], act: Callable[[], object]) -> Outcome:
    """What came of something in a thread with its own credentials."""
    outcomes: list[Outcome] = []

    def run() -> None:
        libc.set_groups(groups)
        libc.set_filesystem_ids(uid, uid)
        try:
            outcomes.append(Outcome(act()))
        except OSError as error:
            outcomes.append(Outcome(errno=error.errno or -1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcomes[0]


def make_as_two(path: str) -> list[int]:
    """What a thread that is in the group, and one that is not, are told when they make a directory;
    each while the other one is there."""
    return [
        as_thread(MEMBER, groups, functools.partial(os.mkdir, f"{path}/{number}")).errno
        for number, groups in enumerate([frozenset({GROUP}), frozenset(), frozenset({GROUP})])
    ]


def test_groups_are_those_of_the_thread(mount: Mount, everybody: Everybody) -> None:
    shared = mount.source / "shared"
    shared.mkdir()
    os.chown(shared, 0, GROUP)
    shared.chmod(0o770)
    (shared / "direct").mkdir()
    os.chown(shared / "direct", 0, GROUP)
    (shared / "direct").chmod(0o770)
    expected = Outcome([0, errno.EACCES, 0])
    assert everybody[ROOT].tell(make_as_two, str(shared / "direct")) == expected
    assert everybody[ROOT].tell(make_as_two, str(mount.path / "shared")) == expected


def test_from_another_pid_namespace_nobody_is_root(
    mounter: Mounter, bpffs: Path, everybody: Everybody
) -> None:
    """The daemon sees nobody from outside, and in /proc others than it thinks."""
    bpffs.chmod(0o755)
    command = ["unshare", "--pid", "--fork", "--kill-child", *COMMAND]
    mount = mounter("-o", "allow_other", command=command)
    with make_map() as made:
        mount.pin("sample", made).update(u32(1), u64(101))
        path = f"{mount.path}/.by-id/maps/{made.info.id}"
        assert everybody[ROOT].tell(everything_below, path) == Outcome([])
        # Of what it may do as any user, nothing is lost.
        assert everybody[ROOT].tell(by_files.read, str(mount.path), "sample/entries/1").allowed
        assert everybody[ROOT].tell(os.mkdir, f"{mount.path}/new").allowed


def test_bpffs_is_asked_without_what_the_caller_lacks(bpffs: Path) -> None:
    """Should the kernel let somebody through whom it knows with older rights."""
    directory = bpffs / "theirs"
    directory.mkdir()
    os.chown(directory, STRANGER, STRANGER)
    directory.chmod(0o755)
    for capabilities in (POWERLESS.capabilities, CONTAINED.capabilities):
        assert capabilities is not None
        caller = Caller(0, 0, frozenset(os.getgroups()), capabilities)
        before = libc.capabilities()
        with acting_as(caller):
            assert libc.capabilities() == before & capabilities
            if capabilities:
                (directory / "new").mkdir()  # with CAP_DAC_OVERRIDE
            else:
                with pytest.raises(PermissionError):
                    (directory / "new").mkdir()
        assert libc.capabilities() == before


# What is told of a file.


def told_of(path: str) -> tuple[int, int, int]:
    """What stat(2) tells of a file's contents."""
    status = os.stat(path)
    return status.st_size, status.st_blocks, status.st_mtime_ns


def test_each_is_told_what_is_for_them(mount: Mount, sample: Map, everybody: Everybody) -> None:
    """Though another has asked a moment ago, or looks at it still."""
    (mount.source / "sample").chmod(0o622)
    let_go()
    path = str(mount.path / "sample/entries/1")
    stranger, root = everybody[THE_STRANGER], everybody[ROOT]
    for _ in range(3):
        assert mount.sh("ls -l sample/entries").code == 0
        seen = stranger.tell(told_of, path).result
        assert seen[:2] == (0, 0)
        assert root.tell(told_of, path).result[:2] == (4, 1)
        with open(path) as file:
            assert file.read() == "101\n"
            assert os.fstat(file.fileno()).st_size == 4
            assert stranger.tell(told_of, path).result == seen
    sample.update(u32(1), u64(7))
    let_go()
    assert stranger.tell(told_of, path).result == seen
    assert root.tell(told_of, path).result[0] == 2


# A directory that is closed, and what somebody has held since before.


class Held:
    """What somebody holds: in a process of theirs."""

    fds: dict[str, int]

    def __init__(self) -> None:
        self.fds = {}


_held = Held()


def hold(name: str, path: str, flags: int) -> None:
    """Open something, and keep it."""
    _held.fds[name] = os.open(path, flags)


def get_held(name: str) -> None:
    """Have the object of a pin that is held."""
    os.close(by_hand.get(f"/proc/self/fd/{_held.fds[name]}"))


def read_in_held(name: str, file: str) -> bytes:
    """Read a file in a directory that is held."""
    fd = os.open(file, os.O_RDONLY, dir_fd=_held.fds[name])
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def let_go_of_held() -> None:
    """Close all that is held."""
    for fd in _held.fds.values():
        os.close(fd)
    _held.fds.clear()


def use_held(name: str) -> bytes:
    """Write and read an open file that is held."""
    os.pwrite(_held.fds[name], b"7\n", 0)
    return os.pread(_held.fds[name], 4096, 0)


def test_what_was_held_before_a_directory_was_closed(mount: Mount, everybody: Everybody) -> None:
    stranger = everybody[THE_STRANGER]
    (mount.source / "directory").mkdir(0o755)
    made = mount.pin("directory/sample", make_map())
    made.update(u32(1), u64(101))
    (mount.source / "directory/sample").chmod(0o666)
    pin, shown = (str(path / "directory/sample") for path in (mount.source, mount.path))
    assert stranger.tell(hold, "pin", pin, os.O_PATH).allowed
    assert stranger.tell(hold, "shown", shown, os.O_PATH).allowed
    assert stranger.tell(hold, "entry", f"{shown}/entries/1", os.O_RDWR).allowed
    (mount.source / "directory").chmod(0o700)
    let_go()
    # By its path there is no way to it any more, neither in bpffs nor here.
    assert stranger.tell(by_hand.fully, pin).errno == errno.EACCES
    assert stranger.tell(by_files.read, shown, "entries/1").errno == errno.EACCES
    # Who holds it has it still, as in bpffs.
    assert stranger.tell(get_held, "pin").allowed
    assert stranger.tell(read_in_held, "shown", "entries/1").result == b"101\n"
    assert stranger.tell(use_held, "entry").result == b"7\n"
    # Its own mode counts at every open; an open file is an open map.
    (mount.source / "directory/sample").chmod(0o600)
    let_go()
    assert stranger.tell(get_held, "pin").errno == errno.EACCES
    assert stranger.tell(read_in_held, "shown", "entries/1").errno == errno.EACCES
    assert stranger.tell(use_held, "entry").result == b"7\n"
    stranger.tell(let_go_of_held)


# Mounts that are read-only, or for root alone.

CHANGES = (
    functools.partial(by_files.write, name="sample/entries/1", text="7\n"),
    functools.partial(by_files.write, name="sample/frozen", text="1\n"),
    functools.partial(by_files.write, name="sample/entries.jsonl", text='{"key": 1, "value": 7}\n'),
    functools.partial(by_files.remove, name="sample/entries/1"),
    functools.partial(by_files.rename, name="sample/entries/1", new_name="sample/entries/2"),
    functools.partial(by_files.remove_directory, name="sample"),
    functools.partial(by_files.rename, name="sample", new_name="other"),
    functools.partial(by_files.symlink, name="link", target="sample"),
)


def test_nothing_changes_where_a_mount_is_read_only(mounter: Mounter, everybody: Everybody) -> None:
    mount = mounter("-o", "ro,allow_other")
    made = mount.pin("sample", make_map())
    made.update(u32(1), u64(101))
    (mount.source / "sample").chmod(0o666)
    for person in everybody.values():
        for change in CHANGES:
            told = person.tell(change, str(mount.path))
            assert told.errno == errno.EROFS, (person.user.name, change, told)
    assert everybody[THE_STRANGER].tell(by_files.read, f"{mount.path}/sample/entries/1").allowed
    assert made.lookup(u32(1)) == u64(101)


def test_nothing_changes_where_bpffs_is_read_only(mount: Mount, everybody: Everybody) -> None:
    made = mount.pin("sample", make_map())
    made.update(u32(1), u64(101))
    (mount.source / "sample").chmod(0o666)
    assert mount.sh(f"mount -o remount,ro {mount.source}").code == 0
    for person in everybody.values():
        for change in CHANGES:
            told = person.tell(change, str(mount.path))
            assert told.errno in (errno.EROFS, errno.EPERM, errno.EACCES), (person, change, told)
        told = person.tell(by_files.read, f"{mount.path}/sample/entries/1")
        assert told.result == b"101\n", person.user.name  # as bpf(2) lets them
        assert person.tell(by_hand.to_read, str(mount.source / "sample")).allowed
    assert dump(made) == {u32(1): u64(101)}
    assert not made.frozen()


def test_without_allow_other_nobody_else_gets_in(everybody: Everybody) -> None:
    with mounted_bpffs() as source, mounted(source) as mount, make_map() as made:
        mount.pin("sample", made)
        (source / "sample").chmod(0o666)
        for person in everybody.values():
            told = person.tell(os.listdir, str(mount.path))
            is_root = person.user.uid == 0 and not person.user.mapped.endswith(f"{STRANGER} 1")
            assert told.allowed == is_root, (person.user.name, told)
            path = f"{mount.path}/.by-id/maps/{made.info.id}"
            told = person.tell(everything_below, path)
            assert bool(told.result) == (person.user is ROOT), (person.user.name, told)


# Descriptors.


def open_many(path: str, most: int) -> int:
    """Open a file again and again; how often that went."""
    for number in range(most):
        try:
            _held.fds[f"many {number}"] = os.open(path, os.O_RDONLY)
        except OSError as error:
            assert error.errno == errno.EMFILE, error
            return number
    return most


@pytest.mark.parametrize("what", ["sample/entries/1", "sample/entries"])
def test_nobody_has_all_the_descriptors(
    mounter: Mounter, bpffs: Path, everybody: Everybody, what: str
) -> None:
    bpffs.chmod(0o755)
    limit = 512
    mount = mounter("-o", "allow_other", command=["prlimit", f"--nofile={limit}", *COMMAND])
    made = mount.pin("sample", make_map())
    made.update(u32(1), u64(101))
    (mount.source / "sample").chmod(0o666)
    path = str(mount.path / what)
    had: dict[int, int] = {}
    try:
        for person in everybody.values():
            if person.user is not ROOT:
                had[person.user.uid] = (
                    had.get(person.user.uid, 0) + person.tell(open_many, path, 2 * limit).result
                )
        # Each has as many as anybody, until there is no more for all of them; root has the rest.
        assert max(had.values()) == limit // 8 and sum(had.values()) == limit // 2, had
        assert everybody[ROOT].tell(open_many, path, limit // 8).result == limit // 8
        assert json.loads(mount.sh("cat sample/info.json").stdout)["id"] == made.info.id
        everybody[THE_OWNER].tell(let_go_of_held)
        assert everybody[THE_OWNER].tell(open_many, path, 1).result == 1
    finally:
        for person in everybody.values():
            person.tell(let_go_of_held)


# What the daemon may not know.


def test_a_closed_directory_hides_its_own_pins_alone(mounter: Mounter, bpffs: Path) -> None:
    """In any bpffs, for a daemon that has not all rights."""
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *COMMAND]
    mount = mounter(command=command)
    made = mount.pin("sample", make_map())
    assert json.loads(mount.sh("cat sample/info.json").stdout)["pins"] == [f"{bpffs}/sample"]
    for name, mode in (("unlisted", 0o300), ("closed", 0o000)):
        (bpffs / name).mkdir()
        mount.pin(f"{name}/sample", made)
        os.chown(bpffs / name, STRANGER, STRANGER)
        (bpffs / name).chmod(mode)
    let_go()
    mount.pin("another", make_map())  # so that it looks anew
    told = json.loads(mount.sh("cat sample/info.json").stdout)
    assert told["pins"] == [f"{bpffs}/sample"]
    assert told["other_pins"] == "not known: 2 directories of bpffs cannot be looked into"
    assert told["prog_ids"] == []


def test_holders_are_not_known_to_who_may_not_look(mounter: Mounter, bpffs: Path) -> None:
    mount = mounter(command=["setpriv", "--bounding-set=-sys_ptrace", *COMMAND])
    mount.pin("sample", make_map())
    told = json.loads(mount.sh("cat sample/info.json").stdout)
    assert told["holders"].startswith("not known: ") and "CAP_SYS_PTRACE" in told["holders"]
