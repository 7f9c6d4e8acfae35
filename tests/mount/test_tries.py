"""LPM tries of many prefixes: no name without its prefix, and none left out."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from support.maps import NO_PREALLOC, each_key, make_map, u32
from support.mounting import Mount

from fusefs.bpf.map import Map, MapType

MANY = 100_000


def prefix(address: str, length: int) -> bytes:
    return struct.pack("=I", length) + socket.inet_aton(address)


def trie_of(mounted: Mount, max_entries: int = 64) -> Map:
    """A trie of IPv4 prefixes and numbers, pinned."""
    made = make_map(MapType.LPM_TRIE, key=8, value=4, max_entries=max_entries, flags=NO_PREALLOC)
    mounted.pin("trie", made)
    assert mounted.sh("echo value: uint > trie/format").code == 0
    return made


def test_a_covering_prefix_is_no_ghost_of_what_it_covers(mounted: Mount) -> None:
    trie_of(mounted)
    entries = mounted.path / "trie/entries"
    assert mounted.sh("cd trie/entries; echo 8 > 10.0.0.0_8; echo 16 > 10.1.0.0_16").code == 0
    assert mounted.sh("cd trie/entries; cat 10.0.0.0_8 10.1.0.0_16").stdout == "8\n16\n"
    with (entries / "10.1.0.0_16").open() as file:
        assert mounted.sh("rm trie/entries/10.1.0.0_16").code == 0
        assert file.read() == "16\n"  # what was read when it was opened
        file.seek(0)
        with pytest.raises(OSError, match="Stale file handle"):
            file.read()
    for name in ("10.1.0.0_16", "10.1.0.0_24", "10.1.2.3_32", "10.0.0.0_9", "10.0.0.0_7"):
        for command in (f"cat {name}", f"rm {name}", f"mv {name} 10.9.0.0_16"):
            result = mounted.sh(f"cd trie/entries; {command}")
            assert result.stderr.endswith("No such file or directory\n"), command
    assert mounted.sh("set -C; cd trie/entries; echo 9 > 10.0.0.0_9; cat *").stdout == "8\n9\n"
    assert mounted.sh("cd trie/entries; mv 10.0.0.0_9 10.0.0.0_10; ls").stdout == (
        "10.0.0.0_10\n10.0.0.0_8\n"
    )


def test_prefixes_that_are_no_prefixes(mounted: Mount) -> None:
    made = trie_of(mounted)
    for name in ("10.0.0.0_33", "10.0.0.0", "10.0.0_8", "x_8", "10.0.0.0_-1", "10.0.0.0_x"):
        result = mounted.sh(f"echo 1 > trie/entries/{name}")
        assert result.stderr.endswith("Invalid argument\n"), name
        assert mounted.error_log("trie") != ""
    assert list(each_key(made)) == []


def test_many_are_listed_and_removed(mounted: Mount) -> None:
    made = trie_of(mounted, MANY + 10)
    for number in range(MANY):
        made.update(struct.pack("=I", 32) + struct.pack(">I", 10 << 24 | number), u32(number))
    entries = mounted.path / "trie/entries"
    names = os.listdir(entries)
    assert len(names) == len(set(names)) == MANY
    assert set(names) == {name_of(number) for number in range(MANY)}
    assert mounted.sh("cat trie/count; wc -l < trie/entries.jsonl").stdout == f"{MANY}\n{MANY}\n"
    gone = range(0, MANY, 500)
    made.update(prefix("10.0.0.0", 8), u32(8))
    for number in gone:
        (entries / name_of(number)).unlink()
        assert not readable(entries / name_of(number))
    assert mounted.sh("cat trie/count").stdout == f"{MANY - len(gone) + 1}\n"
    assert (entries / name_of(1)).read_text() == "1\n"


def name_of(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}_32"


def readable(path: Path) -> bool:
    """Whether it can be opened; what the kernel may still know of its name does not count."""
    try:
        os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return False
    return True
