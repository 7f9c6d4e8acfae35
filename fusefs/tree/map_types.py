"""What each type of map offers: one row a type.

Source: the map_*_ops of each type in kernel/bpf and net/core (which calls there are, and what they
answer), as tried on Linux 6.18.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from fusefs.bpf.map import MapType


class Shape(enum.Enum):
    """How the entries of a map are shown; `tree/map_files.py` has the files of each."""

    VALUES = "a file for each key"
    MAPS = "a symbolic link to a map for each key"
    PROGRAMS = "a symbolic link to a program for each key"
    DEVICES = "a file for each interface"
    CPUS = "a file for each CPU"
    CGROUPS = "a symbolic link to a cgroup for each slot that was set here"
    OF_TASKS = "a file for each thread that has a value"
    OF_CGROUPS = "a file for each cgroup that has a value"
    OF_INODES = "a file for whatever a process has open"
    OF_SOCKETS = "a file for each socket that a process has open"
    SOCKETS = "a file for each socket"
    STACKS = "a file for each stack"
    QUEUE = "the element that is next"
    RECORDS = "the records that programs write"
    USER_RECORDS = "where records for programs are written"
    BLOOM = "whether a value may be there"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a type of map does with its entries.

    `fixed`: every index below max_entries is there for good; it can be set, not made or removed.
    `live`: the keys are live things, and not bytes.

    The others are reasons, empty where there is none: why users cannot set an entry, why they
    cannot make one, why they cannot remove one, and what `info` says of what is not shown.
    """

    shape: Shape
    fixed: bool = False
    live: bool = False
    unset: str = ""
    unmade: str = ""
    kept: str = ""
    hidden: str = ""


_KEYED = Traits(Shape.VALUES)
_ARRAY = Traits(Shape.VALUES, fixed=True, kept="the entries of an array are there for good")
_OF_CGROUPS = Traits(
    Shape.VALUES,
    unmade="the kernel makes an entry when a program is attached to the cgroup",
    kept="the kernel removes an entry when the cgroup goes",
)
_QUEUE = Traits(Shape.QUEUE)
_SOCKETS = Traits(
    Shape.SOCKETS, unset="sockets are put in by their owners with bpf(2), and by programs"
)

MAP_TYPES: dict[int, Traits] = {
    MapType.HASH: _KEYED,
    MapType.LRU_HASH: _KEYED,
    MapType.PERCPU_HASH: _KEYED,
    MapType.LRU_PERCPU_HASH: _KEYED,
    MapType.LPM_TRIE: _KEYED,
    MapType.ARRAY: _ARRAY,
    MapType.PERCPU_ARRAY: _ARRAY,
    MapType.PROG_ARRAY: Traits(Shape.PROGRAMS),
    MapType.ARRAY_OF_MAPS: Traits(Shape.MAPS),
    MapType.HASH_OF_MAPS: Traits(Shape.MAPS),
    MapType.DEVMAP: Traits(Shape.DEVICES),
    MapType.DEVMAP_HASH: Traits(Shape.DEVICES),
    MapType.CPUMAP: Traits(Shape.CPUS),
    MapType.RINGBUF: Traits(
        Shape.RECORDS,
        hidden="none, but records: `records` shows those that lie unread in the ring, "
        "and `records_pipe`, which is not listed, takes them out as they come",
    ),
    MapType.USER_RINGBUF: Traits(Shape.USER_RECORDS),
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.BLOOM_FILTER: Traits(
        Shape.BLOOM,
        unset="write it to push",
        kept="a bloom filter forgets nothing",
        hidden="not listed: a filter can only tell of a value whether it may have been added",
    ),
    MapType.CGROUP_ARRAY: Traits(
        Shape.CGROUPS,
        hidden="the kernel does not tell what is in the slots: those set in this mount are shown",
    ),
    MapType.CGROUP_STORAGE: _OF_CGROUPS,
    MapType.PERCPU_CGROUP_STORAGE: _OF_CGROUPS,
    MapType.TASK_STORAGE: Traits(Shape.OF_TASKS, live=True),
    MapType.CGRP_STORAGE: Traits(
        Shape.OF_CGROUPS,
        live=True,
        hidden="not listed below a cgroup whose directory is not for everybody to list; "
        "they are there by name",
    ),
    MapType.INODE_STORAGE: Traits(
        Shape.OF_INODES,
        live=True,
        hidden="not listed, as the kernel does not tell which inodes have one: "
        "entries/1234.5 is that of what process 1234 has open as descriptor 5",
    ),
    MapType.SK_STORAGE: Traits(
        Shape.OF_SOCKETS,
        live=True,
        hidden="not listed, as the kernel does not tell which sockets have one: "
        "entries/1234.5 is, for root, that of descriptor 5 of process 1234",
    ),
    MapType.SOCKMAP: _SOCKETS,
    MapType.SOCKHASH: _SOCKETS,
    MapType.REUSEPORT_SOCKARRAY: _SOCKETS,
    MapType.STACK_TRACE: Traits(
        Shape.STACKS, unset="the kernel makes a stack when a program asks for its id"
    ),
    MapType.STRUCT_OPS: Traits(
        Shape.VALUES,
        fixed=True,
        unset="setting it would register it; a loader does that",
        kept="removing it would unregister it; a loader does that",
        hidden="a member that is a function shows the id of its program",
    ),
    MapType.PERF_EVENT_ARRAY: Traits(
        Shape.NOTHING,
        hidden="not shown: the kernel does not tell which events are in the slots, "
        "and their rings are for the one who opened them",
    ),
    MapType.XSKMAP: Traits(
        Shape.NOTHING,
        hidden="not shown: the kernel does not tell which sockets are in the slots",
    ),
    MapType.ARENA: Traits(
        Shape.NOTHING,
        hidden="not shown: to read a page of an arena is to make it, where there is none yet",
    ),
}

# Where values have 4 bytes, the kernel answers any lookup with ENOSPC (sock_map_lookup_sys in
# net/core/sock_map.c, bpf_fd_reuseport_array_lookup_elem in kernel/bpf/reuseport_array.c). It still
# goes through the keys of a hash; those of the others are all indices, filled or not.
_COOKIE = 8
_KEYS_ALONE = replace(
    _SOCKETS,
    hidden="keys alone: the kernel tells which sockets they are where values have 8 bytes, not 4",
)
_NO_SOCKETS = Traits(
    Shape.NOTHING,
    hidden="not shown: the kernel tells which slots are filled where values have 8 bytes, not 4",
)


def traits_of(map_type: int, value_size: int) -> Traits | None:
    """What a map of this type does with its entries; None for a type that is not known."""
    traits = MAP_TYPES.get(map_type)
    if traits is not _SOCKETS or value_size == _COOKIE:
        return traits
    return _KEYS_ALONE if map_type == MapType.SOCKHASH else _NO_SOCKETS
