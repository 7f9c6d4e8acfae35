"""Ring buffers, consumed: `records_pipe`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import Mount, mounts_at
from support.readers import SOON, hexed, reading
from support.rings import HELD, NO_WAKEUP, Rings, check_burst, rings
from support.running import running
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.waiting import PATIENCE


@pytest.fixture
def made(mounted: Mount) -> Iterator[Rings]:
    """The programs and their rings, shown by a mount."""
    with rings(mounted.source) as loaded:
        yield loaded


@pytest.fixture
def small(mounted: Mount, made: Rings) -> Path:
    """Where the small ring is shown."""
    return mounted.path / "maps/small"


def test_records_are_given_as_they_come(mounted: Mount, made: Rings, small: Path) -> None:
    made.put(b"before")
    with reading(small) as reader:
        assert reader.lines(1) == hexed(b"before")
        for number in range(20):
            made.put(bytes([number]), b"next")
            assert reader.lines(2) == hexed(bytes([number]), b"next")
        assert made.unread() == []
        made.skip(3)
        made.put(b"last")
        assert reader.lines(1) == hexed(b"last")
        assert reader.end(signal.SIGINT) == -signal.SIGINT
    assert mounted.error_log("maps/small") == ""


def test_a_reader_is_woken_at_once(made: Rings, small: Path) -> None:
    with reading(small) as reader:
        made.put(b"warm up")
        reader.lines(1)
        delays = []
        for _ in range(20):
            start = time.monotonic()
            made.put(b"next")
            reader.lines(1)
            delays.append(time.monotonic() - start)
    assert sorted(delays)[10] < 0.02


def test_records_without_a_wake_up_come_soon(made: Rings, small: Path) -> None:
    with reading(small) as reader:
        made.put(b"quiet", flags=NO_WAKEUP)
        start = time.monotonic()
        assert reader.lines(1) == hexed(b"quiet")
        assert time.monotonic() - start < SOON


def test_a_record_that_is_being_written_is_waited_for(made: Rings, small: Path) -> None:
    with reading(small) as reader:
        with made.holding():
            made.put(b"behind")
            assert not reader.has_more(0.1)
        assert reader.lines(2) == hexed(HELD, b"behind")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_blocked_reader_and_frees_the_ring(
    made: Rings, small: Path, number: signal.Signals
) -> None:
    for _ in range(3):
        with reading(small) as reader:
            made.put(b"given")
            assert reader.lines(1) == hexed(b"given")
            assert reader.end(number) == -number
    made.put(b"left")
    assert made.unread() == [b"left"]


def test_there_is_one_reader_at_a_time(mounted: Mount, made: Rings, small: Path) -> None:
    ring = made.map("small")
    mounted.pin("again", ring)
    places = ["maps/small", "again", f".by-id/maps/{ring.info.id}"]
    for place in places:
        with reading(mounted.path / place):
            for other in places:
                result = mounted.sh(f"cat {other}/records_pipe")
                assert result.stderr.endswith("Device or resource busy\n"), result
                assert "another process reads it" in mounted.error_log("maps/small")
                assert mounted.sh(f"cat {other}/records").code == 0
    made.put(b"a")
    for place in places:
        assert mounted.sh(f"head -n 1 {place}/records_pipe").stdout == hexed(b"a")
        made.put(b"a")


@pytest.mark.parametrize(
    "command",
    [
        "{ head -n 1; head -n 2; head -n 1; } < records_pipe",
        "for i in 1 2 3 4; do read -r l && echo $l; done < records_pipe",
        "sed 4q records_pipe",
        'python3 -c \'f = open("records_pipe"); [print(f.readline(), end="") for i in range(4)]\'',
    ],
)
def test_with_tools_that_read_some_lines(mounted: Mount, made: Rings, command: str) -> None:
    records = [b"1", b"23", b"456", b"7890"]
    made.put(*records)
    result = mounted.sh(f"cd maps/small; {command}")
    assert (result.stdout, result.stderr) == (hexed(*records), ""), result


@pytest.mark.parametrize(
    "command", ["cat", "grep --line-buffered .", "jq -c --unbuffered .", "tee"]
)
def test_with_tools_that_read_on(made: Rings, small: Path, command: str) -> None:
    command += " < records_pipe" if command == "tee" else " records_pipe"
    with reading(small, f"exec {command}") as reader:
        for records in [b"1", b"23"], [b"456"], [b"7890"]:
            made.put(*records)
            assert reader.lines(len(records)) == hexed(*records)
        assert reader.end(signal.SIGINT) == -signal.SIGINT


def test_an_open_that_does_not_wait(made: Rings, small: Path) -> None:
    fd = os.open(small / "records_pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
        made.put(b"a", b"b")
        assert os.read(fd, 100).decode() == hexed(b"a", b"b")
        with pytest.raises(BlockingIOError):
            os.read(fd, 100)
    finally:
        os.close(fd)


def test_what_does_not_fit_in_a_read_stays_in_the_ring(made: Rings, small: Path) -> None:
    made.put(*[bytes([number] * 10) for number in range(10)])
    fd = os.open(small / "records_pipe", os.O_RDONLY)
    try:
        assert os.read(fd, 50).decode() == hexed(bytes([0] * 10), bytes([1] * 10))
        assert len(made.unread()) == 8
        assert os.read(fd, 5).decode() == '"0202'
        assert len(made.unread()) == 7
        made.consume(2)  # by another
        assert os.read(fd, 5).decode() == "02020"
        assert os.read(fd, 100).decode() == '20202020202"\n'
        assert os.read(fd, 25).decode() == hexed(bytes([5] * 10))
    finally:
        os.close(fd)


def test_who_asks_for_what_comes_later_consumes_nothing(made: Rings, small: Path) -> None:
    """As clients of sftp-server do, that throw the answer away when the one before it is short."""
    made.put(b"a")
    fd = os.open(small / "records_pipe", os.O_RDONLY)
    try:
        given = os.pread(fd, 4096, 0)
        made.put(b"b")
        assert os.pread(fd, 4096, 4096) == b""
        assert given + os.pread(fd, 4096, len(given)) == hexed(b"a", b"b").encode()
    finally:
        os.close(fd)


def test_consuming_at_full_rate_loses_none_and_repeats_none(mounted: Mount, made: Rings) -> None:
    number = made.get("sequence")
    with (
        reading(mounted.path / "maps/fast") as reader,
        running(made.program("burst"), 10) as turns,
    ):
        assert reader.process.stdout
        while turns.count < 2000:
            line = json.loads(reader.process.stdout.readline())
            number = check_burst([bytes.fromhex(line)], number)
    assert number > 1000


# Waiting with poll(2) and its like.


def test_poll(made: Rings, small: Path) -> None:
    fd = os.open(small / "records_pipe", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        for number in range(3):
            assert poll.poll(0) == poll.poll(20) == []
            made.put(bytes([number]))
            assert poll.poll(5000) == [(fd, select.POLLIN)]
            assert select.select([fd], [], [], 5) == ([fd], [], [])
            assert os.read(fd, 100).decode() == hexed(bytes([number]))
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLIN)
            for number in range(3):
                assert epoll.poll(0.02) == []
                made.skip()
                assert epoll.poll(0.02) == []
                made.put(bytes([number]))
                assert epoll.poll(5) == [(fd, select.EPOLLIN)]
                assert os.read(fd, 100).decode() == hexed(bytes([number]))
    finally:
        os.close(fd)


def test_poll_wakes_who_waits(made: Rings, small: Path) -> None:
    program = (
        "import os, select; fd = os.open('records_pipe', os.O_RDONLY); print('open', flush=True);"
        "[print(select.select([fd], [], [])[0] == [fd], os.read(fd, 99), flush=True)"
        " for _ in range(3)]"
    )
    with reading(small, f'exec python3 -c "{program}"') as reader:
        assert reader.lines(1) == "open\n"
        for _ in range(3):
            made.put(b"a")
            assert reader.lines(1) == "True b'\"61\"\\n'\n"


def test_poll_of_ordinary_files(mounted: Mount, made: Rings, small: Path) -> None:
    both = select.POLLIN | select.POLLOUT
    for name, flags in {"info": os.O_RDONLY, "records": os.O_RDONLY, "format": os.O_RDWR}.items():
        fd = os.open(small / name, flags)
        try:
            poll = select.poll()
            poll.register(fd, both)
            assert poll.poll(0) == [(fd, both)]
        finally:
            os.close(fd)


def test_a_poll_ends_with_the_file(mounted: Mount, made: Rings, small: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{mounted.process.pid}/fd"))

    (small / "info").read_text()  # the directories on the way have one each
    before = descriptors()
    for _ in range(5):
        fd = os.open(small / "records_pipe", os.O_RDONLY)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(10) == []
        os.close(fd)
    eventually("all are closed", lambda: descriptors() <= before)


# Everybody else.


def test_others_are_served_meanwhile(mounted: Mount, made: Rings, small: Path) -> None:
    took = []
    with reading(small):
        for _ in range(20):
            start = time.monotonic()
            assert (small / "info").read_text()
            os.listdir(mounted.path / "maps")
            took.append(time.monotonic() - start)
    assert sorted(took)[10] < PATIENCE / 2


def test_nothing_runs_while_nobody_reads(mounted: Mount, made: Rings, small: Path) -> None:
    def woken() -> int:
        lines = Path(f"/proc/{mounted.process.pid}/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("voluntary_ctxt_switches"))
        return int(line.split()[1])

    made.skip()
    fd = os.open(small / "records_pipe", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(20) == []
        before = woken()
        assert poll.poll(300) == []
        assert woken() - before < 10
    finally:
        os.close(fd)


def test_it_takes_the_right_to_read_and_to_write(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with rings(mount.source) as made:
        mount.sh("chmod 755 maps")
        made.put(b"a")
        os.chmod(mount.source / "maps/small", 0o604)
        mode = "stat -c %A maps/small/records_pipe"
        eventually("it is not theirs", lambda: mount.sh(mode).stdout == "-r--------\n")
        # To look only, too: the kernel lets nobody map a ring who may not write it.
        assert nobody(mount, "cat maps/small/records").stderr.endswith(DENIED)
        assert nobody(mount, "cat maps/small/records_pipe").stderr.endswith(DENIED)
        os.chmod(mount.source / "maps/small", 0o606)
        eventually("it is theirs", lambda: mount.sh(mode).stdout == "-r-----r--\n")
        assert nobody(mount, "cat maps/small/records").stdout == hexed(b"a")
        assert nobody(mount, "head -n 1 maps/small/records_pipe").stdout == hexed(b"a")


# The end of a mount.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_mount_while_somebody_waits(
    mounter: Callable[..., Mount], number: signal.Signals
) -> None:
    mount = mounter()
    with rings(mount.source), reading(mount.path / "maps/small") as reader:
        fd = os.open(mount.path / "maps/large/records_pipe", os.O_RDONLY)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(10) == []
        start = time.monotonic()
        mount.process.send_signal(number)
        assert mount.process.wait(5) == 0
        assert reader.process.wait(5) == 1
        assert time.monotonic() - start < 2
        with contextlib.suppress(OSError):  # there is nobody to answer
            os.close(fd)
        assert not mounts_at(mount.path)


@pytest.mark.parametrize("how", ["umount -l", "umount -f", "fusermount3 -u -z"])
def test_it_is_unmounted_while_somebody_waits(mounter: Callable[..., Mount], how: str) -> None:
    # pyfuse3 complains when the mount ends before the kernel took its last answer.
    mount = mounter(complains=True)
    with rings(mount.source) as made, reading(mount.path / "maps/small") as reader:
        assert mount.sh(f"cd /; umount {mount.path}").stderr.endswith("busy.\n")
        result = mount.sh(f"cd /; {how} {mount.path}")
        if how == "umount -f":
            assert reader.process.wait(5) == 1
            mount.sh(f"cd /; umount {mount.path}")
        else:
            assert result.code == 0
            made.put(b"still here")
            assert reader.lines(1) == hexed(b"still here")
            reader.end(signal.SIGINT)
        assert mount.process.wait(5) == 0
