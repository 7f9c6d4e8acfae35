"""LPM tries: which prefixes are there, and going through all of them while they change."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Sequence

import pytest
from support.maps import NO_PREALLOC, u32

from fusefs.bpf import lpm_trie
from fusefs.bpf.batch import Batch, split
from fusefs.bpf.map import Map, MapType


def prefix(address: str, length: int) -> bytes:
    """A key of an IPv4 trie."""
    return struct.pack("=I", length) + socket.inet_aton(address)


def trie(max_entries: int = 40_000) -> Map:
    """An IPv4 trie."""
    return Map.create(
        MapType.LPM_TRIE, key_size=8, value_size=4, max_entries=max_entries, flags=NO_PREALLOC
    )


def test_a_prefix_is_there_only_itself() -> None:
    noise = random.Random(3)
    with trie() as made:
        there: dict[bytes, bytes] = {}
        lengths = [0, 1, 7, 8, 9, 15, 16, 23, 24, 25, 31, 32]
        for _ in range(400):
            length = noise.choice(lengths)
            low = (1 << 32 - length) - 1
            key = struct.pack("=I", length) + struct.pack(">I", noise.getrandbits(5) << 27 & ~low)
            if noise.random() < 0.4 and key in there:
                made.delete(key)
                del there[key]
            else:
                there[key] = u32(noise.getrandbits(32))
                made.update(key, there[key])
            other = struct.pack("=I", noise.choice(lengths)) + key[4:]
            for asked in (key, other):
                if asked in there:
                    assert made.lookup(asked) == there[asked]
                elif struct.unpack(">I", asked[4:])[0] & (1 << 32 - asked[0]) - 1 == 0:
                    with pytest.raises(FileNotFoundError):
                        made.lookup(asked)
        walked = [pair for batch in made.batches() for pair in batch.pairs(8, 4)]
        assert len(walked) == len(there)
        assert dict(walked) == there


@pytest.mark.parametrize("every", [1, 2, 3])
def test_each_is_given_once_though_the_walk_starts_over(every: int) -> None:
    """The key on which a batch ends is deleted: the kernel starts from the first again."""
    with trie() as made:
        keys = [prefix(f"10.{n >> 8}.{n & 255}.0", 24) for n in range(20_000)]
        for number, key in enumerate(keys):
            made.update(key, u32(number))
        seen: Counter[bytes] = Counter()
        removed = set()
        for batch in made.batches():
            given = list(split(batch.keys, 8))
            seen.update(given)
            for key in given[-1::-every]:
                made.delete(key)
                removed.add(key)
        assert set(seen.values()) == {1}
        assert seen.keys() == set(keys)
        assert removed


def test_what_one_look_has_passed_over_is_given() -> None:
    # As the kernel does with all below a prefix that is replaced meanwhile.
    keys = [prefix(f"10.0.{number}.0", 24) for number in range(8)]
    values = [u32(number) for number in range(8)]
    with trie() as made:
        for key, value in zip(keys, values, strict=True):
            made.update(key, value)
        whole = Batch(8, b"".join(keys), b"".join(values))
        part = Batch(6, b"".join(keys[:2] + keys[4:]), b"".join(values[:2] + values[4:]))
        for first, second in ((part, whole), (whole, part)):

            def read(_: bytes | None, again: Batch = second) -> tuple[Batch, bool]:
                return again, True

            assert [*lpm_trie.certain(made, [(None, first)], read)] == [whole]


@pytest.mark.parametrize("seen", [[0, 1, 7], [0, 1], [0]], ids=["middle", "end", "nearly all"])
def test_more_than_a_batch_that_the_first_look_has_passed_over(seen: list[int]) -> None:
    keys = [prefix(f"10.0.{number}.0", 24) for number in range(8)]
    with trie() as made:
        for number, key in enumerate(keys):
            made.update(key, u32(number))

        def read(after: bytes | None) -> tuple[Batch, bool]:
            start = keys.index(after) + 1 if after else 0
            some = range(start, min(start + 2, 8))
            return batch_of(some), start + 2 >= 8

        def batch_of(numbers: Sequence[int]) -> Batch:
            return Batch(len(numbers), b"".join(keys[n] for n in numbers),
                         b"".join(map(u32, numbers)))  # fmt: skip

        given = [*lpm_trie.certain(made, [(None, batch_of(seen))], read)]
        assert b"".join(batch.keys for batch in given) == b"".join(keys)
        assert b"".join(batch.values for batch in given) == b"".join(map(u32, range(8)))


@pytest.mark.parametrize("times", [3, 12, 40])
def test_a_prefix_that_is_out_at_each_look_while_its_covering_one_changes(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, covering, own = prefix("10.1.0.0", 16), prefix("10.0.0.0", 8), u32(7)
    look = Map.longest_match
    looks = 0
    with trie() as made:
        made.update(covering, u32(1000))
        made.update(key, own)

        def amid_changes(bpf_map: Map, asked: bytes) -> bytes | None:
            nonlocal looks
            looks += 1
            made.update(covering, u32(1000 + looks))
            if asked != key or looks > 3 * times:
                return look(bpf_map, asked)
            made.delete(key)
            found = look(bpf_map, asked)
            made.update(key, own)
            return found

        monkeypatch.setattr(Map, "longest_match", amid_changes)
        assert made.lookup(key) == own
