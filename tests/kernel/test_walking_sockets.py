"""Going through the keys of sockhashes and stack traces, which the kernel gives one by one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import dump, each_key, u32, u64
from support.network import compile_program
from support.sockets import Sockets, put, socket_map, sockets
from support.stacks import Stacks, compile_library, loaded

from fusefs.bpf.map import Map, MapType
from fusefs.bpf.walk import has_key


@pytest.fixture
def made() -> Iterator[Sockets]:
    """Sockets that are closed at the end."""
    with sockets() as some:
        yield some


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is compiled is."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def stacks(bpffs: Path, directory: Path) -> Iterator[Stacks]:
    """Programs that ask for stacks."""
    with loaded(bpffs, compile_program("stacks", directory)) as some:
        yield some


@pytest.fixture
def filled(stacks: Stacks, directory: Path) -> Iterator[Map]:
    """A map with many stacks."""
    stacks.run_deep(compile_library(directory), 7)
    with stacks.map("user_stacks") as some:
        yield some


@pytest.mark.parametrize("value_size", [4, 8])
def test_which_keys_a_sockhash_has(made: Sockets, value_size: int) -> None:
    listener = made.listener()
    with socket_map(MapType.SOCKHASH, value_size=value_size) as some:
        assert not has_key(some, u32(1))
        for number in range(0, 40, 2):
            put(some, number, listener)
        assert [number for number in range(64) if has_key(some, u32(number))] == [*range(0, 40, 2)]
        assert sorted(each_key(some)) == sorted(map(u32, range(0, 40, 2)))
        for number in range(2, 40, 2):
            some.delete(u32(number))
        assert [number for number in range(64) if has_key(some, u32(number))] == [0]


def test_a_sockhash_while_each_key_is_deleted(made: Sockets) -> None:
    listener = made.listener()
    with socket_map(MapType.SOCKHASH, max_entries=256) as some:
        for number in range(200):
            some.update(u32(number), u64(listener.fileno()))
        given = []
        for key in each_key(some):
            given.append(key)
            some.delete(key)
        assert sorted(given) == sorted(map(u32, range(200)))
        assert dump(some) == {}


def test_a_sockhash_that_changes_for_ever(made: Sockets) -> None:
    listener = made.listener()
    with socket_map(MapType.SOCKHASH) as some:
        put(some, 0, listener)
        with pytest.raises(OSError) as caught:
            for number, key in enumerate(each_key(some), 1):
                some.delete(key)
                put(some, number, listener)
        assert caught.value.errno == errno.EAGAIN


def test_entries_that_close_meanwhile(made: Sockets) -> None:
    """What was in the map is given, or is not; never with another's cookie."""
    with socket_map(MapType.SOCKHASH, max_entries=256) as some:
        each = [made.listener() for _ in range(100)]
        for number, one in enumerate(each):
            put(some, number, one)
        before = dump(some)
        given: dict[bytes, bytes] = {}
        for number, batch in enumerate(some.batches()):
            each[number].close()
            given |= dict(batch.pairs(some.key_size, some.stride))
        assert given.items() <= before.items()


Disturb = Callable[[Map, bytes, list[bytes]], None]


def itself(some: Map, key: bytes, given: list[bytes]) -> None:
    some.delete(key)


def all_before(some: Map, key: bytes, given: list[bytes]) -> None:
    while given:
        some.delete(given.pop())


def every_other(some: Map, key: bytes, given: list[bytes]) -> None:
    if len(given) % 2:
        some.delete(key)


@pytest.mark.parametrize("disturb", [itself, all_before, every_other])
def test_ids_of_stacks_come_in_order_whatever_is_deleted(filled: Map, disturb: Disturb) -> None:
    every = sorted(int.from_bytes(key, "little") for key in dump(filled))
    assert len(every) > 100
    walked: list[int] = []
    given: list[bytes] = []
    for key in each_key(filled):
        walked.append(int.from_bytes(key, "little"))
        given.append(key)
        disturb(filled, key, given)
    assert walked == every


def test_others_have_a_turn_while_the_next_stack_is_sought(filled: Map) -> None:
    """Those before stay, and the one that it stands on and all behind are deleted."""
    every = sorted(dump(filled), key=lambda key: int.from_bytes(key, "little"))
    walk = filled.each_key()
    assert [next(walk) for _ in range(20)] == every[:20]
    for key in every[19:]:
        filled.delete(key)
    assert set(walk) == {None}


def test_stacks_that_stay_are_given(filled: Map) -> None:
    """Those before are deleted, and the one that it stands on; the others stay."""
    every = sorted(int.from_bytes(key, "little") for key in dump(filled))
    walked = []
    for number, key in enumerate(each_key(filled)):
        walked.append(int.from_bytes(key, "little"))
        if number == 50:
            for gone in every[20:60]:
                filled.delete(u32(gone))
    assert walked == every[:51] + every[60:]
    assert sorted(int.from_bytes(key, "little") for key in dump(filled)) == every[:20] + every[60:]
