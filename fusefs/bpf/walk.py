"""Going through all entries of a map: in batches where the kernel has them, else key by key.

Source: generic_map_lookup_batch in kernel/bpf/syscall.c, __htab_map_lookup_and_delete_batch in
hashtab.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from fusefs.bpf import lpm_trie, syscall
from fusefs.bpf.ahead import ahead, available
from fusefs.bpf.batch import Batch
from fusefs.bpf.object import buffer
from fusefs.bpf.syscall import ENOTSUPP, Command

if TYPE_CHECKING:
    from fusefs.bpf.map import Map

# Entries that are asked for in one batch, and bytes.
AT_ONCE = 2048
_MOST_BYTES = 1 << 20
# The first batch has fewer, and each twice as many as the one before: who reads the first lines
# waits for no more.
_FIRST = 512
# A hash's batch call fails with ENOSPC when a bucket has more entries than it may return; so many
# are tried next.
_LEAST = 16
# What is taken for the most entries that a map has for which no bound was set, as one of cgroups.
_UNBOUNDED = 1 << 20
# So many slots are looked at in one go where there are no batches, and so many bytes are gathered.
_SLOTS = 1024
_TOGETHER = 1 << 16


def batches(bpf_map: Map, most: int = AT_ONCE) -> Iterator[Batch]:
    """What `Map.batches` gives."""
    try:
        # Who wants few at a time wants them as they are when they come, and not read ahead.
        if bpf_map.info.max_entries > AT_ONCE <= most and available():
            yield from _read_ahead(bpf_map)
        else:
            yield from _in_batches(bpf_map, most)
    except OSError as error:
        # EINVAL: a kernel without batches (before 5.6); ENOTSUPP: a type without them; EPERM: maybe
        # a filter of system calls that does not know them.
        if error.errno not in (errno.EINVAL, errno.EPERM, ENOTSUPP):
            raise
        yield from one_by_one(bpf_map)


def _read_ahead(bpf_map: Map) -> Iterator[Batch]:
    with bpf_map.again() as own:
        if bpf_map.prefixes:
            looks = lpm_trie.looks(own, _reading(own, AT_ONCE))
            with contextlib.closing(ahead(looks)) as found:
                yield from lpm_trie.certain(bpf_map, found, _reading(bpf_map, AT_ONCE))
        else:
            with contextlib.closing(ahead(_in_batches(own, AT_ONCE))) as batches:
                yield from batches


def _reading(trie: Map, most: int) -> lpm_trie.Read:
    """What reads batches of a trie."""
    # They take twice as long as others.
    reader = _Reader(trie, max(most // 2, 1))
    return lambda position: reader.read(position)[::2]


def _in_batches(bpf_map: Map, most: int) -> Iterator[Batch]:
    if bpf_map.prefixes:
        looks = lpm_trie.looks(bpf_map, _reading(bpf_map, most))
        yield from lpm_trie.certain(bpf_map, looks, _reading(bpf_map, most))
        return
    reader = _Reader(bpf_map, most)
    position: bytes | None = None
    last = False
    while not last:
        batch, position, last = reader.read(position)
        yield batch


class _Reader:
    """Reads batches of a map."""

    def __init__(self, bpf_map: Map, most: int) -> None:
        self._map = bpf_map
        entry = max(bpf_map.key_size + bpf_map.stride, 1)
        self._most = min(max(_MOST_BYTES // entry, 1), most, bpf_map.info.max_entries)
        # Where to go on: a u32 bucket number in a hash, whatever the key's size; else a key.
        self._position = buffer(max(bpf_map.key_size, 8))
        self._following = buffer(len(self._position))
        self._make_room(min(_FIRST, self._most))

    def _make_room(self, entries: int) -> None:
        self._room = entries
        self._keys = buffer(entries * self._map.key_size)
        self._values = buffer(entries * self._map.stride)

    def read(self, position: bytes | None) -> tuple[Batch, bytes, bool]:
        """The batch at a position, or the first; the position after it; whether it is the last."""
        if position is not None:
            ctypes.memmove(self._position, position, len(position))
        while True:
            arguments = syscall.BatchArguments(
                in_batch=0 if position is None else ctypes.addressof(self._position),
                out_batch=ctypes.addressof(self._following),
                keys=ctypes.addressof(self._keys),
                values=ctypes.addressof(self._values),
                count=self._room,
                map_fd=self._map.fd,
                element_flags=self._map.locked,
            )
            last = False
            try:
                syscall.bpf(Command.MAP_LOOKUP_BATCH, arguments)
            except FileNotFoundError:
                last = True
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._make_room(max(2 * self._room, _LEAST))
                continue
            count: int = arguments.count
            keys = ctypes.string_at(self._keys, count * self._map.key_size)
            values = ctypes.string_at(self._values, count * self._map.stride)
            if self._room < self._most:
                self._make_room(min(2 * self._room, self._most))
            return Batch(count, keys, values), self._following.raw, last


def each_key(bpf_map: Map) -> Iterator[bytes | None]:
    """What `Map.each_key` gives.

    When the key that it stands on is deleted, the kernel starts over from the first: `seen` keeps
    those already given from being given again, and the bound ends a walk that is always thrown
    back.
    """
    if bpf_map.indexed:
        yield from (n.to_bytes(4, sys.byteorder) for n in range(bpf_map.info.max_entries))
        return
    if bpf_map.stacks:
        yield from _each_id(bpf_map)
        return
    seen: set[bytes] = set()
    key = bpf_map.next_key(None)
    for _ in range(4 * (bpf_map.info.max_entries or _UNBOUNDED) + AT_ONCE):
        if key is None:
            return
        if key not in seen:
            seen.add(key)
            yield key
        key = bpf_map.next_key(key)
    raise OSError(errno.EAGAIN, "the map changes faster than it can be walked")


def _each_id(bpf_map: Map) -> Iterator[bytes | None]:
    """The ids of stacks, which come in order (stack_map_get_next_key in kernel/bpf/stackmap.c).

    When the kernel starts over from the first, the next is sought by its number. So each step leads
    on, and the walk ends however fast the map changes.
    """
    last = -1
    key = bpf_map.next_key(None)
    while key is not None:
        number = int.from_bytes(key, sys.byteorder)
        if number > last:
            last = number
            yield key
            key = bpf_map.next_key(key)
        else:
            key = yield from _id_after(bpf_map, last)


def _id_after(bpf_map: Map, last: int) -> Generator[None, None, bytes | None]:
    """The id that follows `last`, which may be gone; None when there is none."""
    buckets = 1 << (bpf_map.info.max_entries - 1).bit_length()  # stack_map_alloc
    for number in range(last + 1, buckets):
        key = number.to_bytes(4, sys.byteorder)
        with contextlib.suppress(FileNotFoundError):
            bpf_map.lookup(key)
            return key
        if number % _SLOTS == 0:
            yield None
    return None


def has_key(bpf_map: Map, key: bytes) -> bool:
    """Whether a map has a key, where its value cannot be looked up.

    After a key that it does not have comes the first of all, which follows no other.
    """
    first = bpf_map.next_key(None)
    if first is None or first == key:
        return first is not None
    following = bpf_map.next_key(key)
    if following is None:  # it is the last, unless all were deleted meanwhile
        return bpf_map.next_key(None) is not None
    return following != first


def one_by_one(bpf_map: Map) -> Iterator[Batch]:
    """One entry at a time, for kernels and types without batches; some of them together."""
    most = max(min(_SLOTS, _TOGETHER // max(bpf_map.key_size + bpf_map.stride, 1)), 1)
    if bpf_map.indexed:
        slots = range(bpf_map.info.max_entries)
        for first in range(0, len(slots), most):
            yield _batch(bpf_map.filled(slots[first : first + most]))
        return
    pairs: list[tuple[bytes, bytes]] = []
    for number, key in enumerate(each_key(bpf_map), 1):
        if key is not None:
            with contextlib.suppress(FileNotFoundError):
                pairs.append((key, bpf_map.lookup(key)))
        if key is None or number % most == 0:
            yield _batch(pairs)
            pairs.clear()
    yield _batch(pairs)


def _batch(pairs: Sequence[tuple[bytes, bytes]]) -> Batch:
    keys, values = zip(*pairs, strict=True) if pairs else ((), ())
    return Batch(len(pairs), b"".join(keys), b"".join(values))
