"""Live things by their names: threads, cgroups, inodes and sockets, held for a moment."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.maps import types, u64
from support.mounting import Mount
from support.shell import run
from support.storages import descriptors, process, script, storage, thread
from support.users import NOBODY
from support.waiting import eventually

from fusefs.bpf import apart
from fusefs.bpf.cgroups import hierarchy
from fusefs.bpf.credentials import Caller, acting_as
from fusefs.bpf.live_keys import Cgroups, Inodes, LiveKeys, Sockets, Tasks
from fusefs.bpf.map import Map, MapType

ROOT, OTHER = Caller(0, 0), Caller(NOBODY, NOBODY)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    types()  # stays open
    before = descriptors(os.getpid())
    yield
    eventually("all are closed", lambda: descriptors(os.getpid()) <= before)


def serial(things: LiveKeys, name: str, caller: Caller | None = None) -> tuple[int, ...]:
    with things.open(name, caller) as live:
        return live.serial


def refused(things: LiveKeys, name: str) -> type[OSError] | None:
    """Why it cannot be held."""
    try:
        serial(things, name)
    except OSError as error:
        return type(error)
    return None


def takes(made: Map, things: LiveKeys, name: str, number: int = 5) -> bool:
    """Whether a storage takes what has a name for a key; twice the same."""
    with things.open(name, ROOT) as live:
        made.update(live.key, u64(number))
    with things.open(name, None) as live:
        return made.lookup(live.key) == u64(number)


def test_threads() -> None:
    tasks = Tasks()
    with storage(MapType.TASK_STORAGE) as made, thread() as one:
        names = list(tasks.names())
        assert len(names) == len(set(names))
        assert {str(os.getpid()), str(one.id), "1"} <= set(names)
        for number, name in enumerate((str(os.getpid()), str(one.id))):
            assert takes(made, tasks, name, number)
        assert serial(tasks, str(one.id)) == serial(tasks, str(one.id), OTHER)
        assert serial(tasks, str(one.id)) != serial(tasks, str(os.getpid()))
        one.end()
        for name in (str(one.id), "0", str(1 << 22), str(1 << 40)):
            with pytest.raises(FileNotFoundError, match="there is no thread"):
                serial(tasks, name)
        assert str(one.id) not in tasks.names()


def test_cgroups() -> None:
    cgroups = Cgroups()
    with cgroup() as path, storage(MapType.CGRP_STORAGE) as made:
        name = f"/{path.name}"
        (path / "a").mkdir()
        (path / "a/b").mkdir()
        names = list(cgroups.names())
        assert names[0] == "/"
        assert {name, f"{name}/a", f"{name}/a/b"} <= set(names)
        assert takes(made, cgroups, f"{name}/a")
        assert takes(made, cgroups, "/", 6)
        first = serial(cgroups, f"{name}/a/b")
        (path / "a/b").rmdir()
        (path / "a").rmdir()
        with pytest.raises(FileNotFoundError):
            serial(cgroups, f"{name}/a")
        (path / "a").mkdir()
        assert serial(cgroups, f"{name}/a") != first
        (path / "a").rmdir()
        with cgroups.open("/", None) as live:
            made.delete(live.key)


def test_cgroups_that_are_not_for_everybody() -> None:
    cgroups = Cgroups()
    groups = os.getgroups()
    with cgroup() as path:
        below = path / "below"
        below.mkdir()
        try:
            path.chmod(0o700)
            assert f"/{path.name}" in cgroups.names()
            assert f"/{path.name}/below" not in cgroups.names()
            assert serial(cgroups, f"/{path.name}/below", ROOT)
            assert serial(cgroups, f"/{path.name}", OTHER)
            with pytest.raises(PermissionError):
                serial(cgroups, f"/{path.name}/below", OTHER)
        finally:
            below.rmdir()
    assert os.getgroups() == groups


@pytest.mark.parametrize("name", ["/../..", "/..", "/x/../../..", "/cgroup.procs", "/nowhere"])
def test_what_is_no_cgroup(name: str) -> None:
    with pytest.raises(OSError) as refused:
        serial(Cgroups(), name)
    assert refused.value.errno in (errno.ENOENT, errno.ENOTDIR, errno.EXDEV)


def test_the_hierarchy_is_found_wherever_it_is_mounted() -> None:
    with cgroup() as path:
        assert hierarchy() == str(path.parent)
        assert Cgroups().root() == str(path.parent)


_WITHOUT = """
from support.storages import storage
from fusefs.bpf.live_keys import Cgroups
from fusefs.bpf.map import MapType
from fusefs.tree.map_view import MapView
print(list(Cgroups().names()), MapView(storage(MapType.CGRP_STORAGE)).hidden)
"""


def test_where_the_hierarchy_is_not_mounted() -> None:
    command = f"umount -l {hierarchy()} && {sys.executable} -c '{_WITHOUT}'"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = run(["unshare", "-m", "bash", "-c", command], env=environment)
    assert result.stdout == "[] not shown: the cgroup2 file system is not mounted here\n", result
    assert hierarchy()


def test_all_that_can_be_open_has_an_inode(tmp_path: Path) -> None:
    """Files, directories, what was removed, descriptors with O_PATH, pipes, sockets and others."""
    file = tmp_path / "file"
    file.write_text("x")
    removed = os.open(tmp_path / "removed", os.O_CREAT | os.O_RDWR)
    os.unlink(tmp_path / "removed")
    reading, writing = os.pipe()
    made = [
        os.open(file, os.O_RDONLY),
        os.open(file, os.O_WRONLY),
        os.open(file, os.O_PATH),
        os.open(tmp_path, os.O_RDONLY),
        os.open("/dev/null", os.O_RDWR),
        os.open("/proc/self/status", os.O_RDONLY),
        os.memfd_create("memory"),
        os.eventfd(0),
        os.pidfd_open(os.getpid()),
        os.open("/proc/self/ns/net", os.O_RDONLY),
        socket.socket().detach(),
        removed,
        reading,
        writing,
    ]
    inodes = Inodes()
    try:
        with process(["sleep", "60"], made) as other, storage(MapType.INODE_STORAGE) as sample:
            for number, fd in enumerate(made):
                name = f"{other.pid}.{fd}"
                assert takes(sample, inodes, name, number), os.readlink(f"/proc/self/fd/{fd}")
                assert serial(inodes, name) == serial(inodes, name, ROOT)
            with inodes.open(f"{other.pid}.{made[1]}", None) as live:
                assert sample.lookup(live.key) == u64(2)  # the same file, as another opened it
                sample.delete(live.key)
            assert list(inodes.names()) == []
    finally:
        for fd in made:
            os.close(fd)


@pytest.mark.parametrize("things", [Inodes(), Sockets()])
def test_descriptors_that_are_not_there(things: LiveKeys) -> None:
    with process(["sleep", "60"]) as other:
        names = [f"{other.pid}.99", f"{other.pid}.{1 << 40}", f"{1 << 22}.0", f"{1 << 40}.0"]
        names.append(f"{os.getpid()}.0")
        for name in names:
            with pytest.raises(FileNotFoundError):
                serial(things, name)
        other.kill()
        other.wait()
        with pytest.raises(FileNotFoundError):
            serial(things, f"{other.pid}.0")


def test_inodes_are_for_those_who_may_look_into_the_process() -> None:
    inodes = Inodes()
    own = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "sleep", "60"]
    with process(["sleep", "60"]) as roots, process(own) as theirs:
        eventually("it has become them", lambda: os.stat(f"/proc/{theirs.pid}").st_uid == NOBODY)
        assert serial(inodes, f"{theirs.pid}.0", OTHER) == serial(inodes, f"{theirs.pid}.0", ROOT)
        for name in (f"{roots.pid}.0", "1.0", f"{os.getpid()}.0"):
            with pytest.raises((PermissionError, FileNotFoundError)):
                serial(inodes, name, OTHER)
        assert serial(inodes, f"{roots.pid}.0", ROOT)
    # A process of theirs with more rights than they have is not theirs to look into.
    more = [*own[:-2], "--inh-caps=+net_raw", "--ambient-caps=+net_raw", "sleep", "60"]
    with process(more) as privileged:
        eventually("it sleeps", lambda: "sleep" in Path(f"/proc/{privileged.pid}/comm").read_text())
        with pytest.raises(PermissionError):
            serial(inodes, f"{privileged.pid}.0", OTHER)


def test_sockets() -> None:
    sockets = Sockets()
    families = [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM)]
    families += [(socket.AF_UNIX, socket.SOCK_SEQPACKET), (socket.AF_NETLINK, socket.SOCK_RAW)]
    made = [socket.socket(*family) for family in families]
    keep = [one.fileno() for one in made]
    with process(["sleep", "60"], keep) as other, storage(MapType.SK_STORAGE) as sample:
        for number, fd in enumerate(keep):
            assert takes(sample, sockets, f"{other.pid}.{fd}", number)
            assert serial(sockets, f"{other.pid}.{fd}") == (os.fstat(fd).st_ino,)
            with pytest.raises(PermissionError, match="only root"):
                serial(sockets, f"{other.pid}.{fd}", OTHER)
        with pytest.raises(FileNotFoundError, match="no socket"):
            serial(sockets, f"{other.pid}.0")
    for one in made:
        one.close()


def test_a_socket_that_lingers_holds_up_nobody() -> None:
    """Its last descriptor is ours: to close it waits for what was sent to be taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender = socket.create_connection(listener.getsockname())
        taker, _ = listener.accept()
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\2\0\0\0")
        sender.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                sender.send(bytes(1 << 20))
        with process(["sleep", "60"], [sender.fileno()]) as other:
            with Sockets().open(f"{other.pid}.{sender.fileno()}", None):
                sender.setblocking(True)
                sender.close()
                other.kill()
                other.wait()
                began = time.monotonic()
            assert time.monotonic() - began < 0.5
        taker.close()


