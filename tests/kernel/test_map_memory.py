"""Parts of a value, read and changed in the map's memory or by system calls."""

from __future__ import annotations

import errno
import mmap
import os
import random
from pathlib import Path

import pytest
from support.sections import MMAPABLE, section_map

from fusefs.bpf.map import Map, MapType

KEY = bytes(4)
PAGE = mmap.PAGESIZE


def array(size: int, flags: int = MMAPABLE) -> Map:
    return Map.create(
        MapType.ARRAY, key_size=4, value_size=size, max_entries=1, name="sample", flags=flags
    )


@pytest.mark.parametrize("flags", [MMAPABLE, 0], ids=["mapped", "by system calls"])
def test_nothing_but_the_pieces_changes(flags: int) -> None:
    numbers = random.Random(1)
    size = 2 * PAGE + 100
    with array(size, flags) as sample:
        expected = bytearray(numbers.randbytes(size))
        sample.update(KEY, bytes(expected))
        for _ in range(300):
            pieces = []
            for start in sorted(numbers.sample(range(size), 3)):
                data = numbers.randbytes(min(numbers.randrange(1, 40), size - start))
                expected[start : start + len(data)] = data
                pieces.append((start, data))
            sample.store(pieces)
            assert sample.lookup(KEY) == expected
            start = numbers.randrange(size - 50)
            assert sample.load(start, 50) == expected[start : start + 50]


@pytest.mark.parametrize("size", [1, 8, PAGE - 1, PAGE, PAGE + 1])
def test_values_around_the_size_of_a_page(size: int) -> None:
    with array(size) as sample:
        sample.store([(0, bytes([1]) * size)])
        sample.store([(size - 1, b"\2")])
        assert sample.lookup(KEY) == bytes([1]) * (size - 1) + b"\2"
        assert sample.load(0, size) == sample.lookup(KEY)


def test_no_mapping_is_left() -> None:
    with array(64) as sample:
        sample.load(8, 8)
        sample.store([(8, bytes(8))])
        assert "bpf-map" not in Path("/proc/self/maps").read_text()
        sample.freeze()
        assert sample.load(8, 8) == bytes(8)
        with pytest.raises(PermissionError):
            sample.store([(8, b"\1")])


def test_what_the_kernel_keeps_for_itself_is_not_mapped() -> None:
    with section_map(locked=True) as sample:
        with pytest.raises(OSError) as refused:
            mmap.mmap(sample.fd, PAGE, access=mmap.ACCESS_READ)
        assert refused.value.errno == 524, os.strerror(errno.EOPNOTSUPP)  # ENOTSUPP
        sample.store([(4, b"\7")])
        assert sample.load(0, 8) == bytes([0, 0, 0, 0, 7, 0, 0, 0])
