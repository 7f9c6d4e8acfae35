"""Rings: records that programs write, and records that are written for programs."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.maps import make_map
from support.mounting import mounted_bpffs
from support.rings import FAST, HELD, LARGE, SMALL, Rings, check_burst, rings
from support.running import run, running

from fusefs.bpf.map import Map, MapType
from fusefs.bpf.ring_buffer import (
    BUSY,
    DISCARD,
    HEADER,
    LONGEST_PUSHED,
    OVERWRITE,
    RingBuffer,
    UserRingBuffer,
    find_records,
    total_size,
)


@pytest.fixture(scope="module")
def loaded() -> Iterator[Rings]:
    """The programs, loaded once."""
    with mounted_bpffs() as bpffs, rings(bpffs) as made:
        yield made


@pytest.fixture
def made(loaded: Rings) -> Rings:
    """The programs, and rings of which all was consumed."""
    for ring in ("small", "fast", "large"):
        with RingBuffer(loaded.map(ring), consuming=True) as memory:
            while batch := memory.front(LARGE):
                assert memory.consume(batch, batch.end)
    run(loaded.program("drain"))
    return loaded


def record(number: int) -> bytes:
    """A record of odd size, of which no byte is 0."""
    return bytes([number % 255 + 1]) * (number % 97)


# Headers, without any kernel.


def image(records: list[tuple[bytes, int]]) -> memoryview:
    """The memory of records, each with its flags."""
    parts = [
        struct.pack("=II", len(data) | flags, 1) + data.ljust(total_size(len(data)) - HEADER, b"\0")
        for data, flags in records
    ]
    return memoryview(b"".join(parts)).cast("I")


images = st.lists(st.tuples(st.binary(max_size=40), st.sampled_from([0, 0, 0, DISCARD])))


@given(images, st.data())
def test_records_are_found_up_to_one_that_is_busy(
    records: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    busy = data.draw(st.integers(0, len(records)))
    held = [(records[busy][0], records[busy][1] | BUSY)] if busy < len(records) else []
    words = image(records[:busy] + held + records[busy + 1 :])
    found = find_records(words, 0, words.nbytes)
    memory = words.tobytes()
    shown = [memory[start:end] for start, end in found.spans]
    assert shown == [content for content, flags in records[:busy] if not flags]
    assert found.end == sum(total_size(len(content)) for content, _ in records[:busy])
    assert found.is_busy == bool(held)


@given(images, st.integers(0, 400))
def test_none_is_cut(records: list[tuple[bytes, int]], end: int) -> None:
    words = image(records)
    found = find_records(words, 0, min(end, words.nbytes) & ~7)
    ends = [0]
    for content, _flags in records:
        ends.append(ends[-1] + total_size(len(content)))
    assert found.end == max(at for at in ends if at <= end & ~7)
    assert not found.is_busy


# Rings that programs write.


def test_to_look_consumes_nothing(made: Rings) -> None:
    records = [b"", b"a", b"12345678", b"123456789", bytes(100)]
    before = made.positions()
    assert before[0] == before[1]
    made.put(*records)
    for _ in range(3):
        assert made.unread() == records
    assert made.positions() == (before[0], before[0] + sum(map(total_size, map(len, records))))


def test_records_wrap_around(made: Rings) -> None:
    for number in range(0, 3000, 10):
        records = [record(number + more) for more in range(10)]
        made.put(*records)
        assert made.unread() == records
        made.consume(10)
    assert made.positions()[0] > 10 * SMALL


def test_one_that_is_filled_to_the_brim(made: Rings) -> None:
    made.put(b"x" * (SMALL // 2 - HEADER), b"y" * (SMALL // 4 - HEADER))
    while True:
        try:
            made.put(b"z" * 8)
        except AssertionError:
            break
    unread = made.unread()
    assert [item[:1] for item in unread] == [b"x", b"y"] + [b"z"] * (len(unread) - 2)
    consumer, producer = made.positions()
    assert SMALL - 16 <= producer - consumer <= SMALL
    made.consume(len(unread))
    assert made.unread() == []


def test_discarded_records_are_passed_over(made: Rings) -> None:
    made.skip(2)
    made.put(b"first")
    made.skip()
    made.put(b"second")
    made.skip()
    assert made.unread() == [b"first", b"second"]
    with RingBuffer(made.map("small"), consuming=True) as ring:
        batch = ring.front(SMALL)
        assert batch and batch.records == [b"first", b"second"]
        assert batch.end == ring.producer
        assert batch.ends == [ring.producer - 32 - 16 - 32, ring.producer - 32]
        assert ring.consume(batch, batch.end)
        assert ring.front(SMALL) is None
    made.skip(3)
    assert made.unread() == []


@pytest.mark.parametrize("discards", [False, True])
def test_what_is_being_written_is_not_there_yet(made: Rings, discards: bool) -> None:
    made.put(b"before")
    with made.holding(discards=discards):
        made.put(b"behind")
        assert made.unread() == [b"before"]
        with RingBuffer(made.map("small"), consuming=True) as ring:
            batch = ring.front(SMALL)
            assert batch and batch.records == [b"before"]
            assert ring.consume(batch, batch.end)
            assert ring.front(SMALL) is None
            assert ring.consumer < ring.producer
        assert made.unread() == []
    assert made.unread() == ([] if discards else [HELD]) + [b"behind"]


@pytest.mark.parametrize("length", [1 << 16, 200_001, 1 << 18])
def test_long_records(made: Rings, length: int) -> None:
    long = os.urandom(length)
    for _ in range(3):  # some of them wrap around
        made.put(b"short", long, long[:-1], b"short", ring="large")
        assert made.unread("large") == [b"short", long, long[:-1], b"short"]
        made.consume(4, "large")


def test_so_many_as_one_wants_are_taken(made: Rings) -> None:
    records = [record(number) for number in range(40)]
    made.put(*records)
    taken = []
    with RingBuffer(made.map("small"), consuming=True) as ring:
        while batch := ring.front(200):
            assert len(batch.records) == 1 or batch.end - batch.start <= 200
            assert ring.consume(batch, batch.ends[0])
            assert ring.consumer == batch.ends[0]
            taken.append(batch.records[0])
    assert taken == records


def test_another_consumer_is_noticed(made: Rings) -> None:
    made.put(b"first", b"second")
    with RingBuffer(made.map("small"), consuming=True) as ring:
        batch = ring.front(SMALL)
        assert batch
        made.consume(1)
        assert not ring.consume(batch, batch.end)
        again = ring.front(SMALL)
        assert again and again.records == [b"second"]


@pytest.mark.parametrize("first", [True, False])
def test_what_is_overwritten_while_it_is_read_is_not_shown(made: Rings, first: bool) -> None:
    """Records are consumed, and others come in their place, before or after they were copied."""
    records = [bytes([number]) * 56 for number in range(1, SMALL // 64)]
    made.put(*records)
    with RingBuffer(made.map("small")) as ring:
        copied, calls = ring._copied, []

        def overwritten(position: int, end: int, most: int) -> object:
            calls.append(position)
            if len(calls) > 1:
                return copied(position, end, most)
            before = None if first else copied(position, end, most)
            made.consume(20)
            made.put(*[b"\xff" * 88] * 13)
            return copied(position, end, most) if first else before

        ring._copied = overwritten  # type: ignore[method-assign, assignment]
        assert [record for batch in ring.unread() for record in batch] == records[20:]
    assert made.unread() == records[20:] + [b"\xff" * 88] * 13


def test_at_full_rate_all_are_whole_and_in_order(made: Rings) -> None:
    number = made.get("sequence")
    with (
        running(made.program("burst"), 100) as turns,
        RingBuffer(made.map("fast"), consuming=True) as ring,
    ):
        start = turns.count
        while turns.count < start + 30:
            if batch := ring.front(FAST):
                number = check_burst(batch.records, number)
                assert ring.consume(batch, batch.end)
    number = check_burst(made.unread("fast"), number)
    assert number == made.get("sequence")


def test_a_large_ring_takes_little_memory() -> None:
    with (
        Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=1 << 28) as large,
        RingBuffer(large) as ring,
    ):
        assert ring.size == 1 << 28
        assert list(ring.unread()) == []
        mapped = sum(_sizes_of_mappings())
        ring._window.show((1 << 28) - 8, 1 << 16)
        assert sum(_sizes_of_mappings()) - mapped <= 2 << 20


def _sizes_of_mappings() -> Iterator[int]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "bpf-map" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            yield end - start


def test_there_is_no_less_than_a_record(made: Rings) -> None:
    made.put(b"first", b"second")
    for _ in range(2):
        with RingBuffer(made.map("small")) as ring:
            batch = ring.front(0)
            assert batch and batch.records == [b"first"]
            assert ring.front(1) == batch


@contextlib.contextmanager
def consumer_at(ring: RingBuffer, moved: int) -> Iterator[None]:
    """As if somebody had moved the consumer's position: they can write what they like there."""
    start = ring.consumer
    ring._consumer.set((start + moved) % (1 << 64))
    try:
        yield
    finally:
        ring._consumer.set(start)