_EXECUTES = """
import os, socket, sys
made = socket.socket()
os.dup2(made.fileno(), 50)
file = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
sys.stdin.readline()
os.execvp("sleep", ["sleep", "60"])
"""


def test_a_process_whose_execve_hangs(mounter: Callable[..., Mount]) -> None:
    """It waits for a file to be closed, and who would look into it waits for it."""
    mount = mounter()
    mount.pin("sample", storage(MapType.TASK_STORAGE)).close()
    with script(_EXECUTES, mount.path / "sample/info") as other:
        name = f"{other.pid}.50"
        opened = serial(Sockets(), name)
        os.kill(mount.process.pid, signal.SIGSTOP)
        try:
            assert other.stdin
            other.stdin.write("\n")
            other.stdin.flush()

            # Not even its files in /proc can be read any more to see how far it is.
            eventually("it waits for the file", lambda: refused(Sockets(), name) is TimeoutError)
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                serial(Sockets(), name)
            assert refused(Inodes(), name) in (None, TimeoutError)  # as the kernel has it
            with acting_as(OTHER):  # which no thread that hangs holds up
                assert os.getgroups() == []
            assert time.monotonic() - began < 1
        finally:
            os.kill(mount.process.pid, signal.SIGCONT)
        eventually("it sleeps", lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n")
        assert serial(Sockets(), name) == opened


def test_a_file_system_that_hangs(mounter: Callable[..., Mount]) -> None:
    """An inode of it can be had, and nothing is asked of it."""
    mount = mounter()
    mount.pin("sample", storage(MapType.TASK_STORAGE)).close()
    file = os.open(mount.path / "sample/info", os.O_RDONLY)
    with process(["sleep", "60"], [file]) as other, storage(MapType.INODE_STORAGE) as sample:
        os.kill(mount.process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert takes(sample, Inodes(), f"{other.pid}.{file}")
            with pytest.raises(FileNotFoundError):
                serial(Sockets(), f"{other.pid}.{file}")
            assert time.monotonic() - began < 1
        finally:
            os.kill(mount.process.pid, signal.SIGCONT)
        os.close(file)


def test_what_hangs_is_given_up_and_closed_later() -> None:
    go_on = threading.Event()

    def reach() -> int:
        go_on.wait()
        return os.open("/dev/null", os.O_PATH)

    before, threads = descriptors(os.getpid()), threading.active_count()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError), apart.held(reach):
            pass
    assert 0.5 < time.monotonic() - began < 2
    go_on.set()
    eventually("they have ended", lambda: threading.active_count() <= threads)
    assert descriptors(os.getpid()) == before


def test_only_so_many_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_OPENING", 0.01)
    go_on = threading.Event()

    def reach() -> int:
        go_on.wait()
        raise FileNotFoundError(errno.ENOENT, "nothing")

    numbers, threads = [], threading.active_count()
    for _ in range(20):
        with pytest.raises(OSError) as refused, apart.held(reach):
            pass
        numbers.append(refused.value.errno)
    assert numbers == [errno.ETIMEDOUT] * 16 + [errno.EBUSY] * 4
    go_on.set()
    eventually("they have ended", lambda: threading.active_count() <= threads)
    with pytest.raises(FileNotFoundError), apart.held(reach):
        pass
