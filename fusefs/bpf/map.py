"""Maps: making them, and reading and changing their entries.

Source: kernel/bpf/syscall.c, hashtab.c and arraymap.c in the kernel; bpf(2).
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import functools
import os
from collections.abc import Callable, Iterator, Sequence

from fusefs.bpf import bulk, lpm_trie, map_memory, syscall, walk
from fusefs.bpf.batch import Batch
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.object import Object, buffer
from fusefs.bpf.syscall import Command

_HASHED_BYTES = 1 << 20
# Room for a value of so many bytes is kept with what is known of a map.
_LITTLE = 1 << 12
_MMAPABLE = 1 << 10  # BPF_F_MMAPABLE, linux/bpf.h


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
# Types whose values may have a lock (map_check_btf in kernel/bpf/syscall.c).
_LOCKABLE = frozenset(
    {
        MapType.HASH,
        MapType.ARRAY,
        MapType.CGROUP_STORAGE,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
_LOCKED = 4  # BPF_F_LOCK, linux/bpf.h
# Types whose elements are used for other keys at once when they are free.
_REUSING = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
# So many times more at most is a value looked at which changes all the time.
_LOOKS = 8


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


class _Known:
    """What never changes of a map, and the memory that its calls need, unless it is much."""

    def __init__(self, info: MapInfo, filled: int) -> None:
        self.info = info
        self.filled = filled  # how many bytes of that the kernel knows
        self.key_size: int = info.key_size
        self.per_cpu = info.type in _PER_CPU
        self.indexed = info.type in _INDEXED
        self.prefixes = info.type == MapType.LPM_TRIE
        self.stacks = info.type == MapType.STACK_TRACE
        self.reusing = info.type in _REUSING
        # None until the kernel was asked whether values have a lock: see `Map.locked`.
        typed = info.btf_value_type_id and info.type in _LOCKABLE
        self.locked: int | None = None if typed else 0
        size: int = info.value_size
        self.stride = (size + 7 & ~7) * possible_cpus() if self.per_cpu else size
        self.key = buffer(self.key_size)
        most = max(self.stride, self.key_size)
        self.value = buffer(most) if most <= _LITTLE else None
        # Queues and their like have no keys, and the kernel takes none for them.
        key = ctypes.addressof(self.key) if self.key_size else 0
        self.arguments = syscall.ElementArguments(key=key)


class Map(Object):
    """An open map.

    Keys have `key_size` bytes, values `stride` bytes: what the kernel moves for an entry, which
    for a per-CPU map is every possible CPU's value, each padded to 8 bytes. Every method raises
    OSError with the kernel's errno.
    """

    kind = "map"
    by_id = Command.MAP_GET_FD_BY_ID
    next_id = Command.MAP_GET_NEXT_ID

    def __init__(self, fd: int, known: _Known | None = None) -> None:
        """Takes over the descriptor `fd`; `known` is for `maker`."""
        super().__init__(fd)
        self._known = known or _Known(self.fill(MapInfo()), self._filled)
        self.info = self._known.info
        self._filled = self._known.filled
        self.key_size = self._known.key_size
        self.per_cpu = self._known.per_cpu
        self.indexed = self._known.indexed
        self.prefixes = self._known.prefixes
        self.stacks = self._known.stacks
        self.stride = self._known.stride
        self._key = self._known.key
        self._room: ctypes.Array[ctypes.c_char] | None = None

    def maker(self) -> Callable[[int], Map]:
        # No two of them are used at the same time: all are for one thread.
        return functools.partial(Map, known=self._known)

    @property
    def _value(self) -> ctypes.Array[ctypes.c_char]:
        """Room for a value, or for the next key; made only for those who move one."""
        if self._room is None:
            self._room = self._known.value or buffer(max(self.stride, self.key_size))
        return self._room

    @property
    def _arguments(self) -> syscall.ElementArguments:
        """Those of a call, with the key."""
        arguments = self._known.arguments
        arguments.map_fd = self.fd
        return arguments

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

    def again(self) -> Map:
        """The same map, open once more: no two threads can use one `Map` at a time."""
        return Map(os.dup(self.fd))

    def _call(self, command: Command, key: bytes, flags: int = 0) -> None:
        if len(key) != self.key_size:
            raise OSError(errno.EINVAL, f"a key has {self.key_size} bytes, not {len(key)}")
        self._key.raw = key
        # The kernel refuses a command whose unused arguments are not zero (CHECK_ATTR).
        moves_value = command != Command.MAP_DELETE_ELEM
        arguments = self._arguments
        arguments.value = ctypes.addressof(self._value) if moves_value else 0
        arguments.flags = flags
        syscall.bpf(command, arguments)

    @property
    def locked(self) -> int:
        """The flag for calls that move values: BPF_F_LOCK where these have a `bpf_spin_lock`, so
        that the kernel takes it while it copies, and 0 elsewhere. Without it a value could be seen
        when a program has changed half of it. What is moved as the lock itself is zeros."""
        known = self._known
        if known.locked is None:
            known.locked = self._ask_for_lock()
        return known.locked

    def _ask_for_lock(self) -> int:
        # That there is no lock is said before the key is looked for (map_lookup_elem in
        # kernel/bpf/syscall.c), and by kernels before 5.1, which know no such flag. None of these
        # types has a key of ones: an index too large, a descriptor that is none.
        try:
            self._call(Command.MAP_LOOKUP_ELEM, b"\xff" * self.key_size, _LOCKED)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):  # or not open to be read
                return 0
        return _LOCKED

    def _given(self) -> bytes:
        """The value that a call gave."""
        room = self._value
        return room.raw if len(room) == self.stride else ctypes.string_at(room, self.stride)

    def lookup(self, key: bytes) -> bytes:
        """The value of `key`. Raises FileNotFoundError when the map does not have it."""
        if self.prefixes:
            return lpm_trie.lookup(self, key)
        value = self._look(key)
        if self._known.reusing:
            # A look-up takes no lock. While the element of the key is replaced, and at once used
            # for another key, it can miss the key (lookup_nulls_elem_raw in kernel/bpf/hashtab.c:
            # 20 of a million do at half a million updates a second), and it can copy the other
            # one's value (bpf_map_copy_value in kernel/bpf/syscall.c). So it has to be seen twice.
            for _ in range(_LOOKS):
                last, value = value, self._look(key)
                if value == last:
                    break
        if value is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return value

    def _look(self, key: bytes) -> bytes | None:
        try:
            self._call(Command.MAP_LOOKUP_ELEM, key, self.locked)
        except FileNotFoundError:
            return None
        return self._given()

    def filled(self, slots: range) -> list[tuple[bytes, bytes]]:
        """The keys and values of those slots of an `indexed` map that have one.

        Most of a sparse map's have none, and the kernel has to be asked for each.
        """
        found: list[tuple[bytes, bytes]] = []
        arguments = self._arguments
        arguments.value, arguments.flags = ctypes.addressof(self._value), self.locked
        look = syscall.attempt(Command.MAP_LOOKUP_ELEM, arguments)
        slot = ctypes.c_uint32.from_buffer(self._key)
        for number in slots:
            slot.value = number
            if not (error := look()):
                found.append((self._key.raw, ctypes.string_at(self._value, self.stride)))
            elif error != errno.ENOENT:
                raise OSError(error, os.strerror(error))
        return found

    def longest_match(self, key: bytes) -> bytes | None:
        """The value of the longest prefix in an LPM trie that covers `key`, or is `key`; None when
        there is none."""
        return self._look(key)

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
        locked = self.locked  # which may need the room for the value
        self._value.raw = value
        self._call(Command.MAP_UPDATE_ELEM, key, existence | locked)

    def update_all(self, keys: bytes, values: bytes) -> None:
        """Set the values of many keys, which lie one after the other as the values do; the last
        wins where a key comes again. Raises `bulk.Stopped`, which tells how far it came."""
        bulk.update_all(self, keys, values)

    def values_of(self, keys: bytes) -> bytes:
        """The values of many keys, one after the other as these lie; zeros for keys that the map
        does not have."""
        return bulk.values_of(self, keys)

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
        return self._given()

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

    def read_only(self) -> bool:
        """Whether it was opened to be read only, as from a bpffs that is mounted so."""
        return fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY

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

    def batches(self, most: int = walk.AT_ONCE) -> Iterator[Batch]:
        """All entries, some thousands at a time, or about `most`; a batch may be empty.

        While others change the map, a key that stays is given once, and one that comes or goes
        once or not at all. Of an `indexed` map, filled slots alone.
        """
        return walk.batches(self, most)

    def each_key(self) -> Iterator[bytes | None]:
        """All keys, one at a time; as slow as can be, but no value is moved. Those of an `indexed`
        map are all that it could have. None where others may have a turn before the next."""
        return walk.each_key(self)

    def next_key(self, key: bytes | None) -> bytes | None:
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
