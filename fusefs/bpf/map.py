"""Maps: making them, and reading and changing their entries.

Source: kernel/bpf/syscall.c, hashtab.c and arraymap.c in the kernel; bpf(2).
"""

from __future__ import annotations

import ctypes
import enum
import errno
import functools
import os
import sys
from collections.abc import Iterator, Sequence

from fusefs.bpf import map_memory, syscall
from fusefs.bpf.batch import Batch, split
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.lpm_trie import onward
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import ENOTSUPP, Command

_BATCH_BYTES = 1 << 20
_BATCH_ENTRIES = 4096
_HASHED_BYTES = 1 << 20
# A hash's batch call fails with ENOSPC when a bucket has more entries than it may return; so many
# are tried next.
_BATCH_LEAST = 16
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE, linux/bpf.h


# How often the walk through an LPM trie may start over.
_RESTARTS = 100


class MapType(enum.IntEnum):
    """`enum bpf_map_type`, as of Linux 6.18."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


_PER_CPU = frozenset(
    {
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_PERCPU_HASH,
        MapType.PERCPU_CGROUP_STORAGE,
    }
)
# Types whose keys are the indices below max_entries.
_INDEXED = frozenset(
    {
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.PROG_ARRAY,
        MapType.PERF_EVENT_ARRAY,
        MapType.CGROUP_ARRAY,
        MapType.ARRAY_OF_MAPS,
        MapType.DEVMAP,
        MapType.SOCKMAP,
        MapType.CPUMAP,
        MapType.XSKMAP,
        MapType.REUSEPORT_SOCKARRAY,
        MapType.STRUCT_OPS,
    }
)
# Types for which an update does not look whether the key is there, or takes it for granted.
_CARELESS = _INDEXED | {MapType.DEVMAP_HASH}
# So many empty slots are passed over in one go.
_SLOTS = 1024


class Existence(enum.IntEnum):
    """What an update expects of the key: anything, that it is new, that it is there."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2