@pytest.mark.parametrize("moved", [8, SMALL * 4, -8], ids=["busy", "ahead", "far ahead"])
def test_from_a_position_that_cannot_be_nothing_is_read(made: Rings, moved: int) -> None:
    made.put(bytes([255]) * 48)
    with (
        RingBuffer(made.map("small"), consuming=True) as ring,
        consumer_at(ring, moved),
    ):
        assert list(ring.unread()) == []
        assert ring.front(SMALL) is None


@pytest.mark.parametrize("moved", [4, 8], ids=["unaligned", "too long"])
def test_what_is_no_record_is_an_error(made: Rings, moved: int) -> None:
    made.put(bytes([0, 0, 255, 0]) * 12)
    with (
        RingBuffer(made.map("small"), consuming=True) as ring,
        consumer_at(ring, moved),
    ):
        for read in (lambda: list(ring.unread()), lambda: ring.front(SMALL)):
            with pytest.raises(OSError, match="not where a record begins") as caught:
                read()
            assert caught.value.errno == errno.EIO


def test_frozen_rings_are_read_and_not_consumed() -> None:
    with Map.create(MapType.RINGBUF, key_size=0, value_size=0, max_entries=4096) as ring:
        with RingBuffer(ring, consuming=True), pytest.raises(OSError, match="busy"):
            ring.freeze()
        ring.freeze()
        with RingBuffer(ring) as memory:
            assert list(memory.unread()) == []
        with pytest.raises(PermissionError):
            RingBuffer(ring, consuming=True)


