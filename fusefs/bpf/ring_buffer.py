"""The memory of rings: reading BPF_MAP_TYPE_RINGBUF, writing BPF_MAP_TYPE_USER_RINGBUF.

Source: kernel/bpf/ringbuf.c, and ringbuf.c of libbpf, whose protocol this is. Rings are since Linux
5.8, those that users write since 6.1. A map of a ring has, page by page: the consumer's position,
the producer's, and the data twice, so that a record which wraps around is one piece all the same.
Positions only grow; modulo the size of the ring they are places in the data. A record is a header
of 8 bytes, the length with two flags in its first four, and the data, up to a multiple of 8. What
lies between the two positions is never overwritten.

Each position and each length is loaded and stored whole, by one instruction: natively aligned items
of memoryviews are.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusefs.bpf.map import Map
from fusefs.bpf.object import Closing

HEADER = 8  # BPF_RINGBUF_HDR_SZ
BUSY, DISCARD = 1 << 31, 1 << 30  # BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
# BPF_F_RB_OVERWRITE, since Linux 6.19: a producer overwrites what nobody has consumed.
OVERWRITE = 1 << 19
# A longer one is never drained, and what is behind it neither: bpf_dynptr_check_size.
LONGEST_PUSHED = (1 << 24) - 1
# Bytes of a ring that are mapped and gone through at a time: others wait so long, and a ring can be
# larger than what one wants in memory.
_PIECE = 1 << 16
_WINDOW = 1 << 20


def total_size(length: int) -> int:
    """The bytes of a ring that a record of so many takes."""
    return (length + HEADER + 7) & ~7


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in a part of a ring, from its first header on.

    `spans` are the start and end of the data of each record that was not discarded, and `end` is
    where the records that can be read end. There either is a record that `is_busy`, or one that
    ends outside the part, or the part is through.
    """

    spans: list[tuple[int, int]]
    end: int
    is_busy: bool


