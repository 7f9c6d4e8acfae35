"""Many entries of a map set at once, and looked up."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.maps import ARRAYS, NO_PREALLOC, SIX, dump, make_map, u32, u64, value_of
from support.samples import workshop

from fusefs.bpf import bulk
from fusefs.bpf.batch import split
from fusefs.bpf.bulk import Stopped
from fusefs.bpf.map import Map, MapType
from fusefs.tree.gathered import Gathered
from fusefs.tree.map_types import MAP_TYPES, Shape
from fusefs.tree.map_view import MapView

each = pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
VALUES = [kind for kind in MapType if (t := MAP_TYPES.get(kind)) and t.shape == Shape.VALUES]
SETTABLE = [kind for kind in VALUES if not MAP_TYPES[kind].unset]


def entries(bpf_map: Map, numbers: range) -> tuple[bytes, bytes]:
    """Keys and their values, which are three times as large."""
    keys = b"".join(map(u32, numbers))
    return keys, b"".join(value_of(bpf_map, 3 * number) for number in numbers)


@pytest.fixture(params=[True, False], ids=["batches", "one by one"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel is asked for batches."""
    if not request.param:
        monkeypatch.setattr(bulk, "update_all", bulk._one_by_one)
    return bool(request.param)


@each
def test_many_are_set(kind: MapType, batches: bool) -> None:
    with make_map(kind, max_entries=1000) as made:
        keys, values = entries(made, range(700))
        made.update_all(keys, values)
        expected = dict(zip(split(keys, 4), split(values, made.stride), strict=True))
        found = dump(made)
        assert {key: found[key] for key in expected} == expected
        assert len(found) == (1000 if kind in ARRAYS else 700)


@each
def test_none_and_one(kind: MapType, batches: bool) -> None:
    with make_map(kind, max_entries=4) as made:
        before = dump(made)
        made.update_all(b"", b"")
        assert dump(made) == before
        made.update_all(u32(3), value_of(made, 7))
        assert made.lookup(u32(3)) == value_of(made, 7)


@each
def test_the_last_of_a_key_wins(kind: MapType, batches: bool) -> None:
    with make_map(kind) as made:
        made.update_all(u32(1) * 3, b"".join(value_of(made, number) for number in (5, 6, 7)))
        assert made.lookup(u32(1)) == value_of(made, 7)


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH], ids=["hash", "percpu_hash"])
def test_a_full_map_tells_how_far_it_came(kind: MapType, batches: bool) -> None:
    with make_map(kind, max_entries=10) as made:
        keys, values = entries(made, range(20))
        with pytest.raises(Stopped) as stopped:
            made.update_all(keys, values)
        assert (stopped.value.errno, stopped.value.done) == (errno.E2BIG, 10)
        assert set(dump(made)) == set(split(keys[:40], 4))


@pytest.mark.parametrize("kind", ARRAYS, ids=["array", "percpu_array"])
def test_an_index_past_the_end_tells_how_far_it_came(kind: MapType, batches: bool) -> None:
    with make_map(kind, max_entries=5) as made:
        with pytest.raises(Stopped) as stopped:
            made.update_all(*entries(made, range(3, 8)))
        assert (stopped.value.errno, stopped.value.done) == (errno.E2BIG, 2)
        assert made.lookup(u32(4)) == value_of(made, 12)


def test_a_look_up_that_fails_tells_how_many_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = iter([True, False])
    values_of = Map.values_of

    def fails_next(bpf_map: Map, keys: bytes) -> bytes:
        if not next(looked_up):
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return values_of(bpf_map, keys)

    monkeypatch.setattr(Map, "values_of", fails_next)
    with make_map(MapType.HASH) as made:
        gathered = Gathered(MapView(made))
        for key in (1, 2, 1):  # the second look-up is for the key that comes again
            gathered.add(1, u32(key), u64(0), u64((1 << 64) - 1))
        with pytest.raises(Stopped) as stopped:
            gathered.set(made)
        assert (stopped.value.errno, stopped.value.done) == (errno.ENOMEM, 2)
        assert len(dump(made)) == 2


def test_a_frozen_map_takes_none(batches: bool) -> None:
    with make_map() as made:
        made.freeze()
        with pytest.raises(Stopped) as stopped:
            made.update_all(*entries(made, range(3)))
        assert (stopped.value.errno, stopped.value.done) == (errno.EPERM, 0)


def test_prefixes(batches: bool) -> None:
    with make_map(MapType.LPM_TRIE, key=8, value=8, flags=NO_PREALLOC) as trie:
        keys = [u32(length) + bytes([10, 1, 2, 0]) for length in (8, 16, 24)]
        trie.update_all(b"".join(keys), b"".join(map(u64, (1, 2, 3))))
        assert [trie.lookup(key) for key in keys] == [u64(1), u64(2), u64(3)]
        absent = u32(20) + bytes([10, 1, 0, 0])
        assert trie.values_of(keys[2] + absent + keys[0]) == u64(3) + u64(0) + u64(1)


@each
def test_values_of_many_keys(kind: MapType) -> None:
    with make_map(kind, max_entries=10) as made:
        made.update_all(*entries(made, range(5)))
        keys = b"".join(map(u32, (4, 0, 9, 2)))
        expected = b"".join(value_of(made, number) for number in (12, 0, 0, 6))
        assert made.values_of(keys) == expected
        assert made.values_of(b"") == b""


@pytest.mark.parametrize("kind", SETTABLE, ids=lambda kind: kind.name.lower())
def test_every_type_takes_back_what_it_gave(kind: MapType, bpffs: Path) -> None:
    with workshop(bpffs) as shop:
        made = shop.sample(kind)
        before = dump(made)
        assert before
        keys, values = (b"".join(side) for side in (before.keys(), before.values()))
        assert made.values_of(keys) == values
        made.update_all(keys, os.urandom(len(values)) if not made.per_cpu else values)
        made.update_all(keys, values)
        assert dump(made) == before
