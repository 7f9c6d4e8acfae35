"""Ring buffers: `records`, `records_pipe`, and `push` of those that programs drain."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import Mount, mounts_at
from support.rings import HELD, NO_WAKEUP, SMALL, Rings, check_burst, rings
from support.running import run, running
from support.shell import ENVIRONMENT
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.ring_buffer import HEADER, RingBuffer

# No client may be in a read for longer, once a signal came.
SOON = 0.5


@pytest.fixture
def made(mounted: Mount) -> Iterator[Rings]:
    """The programs and their rings, shown by a mount."""
    with rings(mounted.source) as loaded:
        yield loaded


@pytest.fixture
def small(mounted: Mount, made: Rings) -> Path:
    """Where the small ring is shown."""
    return mounted.path / "maps/small"


def hexed(*records: bytes) -> str:
    """Their lines, without a format."""
    return "".join(f'"{record.hex()}"\n' for record in records)


class Reader:
    """A command that reads `records_pipe`, and has it open by now."""

    def __init__(self, directory: Path, command: str = "exec cat records_pipe") -> None:
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._file = directory / "records_pipe"
        eventually("it has opened it", self._opened)

    def _opened(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        fds = Path(f"/proc/{self.process.pid}/fd")
        with contextlib.suppress(FileNotFoundError):  # bash has closed one of its own
            return any(os.readlink(fd) == str(self._file) for fd in fds.iterdir())
        return False

    def lines(self, count: int) -> str:
        """So many lines of what it printed."""
        assert self.process.stdout
        return b"".join(self.process.stdout.readline() for _ in range(count)).decode()

    def has_more(self, seconds: float) -> bool:
        """Whether it prints something within that time."""
        assert self.process.stdout
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def end(self, number: signal.Signals) -> int:
        """End it by a signal; its exit code."""
        start = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(10)
        assert time.monotonic() - start < SOON
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def reading(directory: Path, command: str = "exec cat records_pipe") -> Iterator[Reader]:
    """Somebody who reads `records_pipe`."""
    reader = Reader(directory, command)
    try:
        yield reader
    finally:
        reader.close()


# Looking.


def test_to_look_consumes_nothing(mounted: Mount, made: Rings, small: Path) -> None:
    records = [b"", b"a", b"12345678", b"123456789"]
    made.put(*records)
    before = made.positions()
    for _ in range(3):
        assert (small / "records").read_text() == hexed(*records)
    assert mounted.sh("cd maps/small; cat *[!e] > /dev/null; head -n 2 records").stdout == (
        hexed(*records[:2])
    )
    assert made.positions() == before
    told = mounted.sh("stat -c '%A %s %n' maps/small/rec* maps/user/push").stdout
    assert told == (
        "-r-------- 0 maps/small/records\n-r-------- 0 maps/small/records_pipe\n"
        "--w------- 0 maps/user/push\n"
    )
    assert mounted.sh("cat maps/large/records").stdout == ""


def test_each_open_sees_what_is_there_then(made: Rings, small: Path) -> None:
    with (small / "records").open() as file:
        made.put(b"first")
        assert file.read() == hexed(b"first")
        made.put(b"second")
        assert file.read() == ""
        file.seek(0)
        assert file.read() == hexed(b"first", b"second")
        made.consume(1)
        file.seek(0)
        assert file.read() == hexed(b"second")


def test_busy_and_discarded_records(made: Rings, small: Path) -> None:
    made.skip()
    made.put(b"before")
    with made.holding():
        made.put(b"behind")
        assert (small / "records").read_text() == hexed(b"before")
    made.skip()
    assert (small / "records").read_text() == hexed(b"before", HELD, b"behind")


def test_a_ring_filled_to_the_brim_of_odd_sizes(made: Rings, small: Path) -> None:
    made.put(*[b"passing by"] * 100)
    made.consume(100)
    records = [bytes([length]) * length for length in range(1, 80)]
    while sum(len(record) + HEADER + 7 & ~7 for record in records) > SMALL:
        records.pop()
    made.put(*records)
    assert (small / "records").read_text() == hexed(*records)
    with reading(small) as reader:
        assert reader.lines(len(records)) == hexed(*records)
    assert made.unread() == []


@pytest.mark.parametrize("length", [70_001, 1 << 18])
def test_long_records(mounted: Mount, made: Rings, length: int) -> None:
    long = os.urandom(length)
    made.put(b"short", long, b"short", ring="large")
    assert (mounted.path / "maps/large/records").read_text() == hexed(b"short", long, b"short")
    with reading(mounted.path / "maps/large") as reader:
        assert reader.lines(3) == hexed(b"short", long, b"short")
    made.put(long, b"short", ring="large")
    with (mounted.path / "maps/large/records_pipe").open("rb", buffering=0) as file:
        text = b""
        while text.count(b"\n") < 2:
            piece = file.read(1000)
            assert piece
            text += piece
            # Only what was begun to be read is consumed.
            begun = len(text) > len(hexed(long))
            assert made.unread("large") == ([] if begun else [b"short"])
    assert text.decode() == hexed(long, b"short")


# Formats.

EVENT = {"sequence": 0, "address": 16777226, "port": 443, "name": "event"}


def test_records_of_a_type(mounted: Mount, made: Rings, small: Path) -> None:
    made.put(b"another")
    assert run(made.program("put_event")) == 0
    result = mounted.sh("cd maps/small; echo 'value: struct event' > format; cat format")
    assert result.stdout == "key: auto\nvalue: struct event\n", mounted.error_log("maps/small")
    other, event = (small / "records").read_text().splitlines()
    assert (other, json.loads(event)) == ('"616e6f74686572"', EVENT)
    assert mounted.sh("echo 'value.address: ipv4' > maps/small/format").code == 0
    shown = EVENT | {"address": "10.0.0.1"}
    assert json.loads((small / "records").read_text().splitlines()[1]) == shown
    with reading(small) as reader:
        assert json.loads(reader.lines(2).splitlines()[1]) == shown
        assert run(made.program("put_event")) == 0
        assert json.loads(reader.lines(1)) == shown | {"sequence": 1}
    assert mounted.sh("echo 'value: auto' > maps/small/format").code == 0
    made.put(b"a")
    assert (small / "records").read_text() == hexed(b"a")


def test_formats_that_do_not_fit(mounted: Mount, small: Path) -> None:
    for setting, reason in {
        "value: struct absent": "has struct absent",
        "value.address: ipv4": "records have parts once `value: struct NAME` says what they are",
        "percpu: sum": "the map is not per CPU",
    }.items():
        assert mounted.sh(f"echo '{setting}' > maps/small/format").code == 1
        assert reason in mounted.error_log("maps/small")
    mounted.sh("echo 'value: struct event' > maps/small/format")
    assert mounted.sh("echo 'value.absent: ipv4' > maps/small/format").code == 1
    assert "struct event has no field 'absent'" in mounted.error_log("maps/small")


def test_formats_of_bare_records(mounted: Mount, made: Rings, small: Path) -> None:
    made.put(bytes([10, 0, 0, 1]), b"ab")
    for name, shown in {
        "ipv4": '"10.0.0.1"\n"6162"\n',
        "be": "167772161\n24930\n",
        "str": '[10, 0, 0, 1]\n"ab"\n',
        "hex": '"0a000001"\n"6162"\n',
    }.items():
        mounted.sh(f"echo 'value: {name}' > maps/small/format")
        assert (small / "records").read_text() == shown


# Following.


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
        "timeout -s INT 0.3 cat records_pipe",
        "timeout -s INT 0.3 grep --line-buffered . records_pipe",
        "timeout -s INT 0.3 jq -c --unbuffered . records_pipe",
        'python3 -c \'f = open("records_pipe"); [print(f.readline(), end="") for i in range(4)]\'',
    ],
)
def test_with_the_tools_of_every_day(mounted: Mount, made: Rings, command: str) -> None:
    records = [b"1", b"23", b"456", b"7890"]
    made.put(*records)
    result = mounted.sh(f"cd maps/small; {command}")
    assert (result.stdout, result.stderr) == (hexed(*records), ""), result


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
    with reading(small):
        for _ in range(20):
            start = time.monotonic()
            assert (small / "info").read_text()
            os.listdir(mounted.path / "maps")
            assert time.monotonic() - start < 0.15


def test_nothing_runs_while_nobody_reads(mounted: Mount, made: Rings, small: Path) -> None:
    def used() -> float:
        fields = Path(f"/proc/{mounted.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    made.skip()
    fd = os.open(small / "records_pipe", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(20) == []
        before = used()
        time.sleep(0.3)
        assert used() - before < 0.02
    finally:
        os.close(fd)


def test_it_takes_the_right_to_write_to_consume(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with rings(mount.source) as made:
        mount.sh("chmod 755 maps")
        made.put(b"a")
        os.chmod(mount.source / "maps/small", 0o604)
        mode = "stat -c %A maps/small/records_pipe"
        eventually("it is not theirs", lambda: mount.sh(mode).stdout == "-r--------\n")
        assert nobody(mount, "cat maps/small/records").stdout == hexed(b"a")
        assert nobody(mount, "cat maps/small/records_pipe").stderr.endswith(DENIED)
        os.chmod(mount.source / "maps/small", 0o606)
        eventually("it is theirs", lambda: mount.sh(mode).stdout == "-r-----r--\n")
        assert nobody(mount, "head -n 1 maps/small/records_pipe").stdout == hexed(b"a")


def test_a_frozen_ring_is_only_looked_at(mounted: Mount, made: Rings, small: Path) -> None:
    made.put(b"a")
    assert mounted.sh("echo 1 > maps/small/frozen; echo 1 > maps/user/frozen").code == 0
    for command in ("cat maps/small/records_pipe", "echo 00 > maps/user/push"):
        assert mounted.sh(command).stderr.endswith("Permission denied\n")
    assert (small / "records").read_text() == hexed(b"a")


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


# At full rate.


def test_looking_at_full_rate(mounted: Mount, made: Rings) -> None:
    """What is shown while a program writes and another consumer takes is whole, if old."""
    records = mounted.path / "maps/fast/records"
    seen = 0
    with (
        running(made.program("burst"), 100),
        RingBuffer(made.map("fast"), consuming=True) as ring,
    ):
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            with subprocess.Popen(["cat", records], stdout=subprocess.PIPE) as cat:
                assert cat.stdout
                fd = cat.stdout.fileno()
                text = b""
                while True:
                    if batch := ring.front(1 << 13):
                        ring.consume(batch, batch.end)
                    if select.select([fd], [], [], 0)[0]:
                        piece = os.read(fd, 1 << 16)
                        if not piece:
                            break
                        text += piece
            shown = [bytes.fromhex(json.loads(line)) for line in text.splitlines()]
            last = -1
            for record in shown:
                number = int.from_bytes(record[:8], "little")
                assert number > last
                last = number
                check_burst([record], number)
            seen += len(shown)
    assert seen > 1000


def test_consuming_at_full_rate_loses_none_and_repeats_none(mounted: Mount, made: Rings) -> None:
    number = made.get("sequence")
    with (
        reading(mounted.path / "maps/fast") as reader,
        running(made.program("burst"), 10) as runs,
    ):
        assert reader.process.stdout
        while runs.count < 20_000:
            line = json.loads(reader.process.stdout.readline())
            number = check_burst([bytes.fromhex(line)], number)
    assert number > 5000


# Rings that users write.


def received(made: Rings) -> list[bytes]:
    """What a program drains from the ring that users write."""
    run(made.program("drain"))
    records = made.unread("large")
    made.consume(len(records), "large")
    return records


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("01020304", [b"\1\2\3\4"]),
        ('"01020304"', [b"\1\2\3\4"]),
        ("0a 0B 0c", [b"\n\x0b\x0c"]),
        ('""', [b""]),
        ("61\n6263\n\n646566", [b"a", b"bc", b"def"]),
        ("00" * 3000, [bytes(3000)]),
    ],
)
def test_programs_receive_what_is_pushed(
    mounted: Mount, made: Rings, text: str, records: list[bytes]
) -> None:
    result = mounted.sh("cat > maps/user/push", given=f"{text}\n".encode())
    assert (result.code, result.stderr) == (0, ""), mounted.error_log("maps/user")
    assert received(made) == records


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "expected hexadecimal digits, two for each byte, got '0'"),
        ("61\nxx", "line 2: expected hexadecimal digits, two for each byte, got 'xx'"),
        ("[1, 2]", "got an array"),
        ("{}", "got an object"),
    ],
)
def test_what_is_no_record_is_refused(mounted: Mount, made: Rings, text: str, reason: str) -> None:
    result = mounted.sh("cat > maps/user/push", given=f"{text}\n".encode())
    assert (result.code, "Invalid argument" in result.stderr) == (1, True)
    assert reason in mounted.error_log("maps/user")
    assert received(made) == []


def test_a_full_ring_takes_none_of_many(mounted: Mount, made: Rings) -> None:
    half = "00" * (SMALL // 2 - HEADER) + "\n"
    assert mounted.sh("cat > maps/user/push", given=half.encode()).code == 0
    result = mounted.sh("cat > maps/user/push", given=f"61\n62\n{half}".encode())
    assert result.stderr.endswith("No space left on device\n")
    assert "the ring has room for 2048 bytes, and this takes 2080" in mounted.error_log("maps/user")
    assert mounted.sh("cat > maps/user/push", given=half.encode()).code == 0
    assert mounted.sh("echo 61 > maps/user/push").stderr.endswith("No space left on device\n")
    assert received(made) == [bytes(SMALL // 2 - HEADER)] * 2
    assert mounted.sh("echo 61 > maps/user/push").code == 0
    assert received(made) == [b"a"]


def test_typed_records_are_pushed(mounted: Mount, made: Rings) -> None:
    formats = b"value: struct event\nvalue.address: ipv4\n"
    assert mounted.sh("cat > maps/user/format", given=formats).code == 0
    text = b'{"address": "10.0.0.1", "port": 443}\n{sequence: 7,\n name: long}\n'
    lines = b'{"address": "10.0.0.1", "port": 443}\n{sequence: 7, name: "long"}\n616263\n'
    assert mounted.sh("cat > maps/user/push", given=lines).code == 0, mounted.error_log("maps/user")
    first, second, third = received(made)
    assert first == bytes(8) + bytes([10, 0, 0, 1]) + (443).to_bytes(2, "little") + bytes(10)
    assert second == (7).to_bytes(8, "little") + bytes(6) + b"long" + bytes(6)
    assert third == b"abc"
    assert mounted.sh("cat > maps/user/push", given=text).code == 1
    assert received(made) == []


def test_it_cannot_be_read(mounted: Mount, made: Rings) -> None:
    for command in ("cat maps/user/push", "rm maps/user/push", "echo 1 > maps/small/records"):
        result = mounted.sh(command)
        assert result.stderr.endswith(("Permission denied\n", "Operation not permitted\n"))
    with pytest.raises(OSError) as caught:
        os.open(mounted.path / "maps/small/records_pipe", os.O_RDWR)
    assert caught.value.errno == errno.EACCES
