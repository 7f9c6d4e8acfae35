"""Maps of all six types, on the running kernel."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from support.maps import ARRAYS, HASHES, NO_PREALLOC, SIX, dump, exists, make_map, u32, value_of
from support.running import repeating
from support.waiting import eventually

from fusefs.bpf import syscall, walk
from fusefs.bpf.batch import Batch
from fusefs.bpf.map import Existence, Map, MapType
from fusefs.bpf.syscall import ENOTSUPP, Command

each_type = pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
each_hash = pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
each_array = pytest.mark.parametrize("kind", ARRAYS, ids=lambda kind: kind.name.lower())


def errno_of(caught: pytest.ExceptionInfo[OSError]) -> int | None:
    """The errno of what was raised."""
    return caught.value.errno


@each_type
def test_what_is_set_is_found(kind: MapType) -> None:
    with make_map(kind) as made:
        for number in range(5):
            made.update(u32(number), value_of(made, number))
            made.update(u32(number), value_of(made, 10 + number))
        for number in range(5):
            assert made.lookup(u32(number)) == value_of(made, 10 + number)


@each_hash
def test_a_hash_forgets_what_is_deleted(kind: MapType) -> None:
    with make_map(kind) as made:
        made.update(u32(1), value_of(made, 1))
        made.delete(u32(1))
        with pytest.raises(FileNotFoundError):
            made.lookup(u32(1))
        with pytest.raises(FileNotFoundError):
            made.delete(u32(1))
        assert dump(made) == {}


@each_hash
def test_a_key_that_a_look_up_has_missed_is_found(
    kind: MapType, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = 0
    actual = syscall.bpf

    def missing_once(command: Command, arguments: ctypes.Structure) -> int:
        nonlocal missed
        if command == Command.MAP_LOOKUP_ELEM and not missed:
            missed += 1
            raise FileNotFoundError(errno.ENOENT, "missed")
        return actual(command, arguments)

    with make_map(kind) as made:
        made.update(u32(1), value_of(made, 5))
        monkeypatch.setattr(syscall, "bpf", missing_once)
        assert made.lookup(u32(1)) == value_of(made, 5)
        assert missed == 1


@each_hash
def test_the_value_of_another_key_that_a_look_up_gives_is_not_taken(
    kind: MapType, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    actual = syscall.bpf

    def wrong_once(command: Command, arguments: ctypes.Structure) -> int:
        nonlocal looks
        result = actual(command, arguments)
        if command == Command.MAP_LOOKUP_ELEM:
            looks += 1
            if looks == 1:
                ctypes.memmove(arguments.value, other, len(other))
        return result

    with make_map(kind) as made:
        made.update(u32(1), value_of(made, 5))
        other = value_of(made, 6)
        monkeypatch.setattr(syscall, "bpf", wrong_once)
        assert made.lookup(u32(1)) == value_of(made, 5)
        assert looks == 3  # the two that agree, and no more


@each_array
def test_an_array_has_all_its_indices_and_no_other(kind: MapType) -> None:
    with make_map(kind, max_entries=3) as made:
        assert dump(made) == {u32(number): value_of(made, 0) for number in range(3)}
        with pytest.raises(OSError) as caught:
            made.update(u32(3), value_of(made, 1))
        assert errno_of(caught) == errno.E2BIG
        with pytest.raises(FileNotFoundError):
            made.lookup(u32(3))
        with pytest.raises(OSError) as caught:
            made.delete(u32(1))
        assert errno_of(caught) == errno.EINVAL


@each_hash
def test_existence(kind: MapType) -> None:
    with make_map(kind) as made:
        with pytest.raises(FileNotFoundError):
            made.update(u32(1), value_of(made, 1), Existence.EXIST)
        made.update(u32(1), value_of(made, 1), Existence.NOEXIST)
        with pytest.raises(FileExistsError):
            made.update(u32(1), value_of(made, 2), Existence.NOEXIST)
        made.update(u32(1), value_of(made, 3), Existence.EXIST)
        assert made.lookup(u32(1)) == value_of(made, 3)
        # The flags of one call are not those of the next.
        made.update(u32(2), value_of(made, 4))
        assert len(dump(made)) == 2


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH])
def test_a_full_hash(kind: MapType) -> None:
    with make_map(kind, max_entries=2) as made:
        for number in range(2):
            made.update(u32(number), value_of(made, 0))
        with pytest.raises(OSError) as caught:
            made.update(u32(2), value_of(made, 0))
        assert errno_of(caught) == errno.E2BIG


def test_sizes_are_checked() -> None:
    with make_map() as made:
        for key, value in ((b"123", bytes(8)), (bytes(5), bytes(8)), (bytes(4), bytes(7))):
            with pytest.raises(OSError) as caught:
                made.update(key, value)
            assert errno_of(caught) == errno.EINVAL
        assert dump(made) == {}


@each_type
@pytest.mark.parametrize("entries", [0, 1, 5000])
def test_batches_give_each_entry_once(kind: MapType, entries: int) -> None:
    with make_map(kind, max_entries=max(entries, 1) * (2 if "LRU" in kind.name else 1)) as made:
        for number in range(entries):
            made.update(u32(number), value_of(made, number))
        given = dump(made)
        if kind in ARRAYS:
            entries = max(entries, 1)
        # An LRU map may drop some, though there is room.
        assert len(given) == entries or ("LRU" in kind.name and len(given) > entries * 0.9)
        assert all(value == value_of(made, int.from_bytes(key, "little"))
                   for key, value in given.items())  # fmt: skip
        walked = [
            pair
            for batch in walk.one_by_one(made)
            for pair in batch.pairs(made.key_size, made.stride)
        ]
        assert len(walked) == len(given)
        assert dict(walked) == given


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_batches_of_any_size_of_key(size: int) -> None:
    with make_map(key=size, value=8, max_entries=256) as made:
        for number in range(200):
            made.update(number.to_bytes(1, "little") * size, bytes(8))
        assert len(dump(made)) == 200


def test_batches_smaller_than_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = []
    call = syscall.bpf

    def watched(command: Command, arguments: ctypes.Structure) -> int:
        try:
            return call(command, arguments)
        except OSError as error:
            rooms.append(error.errno)
            raise

    monkeypatch.setattr(walk, "_LEAST", 1)
    with make_map(max_entries=4096) as made:
        for number in range(4096):
            made.update(u32(number), value_of(made, number))
        monkeypatch.setattr(syscall, "bpf", watched)
        assert sum(batch.count for batch in made.batches(1)) == 4096
    assert errno.ENOSPC in rooms


@pytest.mark.parametrize("missing", [errno.EINVAL, ENOTSUPP])
def test_without_batches_it_walks(monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    call = syscall.bpf

    def old_kernel(command: Command, arguments: ctypes.Structure) -> int:
        if command == Command.MAP_LOOKUP_BATCH:
            raise OSError(missing, "no batches")
        return call(command, arguments)

    with make_map() as made:
        for number in range(50):
            made.update(u32(number), value_of(made, number))
        monkeypatch.setattr(syscall, "bpf", old_kernel)
        assert len(dump(made)) == 50


WAYS: dict[str, Callable[[Map], Iterator[Batch]]] = {
    "batches": lambda made: made.batches(64),
    "ahead": lambda made: walk.batches(made, walk.AT_ONCE),
    "walk": walk.one_by_one,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH])
def test_keys_that_stay_are_given_once_while_others_change(
    monkeypatch: pytest.MonkeyPatch, kind: MapType, way: Callable[[Map], Iterator[Batch]]
) -> None:
    monkeypatch.setattr(walk, "AT_ONCE", 64)  # so that more is to come when others change it
    stable = {u32(number) for number in range(2000)}
    with make_map(kind, max_entries=20_000, flags=NO_PREALLOC) as made:
        for key in stable:
            made.update(key, value_of(made, 1))
        numbers = count()
        own = Map.from_id(made.info.id)

        def disturb() -> None:
            number = next(numbers)
            own.update(u32(10_000 + number % 5000), value_of(own, 2))
            if number >= 1000:
                own.delete(u32(10_000 + (number - 1000) % 5000))

        with own, repeating(disturb) as turns:
            turns.more(2000)
            disturbed = 0
            while disturbed < 3:
                before = turns.count
                keys = [
                    batch.keys[at : at + 4]
                    for batch in way(made)
                    for at in range(0, len(batch.keys), 4)
                ]
                disturbed += turns.count > before
                assert len(keys) == len(set(keys))
                assert stable <= set(keys)


@each_type
def test_a_frozen_map(kind: MapType) -> None:
    with make_map(kind) as made:
        made.update(u32(1), value_of(made, 1))
        assert not made.frozen()
        made.freeze()
        assert made.frozen()
        with pytest.raises(PermissionError):
            made.update(u32(1), value_of(made, 2))
        with pytest.raises(OSError):
            made.delete(u32(1))
        assert made.lookup(u32(1)) == value_of(made, 1)


def test_the_object_lives_as_long_as_it_is_open() -> None:
    first = make_map()
    number = first.info.id
    second = Map.from_id(number)
    first.close()
    first.close()
    assert exists(Map, number)
    second.update(u32(1), bytes(8))
    del second
    eventually("the object is gone", lambda: not exists(Map, number))
    with pytest.raises(FileNotFoundError):
        Map.from_id(number)


def test_what_the_kernel_says_of_it() -> None:
    with make_map(MapType.HASH, value="pair", max_entries=7, name="some_name", flags=1) as made:
        info = made.info
        assert (info.type, info.key_size, info.value_size, info.max_entries) == (1, 4, 8, 7)
        assert (info.name, info.map_flags) == (b"some_name", NO_PREALLOC)
        assert info.btf_id and info.btf_key_type_id and info.btf_value_type_id
        assert made.fdinfo()["map_id"] == str(info.id)
