"""Local storages of inodes and sockets: entries whose keys are what processes have open."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.maps import u32, u64
from support.mounting import Mount
from support.storages import THINGS, descriptors, process, refused, script, storage
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

ABSENT = "No such file or directory\n"
each_kind = pytest.mark.parametrize("kind", THINGS, ids=lambda kind: kind.name.lower())


@pytest.fixture
def inodes(mounted: Mount) -> Iterator[Map]:
    """A storage of inodes, pinned as `sample`."""
    with storage(MapType.INODE_STORAGE) as made:
        yield mounted.pin("sample", made)


@pytest.fixture
def sockets(mounted: Mount) -> Iterator[Map]:
    """A storage of sockets, pinned as `sample`."""
    with storage(MapType.SK_STORAGE) as made:
        yield mounted.pin("sample", made)


def test_files_by_their_descriptors(mounted: Mount, inodes: Map, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    result = mounted.sh(
        f"cd sample/entries; exec 5< {file} 6>> {file} 7< .; echo 8 > $$.5; cat $$.5 $$.6;"
        " stat -c %s $$.5; wc -c < $$.5; echo 9 > $$.6; cat $$.5; touch $$.5; cp $$.5 $$.7;"
        " cat $$.7; ls; exec 6>&-; cat $$.6; rm $$.5; cat $$.5"
    )
    lines = result.stdout.splitlines()
    assert lines == ["8", "8", "2", "2", "9", "9"], result
    assert result.stderr.count(ABSENT) == 2
    with file.open() as opened:
        assert value_of_own(inodes, opened.fileno()) is None
    said = mounted.sh("grep ^entries: sample/info").stdout
    assert "not listed" in said and "entries/1234.5" in said


def value_of_own(sample: Map, fd: int) -> int | None:
    """The value of what this process has open as `fd`."""
    try:
        return int.from_bytes(sample.lookup(u32(fd)), "little")
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("kind", [MapType.INODE_STORAGE, MapType.SK_STORAGE])
def test_values_are_not_moved(mounted: Mount, kind: MapType) -> None:
    """Two descriptors may be of the same, which would lose its value."""
    mounted.pin("sample", storage(kind)).close()
    opened = "5<> /dev/udp/127.0.0.1/9" if kind == MapType.SK_STORAGE else "5< /etc/passwd"
    result = mounted.sh(
        f"cd sample/entries; exec {opened} 6<&5; echo 8 > $$.5; mv $$.5 $$.6; cat $$.5 $$.6;"
        " rm $$.5"
    )
    assert result.stdout == "8\n8\n"
    assert "Operation not permitted" in result.stderr
    assert "two descriptors may be of the same" in mounted.error_log("sample")


def test_sockets_by_their_descriptors(mounted: Mount, sockets: Map) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with process(["sleep", "60"], [listener.fileno()]) as other:
            name = f"{other.pid}.{listener.fileno()}"
            assert mounted.sh(f"cat sample/entries/{name}").stderr.endswith(ABSENT)
            assert mounted.sh(f"echo 5 > sample/entries/{name}").code == 0
            assert value_of_own(sockets, listener.fileno()) == 5
            sockets.update(u32(listener.fileno()), u64(6))
            assert mounted.sh(f"cat sample/entries/{name}").stdout == "6\n"
            refused(mounted, f"echo 5 > {other.pid}.0", ABSENT, "there is no socket with")
            assert mounted.sh(f"rm sample/entries/{name}").code == 0
            assert value_of_own(sockets, listener.fileno()) is None
    said = mounted.sh("grep ^entries: sample/info").stdout
    assert "not listed" in said and "for root" in said


def test_names_that_are_no_descriptors(mounted: Mount, inodes: Map) -> None:
    for name in ("1", "1.", "1.05", "01.5", "1.5.6", "a.5", "1,5", "-1.5"):
        assert mounted.sh(f"cat sample/entries/{name}").stderr.endswith(ABSENT)
        refused(mounted, f"echo 1 > {name}", "Invalid argument\n", "the id of a process and a")
    for name in (f"{1 << 22}.0", f"{os.getpid()}.{1 << 20}", "1.9999999999"):
        refused(mounted, f"echo 1 > {name}", ABSENT, "there is no descriptor")


def test_a_descriptor_that_is_closed_or_replaced(mounted: Mount, inodes: Map) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    zero = os.open("/dev/zero", os.O_RDONLY)
    name = f"{os.getpid()}.{fd}"
    file = mounted.path / "sample/entries" / name
    file.write_text("5\n")
    with file.open("r+b", buffering=0) as opened:
        os.dup2(zero, fd)
        inodes.update(u32(fd), u64(6))
        for do in (opened.read, lambda: opened.write(b"7\n")):
            opened.seek(0)
            with pytest.raises(OSError) as error:
                do()
            assert error.value.errno in (errno.ESTALE, errno.ENOENT)
        assert file.read_text() == "6\n"
        os.close(fd)
        with pytest.raises(FileNotFoundError):
            file.read_text()
    assert value_of_own(inodes, zero) == 6
    inodes.delete(u32(zero))
    with open("/dev/null") as null:
        assert value_of_own(inodes, null.fileno()) == 5
        inodes.delete(u32(null.fileno()))
    os.close(zero)


def test_files_of_this_mount_and_of_its_process(mounted: Mount, inodes: Map) -> None:
    """Nothing is asked of the file system that serves them: it would wait for itself."""
    result = mounted.sh(
        "cd sample; exec 5< info 7<> format 8< .; cd entries;"
        " for fd in 5 7 8; do echo $fd > $$.$fd; cat $$.$fd; done; rm $$.5; cat $$.5",
        seconds=20,
    )
    assert result.stdout == "5\n7\n8\n", result
    pid = mounted.process.pid
    for fd in os.listdir(f"/proc/{pid}/fd"):
        assert mounted.sh(f"cat sample/entries/{pid}.{fd}").stderr.endswith(ABSENT)
        refused(mounted, f"echo 1 > {pid}.{fd}", ABSENT, "of this very file system")


# Has a file of the mount, which is closed on execve(2); told to begin, it executes itself again
# and again.
_EXECUTES = """
import os, socket, sys
if sys.argv[2] == "0":
    os.dup2(socket.socket().detach(), 50)
    print("ready", flush=True)
    sys.stdin.readline()
