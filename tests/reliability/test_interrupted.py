"""Those who wait for an answer: for as long as they want it, and no longer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.maps import make_map, u32
from support.mounting import Mount
from support.readers import SOON, hexed, reading
from support.rings import Rings, rings
from support.shell import ENVIRONMENT, end_group
from support.waiting import eventually

from fusefs.bpf.clients import Wait, wait_of
from fusefs.bpf.map import MapType
from fusefs.waiting import PATIENCE

# Long enough for a client to be looked at, more than once.
LONG = 2.5 * PATIENCE
# It takes a second at least to go through so many slots, one by one.
SLOTS = 1 << 21
# A program that takes EINTR for an error, as those do that read by stdio.
CARELESS = """
import ctypes, os
read, room = ctypes.CDLL(None, use_errno=True).read, ctypes.create_string_buffer(4096)
fd = os.open("records_pipe", os.O_RDONLY)
while (count := read(fd, room, 4096)) > 0:
    os.write(1, room.raw[:count])
os.write(1, os.strerror(ctypes.get_errno()).encode())
"""


@pytest.fixture
def made(mounted: Mount) -> Iterator[Rings]:
    """The programs and their rings, shown by a mount."""
    with rings(mounted.source) as loaded:
        yield loaded


@pytest.fixture
def small(mounted: Mount, made: Rings) -> Path:
    """Where the small ring is shown."""
    return mounted.path / "maps/small"


@pytest.fixture
def sparse(mounted: Mount) -> Iterator[Path]:
    """A large table without an entry."""
    with make_map(MapType.DEVMAP, key=4, value=4, max_entries=SLOTS) as table:
        mounted.pin("sparse", table)
        yield mounted.path / "sparse"


@pytest.fixture
def clients() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a client; it is killed in the end, with all that it has started."""
    with ExitStack() as stack:

        def start(directory: Path, *command: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=ENVIRONMENT,
                stdout=subprocess.PIPE,
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            stack.callback(end_group, process.pid)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


Start = Callable[..., "subprocess.Popen[bytes]"]


def ends_soon(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A client ends at a signal, and by it."""
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(10) == -number
    assert time.monotonic() - began < SOON


def has_ended(pid: int) -> bool:
    """Whether a process has ended, whoever is to take note of that."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    "command",
    [
        f"exec {sys.executable} -c '{CARELESS}'",
        "exec sed -u s/x/y/ records_pipe",
        "exec xargs -n1 printf '\"%s\"\\n' < records_pipe",
        "{ sed -u s/x/y/; } < records_pipe",  # a child reads what its parent has opened
        "{ sed -u s/x/y/ <&3 & wait; } 3< records_pipe",
    ],
    ids=["read(2)", "sed", "xargs", "child", "background"],
)
def test_who_waits_is_not_interrupted(made: Rings, small: Path, command: str) -> None:
    with reading(small, command) as reader:
        for record in (b"a", b"b"):
            assert not reader.has_more(LONG)
            made.put(record)
            assert reader.lines(1) == hexed(record)


THREADED = """
import os, threading, time
fd = os.open("records_pipe", os.O_RDONLY)
thread = threading.Thread(target=lambda: os.write(1, os.read(fd, 4096)))
thread.start()
thread.join()
"""
# Nobody finds out that it reads what another has opened.
ORPHAN = """
import os, time
fd = os.open("records_pipe", os.O_RDONLY)
if os.fork() == 0:
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        os.read(fd, 4096)
    os._exit(0)
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("script", [THREADED, CARELESS], ids=["thread", "itself"])
def test_a_signal_for_any_of_its_threads(
    made: Rings, small: Path, clients: Start, script: str, number: signal.Signals
) -> None:
    reader = clients(small, sys.executable, "-c", script)
    time.sleep(LONG)
    ends_soon(reader, number)
    assert made.unread() == []


def test_an_orphan_that_reads(made: Rings, small: Path, clients: Start) -> None:
    parent = clients(small, sys.executable, "-c", ORPHAN)
    assert parent.stdout
    orphan = int(parent.stdout.readline())
    time.sleep(LONG)
    os.kill(orphan, signal.SIGTERM)
    eventually("it has ended", lambda: has_ended(orphan), SOON)


def test_two_that_share_an_open_file(made: Rings, small: Path, clients: Start) -> None:
    """The kernel has the second wait for the first, and no signal reaches it meanwhile."""
    command = "{ cat <&3 & cat <&3 & echo $!; wait; } 3< records_pipe"
    shell = clients(small, "bash", "-c", command)
    assert shell.stdout
    second = int(shell.stdout.readline())
    time.sleep(LONG)
    os.kill(second, signal.SIGTERM)
    eventually("it has ended", lambda: has_ended(second), SOON)
    made.put(b"a")
    assert shell.stdout.readline().decode() == hexed(b"a")


def test_a_reader_can_be_stopped_and_goes_on(made: Rings, small: Path) -> None:
    with reading(small) as reader:
        stat = Path(f"/proc/{reader.process.pid}/stat")
        time.sleep(LONG)
        reader.process.send_signal(signal.SIGSTOP)  # SIGTSTP stops no orphaned group
        eventually("it is stopped", lambda: stat.read_text().split()[2] == "T", SOON)
        made.put(b"a")
        reader.process.send_signal(signal.SIGCONT)
        assert reader.lines(1) == hexed(b"a")


def test_a_reader_can_be_frozen(made: Rings, small: Path) -> None:
    """No signal is pending for one that is."""
    with reading(small) as reader, cgroup() as group:
        (group / "cgroup.procs").write_text(str(reader.process.pid))
        time.sleep(LONG)
        (group / "cgroup.freeze").write_text("1")
        events = group / "cgroup.events"
        eventually("it is frozen", lambda: "frozen 1" in events.read_text(), SOON)
        (group / "cgroup.freeze").write_text("0")
        made.put(b"a")
        assert reader.lines(1) == hexed(b"a")
        reader.end(signal.SIGTERM)


@pytest.mark.parametrize(
    "command",
    ["cat count", "cat entries.jsonl", "ls -U entries", "find entries -size +1", "wc -l count"],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_who_goes_through_a_large_table(
    sparse: Path, clients: Start, command: str, number: signal.Signals
) -> None:
    client = clients(sparse, *command.split())
    time.sleep(LONG)
    assert client.poll() is None, "it was not slow"
    ends_soon(client, number)


def test_what_one_was_killed_at_another_goes_on_with(sparse: Path, clients: Start) -> None:
    """They share an open file, and the first was killed while it read."""
    script = "{ head -c 7 <&3 & pid=$!; sleep 0.5; kill -9 $pid; wait; exec cat <&3; } 3< count"
    client = clients(sparse, "bash", "-c", script)
    assert client.communicate(timeout=30)[0] == b"0\n"


def test_a_listing_gives_what_it_has(mounted: Mount) -> None:
    """Whoever lists a large table sees its first entry before all slots are looked at."""
    with make_map(MapType.DEVMAP, key=4, value=4, max_entries=SLOTS) as table:
        table.update(u32(0), u32(socket.if_nametoindex("lo")))
        mounted.pin("table", table)
        began = time.monotonic()
        with os.scandir(mounted.path / "table/entries") as listing:
            assert next(listing).name == "0"
            assert time.monotonic() - began < 2 * PATIENCE
            assert list(listing) == []
        assert time.monotonic() - began > 3 * PATIENCE, "it was not slow"


def test_what_is_told_of_a_client() -> None:
    ended = threading.Event()
    assert wait_of(os.getpid()) is Wait.UNKNOWN  # it waits for no FUSE server
    assert wait_of(0) is Wait.UNKNOWN  # a client in another pid namespace
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert wait_of(process.pid) is Wait.UNKNOWN
    many = [threading.Thread(target=ended.wait) for _ in range(100)]
    for thread in many:
        thread.start()
    assert wait_of(os.getpid()) is Wait.UNKNOWN
    ended.set()
