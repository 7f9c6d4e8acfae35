"""Maps with large values: they are listed without being read, and read whole."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map
from support.mounting import Mount

from fusefs.bpf.map import Map, MapType

MEBIBYTE = 1 << 20


def pattern(size: int) -> bytes:
    """Bytes that are elsewhere at each place: a number in each word."""
    return struct.pack(f"={size // 4}I", *range(size // 4))


def index(number: int) -> bytes:
    """A key of an array."""
    return number.to_bytes(4, "little")


def peak(mount: Mount) -> int:
    """The most memory that the process has had, in bytes."""
    status = Path(f"/proc/{mount.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def mount(mounter: Callable[..., Mount]) -> Iterator[Mount]:
    """A mount of its own: memory that was needed once may not be given back."""
    yield mounter()


def raw(kind: MapType, size: int, max_entries: int = 1) -> Map:
    """A map without types."""
    return make_map(kind, key=4, value=size, max_entries=max_entries)


def test_a_listing_does_not_read_the_values(mount: Mount) -> None:
    size = 64 * MEBIBYTE
    mount.pin("large", raw(MapType.ARRAY, size))
    file = mount.path / "large/entries/0"
    listed = mount.sh(
        "ls -l large/entries && ls -laR . && cat large/info large/info.json large/count"
        " && stat large/entries/* && find . -type f -printf '%s %p\\n' && du -a ."
    )
    assert (listed.code, listed.stderr) == (0, "")
    assert f"value_size: {size}\n" in listed.stdout
    assert os.stat(file).st_size == 0
    assert os.listdir(file.parent) == ["0"]
    assert peak(mount) < 200e6


def test_a_value_is_read_whole(mount: Mount) -> None:
    size = 8 * MEBIBYTE
    made = mount.pin("large", raw(MapType.ARRAY, size, 2))
    value = pattern(size)
    made.update(index(1), value)
    result = mount.sh("cat large/entries/1; cat large/entries/0 | wc -c")
    assert result.code == 0
    text, length, _ = result.stdout.split("\n")
    assert text == json.dumps(value.hex())
    assert int(length) == 2 * size + 3
    part = mount.sh("dd if=large/entries/1 bs=1M skip=5 count=2 status=none | sha256sum")
    assert part.stdout.split()[0] == hashlib.sha256(text[5 << 20 : 7 << 20].encode()).hexdigest()
    assert mount.sh("tail -c 5 large/entries/1").stdout == f'{value.hex()[-3:]}"\n'


def test_a_value_is_written_back(mount: Mount, tmp_path: Path) -> None:
    size = 5 * MEBIBYTE
    made = mount.pin("large", raw(MapType.ARRAY, size, 2))
    value = pattern(size)
    made.update(index(0), value)
    copy = tmp_path / "copy"
    result = mount.sh(f"cat large/entries/0 > {copy} && cat {copy} > large/entries/1")
    assert (result.code, result.stderr) == (0, "")
    assert made.lookup(index(1)) == value
    assert os.stat(mount.path / "large/entries/1").st_size == 0
    for command in (f"head -c 1M {copy} >", f"sed 's/.$/x/' {copy} >"):
        assert mount.sh(f"{command} large/entries/0").code, command
    assert made.lookup(index(0)) == value


@pytest.mark.parametrize("size", [20_000, 50_000, 80_000, 150_000])
def test_a_long_text_is_judged_when_its_newline_is_written(mount: Mount, size: int) -> None:
    made = mount.pin("long", raw(MapType.ARRAY, size))
    result = mount.sh(f"""
        cd long/entries
        good=$(printf '%0{2 * size}d' 1) other=$(printf '%0{2 * size}d' 2)
        exec 3> 0; echo $good >&3; echo one $?; echo $other >&3; echo two $?; exec 3>&-
        echo ${{good}}x > 0; echo three $?
    """)
    # The shell takes no notice of an error at close.
    assert result.stdout == "one 0\ntwo 0\nthree 1\n", result
    assert made.lookup(index(0)) == bytes(size - 1) + b"\2"


@pytest.mark.parametrize("size", [MEBIBYTE, 3 * MEBIBYTE])
@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.HASH], ids=["array", "hash"])
def test_a_few_large_values(mount: Mount, kind: MapType, size: int) -> None:
    made = mount.pin("large", raw(kind, size, 2))
    values = [pattern(size), bytes(reversed(pattern(size)))]
    for number in range(2):
        made.update(index(number), values[number])
    lines = (mount.path / "large/entries.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["value"] for line in lines) == sorted(
        value.hex() for value in values
    )
    assert (mount.path / "large/count").read_text() == "2\n"
    names = sorted(os.listdir(mount.path / "large/entries"))
    assert len(names) == 2
    for name, value in zip(names, values, strict=True):
        file = mount.path / "large/entries" / name
        assert os.stat(file).st_size == 2 * size + 3
        assert json.loads(file.read_text()) == value.hex()
    assert peak(mount) < 300e6
