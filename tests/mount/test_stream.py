"""`entries.jsonl`, `count` and listings of large maps."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import NO_PREALLOC, make_map, u32, u64
from support.mounting import Mount
from support.shell import Result, end_group
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType
from fusefs.tree.node import FRESH

ENTRIES = 200_000
SOME = 20_000
SLOTS = 500_000


def filled(entries: int) -> Map:
    """A hash in which each key's value is three times the key."""
    made = make_map(max_entries=entries + 1, flags=NO_PREALLOC)
    for number in range(entries):
        made.update(u32(number), u64(3 * number))
    return made


@pytest.fixture(scope="module")
def large_map() -> Iterator[Map]:
    """A map of many entries."""
    with filled(ENTRIES) as made:
        yield made


@pytest.fixture
def large(mounted: Mount, large_map: Map) -> Path:
    """Where the large map is shown."""
    mounted.pin("large", large_map)
    return mounted.path / "large"


def memory(mount: Mount, what: str) -> int:
    """A line of the process's status, in bytes."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def check_whole(text: bytes) -> None:
    """The text has each entry of the large map once."""
    keys = set()
    for line in text.splitlines():
        entry = json.loads(line)
        assert entry == {"key": entry["key"], "value": 3 * entry["key"]}
        keys.add(entry["key"])
    assert keys == set(range(ENTRIES))
    assert text.count(b"\n") == ENTRIES


def test_a_large_map_is_dumped_whole_in_little_memory(mounted: Mount, large: Path) -> None:
    (large / "info").read_text()
    Path(f"/proc/{mounted.process.pid}/clear_refs").write_text("5")  # begins a new VmHWM
    before = memory(mounted, "VmRSS")
    result = subprocess.run(["cat", large / "entries.jsonl"], capture_output=True, check=True)
    assert memory(mounted, "VmHWM") - before < 20e6
    check_whole(result.stdout)


def test_it_is_read_again_from_its_start(large: Path) -> None:
    with (large / "entries.jsonl").open("rb", buffering=0) as file:
        assert len(file.read(1000)) > 0
        file.seek(0)
        check_whole(file.readall())
        assert file.read(10) == b""


@pytest.mark.parametrize("size", [7, 4096, 1 << 20])
def test_reads_of_any_size_give_the_same_text(mounted: Mount, size: int) -> None:
    made = mounted.pin("some", make_map(max_entries=500))
    for number in range(500):
        made.update(u32(number), u64(3 * number))
    with (mounted.path / "some/entries.jsonl").open("rb", buffering=0) as file:
        text = b"".join(iter(lambda: file.read(size), b""))
    assert text == (mounted.path / "some/entries.jsonl").read_bytes()
    assert sorted(json.loads(line)["key"] for line in text.splitlines()) == list(range(500))


def test_its_size_is_that_of_a_stream(large: Path) -> None:
    assert os.stat(large / "entries.jsonl").st_size == 0
    with (large / "entries.jsonl").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == 0
        assert file.read(10)
    assert os.stat(large / "entries.jsonl").st_size == 0


@pytest.mark.parametrize("name", ["entries.jsonl", "count"])
def test_a_short_one_has_its_size_as_long_as_it_is_open(mounted: Mount, name: str) -> None:
    mounted.pin("short", make_map()).update(u32(1), u64(10))
    file = mounted.path / "short" / name
    assert os.stat(file).st_size == 0
    with file.open("rb") as first, file.open("rb") as second:
        size = os.fstat(first.fileno()).st_size
        assert size == len(first.read()) > 0
        first.close()
        time.sleep(2 * FRESH)
        assert os.fstat(second.fileno()).st_size == size
        assert len(second.read()) == size
    eventually("it is closed", lambda: os.stat(file).st_size == 0)


def test_a_short_one_is_what_was_there_when_it_was_opened(mounted: Mount) -> None:
    made = mounted.pin("short", make_map())
    made.update(u32(1), u64(10))
    with (mounted.path / "short/entries.jsonl").open("rb") as file:
        made.update(u32(1), u64(1234))
        assert file.read() == b'{"key": 1, "value": 10}\n'
        file.seek(0)
        assert file.read() == b'{"key": 1, "value": 1234}\n'


COPIES = {
    "cp -r": "cp -r short/. {}",
    "tar": "tar c -C short . | tar x -C {}",
    "rsync": "rsync -a short/ {}",
    "python": 'python3 -c \'import shutil; shutil.copytree("short", "{}", dirs_exist_ok=1)\'',
    "gio copy": "for f in short/*; do [ -d $f ] || gio copy $f {} || exit; done",
}


@pytest.mark.parametrize("command", COPIES.values(), ids=list(COPIES))
def test_a_short_one_is_copied_whole(mounted: Mount, command: str, tmp_path: Path) -> None:
    made = mounted.pin("short", make_map(max_entries=1_000))
    for number in range(1_000):
        made.update(u32(number), u64(number))
    assert mounted.sh(command.format(tmp_path)) == Result(0, "", "")
    assert (tmp_path / "count").read_text() == f"{1_000}\n"
    lines = (tmp_path / "entries.jsonl").read_bytes()
    assert lines == (mounted.path / "short/entries.jsonl").read_bytes()
    assert lines.count(b"\n") == 1_000


def test_count(large: Path) -> None:
    assert (large / "count").read_text() == f"{ENTRIES}\n"


def test_count_is_counted_when_it_is_read(mounted: Mount) -> None:
    made = mounted.pin("some", make_map())
    for number in range(3):
        assert (mounted.path / "some/count").read_text() == f"{number}\n"
        made.update(u32(number), u64(0))


def test_an_empty_map_has_no_lines(mounted: Mount) -> None:
    mounted.pin("empty", make_map())
    assert (mounted.path / "empty/entries.jsonl").read_bytes() == b""
    assert (mounted.path / "empty/count").read_text() == "0\n"
    assert os.listdir(mounted.path / "empty/entries") == []


@pytest.mark.parametrize(
    "what",
    [
        "cat large/entries.jsonl",
        "cat large/count",
        "ls -U some/entries",
        "cat sparse/entries.jsonl",
        "cat sparse/count",
        "ls -U sparse/entries",
    ],
)
def test_others_are_served_meanwhile(mounted: Mount, large: Path, what: str) -> None:
    if "some" in what:
        mounted.pin("some", filled(SOME))
    if "sparse" in what:  # nothing is in it, and there are no batches
        mounted.pin("sparse", make_map(MapType.DEVMAP, key=4, value=4, max_entries=SLOTS))
    name = mounted.path / "other/info"
    mounted.pin("other", make_map())
    name.read_text()
    longest, turns = 0.0, 0
    with subprocess.Popen(
        ["bash", "-c", f"for n in {{1..2}}; do {what}; done"],
        cwd=mounted.path,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as dump:
        while dump.poll() is None and turns < 300:
            start = time.monotonic()
            assert name.read_text()
            longest, turns = max(longest, time.monotonic() - start), turns + 1
        dump.kill()
    end_group(dump.pid)
    assert turns > 5
    assert longest < 1  # beside other tests


def test_a_large_directory_is_listed_whole(mounted: Mount) -> None:
    mounted.pin("some", filled(SOME))
    names = os.listdir(mounted.path / "some/entries")
    assert sorted(map(int, names)) == list(range(SOME))


def test_a_listing_that_is_read_again(mounted: Mount) -> None:
    made = mounted.pin("some", make_map(max_entries=2000))
    for number in range(1000):
        made.update(u32(number), u64(0))
    fd = os.open(mounted.path / "some/entries", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(3):
            assert sorted(map(int, os.listdir(fd))) == list(range(1000))
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def some_map() -> Iterator[Map]:
    """A map whose text is longer than what is read at once, and does not take long to read."""
    with filled(SOME) as made:
        yield made


@pytest.fixture
def some(mounted: Mount, some_map: Map) -> Path:
    """The text of that map."""
    mounted.pin("some", some_map)
    return mounted.path / "some/entries.jsonl"


@pytest.mark.parametrize(
    ("command", "start", "end"),
    [
        ("dd bs=64K skip=3 count=1 iflag=fullblock status=none < FILE", 3 << 16, 4 << 16),
        ("dd if=FILE bs=64K skip=3 count=1 iflag=fullblock status=none", 3 << 16, 4 << 16),
        ("dd if=FILE bs=64K skip=3 status=none", 3 << 16, None),
        ("dd if=FILE bs=1 skip=100 count=10 status=none", 100, 110),
        ("dd if=FILE bs=1M skip=100 status=none", 100 << 20, None),
        ("tail -c +1000 FILE", 999, None),
        ("tail -c +300000 FILE", 299_999, None),
        ("tail -c 1000 FILE", -1000, None),
        ("head -c 500000 FILE", 0, 500_000),
        ("head -c -1000 FILE", 0, -1000),
        ("{ head -c 10 > /dev/null; cat; } < FILE", 10, None),
    ],
)
def test_tools_that_seek(
    mounted: Mount, some: Path, command: str, start: int, end: int | None
) -> None:
    whole = some.read_text()
    result = mounted.sh(command.replace("FILE", "some/entries.jsonl"))
    assert result.code in (0, 1 if "skip=100 s" in command else 0), result  # dd: cannot skip
    if "head -c 10 " in command:  # it may have read more than it gave
        assert whole.endswith(result.stdout)
    else:
        assert result.stdout == whole[start:end]


def test_a_read_is_filled(mounted: Mount, some: Path) -> None:
    whole = some.read_text()
    given = mounted.sh("dd if=some/entries.jsonl bs=64K skip=3 count=1 status=none").stdout
    assert given == whole[3 << 16 : 4 << 16]


def test_reads_at_any_place_agree_with_the_whole(some: Path) -> None:
    whole = some.read_bytes()
    length = len(whole)
    fd = os.open(some, os.O_RDONLY)
    try:
        places = [length - 10, 0, 1, 5000, 4999, length // 2, 0, length, length - 1, length + 1]
        places += [length * 10, 1 << 40, 7, length // 3, length // 3 - 1, length // 4, 0]
        for place in places:
            for size in (1, 100, 4096):
                given = os.pread(fd, size, place)
                assert whole[place : place + size] == given, place
        for place in (200_000, 100_000, 300_000, 0):
            os.lseek(fd, place, os.SEEK_SET)
            text = b"".join(iter(lambda: os.read(fd, 1 << 17), b""))
            assert text == whole[place:]
            assert os.read(fd, 10) == b""
        assert os.pread(fd, 10, length + 5) == b""
        assert os.pread(fd, 10, 0) == whole[:10]
    finally:
        os.close(fd)


def test_one_that_was_read_to_its_end_is_read_again(mounted: Mount) -> None:
    made = mounted.pin("some", make_map())
    with (
        (mounted.path / "some/entries.jsonl").open("rb", buffering=0) as file,
        (mounted.path / "some/count").open("rb", buffering=0) as count,
    ):
        for number in range(5):
            for stream in (file, count):
                stream.seek(0)
            text = file.readall()
            assert text.count(b"\n") == number
            assert file.read(100) == b""
            assert count.readall() == b"%d\n" % number
            made.update(u32(number), u64(1))
            file.seek(0)
            assert file.read(1000).count(b"\n") == number + 1
