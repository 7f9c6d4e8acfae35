"""Ring buffers, looked at: `records`, and the formats of records."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import Mount
from support.readers import hexed, reading
from support.rings import HELD, SMALL, Rings, check_burst, rings
from support.running import run, running
from support.waiting import eventually

from fusefs.bpf.ring_buffer import HEADER, RingBuffer


@pytest.fixture
def made(mounted: Mount) -> Iterator[Rings]:
    """The programs and their rings, shown by a mount."""
    with rings(mounted.source) as loaded:
        yield loaded


@pytest.fixture
def small(mounted: Mount, made: Rings) -> Path:
    """Where the small ring is shown."""
    return mounted.path / "maps/small"


def test_to_look_consumes_nothing(mounted: Mount, made: Rings, small: Path) -> None:
    records = [b"", b"a", b"12345678", b"123456789"]
    made.put(*records)
    before = made.positions()
    for _ in range(3):
        assert (small / "records").read_text() == hexed(*records)
    assert mounted.sh("cd maps/small; cat * > /dev/null; head -n 2 records").stdout == (
        hexed(*records[:2])
    )
    assert made.positions() == before
    names = "maps/small/records maps/small/records_pipe maps/user/push"
    told = (
        "-r-------- 0 maps/small/records\n-r-------- 0 maps/small/records_pipe\n"
        "--w------- 0 maps/user/push\n"
    )
    stat = f"stat -c '%A %s %n' {names}"
    eventually("nobody has read it of late", lambda: mounted.sh(stat).stdout == told)
    assert mounted.sh("cat maps/large/records").stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        "grep -rh nothing .",
        "cat maps/small/*",
        "cp -r maps/small /dev/shm/{pid}; rm -r /dev/shm/{pid}",
        "find . -type f -exec head -c 10 {{}} +",
        "tar c .",
        "du -a .",
    ],
)
def test_who_walks_through_all_consumes_nothing_and_ends(
    mounted: Mount, made: Rings, command: str
) -> None:
    made.put(b"a", b"b")
    mounted.sh(f"({command.format(pid=os.getpid())}) > /dev/null")
    assert made.unread() == [b"a", b"b"]


def test_a_mount_that_is_read_only_consumes_nothing(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "ro")
    with rings(mount.source) as made:
        made.put(b"a")
        result = mount.sh("cat maps/small/records maps/small/records_pipe")
        assert result.stdout == hexed(b"a")
        assert result.stderr.endswith("Read-only file system\n")
        assert made.unread() == [b"a"]


def test_each_open_sees_what_is_there_then(made: Rings, small: Path) -> None:
    made.put(b"first")
    with (small / "records").open() as file:
        made.put(b"second")
        assert file.read() == hexed(b"first")
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


def test_a_frozen_ring_is_only_looked_at(mounted: Mount, made: Rings, small: Path) -> None:
    made.put(b"a")
    assert mounted.sh("echo 1 > maps/small/frozen; echo 1 > maps/user/frozen").code == 0
    for command in ("cat maps/small/records_pipe", "echo 00 > maps/user/push"):
        assert mounted.sh(command).stderr.endswith("Permission denied\n")
    assert (small / "records").read_text() == hexed(b"a")
