"""What each type of map offers: one row a type.

Source: the map_*_ops of each type in kernel/bpf and net/core (which calls there are, and what they
answer), as tried on Linux 6.18.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fusefs.bpf.map import MapType


class Shape(enum.Enum):
    """How the entries of a map are shown; `tree/map_files.py` has the files of each."""

    VALUES = "a file for each key"
    MAPS = "a symbolic link to a map for each key"
    PROGRAMS = "a symbolic link to a program for each key"
    DEVICES = "a file for each interface"
    CPUS = "a file for each CPU"
    CGROUPS = "a symbolic link to a cgroup for each slot that was set here"
    QUEUE = "the element that is next"
    BLOOM = "whether a value may be there"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a type of map does with its entries.

    `fixed`: every index below max_entries is there for good; it can be set, not made or removed.

    The others are reasons, empty where there is none: why users cannot set an entry, why they
    cannot make one, why they cannot remove one, and what `info` says of what is not shown.
    """

    shape: Shape
    fixed: bool = False
    unset: str = ""
    unmade: str = ""
    kept: str = ""
    hidden: str = ""


_KEYED = Traits(Shape.VALUES)
_ARRAY = Traits(Shape.VALUES, fixed=True, kept="the entries of an array are there for good")
_OF_CGROUPS = Traits(
    Shape.VALUES,
    unmade="the kernel makes an entry when a program is attached to the cgroup",
    kept="the kernel removes an entry when the cgroup or the program's attachment goes",
)
_QUEUE = Traits(Shape.QUEUE)

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
    MapType.QUEUE: _QUEUE,
    MapType.STACK: _QUEUE,
    MapType.BLOOM_FILTER: Traits(
        Shape.BLOOM,
        unmade="write it to push",
        kept="a bloom filter forgets nothing",
        hidden="not listed: a filter can only tell of a value whether it may have been added",
    ),
    MapType.CGROUP_ARRAY: Traits(
        Shape.CGROUPS,
        hidden="the kernel does not tell what is in the slots: those set in this mount are shown",
    ),
    MapType.CGROUP_STORAGE: _OF_CGROUPS,
    MapType.PERCPU_CGROUP_STORAGE: _OF_CGROUPS,
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