def test_a_ring_that_overwrites_is_refused() -> None:
    with make_map() as made:
        made.info.map_flags |= OVERWRITE  # since Linux 6.19
        with pytest.raises(OSError, match="overwrite"):
            RingBuffer(made)


# Rings that users write.


def pushed(made: Rings, *records: bytes) -> None:
    """Push records."""
    with UserRingBuffer(made.map("user")) as ring:
        ring.push(records)


def test_programs_receive_what_is_pushed(made: Rings) -> None:
    for number in range(100):  # they wrap around
        records = [record(number + more) for more in range(20)]
        pushed(made, *records)
        assert run(made.program("drain")) == 20
        assert made.unread("large") == records
        made.consume(20, "large")
    with UserRingBuffer(made.map("user")) as ring:
        assert ring.consumer == ring.producer > 10 * SMALL


def test_one_that_is_full_takes_none_of_many(made: Rings) -> None:
    fitting = [b"x" * 1000] * 4
    pushed(made, *fitting)
    with pytest.raises(OSError, match="room for 64 bytes, and this takes 80") as caught:
        pushed(made, b"", b"1", b"2" * 41)
    assert caught.value.errno == errno.ENOSPC
    pushed(made, b"", b"1", b"2" * 32)
    assert run(made.program("drain")) == 7
    assert made.unread("large") == [*fitting, b"", b"1", b"2" * 32]


def test_one_record_may_fill_it(made: Rings) -> None:
    whole = os.urandom(SMALL - HEADER)
    pushed(made, whole)
    with pytest.raises(OSError, match="room for 0 bytes"):
        pushed(made, b"")
    assert run(made.program("drain")) == 1
    assert made.unread("large") == [whole]
    with pytest.raises(OSError, match="room for 4096 bytes"):
        pushed(made, bytes(SMALL))


def test_one_that_no_program_could_receive_is_refused() -> None:
    with Map.create(MapType.USER_RINGBUF, key_size=0, value_size=0, max_entries=1 << 25) as made:
        with UserRingBuffer(made) as ring, pytest.raises(OSError, match="16777215 bytes") as caught:
            ring.push([b"x", bytes(LONGEST_PUSHED + 1)])
        assert caught.value.errno == errno.EMSGSIZE
        with UserRingBuffer(made) as ring:
            assert ring.producer == 0
            ring.push([b"x", bytes(LONGEST_PUSHED)])


def test_programs_that_drain_at_full_rate_see_whole_records(made: Rings) -> None:
    with running(made.program("drain"), 100):
        for number in range(300):
            content = bytes([number % 251 + 1]) * (number % 400)
            pushed(made, content, content)
            received: list[bytes] = []
            while len(received) < 2:
                received = made.unread("large")
            assert received == [content, content]
            made.consume(2, "large")