for _ in range(20):
    os.open(sys.argv[1], os.O_RDONLY)
again = [sys.argv[3], sys.argv[1], "1", sys.argv[3]]
os.execv(sys.executable, [sys.executable, "-S", "-E", "-c", *again])
"""


@pytest.mark.parametrize("kind", [MapType.SK_STORAGE, MapType.INODE_STORAGE])
def test_a_process_that_closes_files_of_this_mount(mounted: Mount, kind: MapType) -> None:
    """By execve(2), during which nobody can reach into it: that must not wait for the mount."""
    mounted.pin("sample", storage(kind)).close()
    with script(_EXECUTES, mounted.path / "sample/info", "0", _EXECUTES) as other:
        file = mounted.path / f"sample/entries/{other.pid}.50"
        file.write_text("5\n")
        assert other.stdin
        other.stdin.write("begin\n")
        other.stdin.flush()
        slowest, seen, deadline = 0.0, 0, time.monotonic() + 2
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                seen += file.read_text() == "5\n"
            except OSError as error:
                assert error.errno in (errno.ETIMEDOUT, errno.ENOENT, errno.EBUSY)
            slowest = max(slowest, time.monotonic() - began)
        assert seen
        assert slowest < 2
    eventually("it serves", lambda: mounted.sh("cat sample/frozen").stdout == "0\n")


@each_kind
def test_no_descriptor_is_left_after_many_requests(mounted: Mount, kind: MapType) -> None:
    with storage(kind) as sample, cgroup() as path, socket.socket() as made:
        mounted.pin("sample", sample)
        with process(["sleep", "60"], [made.fileno()]) as other:
            name = {
                MapType.TASK_STORAGE: str(other.pid),
                MapType.CGRP_STORAGE: path.name,
            }.get(kind, f"{other.pid}.{made.fileno()}")
            file = mounted.path / "sample/entries" / name
            file.write_text("5\n")
            before = descriptors(mounted.process.pid)
            for number in range(250):
                file.write_text(f"{number}\n")
                assert file.read_text() == f"{number}\n"
                assert (file.parent / "1234567.9").exists() is False
                os.listdir(file.parent)
            eventually("all are closed", lambda: descriptors(mounted.process.pid) <= before, 1)
            threads = os.listdir(f"/proc/{mounted.process.pid}/task")
            assert len(threads) < 10
            os.unlink(file)


def test_the_mount_keeps_nothing_alive(mounted: Mount) -> None:
    """A socket whose value was seen ends with its process; so does the process itself."""
    mounted.pin("sample", storage(MapType.SK_STORAGE)).close()
    ours, theirs = socket.socketpair()
    with process(["sleep", "60"], [theirs.fileno()]) as other:
        name = f"{other.pid}.{theirs.fileno()}"
        assert mounted.sh(f"cd sample/entries; echo 5 > {name}; cat {name}").stdout == "5\n"
        with (mounted.path / "sample/entries" / name).open() as opened:
            theirs.close()
            other.kill()
            other.wait()
            ours.settimeout(1)
            assert ours.recv(1) == b""
            assert opened.read() == "5\n"  # what it was
    ours.close()


# Users


@pytest.fixture
def open_to_all(mounter: Callable[..., Mount]) -> Mount:
    """A mount for all users."""
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    return mount


def test_users_reach_into_their_own_processes(open_to_all: Mount) -> None:
    mount = open_to_all
    with storage(MapType.INODE_STORAGE) as sample:
        mount.pin("sample", sample)
        os.chmod(mount.source / "sample", 0o666)
        command = "cd sample/entries; exec 5< /etc/passwd; echo 8 > $$.5; cat $$.5; stat -c %s $$.5"
        assert nobody(mount, command).stdout == "8\n2\n"
        with process(["sleep", "60"]) as roots, open("/etc/passwd") as file:
            name = f"{roots.pid}.0"
            assert mount.sh(f"cd sample/entries; echo 9 > {name}; cat {name}").stdout == "9\n"
            commands = ["cat FILE", "stat FILE", "echo 1 > FILE", "rm -f FILE", "touch FILE"]
            for one in commands:
                result = nobody(mount, f"cd sample/entries; {one.replace('FILE', name)}")
                assert result.stderr.endswith(DENIED), result
            assert mount.sh(f"cat sample/entries/{name}; rm sample/entries/{name}").stdout == "9\n"
            sample.delete(u32(file.fileno()))
        os.chmod(mount.source / "sample", 0o600)
        eventually("it is closed", lambda: nobody(mount, command).stderr.count(DENIED) > 0, 1)


def test_sockets_are_for_root(open_to_all: Mount) -> None:
    mount = open_to_all
    mount.pin("sample", storage(MapType.SK_STORAGE)).close()
    os.chmod(mount.source / "sample", 0o666)
    command = "cd sample/entries; exec 5<> /dev/udp/127.0.0.1/9; echo 8 > $$.5"
    assert nobody(mount, command).stderr.endswith(DENIED)
    assert mount.sh(command).code == 0