class MapInfo(ctypes.Structure):
    """`struct bpf_map_info`."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
        ("ifindex", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_id", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("hash", ctypes.c_uint64),
        ("hash_size", ctypes.c_uint32),
    )


class Map(Object):
    """An open map.

    Keys have `key_size` bytes, values `stride` bytes: what the kernel moves for an entry, which
    for a per-CPU map is every possible CPU's value, each padded to 8 bytes. Every method raises
    OSError with the kernel's errno.
    """

    kind = "map"
    by_id = Command.MAP_GET_FD_BY_ID
    next_id = Command.MAP_GET_NEXT_ID

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.info = self.fill(MapInfo())
        self.key_size: int = self.info.key_size
        self.per_cpu = self.info.type in _PER_CPU
        self.indexed = self.info.type in _INDEXED
        size: int = self.info.value_size
        self.stride = (size + 7 & ~7) * possible_cpus() if self.per_cpu else size
        self._key = buffer(self.key_size)
        # Queues and their like have no keys, and the kernel takes none for them.
        key = ctypes.addressof(self._key) if self.key_size else 0
        self._arguments = syscall.ElementArguments(map_fd=fd, key=key)

    @functools.cached_property
    def _value(self) -> ctypes.Array[ctypes.c_char]:
        """Room for a value, or for the next key; made only for those who move one."""
        return buffer(max(self.stride, self.key_size))

    @classmethod
    def create(
        cls,
        map_type: int,
        *,
        key_size: int,
        value_size: int,
        max_entries: int,
        name: str = "",
        flags: int = 0,
        btf: BtfObject | None = None,
        key_type: int = 0,
        value_type: int = 0,
        inner: Map | None = None,
        numa_node: int = 0,
        extra: int = 0,
    ) -> Map:
        """Make a map; `key_type` and `value_type` are type ids in `btf`, `inner` is what the maps
        in a map of maps have to be like, and `extra` is what the type makes of it."""
        arguments = syscall.CreateArguments(
            map_type=map_type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            map_flags=flags,
            map_name=name.encode(),
            inner_map_fd=inner.fd if inner else 0,
            numa_node=numa_node,
            btf_fd=btf.fd if btf else 0,
            btf_key_type_id=key_type,
            btf_value_type_id=value_type,
            map_extra=extra,
        )
        return cls(syscall.bpf(Command.MAP_CREATE, arguments))

    def _call(self, command: Command, key: bytes, flags: int = 0) -> None:
        if len(key) != self.key_size:
            raise OSError(errno.EINVAL, f"a key has {self.key_size} bytes, not {len(key)}")
        ctypes.memmove(self._key, key, len(key))
        # The kernel refuses a command whose unused arguments are not zero (CHECK_ATTR).
        moves_value = command != Command.MAP_DELETE_ELEM
        self._arguments.value = ctypes.addressof(self._value) if moves_value else 0
        self._arguments.flags = flags
        syscall.bpf(command, self._arguments)

    def lookup(self, key: bytes) -> bytes:
        """The value of `key`. Raises FileNotFoundError when the map does not have it."""
        self._call(Command.MAP_LOOKUP_ELEM, key)
        if self.info.type == MapType.LPM_TRIE and not self._has_prefix(key):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return ctypes.string_at(self._value, self.stride)

    def _has_prefix(self, key: bytes) -> bool:
        """Whether an LPM trie has this very prefix: a lookup finds the longest that matches.

        After a prefix that it does not have comes the first of all, which follows no other
        (kernel/bpf/lpm_trie.c, trie_get_next_key; before Linux 6.13, another of the same length
        could be taken for it).
        """
        value = ctypes.string_at(self._value, self.stride)
        following = self._next_key(key)
        found = following is None or following != self._next_key(None)
        ctypes.memmove(self._value, value, len(value))
        return found

    def update(self, key: bytes, value: bytes, existence: Existence = Existence.ANY) -> None:
        """Set the value of `key`.

        Raises FileExistsError or FileNotFoundError as `existence` has it, and E2BIG when the map
        is full or an index is past the end of an array.
        """
        if len(value) != self.stride:
            raise OSError(errno.EINVAL, f"a value has {self.stride} bytes, not {len(value)}")
        if existence != Existence.ANY and self.info.type in _CARELESS:
            self._check(key, existence)
            existence = Existence.ANY
        ctypes.memmove(self._value, value, len(value))
        self._call(Command.MAP_UPDATE_ELEM, key, existence)

    def _check(self, key: bytes, existence: Existence) -> None:
        """Raise FileExistsError or FileNotFoundError unless it is so."""
        try:
            self.lookup(key)
        except FileNotFoundError:
            if existence == Existence.EXIST:
                raise
        else:
            if existence == Existence.NOEXIST:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def peek(self) -> bytes:
        """The value that a queue or stack would give next. Raises FileNotFoundError when it is
        empty."""
        return self.lookup(b"")

    def pop(self) -> bytes:
        """Take that value out."""
        self._call(Command.MAP_LOOKUP_AND_DELETE_ELEM, b"")
        return ctypes.string_at(self._value, self.stride)

    def contains(self, value: bytes) -> bool:
        """Whether `value` may be in a bloom filter; if not, it is not."""
        ctypes.memmove(self._value, value, self.stride)
        try:
            self._call(Command.MAP_LOOKUP_ELEM, b"")
        except FileNotFoundError:
            return False
        return True

    def load(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the first entry of an array.

        Of a map that can be mapped no more than these are read, however large the value is.
        """
        data = map_memory.load(self.fd, offset, size) if self._mmapable else None
        return self.lookup(bytes(self.key_size))[offset : offset + size] if data is None else data

    def store(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Change parts of the first entry of an array: offsets, and what to put there.

        In a map that can be mapped no other byte is touched, and each aligned number of 1, 2, 4 or
        8 bytes within a piece is stored at once: programs see the old number or the new, and what
        they do to its neighbours meanwhile stays. In other maps (made without BPF_F_MMAPABLE) the
        value is looked up, changed and updated as a whole: what a program changes in it between the
        lookup and the update is lost.
        """
        if not pieces or (self._mmapable and map_memory.store(self.fd, pieces)):
            return
        value = bytearray(self.lookup(bytes(self.key_size)))
        for offset, data in pieces:
            value[offset : offset + len(data)] = data
        self.update(bytes(self.key_size), bytes(value))

    @property
    def _mmapable(self) -> bool:
        """Whether it was made to be mapped; the kernel may refuse it all the same."""
        return bool(self.info.map_flags & _MMAPABLE)

    def delete(self, key: bytes) -> None:
        """Remove `key`. Raises FileNotFoundError when the map does not have it."""
        self._call(Command.MAP_DELETE_ELEM, key)

    def freeze(self) -> None:
        """Let no system call change the map any more; programs still may. It is for good."""
        syscall.bpf(Command.MAP_FREEZE, syscall.ElementArguments(map_fd=self.fd))

    def frozen(self) -> bool:
        """Whether the map is frozen."""
        return self.fdinfo().get("frozen") == "1"

    def sha256(self) -> bytes | None:
        """The SHA-256 of a frozen array's values, or None where the kernel has none to give.

        The kernel reads the whole map for it; so large ones are not asked for.
        """
        if self.info.max_entries * self.info.value_size > _HASHED_BYTES:
            return None
        digest = buffer(32)
        try:
            self.fill(MapInfo(hash=ctypes.addressof(digest), hash_size=32))
        except OSError:
            return None  # not an array, or not frozen, or the kernel is older than 6.18
        return digest.raw[:32] if any(digest.raw) else None

    def batches(self) -> Iterator[Batch]:
        """All entries, some thousands at a time; a batch may be empty.

        While others change the map, a key that stays is given once, and one that comes or goes
        once or not at all.
        """
        try:
            batches = self._batches()
            if self.info.type == MapType.LPM_TRIE:
                most = _RESTARTS * (self.info.max_entries + _BATCH_ENTRIES)
                batches = onward(batches, self.key_size, self.stride, most)
            yield from batches
        except OSError as error:
            # EINVAL: a kernel without batches (before 5.6); ENOTSUPP: a type without them.
            if error.errno not in (errno.EINVAL, ENOTSUPP):
                raise
            yield from self._walk()

    def _batches(self) -> Iterator[Batch]:
        entry = max(self.key_size + self.stride, 1)
        room = min(max(_BATCH_BYTES // entry, 1), _BATCH_ENTRIES, self.info.max_entries)
        # Where to go on: a u32 bucket number in a hash, whatever the key's size; else a key.
        position, following = buffer(max(self.key_size, 8)), buffer(max(self.key_size, 8))
        keys, values = buffer(room * self.key_size), buffer(room * self.stride)
        arguments = syscall.BatchArguments(map_fd=self.fd)
        while True:
            arguments.out_batch = ctypes.addressof(following)
            arguments.keys, arguments.values = ctypes.addressof(keys), ctypes.addressof(values)
            arguments.count = room
            try:
                syscall.bpf(Command.MAP_LOOKUP_BATCH, arguments)
                last = False
            except FileNotFoundError:
                last = True
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                room = max(2 * room, _BATCH_LEAST)
                keys, values = buffer(room * self.key_size), buffer(room * self.stride)
                continue
            count: int = arguments.count
            batch = Batch(
                count,
                ctypes.string_at(keys, count * self.key_size),
                ctypes.string_at(values, count * self.stride),
            )
            yield batch
            if last:
                return
            position, following = following, position
            if self.info.type == MapType.LPM_TRIE and count:
                ctypes.memmove(position, self._remaining(batch), self.key_size)
            arguments.in_batch = ctypes.addressof(position)

    def _remaining(self, batch: Batch) -> bytes:
        """The last key of a batch that an LPM trie still has, for the walk to go on from. Where
        all were deleted, there is little before them that it would pass again."""
        keys = list(split(batch.keys, self.key_size))
        return next((key for key in reversed(keys) if self._has_prefix(key)), keys[-1])

    def _next_key(self, key: bytes | None) -> bytes | None:
        """The key after `key`, or the first; None after the last."""
        arguments = syscall.ElementArguments(
            map_fd=self.fd,
            key=0 if key is None else ctypes.addressof(self._key),
            value=ctypes.addressof(self._value),
        )
        if key is not None:
            ctypes.memmove(self._key, key, len(key))
        try:
            syscall.bpf(Command.MAP_GET_NEXT_KEY, arguments)
        except FileNotFoundError:
            return None
        return ctypes.string_at(self._value, self.key_size)

    def each_key(self) -> Iterator[bytes]:
        """All keys, one at a time; as slow as can be, but no value is moved. Those of an `indexed`
        map are all that it could have.

        When the key that it stands on is deleted, the kernel starts over from the first: `seen`
        keeps those already given from being given again, and the bound ends a walk that is always
        thrown back.
        """
        if self.indexed:
            for index in range(self.info.max_entries):
                yield index.to_bytes(4, sys.byteorder)
            return
        seen: set[bytes] = set()
        key = self._next_key(None)
        for _ in range(4 * self.info.max_entries + _BATCH_ENTRIES):
            if key is None:
                return
            if key not in seen:
                seen.add(key)
                yield key
            key = self._next_key(key)
        raise OSError(errno.EAGAIN, "the map changes faster than it can be walked")

    def _walk(self) -> Iterator[Batch]:
        """One entry at a time, for kernels and types without batches."""
        empty = 0
        for key in self.each_key():
            try:
                value = self.lookup(key)
            except FileNotFoundError:
                empty += 1
                if empty % _SLOTS == 0:
                    yield Batch(0, b"", b"")
                continue
            yield Batch(1, key, value)
