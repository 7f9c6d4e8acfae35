"""All entries of a map: in batches of any size, and key by key while keys go."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest
from support.maps import ARRAYS, HASHES, SIX, dump, each_key, make_map, u32, value_of

from fusefs.bpf import ahead, walk
from fusefs.bpf.batch import Batch
from fusefs.bpf.map import Map, MapType

KEPT = [MapType.HASH, MapType.PERCPU_HASH]  # LRU maps may drop entries by themselves
each_kept = pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.name.lower())
MEBIBYTE = 1 << 20


def filled(kind: MapType, entries: int, max_entries: int = 0) -> Map:
    """A map with so many entries."""
    made = make_map(kind, max_entries=max_entries or entries)
    for number in range(entries):
        made.update(u32(number), value_of(made, number))
    return made


def test_the_pairs_of_a_batch() -> None:
    batch = Batch(3, b"aabbcc", b"111222333")
    assert list(batch.pairs(2, 3)) == [(b"aa", b"111"), (b"bb", b"222"), (b"cc", b"333")]
    assert list(Batch(0, b"", b"").pairs(4, 8)) == []


@pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
def test_the_pairs_of_all_batches_are_the_map(kind: MapType) -> None:
    with filled(kind, 100, 100 if kind in ARRAYS else 300) as made:
        pairs = [
            pair for batch in made.batches() for pair in batch.pairs(made.key_size, made.stride)
        ]
        assert len(pairs) == 100
        assert dict(pairs) == {u32(number): value_of(made, number) for number in range(100)}
        assert sorted(each_key(made)) == sorted(dict(pairs))


@pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("max_entries", [1, 2, 3, 4, 7, 15, 16, 17])
def test_maps_smaller_than_the_least_batch(kind: MapType, max_entries: int) -> None:
    with filled(kind, max_entries) as made:
        given = dump(made)
        if "LRU" not in kind.name:
            assert len(given) == max_entries
        assert set(each_key(made)) == set(given)
        assert all(
            given[u32(n)] == value_of(made, n) for n in range(max_entries) if u32(n) in given
        )


def test_a_large_map_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ahead._reader.cache_clear()
    with filled(MapType.HASH, 10_000) as made:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert len(dump(made)) == 10_000
        assert len(dump(made)) == 10_000
    assert "read-ahead_0" in [thread.name for thread in threading.enumerate()]


@each_kept
@pytest.mark.parametrize("max_entries", [1, 2, 3])
def test_full_maps_of_few_buckets(kind: MapType, max_entries: int) -> None:
    """Some of these keys share a bucket, whatever the kernel's hash seed is."""
    for start in range(0, 60, max_entries):
        with make_map(kind, max_entries=max_entries) as made:
            expected = {}
            for number in range(start, start + max_entries):
                expected[u32(number)] = value_of(made, number)
                made.update(u32(number), expected[u32(number)])
            assert dump(made) == expected
            assert sorted(each_key(made)) == sorted(expected)


@pytest.mark.parametrize("entries", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [MEBIBYTE - 4, MEBIBYTE, 3 * MEBIBYTE])
@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.HASH], ids=["array", "hash"])
def test_values_larger_than_a_batch(kind: MapType, size: int, entries: int) -> None:
    with make_map(kind, key=4, value=size, max_entries=entries) as made:
        for number in range(entries):
            made.update(u32(number), bytes([number + 1]) * size)
        counts = [batch.count for batch in made.batches()]
        assert sum(counts) == entries
        if kind == MapType.ARRAY:  # one at a time, and no room for more is made
            assert max(counts) == 1
        assert dump(made) == {u32(number): bytes([number + 1]) * size for number in range(entries)}


@each_kept
def test_batches_while_all_is_deleted(monkeypatch: pytest.MonkeyPatch, kind: MapType) -> None:
    monkeypatch.setattr(walk, "AT_ONCE", 64)
    with filled(kind, 1000) as made:
        given = []
        for batch in walk.batches(made, walk.AT_ONCE):
            for key, _ in batch.pairs(made.key_size, made.stride):
                given.append(key)
                made.delete(key)
        assert sorted(given) == sorted(map(u32, range(1000)))
        assert dump(made) == {}


@each_kept
def test_keys_while_each_is_deleted(kind: MapType) -> None:
    with filled(kind, 1000) as made:
        given = []
        for key in each_key(made):
            given.append(key)
            made.delete(key)
        assert sorted(given) == sorted(map(u32, range(1000)))
        assert list(each_key(made)) == []


@each_kept
def test_keys_while_every_other_is_deleted(kind: MapType) -> None:
    entries = 64  # each throws it back to the start, and it bears that only so often
    with filled(kind, entries) as made:
        given = []
        for number, key in enumerate(each_key(made)):
            given.append(key)
            if number % 2:
                made.delete(key)
        assert sorted(given) == sorted(map(u32, range(entries)))
        assert len(dump(made)) == entries // 2


@each_kept
def test_keys_while_the_others_are_deleted(kind: MapType) -> None:
    with filled(kind, 100) as made:
        keys: Iterator[bytes] = each_key(made)
        first = next(keys)
        for number in range(100):
            if u32(number) != first:
                made.delete(u32(number))
        rest = list(keys)
        assert first not in rest
        assert len(rest) <= 1  # the one that it stood before


@each_kept
def test_keys_that_come_and_go_for_ever_end(kind: MapType) -> None:
    with make_map(kind, max_entries=10) as made:
        made.update(u32(0), value_of(made, 0))
        given = []
        with pytest.raises(OSError) as caught:
            for number, key in enumerate(each_key(made), 1):
                given.append(key)
                made.delete(key)
                made.update(u32(number), value_of(made, 0))
        assert caught.value.errno == errno.EAGAIN
        assert len(given) == len(set(given))


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
def test_no_keys(kind: MapType) -> None:
    with make_map(kind) as made:
        assert list(each_key(made)) == []
        assert dump(made) == {}


@pytest.mark.parametrize("kind", ARRAYS, ids=lambda kind: kind.name.lower())
def test_the_keys_of_an_array_are_its_indices(kind: MapType) -> None:
    with make_map(kind, max_entries=20) as made:
        assert list(each_key(made)) == [u32(number) for number in range(20)]