def find_records(words: memoryview, start: int, end: int) -> Found:
    """Go through the headers from `start` to `end`, which are places in bytes in the memory that
    `words` shows as 32-bit numbers."""
    spans: list[tuple[int, int]] = []
    at = start
    while at < end:
        header = words[at >> 2]
        if header & BUSY:
            return Found(spans, at, is_busy=True)
        length = header & ~DISCARD
        after = at + (length + HEADER + 7 & ~7)
        if after > end:
            break
        if not header & DISCARD:
            spans.append((at + HEADER, at + HEADER + length))
        at = after
    return Found(spans, at, is_busy=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that lie one after the other in a ring from position `start` to `end`, and where
    each of them ends. There may be none: then all from `start` to `end` were discarded."""

    start: int
    end: int
    records: list[bytes]
    ends: list[int]


class _Position:
    """The page with a position."""

    def __init__(self, fd: int, page: int, access: int) -> None:
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, access=access, offset=page * mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("L")

    def get(self) -> int:
        position: int = self._words[0]
        return position

    def set(self, position: int) -> None:
        self._words[0] = position

    def close(self) -> None:
        self._words.release()
        self._memory.close()


class _Window:
    """A part of the data pages that is mapped now: the one that was last asked for."""

    def __init__(self, fd: int, size: int, access: int) -> None:
        self._fd = fd
        self._size = size
        self._access = access
        self._start = self._end = 0  # which part, in bytes from the first data page
        self.memory: mmap.mmap | None = None
        self.words = memoryview(b"")

    def show(self, place: int, length: int) -> int:
        """Have `length` bytes at a place of the ring in the window; where they are in it.

        No more than the size of the ring, and the place is below that.
        """
        if not self._start <= place < place + length <= self._end:
            self.close()
            start = place - place % mmap.PAGESIZE
            end = min(max(start + _WINDOW, place + length), 2 * self._size)
            end = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
            offset = 2 * mmap.PAGESIZE + start
            self.memory = mmap.mmap(self._fd, end - start, access=self._access, offset=offset)
            self.words = memoryview(self.memory).cast("I")
            self._start, self._end = start, end
        return place - self._start

    def close(self) -> None:
        self.words.release()
        if self.memory is not None:
            self.memory.close()
        self.memory, self._start, self._end = None, 0, 0


class _Ring(Closing):
    """The mapped memory of a ring. A context manager; while it is open the map is kept alive, and
    the map cannot be frozen as long as a part of it is mapped for writing. Raises OSError."""

    def __init__(self, bpf_map: Map, consumer: int, producer: int, data: int) -> None:
        """How each part is mapped: `mmap.ACCESS_READ` or `mmap.ACCESS_WRITE`."""
        self.size: int = bpf_map.info.max_entries
        self._mask = self.size - 1
        self._consumer = _Position(bpf_map.fd, 0, consumer)
        self._producer = _Position(bpf_map.fd, 1, producer)
        self._window = _Window(bpf_map.fd, self.size, data)

    @property
    def consumer(self) -> int:
        """The position up to which records were consumed."""
        return self._consumer.get()

    @property
    def producer(self) -> int:
        """The position up to which records were reserved."""
        return self._producer.get()

    def close(self) -> None:
        """Unmap it."""
        self._window.close()
        self._consumer.close()
        self._producer.close()


class RingBuffer(_Ring):
    """A ring that programs write, seen by who reads it, and consumes only if it was opened so."""

    def __init__(self, bpf_map: Map, *, consuming: bool = False) -> None:
        """Raises OSError: EPERM when the map is frozen and is to be consumed."""
        if bpf_map.info.map_flags & OVERWRITE:
            reason = "programs overwrite what is not consumed of this ring"
            raise OSError(errno.EOPNOTSUPP, reason)
        read = mmap.ACCESS_READ
        super().__init__(bpf_map, mmap.ACCESS_WRITE if consuming else read, read, read)

    def unread(self) -> Iterator[list[bytes]]:
        """What lies unread in the ring now, some records at a time, or none while others consume
        them. It ends with the last of them, or at one that is being written."""
        end = self.producer
        position = self.consumer
        while position < end:
            batch = self._copied(position, end, _PIECE)
            now = self.consumer
            if now <= position:
                if batch is None:
                    return
                yield batch.records
                position = batch.end
            else:
                # What was there may have been overwritten while it was copied. What is still
                # unread was not, if what went before led to the right place.
                whole = batch.ends.index(now) + 1 if batch and now in batch.ends else None
                yield batch.records[whole:] if batch and whole is not None else []
                position = batch.end if batch and whole is not None else now

    def front(self, most: int) -> Batch | None:
        """The records that are to be consumed next, some `most` bytes but at least one; None when
        there is none that is not being written. They stay in the ring."""
        while True:
            end = self.producer
            position = self.consumer
            if position >= end:
                return None
            batch = self._copied(position, end, most)
            if self.consumer == position:
                return batch

    def consume(self, batch: Batch, end: int) -> bool:
        """Take what is from the start of `batch` to the position `end` in it out of the ring.

        False when another consumer has done something since it was copied: then nothing changes.
        """
        if self.consumer != batch.start:
            return False
        self._consumer.set(end)
        return True

    def _copied(self, position: int, end: int, most: int) -> Batch | None:
        """The records from `position` on, some `most` bytes but at least one; None when the first
        is being written. They are as they were in the ring if the consumer's position is not past
        `position`, and only then."""
        place, room = position & self._mask, end - position
        if room > self.size or position % 8:
            self._check_consumer(position)
            return None
        length = min(room, most)
        base = self._window.show(place, length)
        found = find_records(self._window.words, base, base + length)
        if found.end == base and not found.is_busy:
            # The first is longer than what was looked at.
            length = total_size(self._window.words[base >> 2] & ~DISCARD)
            if length > room:
                self._check_consumer(position)
                return None
            base = self._window.show(place, length)
            found = find_records(self._window.words, base, base + length)
        if found.end == base:
            return None
        memory = self._window.memory
        assert memory is not None  # it is shown
        shift = position - base
        return Batch(
            position,
            found.end + shift,
            [memory[start:stop] for start, stop in found.spans],
            [(stop + 7 & ~7) + shift for _start, stop in found.spans],
        )

    def _check_consumer(self, position: int) -> None:
        """Refuse a record that cannot be, unless the consumer has passed `position` meanwhile."""
        if self.consumer <= position:
            raise OSError(errno.EIO, "the consumer's position is not where a record begins")


class UserRingBuffer(_Ring):
    """A ring that programs drain, to be written. There must be no other producer meanwhile: the
    protocol has none for two."""

    def __init__(self, bpf_map: Map) -> None:
        """Raises OSError: EPERM when the map is frozen."""
        super().__init__(bpf_map, mmap.ACCESS_READ, mmap.ACCESS_WRITE, mmap.ACCESS_WRITE)

    def push(self, records: Sequence[bytes]) -> None:
        """Add all records, or none. Raises OSError: ENOSPC when there is no room for all.

        As `user_ring_buffer__reserve` and `user_ring_buffer__submit` of libbpf do it: the records
        are there, and busy, before they are filled. The first is given free last, so that a program
        drains them together.
        """
        if long := next((record for record in records if len(record) > LONGEST_PUSHED), None):
            reason = f"a record has {LONGEST_PUSHED} bytes at most, not {len(long)}"
            raise OSError(errno.EMSGSIZE, reason)
        start = self.producer
        room = self.size - (start - self.consumer)
        if not 0 <= room <= self.size or start % 8:
            raise OSError(errno.EIO, "the producer's position is not where a record ends")
        needed = sum(total_size(len(record)) for record in records)
        if needed > room:
            reason = f"the ring has room for {room} bytes, and this takes {needed}"
            raise OSError(errno.ENOSPC, reason)
        base = self._window.show(start & self._mask, needed)
        memory, words = self._window.memory, self._window.words
        assert memory is not None  # it is shown
        places, at = [], base
        for record in records:
            places.append(at)
            words[at >> 2] = len(record) | BUSY
            words[(at >> 2) + 1] = 0
            at += total_size(len(record))
        if self.producer != start:
            raise OSError(errno.EAGAIN, "another producer has written at the same time")
        self._producer.set(start + needed)
        for at, record in zip(places, records, strict=True):
            memory[at + HEADER : at + HEADER + len(record)] = record
        for at, record in zip(reversed(places), reversed(records), strict=True):
            words[at >> 2] = len(record)
