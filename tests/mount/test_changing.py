"""Maps that a program changes all the time, read whole through the mount."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import u32, u64
from support.mounting import Mount
from support.network import compile_program
from support.running import running
from support.sections import Loaded, load

from fusefs.bpf.cpus import possible_cpus

STAYING = range(1000)  # see churn.bpf.c
CHANGING = range(1000, 2000)
COVERING = 999_999


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("churn", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def churning(mounted: Mount, compiled: Path) -> Iterator[Loaded]:
    """The program, loaded, and the entries that stay."""
    loaded = load(mounted, compiled)
    with loaded.program, loaded.map("lpm_trie") as trie:
        for name in ("hash", "percpu_hash"):
            with loaded.map(name) as made:
                for number in STAYING:
                    value = u64(2 * number)
                    made.update(u32(number), value * (possible_cpus() if made.per_cpu else 1))
        trie.update(prefix(0, 8), u64(COVERING))
        for number in STAYING:
            trie.update(prefix(number), u64(2 * number))
        yield loaded


def prefix(number: int, length: int = 24) -> bytes:
    """The key of a number in the trie."""
    return struct.pack("=I", length) + struct.pack(">I", 10 << 24 | number << 8)


def number_of(key: object) -> int:
    """The number of a key of either kind, -1 for the covering one."""
    if isinstance(key, int):
        return key
    address, _, length = str(key).replace("_", "/").partition("/")
    parts = [int(part) for part in address.split(".")]
    return parts[1] << 8 | parts[2] if length == "24" else -1


@pytest.mark.parametrize("name", ["hash", "percpu_hash", "lpm_trie"])
def test_what_stays_is_shown_once_and_nothing_that_was_not_there(
    churning: Loaded, name: str
) -> None:
    directory = churning.mount.path / "maps" / name
    with running(churning.program) as turns:
        before = turns.count
        for _ in range(30):
            entries = [json.loads(line) for line in (directory / "entries.jsonl").open()]
            numbers = [number_of(entry["key"]) for entry in entries]
            assert len(numbers) == len(set(numbers))
            assert set(numbers) >= set(STAYING)
            assert set(numbers) <= {-1, *STAYING, *CHANGING}
            wrong = [entry for entry in entries if not right(entry)]
            assert wrong == []
        for _ in range(5):
            names = [number_of(int(n) if n.isdigit() else n) for n in listed(directory)]
            assert len(names) == len(set(names))
            assert set(names) >= set(STAYING)
            assert set(names) <= {-1, *STAYING, *CHANGING}
            assert int((directory / "count").read_text()) >= len(STAYING)
        assert turns.count > before


def listed(directory: Path) -> list[str]:
    return os.listdir(directory / "entries")


def right(entry: dict[str, object]) -> bool:
    """Whether a key has the value that the program gives it. (Values of several CPUs are each
    right, or zero where the entry is new.)"""
    number = number_of(entry["key"])
    wanted = COVERING if number < 0 else 2 * number
    value = entry["value"]
    return all(v in (wanted, 0) for v in value) if isinstance(value, list) else value == wanted
